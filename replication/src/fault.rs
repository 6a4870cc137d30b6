//! Rules that tests break on purpose, one at a time, to show that the tests notice. In a release all of them hold.

holdfast_types::fault_switches! {
    /// W2: a write is acknowledged that no replica has.
    AckWithoutReplica,
    /// W2: a write is acknowledged before it is stable here.
    AckBeforeLocal,
    /// E5: reads before the log's tail is settled.
    ReadBeforeSettled,
    /// E4: a replica takes records of an older epoch.
    AcceptOldEpoch,
    /// R3: a growth without the barrier.
    GrowWithoutBarrier,
    /// E3: a newcomer does not count while its growth is pending.
    GrowthNotCounted,
    /// R2: a block in resync is read without its lock, and not compared again.
    ResyncWithoutLock,
    /// R2: a block in resync has no position of its own: the replica may put it over a newer write.
    ResyncWithoutLsn,
    /// R1: a replica in resync takes what it has for complete when its primary changes midway.
    SourceForgotten,
    /// R2: what a replica has in its log and had not applied is not compared.
    DroppedNotCompared,
    /// W2: a commit position that finds no message to ride on is never told.
    CommitOnlyPiggybacked,
    /// W3: reads without a lease.
    ReadWithoutLease,
    /// E1: a primary serves on in its old epoch after a restart.
    ServeAfterRestart,
    /// F1: commands are not known by their names.
    ForgetNames,
    /// R1: a replica in resync tells the end of its log.
    BaseForgotten,
    /// E6: a primary that handed back serves again after a while.
    ResumeByTimer,
    /// E6: a primary that handed back answers on until it hears of its successor.
    SwitchoverNotClosed,
    /// F1: forwards of an older lease generation are carried out.
    ForwardOfOldGeneration,
    /// F4: a primary goes on taking commands of a node whose leaving it has proposed.
    ForwardOfLeaving,
    /// F2: asking for a command's fate does not bar it.
    FateDoesNotBar,
    /// R2: the driver's: what changed between two checkpoints is not noted.
    ChangesForgotten,
    /// W4: reads are answered once one replica has confirmed the epoch.
    ConfirmedByOne,
    /// R1: the driver's: the extent is not flushed before its log starts anew.
    RestartUnflushed,
    /// P2: a fence is answered before this primary has applied the state that it names.
    FenceBeforeApplied,
    /// W5: a write is answered before any replica has received it.
    EarlyBeforeReceived,
    /// W5: SYNCHRONIZE CACHE is answered without waiting.
    FlushWithoutWaiting,
    /// W5: a record goes to the extent before it is stable in any journal.
    ExtentBeforeJournal,
    /// P1: reservations are judged by the node that forwards a command, not by the primary.
    JudgedAtForwarder,
    /// P1: a conflict is told without a lease.
    ConflictWithoutLease,
}
