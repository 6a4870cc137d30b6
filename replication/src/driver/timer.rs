//! One thread for the deadlines of all cores, and for proposals that wait for company.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_types::{ExtentId, Mono};

use super::extent::Extent;
use super::shared::Shared;
use crate::core::api::{Event, Proposal};

/// When the timer looks for waiting writes although nothing is due (J3, W1).
const WAITING_EVERY: Duration = Duration::from_millis(50);

/// The queue of deadlines.
#[derive(Debug, Default)]
pub(super) struct Timer {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: BinaryHeap<Reverse<Due>>,
    proposals: Vec<(ExtentId, Proposal)>,
    /// When the oldest of them came.
    proposed: Option<Mono>,
    /// Writes wait for room in the journal.
    waiting: bool,
    closed: bool,
}

#[derive(Debug)]
struct Due {
    at: u64,
    extent: Arc<Extent>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Timer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the extent is looked at at `deadline` or earlier. A later deadline than the one it has costs nothing here: it is
    /// looked at early, once, and armed again.
    pub(super) fn arm(&self, extent: &Arc<Extent>, deadline: Option<Mono>) {
        let Some(at) = deadline.map(Mono::as_nanos) else {
            return;
        };
        if extent.armed.fetch_min(at, Ordering::AcqRel) <= at {
            return;
        }
        let mut state = self.lock();
        let first = state.due.peek().is_none_or(|Reverse(due)| at < due.at);
        state.due.push(Reverse(Due {
            at,
            extent: Arc::clone(extent),
        }));
        drop(state);
        if first {
            self.wake.notify_one();
        }
    }

    /// Takes a proposal to be handed on soon.
    pub(super) fn propose(&self, extent: ExtentId, proposal: Proposal, now: Mono) {
        let mut state = self.lock();
        state.proposals.push((extent, proposal));
        let first = state.proposed.is_none();
        state.proposed.get_or_insert(now);
        drop(state);
        if first {
            self.wake.notify_one();
        }
    }

    /// Has waiting writes looked at from time to time.
    pub(super) fn watch_waiting(&self) {
        let mut state = self.lock();
        let first = !std::mem::replace(&mut state.waiting, true);
        drop(state);
        if first {
            self.wake.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Waits for something to do. `None` once closed.
    fn next(&self, shared: &Shared) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let now = shared.lease.ctx().now;
            let flush = state.proposed.map(|at| at + shared.config.propose_after);
            let due = state.due.peek().map(|Reverse(due)| Mono::from_nanos(due.at));
            let look = state.waiting.then(|| now + WAITING_EVERY);
            let Some(next) = [flush, due, look].into_iter().flatten().min() else {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if next > now {
                let (back, timeout) = self
                    .wake
                    .wait_timeout(state, next.since(now))
                    .unwrap_or_else(PoisonError::into_inner);
                state = back;
                if !(timeout.timed_out() && state.waiting) {
                    continue;
                }
            }
            return Some(state.take(now, flush.is_some_and(|at| at <= now)));
        }
    }
}

impl State {
    fn take(&mut self, now: Mono, flush: bool) -> Work {
        let mut ticks = Vec::new();
        while let Some(Reverse(due)) = self.due.peek() {
            if due.at > now.as_nanos() {
                break;
            }
            ticks.extend(self.due.pop().map(|Reverse(due)| due.extent));
        }
        let mut proposals = Vec::new();
        if flush {
            self.proposed = None;
            proposals = std::mem::take(&mut self.proposals);
        }
        Work {
            ticks,
            proposals,
            waiting: std::mem::take(&mut self.waiting),
        }
    }
}

struct Work {
    ticks: Vec<Arc<Extent>>,
    proposals: Vec<(ExtentId, Proposal)>,
    waiting: bool,
}

/// The thread's loop.
pub(super) fn serve(shared: &Arc<Shared>) {
    while let Some(work) = shared.timer.next(shared) {
        if !work.proposals.is_empty() && !shared.stopped() {
            shared.proposer.propose(work.proposals);
        }
        for extent in work.ticks {
            extent.armed.store(u64::MAX, Ordering::Release);
            shared.drive(&extent, [Event::Tick]);
        }
        if work.waiting {
            shared.admit_waiting();
        }
    }
}
