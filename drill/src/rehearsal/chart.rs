//! Latency over time around each failure, as a picture.

use std::fmt::Write;
use std::time::Duration;

use super::{Failure, Round};
use crate::report::plot::{Latencies, Times, slowest};
use crate::workload::Sample;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 150.0;
const TOP: f64 = 60.0;
/// Within a panel: room for its title, and below its axis.
const HEAD: f64 = 26.0;
const FOOT: f64 = 26.0;
/// Latencies shown, in milliseconds, on a logarithmic scale.
const FASTEST: f64 = 0.1;
const SLOWEST: f64 = 10_000.0;
/// Shown before and after the failure, in seconds.
const BEFORE: f64 = 0.3;
const AFTER: f64 = 3.0;

/// One panel per kind of failure, each showing the round with the longest stall: every write as a point, and the stall as a bar.
pub fn svg(rounds: &[Round]) -> String {
    let mut kinds: Vec<Failure> = rounds.iter().map(|round| round.failure).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let worst: Vec<&Round> = kinds
        .iter()
        .filter_map(|kind| {
            let these = rounds.iter().filter(|round| round.failure == *kind);
            these.max_by_key(|round| round.stall)
        })
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "a handful of panels")]
    let height = TOP + PANEL * worst.len() as f64 + 10.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\" \
         role=\"img\" aria-label=\"Latency of writes around each failure\">\n\
         <style>.name{{font-weight:bold;fill:#1c2b3a;font-size:13px}}.text{{fill:#35506b}}.axis{{stroke:#8a97a5;stroke-width:1}}\
         .grid{{stroke:#e1e6eb;stroke-width:1}}.p0{{fill:#1f7a4d}}.p1{{fill:#2b5fa8}}.stall{{fill:#fbe6d6}}\
         .at{{stroke:#b3541e;stroke-width:1.5;stroke-dasharray:4 3}}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text class=\"name\" x=\"20\" y=\"24\">Latency of every write around a failure: the worst round of each kind</text>\n\
         <text class=\"text\" x=\"20\" y=\"42\">green: through the first node's path, blue: through the second's; \
         shaded: nothing was completed; dashed: the failure</text>\n"
    );
    let mut top = TOP;
    for round in worst {
        panel(&mut out, round, top);
        top += PANEL;
    }
    out.push_str("</svg>\n");
    out
}

const TIMES: Times = Times {
    begin: -BEFORE,
    end: AFTER,
    left: LEFT,
    width: WIDTH - LEFT - RIGHT,
};

fn x(seconds: f64) -> f64 {
    TIMES.x(seconds)
}

fn y(top: f64, ms: f64) -> f64 {
    let scale = Latencies {
        fastest_ms: FASTEST,
        slowest_ms: SLOWEST,
        bottom: top + PANEL - FOOT,
        height: PANEL - HEAD - FOOT,
    };
    scale.y(ms)
}

/// Writing to a string cannot fail, so its results are dropped here.
fn panel(out: &mut String, round: &Round, top: f64) {
    let led = if round.led { ", Raft leader" } else { "" };
    let _ = writeln!(
        out,
        "<text class=\"name\" x=\"20\" y=\"{:.1}\">{}{led}: {:.0} ms</text>",
        top + 16.0,
        round.failure,
        round.stall.as_secs_f64() * 1e3
    );
    if let Some((from, to)) = pause(round) {
        let (from, to) = (x(from), x(to.min(AFTER)));
        let _ = writeln!(
            out,
            "<rect class=\"stall\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            top + HEAD,
            (to - from).max(0.0),
            PANEL - HEAD - FOOT
        );
    }
    for ms in [1.0, 10.0, 100.0, 1000.0] {
        let at = y(top, ms);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"text\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ms} ms</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    let base = top + PANEL - FOOT;
    let _ = writeln!(
        out,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{base:.1}\" x2=\"{:.1}\" y2=\"{base:.1}\"/>\
         <line class=\"at\" x1=\"{zero:.1}\" y1=\"{:.1}\" x2=\"{zero:.1}\" y2=\"{base:.1}\"/>",
        WIDTH - RIGHT,
        top + HEAD,
        zero = x(0.0)
    );
    for second in 0..=3_u8 {
        let _ = writeln!(
            out,
            "<text class=\"text\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>",
            x(f64::from(second)),
            base + 16.0
        );
    }
    points(out, round, top);
}

/// Where the longest pause of all lanes was, in seconds from the failure on.
fn pause(round: &Round) -> Option<(f64, f64)> {
    let pairs = round.samples.windows(2).filter_map(|pair| match pair {
        [a, b] if b.answered > round.at => Some((a.answered, b.answered)),
        _ => None,
    });
    let (from, to) = pairs.max_by_key(|(from, to)| to.saturating_sub(*from))?;
    Some((since(from, round.at), since(to, round.at)))
}

fn since(time: Duration, at: Duration) -> f64 {
    time.as_secs_f64() - at.as_secs_f64()
}

/// The slowest of each pixel.
fn points(out: &mut String, round: &Round, top: f64) {
    let latency = |sample: &Sample| sample.answered.saturating_sub(sample.issued);
    let shown = slowest(&round.samples, |sample| {
        let seconds = since(sample.answered, round.at);
        TIMES
            .shows(seconds)
            .then(|| (sample.lane, TIMES.pixel(seconds), latency(sample)))
    });
    for ((lane, pixel), sample) in shown {
        let ms = latency(sample).as_secs_f64() * 1e3;
        let _ = writeln!(
            out,
            "<circle class=\"p{}\" cx=\"{pixel}\" cy=\"{:.1}\" r=\"1.6\"/>",
            lane % 2,
            y(top, ms)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_the_worst_round_of_each_kind_and_its_pause() {
        let sample = |ms: u64| Sample {
            lane: 0,
            issued: Duration::from_millis(ms - 1),
            answered: Duration::from_millis(ms),
        };
        let round = |stall: u64| Round {
            samples: vec![sample(990), sample(1000 + stall), sample(1001 + stall)],
            ..Round::example(Failure::KillPrimary, Duration::from_millis(stall), Duration::ZERO)
        };
        let picture = svg(&[round(400), round(700)]);
        assert!(picture.contains("kill -9 of the primary: 700 ms"), "{picture}");
        assert!(!picture.contains("400 ms"));
        assert_eq!(picture.matches("class=\"stall\"").count(), 1);
        assert_eq!(
            picture.matches("<circle").count(),
            2,
            "two of three fall on one pixel"
        );
    }
}
