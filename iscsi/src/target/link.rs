//! The sending half of a connection: numbers every PDU and puts it into the outbox.

use crate::frame::Digests;
use crate::out::{Outbox, Outgoing, Payload};
use crate::pdu::{Bhs, TargetNumbers};
use crate::serial::Sn;

use super::window::Window;

/// PDUs that a connection may have made by itself before it stops to read: a peer that asks without listening waits.
const UNASKED_MAX: usize = 64;

/// Outbox, digests and StatSN.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) outbox: Outbox,
    pub(super) digests: Digests,
    pub(super) stat_sn: Sn,
}

impl Link {
    /// The numbers of a PDU that takes a StatSN.
    pub(super) const fn take(&mut self, window: &Window) -> TargetNumbers {
        let numbers = self.peek(window);
        self.stat_sn = self.stat_sn.next();
        numbers
    }

    /// The numbers of a PDU that takes none.
    pub(super) const fn peek(&self, window: &Window) -> TargetNumbers {
        TargetNumbers {
            stat_sn: self.stat_sn,
            exp_cmd_sn: window.exp_cmd_sn(),
            max_cmd_sn: window.max_cmd_sn(),
        }
    }

    /// Sends what the owner has asked for.
    pub(super) fn send(&mut self, bhs: Bhs, data: Payload) {
        self.outbox.push(Outgoing::new(bhs, &[], data, self.digests));
    }

    /// Sends what the connection says by itself.
    pub(super) fn send_unasked(&mut self, bhs: Bhs, data: Payload) {
        self.outbox
            .push_unasked(Outgoing::new(bhs, &[], data, self.digests));
    }

    /// Whether the peer should first read what waits for it.
    pub(super) const fn is_choked(&self) -> bool {
        self.outbox.unasked() >= UNASKED_MAX
    }
}
