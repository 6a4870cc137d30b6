//! Places on a picture: time from left to right, latency upwards on a logarithmic scale.

use std::collections::BTreeMap;
use std::time::Duration;

/// Latencies upwards, on a logarithmic scale.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latencies {
    /// At the bottom, in milliseconds; what was faster is drawn there.
    pub(crate) fastest_ms: f64,
    /// At the top; what was slower is drawn there.
    pub(crate) slowest_ms: f64,
    /// Where the bottom is.
    pub(crate) bottom: f64,
    /// How high it is.
    pub(crate) height: f64,
}

impl Latencies {
    /// Where a latency of `ms` milliseconds is.
    pub(crate) fn y(&self, ms: f64) -> f64 {
        let share = (ms.clamp(self.fastest_ms, self.slowest_ms) / self.fastest_ms).log10()
            / (self.slowest_ms / self.fastest_ms).log10();
        self.bottom - share * self.height
    }
}

/// Time from left to right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// At the left edge, in seconds.
    pub(crate) begin: f64,
    /// At the right edge.
    pub(crate) end: f64,
    /// Where the left edge is.
    pub(crate) left: f64,
    /// How wide it is.
    pub(crate) width: f64,
}

impl Times {
    /// Where a time is.
    pub(crate) fn x(&self, seconds: f64) -> f64 {
        // A picture of no time at all is drawn as one of a microsecond.
        let span = (self.end - self.begin).max(1e-6);
        self.left + (seconds - self.begin) / span * self.width
    }

    /// Whether it is on the picture.
    pub(crate) fn shows(&self, seconds: f64) -> bool {
        (self.begin..=self.end).contains(&seconds)
    }

    /// The pixel that a time falls on.
    pub(crate) fn pixel(&self, seconds: f64) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "a position on a picture")]
        let pixel = self.x(seconds) as i64;
        pixel
    }

    /// Round times to name on the axis, relative to `zero`: some ten of them at most, in seconds, and how many decimals they need.
    pub(crate) fn ticks(&self, zero: f64) -> (Vec<f64>, usize) {
        const STEPS: [(f64, usize); 14] = [
            (0.01, 2),
            (0.02, 2),
            (0.05, 2),
            (0.1, 1),
            (0.2, 1),
            (0.5, 1),
            (1.0, 0),
            (2.0, 0),
            (5.0, 0),
            (10.0, 0),
            (30.0, 0),
            (60.0, 0),
            (300.0, 0),
            (600.0, 0),
        ];
        let span = self.end - self.begin;
        let fits = |(step, _): &&(f64, usize)| span / step <= 12.0;
        let (step, decimals) = STEPS.iter().find(fits).copied().unwrap_or((span / 10.0, 0));
        let mut ticks = Vec::new();
        let mut number = ((self.begin - zero) / step).ceil();
        // At most 13 of them, whatever the span is.
        while step > 0.0 && number * step <= self.end - zero + 1e-9 && ticks.len() < 13 {
            ticks.push(number * step);
            number += 1.0;
        }
        (ticks, decimals)
    }
}

/// Of each lane at most one request per pixel and side by side: the slowest, which is the one to see. `place` tells lane, pixel and
/// latency of one, `None` for one that is not on the picture.
pub(crate) fn slowest<'a, T>(
    samples: impl IntoIterator<Item = &'a T>,
    place: impl Fn(&T) -> Option<(usize, i64, Duration)>,
) -> BTreeMap<(usize, i64), &'a T> {
    let mut shown: BTreeMap<(usize, i64), (Duration, &T)> = BTreeMap::new();
    for sample in samples {
        let Some((lane, pixel, latency)) = place(sample) else {
            continue;
        };
        let best = shown.entry((lane, pixel)).or_insert((latency, sample));
        if latency > best.0 {
            *best = (latency, sample);
        }
    }
    shown.into_iter().map(|(at, (_, sample))| (at, sample)).collect()
}
