//! Reservations and resets of the unit, where commands take effect (P1, P2, I13).

use holdfast_types::{OpOutcome, UnitVerdict, UnitVersion};

use super::ExtentCore;
use super::api::{Command, Ctx, ForwardAnswer};
use super::front::OpKey;
use crate::fault::{self, Fault};

impl ExtentCore {
    /// Judges an open command by the unit's state as this primary has applied it; one that may not take effect is answered. Asked when a
    /// command takes its range, and again at the moment it takes effect, so that whatever has no lsn when a newer state is applied is
    /// judged by that one. What has an lsn completes (P2). Whether the command goes on.
    ///
    /// A conflict is told under the lease alone: a primary that was replaced and has not heard of it knows of no change since, and a host
    /// takes the word as final, on every path. Held back, the command is judged by whoever serves next, or its connection is reset.
    pub(crate) fn judged(&mut self, ctx: &Ctx, key: OpKey, out: &mut Vec<Command>) -> bool {
        if fault::on(Fault::JudgedAtForwarder) && matches!(key, OpKey::Remote { .. }) {
            return true;
        }
        match self.verdict(key) {
            UnitVerdict::Admit => true,
            UnitVerdict::Conflict => {
                if self.leased(ctx) || fault::on(Fault::ConflictWithoutLease) {
                    self.finish(key, OpOutcome::ReservationConflict, out);
                } else {
                    self.hold(key);
                }
                false
            }
            UnitVerdict::Ended => {
                self.end_op(key, ForwardAnswer::Ended, out);
                false
            }
        }
    }

    fn verdict(&self, key: OpKey) -> UnitVerdict {
        let (Some(view), Some(op)) = (self.view.as_ref(), self.ops.get(&key)) else {
            return UnitVerdict::Admit;
        };
        view.unit.judge(&op.request, op.origin)
    }

    /// P2: answered once this primary has applied that version, and every command that it gave an lsn under an older one is committed.
    /// What has none is judged by the newer state when its turn comes.
    pub(crate) fn fence(&mut self, key: OpKey, version: UnitVersion, out: &mut Vec<Command>) {
        let applied = self
            .view
            .as_ref()
            .is_some_and(|view| view.unit.version >= version);
        if applied || fault::on(Fault::FenceBeforeApplied) {
            self.flush(key, out);
        } else {
            self.hold(key);
        }
    }
}
