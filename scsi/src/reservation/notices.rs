//! Which nexus is to be told what. Kept by nexus, also of nexuses whose registration is gone: it is they who must hear of that.

use std::collections::VecDeque;

use holdfast_types::{Nexus, UnitVersion};
use serde::{Deserialize, Serialize};

/// Nexuses that notices are kept for, at most; the oldest go first. One that went hears nothing of what happened to it before, which only
/// matters to a session that sent no command while a thousand others were told something.
const KEPT: usize = 1024;

/// When, by version of the unit's state, something last happened that a nexus has to hear of; 0 if it never did. Larger than what the nexus
/// was told of means a unit attention (P3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NexusNotices {
    /// Another nexus took its registration away: 06/2A/05.
    #[serde(default)]
    pub registrations_preempted: UnitVersion,
    /// The reservation, and its registration with it, was cleared: 06/2A/03.
    #[serde(default)]
    pub reservations_preempted: UnitVersion,
    /// The reservation was released, or its type changed: 06/2A/04.
    #[serde(default)]
    pub reservations_released: UnitVersion,
    /// PREEMPT AND ABORT ended its tasks: what was admitted before never takes effect.
    #[serde(default)]
    pub tasks_aborted: UnitVersion,
}

/// The notices of one logical unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Notices(VecDeque<(Nexus, NexusNotices)>);

impl Notices {
    pub(super) fn of(&self, nexus: &Nexus) -> NexusNotices {
        self.0
            .iter()
            .find(|(known, _)| known == nexus)
            .map_or_else(NexusNotices::default, |(_, notices)| *notices)
    }

    /// Nexuses whose tasks were aborted, and when.
    pub(super) fn aborted(&self) -> impl Iterator<Item = (&Nexus, UnitVersion)> {
        self.0
            .iter()
            .filter(|(_, notices)| notices.tasks_aborted > UnitVersion(0))
            .map(|(nexus, notices)| (nexus, notices.tasks_aborted))
    }

    pub(super) fn note(&mut self, nexus: &Nexus, change: impl FnOnce(&mut NexusNotices)) {
        let at = self.0.iter().position(|(known, _)| known == nexus);
        let mut entry = at
            .and_then(|at| self.0.remove(at))
            .unwrap_or_else(|| (nexus.clone(), NexusNotices::default()));
        change(&mut entry.1);
        self.0.push_back(entry);
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }
}
