//! Rules that tests break on purpose, one at a time, to show that the tests notice. In a release all of them hold.

holdfast_types::fault_switches! {
    /// L2: the promise to oneself never runs out.
    SelfAlwaysCounts,
    /// L2: promises are counted from when the acknowledgement came.
    CountedFromAck,
    /// L2: the whole of L is counted.
    NoDriftMargin,
    /// L3: a silent node's extents are taken in one commit, without the suspicion before it.
    NoSuspectStep,
    /// L3: a suspect still gets promises from voters that applied the suspicion.
    SuspectStillPromised,
    /// L3: one report is a majority.
    OneReportIsEnough,
    /// L3: reports are counted whatever suspicion they name.
    ReportWithoutId,
    /// L3: the new epoch does not look whether its suspicion stands.
    NewEpochWithoutSuspicion,
    /// I5: the new primary need not be in sync.
    NoInSyncCheck,
    /// L3: who has announced that its replica cannot serve is promoted, and the suspect taken out for it at once.
    UnfitPromoted,
    /// L3: the new epoch takes the suspect out of the in-sync sets, before the next primary has shown that it can serve.
    SuspectTakenOut,
    /// W5: a member that was started anew since is promoted.
    RestartedPromoted,
    /// E2: proposals need not name the present epoch and version.
    NoPrecondition,
    /// L1: generations are not compared.
    NoGeneration,
    /// L5: run-out reports right after a start.
    NoWaitAfterStart,
    /// L5: promises before the voter has caught up.
    PromiseBeforeCaughtUp,
    /// L6: a leader suspects whom another voter hears.
    SuspectsWhomOthersHear,
    /// L2: what was promised for an older, longer lease time goes on counting after the change.
    OlderLeaseCounted,
    /// L5: a voter reports before it has caught up, so perhaps with an older lease time.
    ReportBeforeCaughtUp,
    /// L2: the change of a lease time is settled at once.
    LeaseSettledAtOnce,
    /// L8: promises do not name the newest voter set in the log.
    VotersUnnamed,
    /// L8: reports right after a change of the voters.
    NoWaitAfterVoters,
    /// T1: a takeover keeps the cluster's id.
    IncarnationKept,
    /// T2: a takeover begins from what is known as committed, without the log's tail.
    TailDropped,
    /// T2: a growth in the log's tail counts, committed or not.
    TailBelieved,
    /// T2: the replica of the node that goes on counts as whole, in sync or not.
    StaleCounted,
    /// T2: a takeover does not raise the epochs.
    EpochsKept,
}
