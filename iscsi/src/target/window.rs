//! The command window: CmdSN, ExpCmdSN, MaxCmdSN (RFC 7143, 4.2.2.1).

use crate::serial::{Sn, WideSn};

/// Where a CmdSN falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is this one's turn.
    Next,
    /// Inside the window, but others come first.
    Ahead(WideSn),
    /// Stale, or beyond the window: silently ignored.
    Outside,
}

/// The window of a session.
#[derive(Debug)]
pub(super) struct Window {
    /// ExpCmdSN.
    next: WideSn,
    /// MaxCmdSN + 1. Never goes back, as the initiator may act on any that it was told.
    limit: WideSn,
    /// How many commands may be outstanding.
    size: u32,
    /// Commands that had their turn and have no response yet.
    outstanding: u32,
}

impl Window {
    pub(super) fn new(first: Sn, size: u32) -> Self {
        // One wrap is left below, so that numbers before the first one can be widened too.
        let next = WideSn(WideSn::first(first).0 + (1 << 32));
        let mut window = Self {
            next,
            limit: next,
            size,
            outstanding: 0,
        };
        window.open();
        window
    }

    pub(super) fn place(&self, cmd_sn: Sn) -> Place {
        match self.next.widen(cmd_sn) {
            Some(wide) if wide == self.next && wide < self.limit => Place::Next,
            Some(wide) if wide > self.next && wide < self.limit => Place::Ahead(wide),
            _ => Place::Outside,
        }
    }

    /// The number whose turn it is.
    pub(super) const fn next(&self) -> WideSn {
        self.next
    }

    /// Takes the turn.
    pub(super) fn advance(&mut self) -> WideSn {
        let taken = self.next;
        self.next = taken.next();
        self.open();
        taken
    }

    /// A command is outstanding from here on. Called before `advance`, so that the window never opens for it.
    pub(super) const fn begin(&mut self) {
        self.outstanding += 1;
    }

    /// An outstanding command got its response, or was dropped.
    pub(super) fn end(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.open();
    }

    /// Changes the size. Whether the initiator has to be told: the window was closed and is open now.
    pub(super) fn resize(&mut self, size: u32) -> bool {
        let closed = self.is_closed();
        self.size = size.min(1 << 16);
        self.open();
        closed && !self.is_closed()
    }

    fn open(&mut self) {
        let free = self.size.saturating_sub(self.outstanding);
        self.limit = self.limit.max(WideSn(self.next.0 + u64::from(free)));
    }

    /// Whether the initiator may send no command.
    pub(super) fn is_closed(&self) -> bool {
        self.limit == self.next
    }

    /// ExpCmdSN.
    pub(super) const fn exp_cmd_sn(&self) -> Sn {
        self.next.narrow()
    }

    /// MaxCmdSN: one below ExpCmdSN where the window is closed.
    pub(super) const fn max_cmd_sn(&self) -> Sn {
        WideSn(self.limit.0 - 1).narrow()
    }

    /// The wide number of `cmd_sn` where it is one that was not taken yet and may be: at or behind ExpCmdSN, within the window.
    pub(super) fn future(&self, cmd_sn: Sn) -> Option<WideSn> {
        match self.place(cmd_sn) {
            Place::Next => Some(self.next),
            Place::Ahead(wide) => Some(wide),
            Place::Outside => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_and_future_numbers_are_outside() {
        let mut window = Window::new(Sn(0xffff_fffe), 4);
        assert_eq!(window.place(Sn(0xffff_fffd)), Place::Outside);
        assert_eq!(window.place(Sn(0xffff_fffe)), Place::Next);
        assert!(matches!(window.place(Sn(1)), Place::Ahead(_)));
        assert_eq!(window.place(Sn(2)), Place::Outside);
        window.advance();
        assert_eq!(window.place(Sn(0xffff_fffe)), Place::Outside);
        assert_eq!(window.place(Sn(2)), Place::Ahead(WideSn(0x2_0000_0002)));
    }

    #[test]
    fn outstanding_commands_close_the_window_and_responses_open_it() {
        let mut window = Window::new(Sn(1), 2);
        for _ in 0..2 {
            assert_eq!(window.place(window.exp_cmd_sn()), Place::Next);
            window.begin();
            window.advance();
        }
        assert_eq!((window.exp_cmd_sn(), window.max_cmd_sn()), (Sn(3), Sn(2)));
        assert_eq!(window.place(Sn(3)), Place::Outside);
        window.end();
        assert_eq!(window.max_cmd_sn(), Sn(3));
        assert_eq!(window.place(Sn(3)), Place::Next);
    }

    #[test]
    fn a_smaller_window_takes_hold_as_commands_end() {
        let mut window = Window::new(Sn(1), 4);
        assert!(!window.resize(1));
        assert_eq!(window.max_cmd_sn(), Sn(4), "never goes back");
        for _ in 0..4 {
            window.begin();
            window.advance();
        }
        for _ in 0..3 {
            window.end();
            assert_eq!(window.max_cmd_sn(), Sn(4));
        }
        window.end();
        assert_eq!(window.max_cmd_sn(), Sn(5));
    }

    #[test]
    fn opening_a_closed_window_has_to_be_told() {
        let mut window = Window::new(Sn(1), 0);
        assert_eq!(window.place(Sn(1)), Place::Outside);
        assert!(!window.resize(0));
        assert!(window.resize(2));
        assert!(!window.resize(3));
    }
}
