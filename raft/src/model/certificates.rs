//! The generation of the certificates with which nodes prove to each other who they are, and how it changes under way.
//!
//! A rotation has two stages, each of which ends when every member has said that it is there: first all take certificates of the new
//! generation beside the old one, then all show them; then the old ones count no more. So no two members are ever without a generation in
//! common, whichever of them is behind, and a member that is away holds a rotation up instead of being locked out.

use std::collections::BTreeSet;

use holdfast_trust::{Generation, Generations};
use holdfast_types::NodeId;
use serde::{Deserialize, Serialize};

use super::reply::{Refusal, Reply};
use super::state::{ClusterState, STATE_FORMAT};

/// Hexadecimal digits of a salt.
const SALT_DIGITS: usize = 64;

/// The certificates of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// Nodes show certificates of it.
    pub present: Generation,
    /// A rotation that goes on.
    #[serde(default)]
    pub rotation: Option<Rotation>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The generation that is taken beside the present one: the next one at first, then the last one.
    pub also: Generation,
    /// How far it is.
    pub stage: RotationStage,
    /// Who has said that it is there.
    #[serde(default)]
    pub done: BTreeSet<NodeId>,
}

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationStage {
    /// Certificates of the next generation are taken, and not shown yet.
    Take,
    /// They are shown; those of the last one are taken still.
    Show,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            present: Generation::first(),
            rotation: None,
        }
    }
}

impl Certificates {
    /// What a node is to take and show.
    pub fn generations(&self) -> Generations {
        Generations {
            present: self.present.clone(),
            also: self.rotation.as_ref().map(|rotation| rotation.also.clone()),
        }
    }

    /// How far it is, to be compared: a later one never has less.
    pub fn step(&self) -> (u64, u8) {
        match &self.rotation {
            None => (self.present.number, 0),
            Some(rotation) if rotation.stage == RotationStage::Take => (self.present.number, 1),
            // Beside the generation that is still taken.
            Some(rotation) => (rotation.also.number, 2),
        }
    }
}

impl ClusterState {
    /// The step that `me` has to say it has taken, if that is still awaited; to be asked once it is stable here.
    pub fn awaits_certificates_of(&self, me: NodeId) -> Option<(u64, RotationStage)> {
        let rotation = self.certificates.rotation.as_ref()?;
        (!rotation.done.contains(&me)).then_some((self.certificates.step().0, rotation.stage))
    }

    /// Whom a rotation waits for.
    pub fn certificates_wait_for(&self) -> BTreeSet<NodeId> {
        let done = self.certificates.rotation.as_ref().map(|rotation| &rotation.done);
        let missing = |done: &BTreeSet<NodeId>| {
            self.nodes
                .keys()
                .copied()
                .filter(|node| !done.contains(node))
                .collect()
        };
        done.map(missing).unwrap_or_default()
    }

    /// Begins the change to the generation after `from`.
    pub(super) fn rotate_certificates(&mut self, from: u64, salt: &str) -> Result<Reply, Refusal> {
        let certificates = &mut self.certificates;
        if certificates.rotation.is_some() {
            let names: Vec<String> = self
                .certificates_wait_for()
                .iter()
                .filter_map(|node| self.node(*node).map(|member| member.name.clone()))
                .collect();
            return Ok(Reply::Done {
                warnings: vec![format!(
                    "a rotation goes on already, and waits for {}",
                    names.join(", ")
                )],
            });
        }
        if certificates.present.number > from {
            // The same again.
            return Ok(Reply::DONE);
        }
        if certificates.present.number < from {
            return Err(Refusal::Invalid(format!(
                "there is no generation {from} of certificates yet"
            )));
        }
        if salt.len() != SALT_DIGITS || !salt.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Refusal::Invalid(format!(
                "a salt has {SALT_DIGITS} hexadecimal digits"
            )));
        }
        // A release that knows no certificates must not go on from here.
        self.format = self.format.max(STATE_FORMAT);
        certificates.rotation = Some(Rotation {
            also: Generation {
                number: from + 1,
                salt: salt.to_owned(),
            },
            stage: RotationStage::Take,
            done: BTreeSet::new(),
        });
        Ok(Reply::DONE)
    }

    /// `node` takes and shows what step `step` of a rotation says, and will after a restart.
    pub(super) fn certificates_taken(
        &mut self,
        node: NodeId,
        step: (u64, RotationStage),
    ) -> Result<Reply, Refusal> {
        self.member_mut(node)?;
        let number = self.certificates.step().0;
        if let Some(rotation) = &mut self.certificates.rotation
            && (number, rotation.stage) == step
        {
            rotation.done.insert(node);
        }
        self.advance_rotation();
        Ok(Reply::DONE)
    }

    /// Goes on once nobody is waited for; also when who was waited for is a member no more.
    pub(super) fn advance_rotation(&mut self) {
        if self.certificates.rotation.is_none() || !self.certificates_wait_for().is_empty() {
            return;
        }
        let Some(rotation) = self.certificates.rotation.take() else {
            return;
        };
        if rotation.stage == RotationStage::Take {
            let last = std::mem::replace(&mut self.certificates.present, rotation.also);
            self.certificates.rotation = Some(Rotation {
                also: last,
                stage: RotationStage::Show,
                done: BTreeSet::new(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::model::AdminCommand;

    fn rotate(state: &mut ClusterState, from: u64) {
        let salt = format!("{from:064x}");
        fixture::must(&AdminCommand::RotateCertificates { from, salt }.into(), state);
    }

    fn taken(state: &mut ClusterState, node: u64) {
        let node = NodeId(node);
        let (number, stage) = state.awaits_certificates_of(node).expect("it is waited for");
        let command = AdminCommand::CertificatesTaken { node, number, stage };
        fixture::must(&command.clone().into(), state);
        // Twice is as good as once.
        fixture::must(&command.into(), state);
    }

    #[test]
    fn a_rotation_goes_on_when_all_are_there_and_every_step_shares_a_generation_with_the_next() {
        let mut state = fixture::trio(0);
        let nodes: Vec<u64> = state.nodes.keys().map(|node| node.0).collect();
        assert_eq!(state.certificates, Certificates::default());
        let mut steps = vec![state.certificates.clone()];
        rotate(&mut state, 1);
        steps.push(state.certificates.clone());
        rotate(&mut state, 1);
        for _ in 0..2 {
            for (at, node) in nodes.iter().enumerate() {
                assert_eq!(state.certificates_wait_for().len(), nodes.len() - at);
                taken(&mut state, *node);
            }
            steps.push(state.certificates.clone());
        }
        assert!(state.certificates.rotation.is_none() && state.certificates.present.number == 2);
        for pair in steps.windows(2) {
            assert!(pair[0].step() < pair[1].step(), "{pair:?}");
            let (before, after) = (pair[0].generations(), pair[1].generations());
            let takes = |side: &Generations, other: &Generations| side.all().any(|g| *g == other.present);
            assert!(takes(&before, &after) && takes(&after, &before), "{pair:?}");
        }
        // A doubled request from before changes nothing; the next one begins anew.
        rotate(&mut state, 1);
        assert!(state.certificates.rotation.is_none());
        rotate(&mut state, 2);
        assert_eq!(
            state.certificates.rotation.as_ref().map(|r| r.also.number),
            Some(3)
        );
        let wrong = AdminCommand::RotateCertificates {
            from: 9,
            salt: "00".repeat(32),
        };
        let before = state.certificates.clone();
        state.certificates.rotation = None;
        assert!(matches!(
            fixture::go(&wrong.into(), &mut state),
            Reply::Refused { .. }
        ));
        assert_eq!(state.certificates.present, before.present);
    }

    #[test]
    fn who_is_gone_is_not_waited_for_and_a_late_word_of_an_earlier_step_counts_for_nothing() {
        let mut state = fixture::trio(0);
        let nodes: Vec<NodeId> = state.nodes.keys().copied().collect();
        rotate(&mut state, 1);
        let early = state.awaits_certificates_of(nodes[0]).unwrap();
        taken(&mut state, nodes[0].0);
        taken(&mut state, nodes[1].0);
        state.nodes.remove(&nodes[2]);
        state.advance_rotation();
        assert_eq!(
            state.certificates.rotation.as_ref().unwrap().stage,
            RotationStage::Show
        );
        state.certificates_taken(nodes[0], early).unwrap();
        assert_eq!(state.certificates_wait_for().len(), 2);
        for salt in ["", "zz", &"0".repeat(63)] {
            let mut fresh = fixture::trio(0);
            let command = AdminCommand::RotateCertificates {
                from: 1,
                salt: salt.to_owned(),
            };
            assert!(matches!(
                fixture::go(&command.into(), &mut fresh),
                Reply::Refused { .. }
            ));
        }
    }
}
