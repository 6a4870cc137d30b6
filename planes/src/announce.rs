//! What a node announces of itself (J1, J2): its run, and which of its replicas cannot serve.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_raft::model::{ClusterState, Command};
use holdfast_replication::core::api::Identity;
use holdfast_types::{ExtentId, Incarnation, NodeId};

/// Replicas of `me` that cannot serve. `fit` is what their cores say; one that is not known there counts as unfit once the data plane has
/// followed the whole state (`complete`), and as fit before: it is new, and about to be made.
pub fn unfit(
    state: &ClusterState,
    me: NodeId,
    fit: &BTreeMap<ExtentId, bool>,
    complete: bool,
) -> BTreeSet<ExtentId> {
    let mine = state
        .extents
        .iter()
        .filter(|(_, extent)| extent.replicas.contains(&me));
    mine.map(|(id, _)| *id)
        .filter(|id| !fit.get(id).copied().unwrap_or(!complete))
        .collect()
}

/// Has the committed state say of this run what is so, at the start and whenever that changes. To be asked again and again: proposals get
/// lost, and one of an earlier run may come late.
#[derive(Debug)]
pub struct Announcer {
    me: Identity,
    number: u64,
    newest: Option<BTreeSet<ExtentId>>,
}

impl Announcer {
    /// For this run.
    pub const fn new(me: Identity) -> Self {
        Self {
            me,
            number: 0,
            newest: None,
        }
    }

    /// What to propose, if the state does not say it yet. Nothing before the node is a member.
    pub fn propose(&mut self, state: &ClusterState, unfit: &BTreeSet<ExtentId>) -> Option<Command> {
        if self.newest.as_ref() != Some(unfit) {
            // Whatever was announced before is older than this, in whatever order the two are committed.
            self.number += 1;
            self.newest = Some(unfit.clone());
        }
        let member = state.node(self.me.node)?;
        let said = member.incarnation == Some(self.me.incarnation)
            && member.announced == self.number
            && member.unfit == *unfit;
        (!said).then(|| Command::Announce {
            node: self.me.node,
            incarnation: self.me.incarnation,
            number: self.number,
            unfit: unfit.clone(),
            after: Some(member.incarnation.unwrap_or(Incarnation(0))),
        })
    }
}

#[cfg(test)]
mod tests {
    use holdfast_raft::model::{ClusterId, Init, NewExtent, NewNode, NodeAddresses, Role, SecondaryAccess};
    use holdfast_types::{BlockSize, Revision};

    use super::*;

    const ME: Identity = Identity {
        node: NodeId(1),
        incarnation: Incarnation(7),
    };

    fn extent(number: u128) -> ExtentId {
        ExtentId::from_u128(number)
    }

    fn go(state: &mut ClusterState, command: &Command) {
        let reply = state.apply(Revision(state.revision.0 + 1), command);
        assert_eq!(reply.refusal(), None, "{command:?}");
    }

    fn cluster() -> ClusterState {
        let mut state = ClusterState::default();
        let address = "127.0.0.1:1".parse().expect("an address");
        let init = Init {
            name: "one".into(),
            id: ClusterId(1),
            nodes: vec![NewNode {
                id: ME.node,
                name: "a".into(),
                role: Role::Data,
                addresses: NodeAddresses {
                    raft: address,
                    replication: Some(address),
                    spare_replication: Vec::new(),
                    admin: None,
                    heartbeat: address,
                    portals: Vec::new(),
                },
            }],
        };
        go(&mut state, &Command::Init(init));
        for number in 1..=2 {
            let new = NewExtent {
                id: extent(number),
                name: format!("x{number}"),
                size_bytes: 1 << 30,
                block_size: BlockSize::B512,
                thin: true,
                on_devices: false,
                confirmed_reads: false,
                write_cache: false,
                replicas: [ME.node].into(),
                preferred: None,
                secondary: SecondaryAccess::NonOptimized,
            };
            go(&mut state, &Command::CreateExtent(new));
        }
        state
    }

    #[test]
    fn j1_a_replica_that_is_not_there_is_unfit_once_the_state_was_followed() {
        let state = cluster();
        let fit = BTreeMap::from([(extent(1), false)]);
        assert_eq!(unfit(&state, ME.node, &fit, false), [extent(1)].into());
        assert_eq!(unfit(&state, ME.node, &fit, true), [extent(1), extent(2)].into());
        assert_eq!(unfit(&state, NodeId(2), &fit, true), BTreeSet::new());
    }

    #[test]
    fn j1_j2_an_announcement_is_made_until_it_is_so_and_never_undone_by_an_older_one() {
        let mut state = cluster();
        let mut announcer = Announcer::new(ME);
        let none = BTreeSet::new();
        let first = announcer.propose(&state, &none).expect("the run is new");
        assert_eq!(
            announcer.propose(&state, &none),
            Some(first.clone()),
            "it may be lost"
        );
        go(&mut state, &first);
        assert_eq!(announcer.propose(&state, &none), None);

        let failed = BTreeSet::from([extent(2)]);
        let second = announcer.propose(&state, &failed).expect("something failed");
        go(&mut state, &second);
        assert!(state.is_unfit(ME.node, extent(2)) && !state.may_reign(ME.node, extent(2)));
        assert!(state.may_reign(ME.node, extent(1)));
        // The first one again, late.
        let reply = state.apply(Revision(state.revision.0 + 1), &first);
        assert!(reply.refusal().is_some());
        assert!(state.is_unfit(ME.node, extent(2)));

        // An earlier run's, very late: it does not know of the present one, and is nothing any more (W5).
        let old = Command::Announce {
            node: ME.node,
            incarnation: Incarnation(6),
            number: 99,
            unfit: BTreeSet::new(),
            after: Some(Incarnation(0)),
        };
        let reply = state.apply(Revision(state.revision.0 + 1), &old);
        assert!(reply.refusal().is_some());
        assert!(state.is_unfit(ME.node, extent(2)));
        assert_eq!(announcer.propose(&state, &failed), None);
    }
}
