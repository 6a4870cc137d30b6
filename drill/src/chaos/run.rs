//! Storms carried out.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::report::{Event, StormReport};
use super::{Fault, Storm, Storms};
use crate::error::Error;

/// Between two looks at how far the workload has come.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A cluster that can be hurt and healed. Beginning and ending a fault must not take long: others have their times.
pub trait Ground {
    /// Why it could not do something.
    type Error: From<Error> + std::fmt::Display;

    /// Begins a fault.
    ///
    /// # Errors
    /// It cannot be done.
    fn begin(&mut self, fault: Fault) -> impl Future<Output = Result<(), Self::Error>>;

    /// Ends a fault that was begun. The cluster may be busy afterwards.
    ///
    /// # Errors
    /// It cannot be done.
    fn end(&mut self, fault: Fault) -> impl Future<Output = Result<(), Self::Error>>;

    /// Waits until every node is up and every replica in sync, all faults having ended.
    ///
    /// # Errors
    /// That does not come about within `limit`; the text says what is missing.
    fn whole(&mut self, limit: Duration) -> impl Future<Output = Result<(), Self::Error>>;

    /// Compares all replicas with each other, the cluster being whole and busy.
    ///
    /// # Errors
    /// They differ, or cannot be compared within `limit`.
    fn same(&mut self, limit: Duration) -> impl Future<Output = Result<(), Self::Error>>;
}

/// What keeps the cluster busy, and notices.
pub trait Load {
    /// Its clock, by which all times of a run are told.
    fn now(&self) -> Duration;

    /// Calls answered until now.
    fn answered(&self) -> u64;

    /// Waits until every initiator has an answer to a call that it began after now.
    ///
    /// # Errors
    /// Some have none within `limit`.
    fn served(&self, limit: Duration) -> impl Future<Output = Result<(), Error>>;
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Pause before a storm begins.
    pub calm: Duration,
    /// From a storm's end until the cluster is whole; and for the comparison of the replicas afterwards.
    pub whole: Duration,
    /// From then until every initiator is served.
    pub served: Duration,
}

impl Default for Limits {
    /// A second of calm, two minutes to be whole (a resync, on a busy machine), and 30 s until all are served: what a path timer and
    /// a login take.
    fn default() -> Self {
        Self {
            calm: Duration::from_secs(1),
            whole: Duration::from_secs(120),
            served: Duration::from_secs(30),
        }
    }
}

/// A run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Decides all storms.
    pub seed: u64,
    /// No storm begins after that.
    pub lasts: Duration,
    /// Whether the ground has disks that hang and fill up.
    pub disks: bool,
    /// How long things may take.
    pub limits: Limits,
}

/// Carries storms out until the time is over, or one is not healed. `tell` hears of each event, and of each storm that is over.
///
/// # Errors
/// The ground cannot do something. What a storm does to the cluster is no error but in its report.
pub async fn run<G: Ground>(
    plan: &Plan,
    ground: &mut G,
    load: &impl Load,
    tell: impl FnMut(&Event),
    storm_over: impl FnMut(&StormReport),
) -> Result<Vec<StormReport>, G::Error> {
    let began = Instant::now();
    let storms = Storms::new(plan.seed, plan.disks).take_while(|_| began.elapsed() < plan.lasts);
    carry_out(storms, plan.limits, ground, load, tell, storm_over).await
}

async fn carry_out<G: Ground>(
    storms: impl Iterator<Item = Storm>,
    limits: Limits,
    ground: &mut G,
    load: &impl Load,
    mut tell: impl FnMut(&Event),
    mut storm_over: impl FnMut(&StormReport),
) -> Result<Vec<StormReport>, G::Error> {
    let mut reports = Vec::new();
    for storm in storms {
        sleep(limits.calm).await;
        let mut one = One {
            begin: load.now(),
            events: Vec::new(),
            stall: Stall::new(load),
        };
        one.carry_out(&storm, ground, load, &mut tell).await?;
        let report = one.settle(limits, ground, load).await;
        storm_over(&report);
        let is_healed = report.trouble.is_none();
        reports.push(report);
        if !is_healed {
            break;
        }
    }
    Ok(reports)
}

/// Begins and ends of a storm's strikes in the order of their times; an end comes before a beginning at the same time.
fn steps(storm: &Storm) -> Vec<(Duration, bool, usize)> {
    let of = |(number, strike): (usize, &super::Strike)| {
        let begin = (strike.at, true, number);
        let end = (strike.end(), false, number);
        let has_end = !matches!(strike.fault, Fault::Switchover { .. });
        std::iter::once(begin).chain(has_end.then_some(end))
    };
    let mut steps: Vec<_> = storm.strikes.iter().enumerate().flat_map(of).collect();
    steps.sort_unstable();
    steps
}

/// The longest time without an answer.
struct Stall {
    answered: u64,
    since: Instant,
    longest: Duration,
}

impl Stall {
    fn new(load: &impl Load) -> Self {
        Self {
            answered: load.answered(),
            since: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    fn look(&mut self, load: &impl Load) {
        let (answered, now) = (load.answered(), Instant::now());
        self.longest = self.longest.max(now.duration_since(self.since));
        if answered != self.answered {
            (self.answered, self.since) = (answered, now);
        }
    }
}

/// A storm under way.
struct One {
    begin: Duration,
    events: Vec<Event>,
    stall: Stall,
}

impl One {
    async fn carry_out<G: Ground>(
        &mut self,
        storm: &Storm,
        ground: &mut G,
        load: &impl Load,
        tell: &mut impl FnMut(&Event),
    ) -> Result<(), G::Error> {
        let start = Instant::now();
        let mut open: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, begins, number) in steps(storm) {
            while Instant::now() < start + at {
                sleep_until((start + at).min(Instant::now() + LOOK_EVERY)).await;
                self.stall.look(load);
            }
            let fault = storm.strikes[number].fault;
            let done = if begins {
                open.insert(number, self.events.len());
                self.events.push(Event::new(fault, load.now()));
                ground.begin(fault).await
            } else {
                if let Some(at) = open.remove(&number) {
                    self.events[at].until_ms = Event::ms(load.now());
                }
                ground.end(fault).await
            };
            if let (true, Some(event)) = (begins, self.events.last()) {
                tell(event);
            }
            if let Err(error) = done {
                // What is open is ended: a ground that is left hurt would be of no use to anybody.
                for number in open.into_keys() {
                    let _ = ground.end(storm.strikes[number].fault).await;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn settle<G: Ground>(mut self, limits: Limits, ground: &mut G, load: &impl Load) -> StormReport {
        let healed = Instant::now();
        let whole = self.watched(load, ground.whole(limits.whole)).await;
        let mut trouble = whole.err().map(|error| error.to_string());
        let whole_after = healed.elapsed();
        if trouble.is_none() {
            let served = self.watched(load, load.served(limits.served)).await;
            trouble = served
                .err()
                .map(|error| format!("not every initiator is served again: {error}"));
        }
        let served_after = healed.elapsed();
        if trouble.is_none() {
            let same = self.watched(load, ground.same(limits.whole)).await;
            trouble = same.err().map(|error| error.to_string());
        }
        StormReport {
            begin_ms: Event::ms(self.begin),
            end_ms: Event::ms(load.now()),
            whole_ms: Event::ms(whole_after),
            served_ms: Event::ms(served_after),
            stall_ms: Event::ms(self.stall.longest),
            events: self.events,
            trouble,
        }
    }

    /// Goes on looking at the workload while something is waited for.
    async fn watched<T>(&mut self, load: &impl Load, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            tokio::select! {
                done = &mut what => {
                    self.stall.look(load);
                    return done;
                }
                () = sleep(LOOK_EVERY) => self.stall.look(load),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Default)]
    struct Toy {
        open: Vec<Fault>,
        begun: usize,
        whole: usize,
        /// After so many storms it does not heal.
        heals: usize,
        compared: usize,
        /// After so many comparisons the replicas differ.
        differ_after: usize,
    }

    impl Ground for Toy {
        type Error = Error;

        async fn begin(&mut self, fault: Fault) -> Result<(), Error> {
            self.begun += 1;
            self.open.push(fault);
            Ok(())
        }

        async fn end(&mut self, fault: Fault) -> Result<(), Error> {
            let at = self.open.iter().position(|open| *open == fault);
            self.open.remove(at.expect("only what was begun is ended"));
            Ok(())
        }

        async fn whole(&mut self, limit: Duration) -> Result<(), Error> {
            self.open
                .retain(|fault| !matches!(fault, Fault::Switchover { .. }));
            assert_eq!(self.open, [], "all are ended before it must be whole");
            self.whole += 1;
            if self.whole > self.heals {
                return Err(Error::Timeout(limit));
            }
            Ok(())
        }

        async fn same(&mut self, limit: Duration) -> Result<(), Error> {
            self.compared += 1;
            if self.compared > self.differ_after {
                return Err(Error::Timeout(limit));
            }
            Ok(())
        }
    }

    struct Busy(Cell<u64>, Instant);

    impl Load for Busy {
        fn now(&self) -> Duration {
            self.1.elapsed()
        }

        fn answered(&self) -> u64 {
            self.0.set(self.0.get() + 1);
            self.0.get()
        }

        async fn served(&self, _: Duration) -> Result<(), Error> {
            Ok(())
        }
    }

    /// Storms of a seed, a hundred times as fast.
    async fn play(toy: &mut Toy, tell: impl FnMut(&Event)) -> Vec<StormReport> {
        let fast = |mut storm: Storm| {
            for strike in &mut storm.strikes {
                (strike.at, strike.lasts) = (strike.at / 100, strike.lasts / 100);
            }
            storm
        };
        let limits = Limits {
            calm: Duration::from_millis(1),
            ..Limits::default()
        };
        let (storms, load) = (
            Storms::new(7, true).take(10).map(fast),
            Busy(Cell::default(), Instant::now()),
        );
        carry_out(storms, limits, toy, &load, tell, |_| {}).await.unwrap()
    }

    #[tokio::test]
    async fn every_strike_is_carried_out_and_ended_before_the_calm() {
        let mut toy = Toy {
            heals: usize::MAX,
            differ_after: usize::MAX,
            ..Toy::default()
        };
        let mut told = 0;
        let reports = play(&mut toy, |_| told += 1).await;
        assert_eq!((reports.len(), toy.whole), (10, 10));
        let events: usize = reports.iter().map(|report| report.events.len()).sum();
        assert_eq!((told, events), (toy.begun, toy.begun));
        assert!(reports.iter().all(|report| report.trouble.is_none()));
        let lasts = |event: &Event| event.until_ms - event.at_ms;
        assert!(
            reports
                .iter()
                .flat_map(|report| &report.events)
                .any(|event| lasts(event) > 20.0)
        );
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_heal_ends_the_run() {
        let mut toy = Toy {
            heals: 2,
            differ_after: usize::MAX,
            ..Toy::default()
        };
        let reports = play(&mut toy, |_| {}).await;
        assert_eq!(reports.len(), 3);
        assert!(reports[2].trouble.is_some() && reports[1].trouble.is_none());
    }

    #[tokio::test]
    async fn replicas_that_differ_end_the_run() {
        let mut toy = Toy {
            heals: usize::MAX,
            differ_after: 4,
            ..Toy::default()
        };
        let reports = play(&mut toy, |_| {}).await;
        assert_eq!(reports.len(), 5);
        assert!(reports[4].trouble.is_some() && reports[3].trouble.is_none());
    }
}
