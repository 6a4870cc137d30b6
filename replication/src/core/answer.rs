//! What a primary answers to commands that other nodes have forwarded (F1, F2).

use holdfast_types::OpOutcome;

/// A primary's answer to a forwarded command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardAnswer {
    /// It ended.
    Outcome(OpOutcome),
    /// The receiver is not the primary of that epoch, or stopped being it before the command got an lsn. It has not carried it out in that
    /// epoch unless its log says so (which the next primary looks up by name).
    NotPrimary,
    /// It has no position, and gets none unless it is forwarded again: the sender is no member of the in-sync set, or its leaving is
    /// proposed (F4).
    NotTaken,
    /// A reset of the unit, or PREEMPT AND ABORT, has ended it: it never takes effect (I13).
    Ended,
    /// It cannot be told whether it was carried out, or its generation or name is too old: never carried out from now on. Reset the
    /// connection.
    Refused,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It has an lsn: its outcome comes, or came, as usual.
    Underway,
    /// It ended so.
    Ended(OpOutcome),
    /// It has no lsn and is barred for ever (F2).
    Barred,
    /// Not the primary of that epoch: ask again later.
    NotPrimary,
}
