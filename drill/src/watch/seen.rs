//! What a watch has seen: counts and pauses of each lane at any time, and as many requests as a picture can show.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use holdfast_types::utc_to_the_millisecond;
use tokio::time::Instant;

use super::Began;
use super::report::{LaneReport, Latency, Report, Stall};
use crate::error::{Error, SenseCode};
use crate::histogram::Histogram;
use crate::rehearsal::Errors;
use crate::report::plot::slowest;
use crate::report::{Sample, State, Timeline};

/// Requests kept. When there are more, only the slowest of each slot of time and lane are; slots get longer with the watch.
const SAMPLES_MAX: usize = 60_000;
/// The first slot.
const SLOT: Duration = Duration::from_millis(1);
/// Turns of paths that are kept; a path that comes and goes for hours is not drawn for ever.
const BANDS_MAX: usize = 4_000;
/// Pauses from this length on are shaded, where slots are not too long to tell.
const STALL_FROM: Duration = Duration::from_millis(100);

/// Answers of one lane.
#[derive(Debug, Default)]
struct Lane {
    name: String,
    histogram: Histogram,
    failed: u64,
    last: Option<Duration>,
    longest: (Duration, Duration),
    errors: Errors,
    /// What the last answer was, as its band tells it.
    telling: String,
}

impl Lane {
    fn pause(&mut self, from: Duration, to: Duration) {
        let length = |(from, to): (Duration, Duration)| to.saturating_sub(from);
        if length((from, to)) > length(self.longest) {
            self.longest = (from, to);
        }
    }

    /// Answered well.
    fn good(&mut self, issued: Duration, answered: Duration) {
        if let Some(last) = self.last {
            self.pause(last, answered);
        }
        self.last = self.last.max(Some(answered));
        self.histogram.add(answered.saturating_sub(issued));
    }

    /// The last pause lasts until now.
    fn ends(&mut self, now: Duration) {
        if let Some(last) = self.last {
            self.pause(last, now);
        }
    }

    fn report(&self, began: SystemTime) -> LaneReport {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (from, to) = self.longest;
        let answered = self.histogram.count();
        LaneReport {
            name: self.name.clone(),
            answered,
            failed: self.failed,
            longest_stall: (answered > 0).then(|| Stall {
                ms: ms(to.saturating_sub(from)),
                from: utc_to_the_millisecond(began + from),
            }),
            latency: (answered > 0).then(|| Latency {
                p50_ms: ms(self.histogram.quantile(0.5)),
                p99_ms: ms(self.histogram.quantile(0.99)),
                max_ms: ms(self.histogram.max()),
            }),
            errors: self.errors.clone(),
        }
    }
}

#[derive(Debug)]
struct Inner {
    lanes: Vec<Lane>,
    /// How many of the lanes are paths of their own; they come first.
    paths: usize,
    /// Whether writes decide if the target answers.
    writes: bool,
    /// All lanes that decide, as one.
    any: Lane,
    timeline: Timeline,
    /// Length of a slot; zero while every request is kept.
    slot: Duration,
}

/// Shared by all who watch.
#[derive(Debug)]
pub(super) struct Seen {
    began: Began,
    inner: Mutex<Inner>,
}

impl Seen {
    /// With these paths.
    pub(super) fn new(paths: Vec<String>) -> Self {
        let inner = Inner {
            paths: paths.len(),
            lanes: paths.iter().map(|name| Lane::named(name.clone())).collect(),
            writes: false,
            any: Lane::named("the target".to_owned()),
            timeline: Timeline {
                title: "What every path answered".to_owned(),
                lanes: paths,
                ..Timeline::default()
            },
            slot: Duration::ZERO,
        };
        Self {
            began: Began {
                wall: SystemTime::now(),
                clock: Instant::now(),
            },
            inner: Mutex::new(inner),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the watch began.
    pub(super) fn now(&self) -> Duration {
        self.began.clock.elapsed()
    }

    /// Another lane; its number. Where it is one of writes, only these decide from now on whether the target answers.
    pub(super) fn add(&self, name: String, writes: bool) -> usize {
        let mut inner = self.inner();
        if writes && !inner.writes {
            inner.writes = true;
            inner.any = Lane::named("the target".to_owned());
        }
        inner.timeline.lanes.push(name.clone());
        inner.lanes.push(Lane::named(name));
        inner.lanes.len() - 1
    }

    /// A request was answered well.
    pub(super) fn good(&self, lane: usize, issued: Duration, answered: Duration) {
        let mut inner = self.inner();
        let decides = if inner.writes {
            lane >= inner.paths
        } else {
            lane < inner.paths
        };
        if decides {
            inner.any.good(issued, answered);
        }
        inner.lanes[lane].good(issued, answered);
        inner.tells(lane, answered, State::Serving, "answers");
        inner.keep(Sample {
            lane,
            issued,
            answered,
            good: true,
        });
    }

    /// A request, or a login, came to nothing just now. A unit attention is counted, and no failure.
    pub(super) fn failed(&self, lane: usize, issued: Duration, error: &Error) {
        let answered = self.now();
        let mut inner = self.inner();
        *inner.lanes[lane].errors.entry(error.kind()).or_default() += 1;
        if error.sense().is_some_and(SenseCode::is_unit_attention) {
            return;
        }
        inner.lanes[lane].failed += 1;
        let state = match error {
            Error::CheckCondition(SenseCode::TRANSITION) => State::Changing,
            Error::CheckCondition(SenseCode::STANDBY) => State::Waiting,
            _ => State::Down,
        };
        inner.tells(lane, answered, state, &error.kind());
        inner.keep(Sample {
            lane,
            issued,
            answered,
            good: false,
        });
    }

    /// Whether any path has answered.
    pub(super) fn has_answered(&self) -> bool {
        self.inner().lanes.iter().any(|lane| lane.last.is_some())
    }

    /// Of each path, whether it answers.
    pub(super) fn glance(&self) -> String {
        let (now, inner) = (self.now(), self.inner());
        let each = inner.lanes.iter().take(inner.paths).map(|lane| {
            let telling = if lane.telling.is_empty() {
                "no answer yet"
            } else {
                &lane.telling
            };
            format!("{}: {telling}", lane.name)
        });
        let (from, to) = inner.any.longest;
        let open = inner
            .any
            .last
            .map_or(Duration::ZERO, |last| now.saturating_sub(last));
        let stall = open.max(to.saturating_sub(from)).as_millis();
        format!(
            "longest stall {stall} ms; {}",
            each.collect::<Vec<_>>().join("; ")
        )
    }

    /// All of it. `hidden` is what the multipath layer met.
    pub(super) fn report(&self, hidden: Errors) -> Report {
        let now = self.now();
        let mut inner = self.inner();
        for lane in &mut inner.lanes {
            lane.ends(now);
        }
        inner.any.ends(now);
        let stall_from = STALL_FROM.max(inner.slot * 4);
        inner.timeline.stall_from = stall_from;
        inner.timeline.ends(now);
        let wall = self.began.wall;
        let (paths, together) = inner.lanes.split_at(inner.paths);
        let all = |lanes: &[Lane]| lanes.iter().map(|lane| lane.report(wall)).collect();
        Report {
            held: true,
            reasons: Vec::new(),
            began: utc_to_the_millisecond(wall),
            seconds: now.as_secs_f64(),
            target: inner.any.report(wall),
            paths: all(paths),
            together: all(together),
            hidden,
            workload: None,
            timelines: vec![inner.timeline.clone()],
        }
    }
}

impl Lane {
    fn named(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }
}

impl Inner {
    fn tells(&mut self, lane: usize, at: Duration, state: State, text: &str) {
        let is_path = lane < self.paths;
        let one = &mut self.lanes[lane];
        if is_path && one.telling != text {
            text.clone_into(&mut one.telling);
            if self.timeline.bands.len() < BANDS_MAX {
                self.timeline.turns(&one.name, at, state, text);
            }
        }
    }

    fn keep(&mut self, sample: Sample) {
        self.timeline.samples.push(sample);
        if self.timeline.samples.len() <= SAMPLES_MAX {
            return;
        }
        let mut slot = self.slot.max(SLOT);
        loop {
            let kept = slowest(&self.timeline.samples, |sample| {
                let number = i64::try_from(sample.answered.as_nanos() / slot.as_nanos()).ok()?;
                let latency = sample.answered.saturating_sub(sample.issued);
                Some((sample.lane * 2 + usize::from(sample.good), number, latency))
            });
            let mut kept: Vec<Sample> = kept.into_values().copied().collect();
            if kept.len() <= SAMPLES_MAX / 2 {
                kept.sort_by_key(|sample| sample.answered);
                self.timeline.samples = kept;
                self.slot = slot;
                return;
            }
            // Slots are too short for a watch of this length.
            slot *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_watch_keeps_its_slowest_requests_and_exact_pauses() {
        let seen = Seen::new(vec!["a".to_owned()]);
        let ms = Duration::from_millis;
        // Half an hour of a request every 5 ms, one of which takes 400 ms, with a pause of 70 ms.
        for number in 0..360_000_u64 {
            let pause = if number >= 200_000 { 70 } else { 0 };
            let answered = ms(1000 + number * 5 + pause);
            let latency = if number == 100_000 { ms(400) } else { ms(1) };
            seen.good(0, answered - latency, answered);
        }
        let inner = seen.inner();
        assert!(inner.timeline.samples.len() <= SAMPLES_MAX);
        assert!(inner.slot >= ms(50) && inner.slot <= ms(500), "{:?}", inner.slot);
        let latencies = inner.timeline.samples.iter().map(|s| s.answered - s.issued);
        assert_eq!(latencies.max(), Some(ms(400)));
        assert!(inner.timeline.samples.is_sorted_by_key(|s| s.answered));
        let (from, to) = inner.lanes[0].longest;
        assert_eq!((to - from, inner.lanes[0].histogram.count()), (ms(75), 360_000));
    }
}
