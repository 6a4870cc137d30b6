//! Rules that tests break on purpose, one at a time, to show that the tests notice. In a release all of them hold.

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests break rules"))]
pub(crate) enum Fault {
    /// L2: the promise to oneself never runs out.
    SelfAlwaysCounts,
    /// L2: promises are counted from when the acknowledgement came.
    CountedFromAck,
    /// L2: the whole of L is counted.
    NoDriftMargin,
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
}

/// Whether a test has switched `fault` on, in this thread.
#[cfg(test)]
pub(crate) fn on(fault: Fault) -> bool {
    tests::NOW.with(|now| now.get() == Some(fault))
}

/// Never, outside tests.
#[cfg(not(test))]
pub(crate) const fn on(_: Fault) -> bool {
    false
}

/// Runs `work` with `fault` switched on.
#[cfg(test)]
pub(crate) fn with<T>(fault: Option<Fault>, work: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            tests::NOW.with(|now| now.set(None));
        }
    }
    tests::NOW.with(|now| now.set(fault));
    let _off = Off;
    work()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    thread_local! {
        pub(super) static NOW: Cell<Option<super::Fault>> = const { Cell::new(None) };
    }
}
