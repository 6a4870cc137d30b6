//! What the voters have agreed on, as somebody sees it who sees everything: the judge of the model of Raft, and the cluster's true state.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_raft::model::ClusterState;
use holdfast_types::Revision;

use super::Node;
use super::raft::{Durable, Entry};
use super::rng::at;

#[derive(Debug)]
pub(super) struct Agreed {
    log: Vec<Entry>,
    leaders: BTreeMap<u64, Node>,
    /// The state after all that is committed.
    pub(super) head: ClusterState,
}

impl Agreed {
    /// From a log whose entries everybody has applied.
    pub(super) fn new(log: &[Entry]) -> Self {
        Self {
            log: log.to_vec(),
            leaders: BTreeMap::new(),
            head: replay(log),
        }
    }

    /// Whether a log has all that is agreed on.
    pub(super) fn is_within(&self, log: &[Entry]) -> bool {
        self.log.len() <= log.len() && self.log.iter().zip(log).all(|(a, b)| same(a, b))
    }

    /// At most one leader in a term.
    pub(super) fn leads(&mut self, node: Node, term: u64) -> Result<(), String> {
        let first = *self.leaders.entry(term).or_insert(node);
        if first == node {
            Ok(())
        } else {
            Err(format!("nodes {first} and {node} both lead in term {term}"))
        }
    }

    /// A voter takes everything up to `commit` as committed; entries that nobody has committed before come out.
    pub(super) fn commits(
        &mut self,
        node: Node,
        kept: &Durable,
        from: u64,
        commit: u64,
    ) -> Result<Vec<(u64, Entry)>, String> {
        let mut fresh = Vec::new();
        for index in from + 1..=commit {
            let Some(mine) = kept.log.get(at(index - 1)) else {
                return Err(format!(
                    "node {node} commits index {index}, which it does not have"
                ));
            };
            match self.log.get(at(index - 1)) {
                Some(known) if same(known, mine) => {}
                Some(known) => {
                    return Err(format!(
                        "index {index} is committed as {known:?} and, on node {node}, as {mine:?}"
                    ));
                }
                None => {
                    self.log.push(mine.clone());
                    step(&mut self.head, index, mine);
                    fresh.push((index, mine.clone()));
                }
            }
        }
        Ok(fresh)
    }
}

fn same(a: &Entry, b: &Entry) -> bool {
    a.term == b.term
        && a.members == b.members
        && match (&a.command, &b.command) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
}

/// Applies one entry, as a state machine does.
pub(super) fn step(state: &mut ClusterState, index: u64, entry: &Entry) {
    if let Some(snapshot) = &entry.snapshot {
        state.clone_from(snapshot);
        return;
    }
    match &entry.command {
        Some(command) => drop(state.apply(Revision(index), command)),
        None => {
            if let Some(members) = &entry.members {
                members.enter(Revision(index), state);
            }
            state.advance(Revision(index));
        }
    }
}

/// The state after the whole of a log.
pub(super) fn replay(log: &[Entry]) -> ClusterState {
    let mut state = ClusterState::default();
    for (index, entry) in (1..).zip(log) {
        step(&mut state, index, entry);
    }
    state
}
