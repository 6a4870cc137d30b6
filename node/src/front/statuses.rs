//! Which statuses of COMPARE AND WRITEs an initiator has acknowledged (W6).

use std::collections::{BTreeSet, VecDeque};

use holdfast_iscsi::serial::Sn;
use holdfast_replication::core::api::StatusNews;
use holdfast_types::{CommandName, ExtentId, SessionInstance};

use super::Backend;

/// Of one session.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    /// What was answered with GOOD: the number that acknowledges it, which is the one after its own (RFC 7143, 4.2.2.2).
    answered: VecDeque<(Sn, ExtentId, CommandName)>,
    /// Where the session has sent any.
    extents: BTreeSet<ExtentId>,
}

impl Statuses {
    /// The session sends one to this extent.
    pub(super) fn sent(&mut self, extent: ExtentId) {
        self.extents.insert(extent);
    }

    /// One has taken effect; its status is in the outbox, and `next` is the number of the status behind it.
    pub(super) fn answered(&mut self, next: Sn, extent: ExtentId, name: CommandName) {
        self.answered.push_back((next, extent, name));
    }

    /// The initiator has said which status it expects next.
    pub(super) fn acknowledged(&mut self, expected: Sn, backend: &dyn Backend) {
        while let Some((next, extent, name)) = self.answered.front().copied()
            && !expected.is_before(next)
        {
            self.answered.pop_front();
            backend.statuses(extent, vec![StatusNews::Acknowledged(name)]);
        }
    }

    /// The session is over, and storage has answered all that it had.
    pub(super) fn ended(&mut self, session: SessionInstance, backend: &dyn Backend) {
        for extent in std::mem::take(&mut self.extents) {
            backend.statuses(extent, vec![StatusNews::Ended(session)]);
        }
    }
}
