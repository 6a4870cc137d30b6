//! A queue into a thread that takes all that waits at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Jobs for one thread. Whoever adds a job wakes the thread only if it sleeps, and the thread takes all jobs in one go, so that a
/// busy thread costs no wake-ups.
#[derive(Debug)]
pub(crate) struct Inbox<J> {
    state: Mutex<State<J>>,
    ready: Condvar,
}

#[derive(Debug)]
struct State<J> {
    jobs: Vec<J>,
    asleep: bool,
    closed: bool,
}

impl<J> Inbox<J> {
    pub(crate) const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                jobs: Vec::new(),
                asleep: false,
                closed: false,
            }),
            ready: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // A panic elsewhere leaves the queue whole: every change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds jobs in order. After [`Inbox::close`] they are dropped.
    pub(crate) fn push(&self, jobs: impl IntoIterator<Item = J>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.jobs.extend(jobs);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.ready.notify_one();
        }
    }

    /// Waits for jobs and moves all of them to `into`, which is empty. False once closed and empty.
    pub(crate) fn take(&self, into: &mut Vec<J>) -> bool {
        let mut state = self.lock();
        loop {
            if !state.jobs.is_empty() {
                std::mem::swap(&mut state.jobs, into);
                return true;
            }
            if state.closed {
                return false;
            }
            state.asleep = true;
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
        }
    }

    /// Lets the thread end. What waits is dropped if `discard`, else done first.
    pub(crate) fn close(&self, discard: bool) {
        let mut state = self.lock();
        state.closed = true;
        let dropped = if discard {
            std::mem::take(&mut state.jobs)
        } else {
            Vec::new()
        };
        drop(state);
        drop(dropped);
        self.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn jobs_come_out_in_order_and_close_ends_the_thread() {
        let inbox = Arc::new(Inbox::new());
        let thread = {
            let inbox = Arc::clone(&inbox);
            std::thread::spawn(move || {
                let (mut all, mut some) = (Vec::new(), Vec::new());
                while inbox.take(&mut some) {
                    all.append(&mut some);
                }
                all
            })
        };
        for i in 0..1000 {
            inbox.push([i, i]);
        }
        inbox.close(false);
        inbox.push([7]);
        let all = thread.join().unwrap();
        assert_eq!(all, (0..1000).flat_map(|i| [i, i]).collect::<Vec<_>>());
    }
}
