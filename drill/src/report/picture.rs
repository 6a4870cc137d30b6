//! A timeline as a picture: what was done on top, what the cluster was like as bands, the latency of every request below.

use std::fmt::Write;
use std::time::Duration;

use super::plot::{Latencies, Times, slowest};
use super::style::{self, LANE_COLOURS};
use super::{Band, State, Timeline, escape};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 128.0;
const RIGHT: f64 = 14.0;
/// Of one row of marks or bands, and of what is drawn in it.
const ROW: f64 = 20.0;
const BAR: f64 = 16.0;
/// Where its text stands, from the row's top.
const BASE: f64 = 12.0;
const SCATTER: f64 = 200.0;
/// Below the scatter: its axis, then lines of the legend.
const FOOT: f64 = 24.0;
const LEGEND: f64 = 18.0;
/// Room above a picture that stands alone, for its title.
const TITLE: f64 = 26.0;
/// The scale of latencies begins here, and reaches to the slowest request but not less far than this; in milliseconds.
const FASTEST_MS: f64 = 0.1;
const SLOWEST_MS: f64 = 1_000.0;
/// More marks than that are not drawn through the whole picture, nor named in it: one sees nothing else then.
const LINES_MAX: usize = 40;

/// Pixels that a text takes, nearly.
fn text_width(text: &str) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a position on a picture")]
    let signs = text.chars().count() as f64;
    signs * 6.1 + 6.0
}

/// A row's name as far as there is room for it.
fn label(row: &str) -> String {
    const SIGNS: usize = 19;
    if row.chars().count() <= SIGNS {
        return row.to_owned();
    }
    row.chars().take(SIGNS - 1).chain(['…']).collect()
}

/// How much room a number of rows takes.
fn rows_height(rows: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a position on a picture")]
    let rows = rows as f64;
    rows * ROW
}

/// As part of a page that has the style.
pub(super) fn inline(timeline: &Timeline) -> String {
    let (drawn, height) = draw(timeline);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"timeline\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{}\">\n{drawn}</svg>\n",
        escape(&timeline.title)
    )
}

/// All of them in a file of its own, one below the other.
pub(super) fn alone(timelines: &[Timeline]) -> String {
    let mut top = 0.0;
    let mut body = String::new();
    for timeline in timelines {
        let (drawn, height) = draw(timeline);
        let _ = writeln!(
            body,
            "<text class=\"name ink\" x=\"10\" y=\"{}\">{}</text>\n<g transform=\"translate(0 {})\">\n{drawn}</g>",
            top + 18.0,
            escape(&timeline.title),
            top + TITLE
        );
        top += TITLE + height + 8.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"timeline\" viewBox=\"0 0 {WIDTH} {top}\" role=\"img\" \
         aria-label=\"Timelines\">\n<style>{}</style>\n<rect class=\"paper\" width=\"{WIDTH}\" height=\"{top}\"/>\n{body}</svg>\n",
        style::picture()
    )
}

/// A picture on its way. Writing to a string cannot fail, so its results are dropped here.
struct Canvas<'a> {
    timeline: &'a Timeline,
    times: Times,
    out: String,
    /// Where the next part begins.
    y: f64,
}

/// The picture without its frame, and how high it is.
fn draw(timeline: &Timeline) -> (String, f64) {
    let times = Times {
        begin: timeline.begin.as_secs_f64(),
        end: timeline.end.as_secs_f64(),
        left: LEFT,
        width: WIDTH - LEFT - RIGHT,
    };
    let mut canvas = Canvas {
        timeline,
        times,
        out: String::new(),
        y: 4.0,
    };
    canvas.marks();
    let top = canvas.y;
    canvas.bands();
    canvas.scatter(top);
    canvas.legend();
    (canvas.out, canvas.y)
}

/// The slowest latency that the scale has to reach: a power of ten, in milliseconds.
fn scale_top(timeline: &Timeline) -> f64 {
    let latencies = timeline
        .samples
        .iter()
        .map(|s| s.answered.saturating_sub(s.issued));
    let slowest = latencies.max().unwrap_or_default().as_secs_f64() * 1e3;
    let mut top = SLOWEST_MS;
    // Not at the very edge.
    while top < slowest * 1.2 && top < 1e7 {
        top *= 10.0;
    }
    top
}

const fn class_of(state: State) -> &'static str {
    const MEMBERS: [&str; LANE_COLOURS] = ["of0", "of1", "of2", "of3", "of4", "of5", "of6", "of7"];
    match state {
        State::Serving => "serving",
        State::Helping => "helping",
        State::Waiting => "waiting",
        State::Changing => "changing",
        State::Down => "down",
        State::Of(number) => MEMBERS[number % LANE_COLOURS],
    }
}

impl Canvas<'_> {
    /// Where a time is, kept within the picture.
    fn x(&self, time: Duration) -> f64 {
        self.times
            .x(time.as_secs_f64())
            .clamp(LEFT, LEFT + self.times.width)
    }

    /// Seconds as the axis counts them.
    fn seconds(&self, time: Duration) -> f64 {
        time.as_secs_f64() - self.timeline.zero.as_secs_f64()
    }

    /// What was done: a bar for as long as it lasted, in as few rows as hold all texts side by side.
    fn marks(&mut self) {
        let timeline = self.timeline;
        let named = timeline.marks.len() <= LINES_MAX;
        let mut taken: Vec<f64> = Vec::new();
        let mut marks: Vec<_> = timeline.marks.iter().collect();
        marks.sort_by_key(|mark| mark.at);
        for mark in marks {
            let from = self.x(mark.at);
            let to = mark.until.map_or(from, |until| self.x(until)).max(from + 3.0);
            let room = if named { text_width(&mark.text) } else { 0.0 };
            // Before the bar, where there is no room behind its start.
            let fits = from + 4.0 + room <= WIDTH - RIGHT + 6.0;
            let text_at = if fits {
                from + 4.0
            } else {
                (from - room + 2.0).max(LEFT)
            };
            let start = from.min(text_at);
            let row = taken.iter().position(|end| *end <= start).unwrap_or(taken.len());
            let end = to.max(text_at + room);
            match taken.get_mut(row) {
                Some(place) => *place = end,
                None => taken.push(end),
            }
            let top = self.y + rows_height(row);
            let until = mark
                .until
                .map_or_else(String::new, |until| format!(" to {:.3} s", self.seconds(until)));
            let _ = write!(
                self.out,
                "<g><title>{}, {:.3} s{until}</title>\
                 <rect class=\"mark\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>",
                escape(&mark.text),
                self.seconds(mark.at),
                to - from,
            );
            if named {
                let (base, text) = (top + BASE, escape(&mark.text));
                let _ = write!(
                    self.out,
                    "<text class=\"ink\" x=\"{text_at:.1}\" y=\"{base:.1}\">{text}</text>"
                );
            }
            self.out.push_str("</g>\n");
        }
        self.y += rows_height(taken.len()) + 2.0;
    }

    fn bands(&mut self) {
        let timeline = self.timeline;
        let mut rows: Vec<&str> = Vec::new();
        for band in &timeline.bands {
            if !rows.contains(&band.row.as_str()) {
                rows.push(&band.row);
            }
        }
        for row in rows {
            let _ = writeln!(
                self.out,
                "<text class=\"ink\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                self.y + BASE,
                escape(&label(row))
            );
            for band in timeline.bands.iter().filter(|band| band.row == row) {
                self.band(band);
            }
            self.y += ROW;
        }
    }

    fn band(&mut self, band: &Band) {
        let (from, to) = (self.x(band.from), self.x(band.to));
        let text = escape(&band.text);
        let _ = write!(
            self.out,
            "<g><title>{}: {text}, {:.3} s to {:.3} s</title>\
             <rect class=\"{}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>",
            escape(&band.row),
            self.seconds(band.from),
            self.seconds(band.to),
            class_of(band.state),
            self.y,
            (to - from).max(1.0),
        );
        if text_width(&band.text) <= to - from {
            let (at, base) = (from + 4.0, self.y + BASE);
            let _ = write!(
                self.out,
                "<text class=\"ink\" x=\"{at:.1}\" y=\"{base:.1}\">{text}</text>"
            );
        }
        self.out.push_str("</g>\n");
    }

    /// The requests, over the stalls and under the lines of the marks, which begin at `top`.
    fn scatter(&mut self, top: f64) {
        let upper = self.y + 6.0;
        let scale = Latencies {
            fastest_ms: FASTEST_MS,
            slowest_ms: scale_top(self.timeline),
            bottom: upper + SCATTER,
            height: SCATTER,
        };
        self.stalls(upper);
        self.axes(&scale);
        self.points(&scale);
        if self.timeline.marks.len() <= LINES_MAX {
            let times = self
                .timeline
                .marks
                .iter()
                .flat_map(|mark| [Some(mark.at), mark.until])
                .flatten();
            for time in times {
                let (x, bottom) = (self.x(time), scale.bottom);
                let _ = writeln!(
                    self.out,
                    "<line class=\"when\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>"
                );
            }
        }
        self.y = scale.bottom + FOOT;
    }

    fn stalls(&mut self, upper: f64) {
        let mut stalls = self.timeline.stalls();
        // The longest ones have their figures before others take the room.
        stalls.sort_by_key(|(from, to)| std::cmp::Reverse(to.saturating_sub(*from)));
        let mut taken: Vec<(f64, f64)> = Vec::new();
        // Over all areas, the next one's too.
        let mut told = String::new();
        for (from, to) in stalls {
            let ms = to.saturating_sub(from).as_secs_f64() * 1e3;
            let (x, end) = (self.x(from), self.x(to));
            let _ = write!(
                self.out,
                "<g><title>nothing was answered for {ms:.0} ms, from {:.3} s</title>\
                 <rect class=\"stall\" x=\"{x:.1}\" y=\"{upper:.1}\" width=\"{:.1}\" height=\"{SCATTER}\"/>",
                self.seconds(from),
                (end - x).max(1.0)
            );
            let text = format!("{ms:.0} ms");
            let room = text_width(&text);
            let at = (x + 4.0).min(WIDTH - RIGHT - room);
            if taken
                .iter()
                .all(|(left, right)| at + room <= *left || at >= *right)
            {
                let base = upper + BASE;
                let _ = writeln!(
                    told,
                    "<text class=\"ink\" x=\"{at:.1}\" y=\"{base:.1}\">{text}</text>"
                );
                taken.push((at, at + room));
            }
            self.out.push_str("</g>\n");
        }
        self.out.push_str(&told);
    }

    fn axes(&mut self, scale: &Latencies) {
        let (left, right, bottom) = (LEFT, WIDTH - RIGHT, scale.bottom);
        let mut ms = scale.fastest_ms;
        while ms <= scale.slowest_ms * 1.01 {
            let name = if ms < 999.0 {
                format!("{ms} ms")
            } else {
                format!("{} s", (ms / 1e3).round())
            };
            let y = scale.y(ms);
            let _ = writeln!(
                self.out,
                "<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text class=\"soft\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
                left - 8.0,
                y + 4.0
            );
            // Exact powers of ten, however often it is multiplied.
            ms = 10_f64.powf(ms.log10().round() + 1.0);
        }
        let _ = writeln!(
            self.out,
            "<line class=\"axis\" x1=\"{left}\" y1=\"{bottom:.1}\" x2=\"{right}\" y2=\"{bottom:.1}\"/>"
        );
        let zero = self.timeline.zero.as_secs_f64();
        let (ticks, decimals) = self.times.ticks(zero);
        for tick in ticks {
            let x = self.times.x(tick + zero);
            // Not "-0".
            let tick = if tick.abs() < 1e-9 { 0.0 } else { tick };
            let _ = writeln!(
                self.out,
                "<line class=\"axis\" x1=\"{x:.1}\" y1=\"{bottom:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick:.decimals$} s</text>",
                bottom + 4.0,
                bottom + 16.0
            );
        }
    }

    /// A path of dots for each lane: thousands of them cost little so. What came to nothing is a cross.
    fn points(&mut self, scale: &Latencies) {
        let (timeline, times) = (self.timeline, self.times);
        for good in [true, false] {
            let samples = timeline.samples.iter().filter(|sample| sample.good == good);
            let shown = slowest(samples, |sample| {
                let seconds = sample.answered.as_secs_f64();
                let latency = sample.answered.saturating_sub(sample.issued);
                times
                    .shows(seconds)
                    .then(|| (sample.lane, times.pixel(seconds), latency))
            });
            let mut paths: std::collections::BTreeMap<usize, String> = std::collections::BTreeMap::new();
            for ((lane, x), sample) in shown {
                let y = scale.y(sample.answered.saturating_sub(sample.issued).as_secs_f64() * 1e3);
                let path = paths.entry(lane).or_default();
                let _ = if good {
                    write!(path, "M{x} {y:.1}h0")
                } else {
                    write!(path, "M{} {:.1}l6 6m-6 0l6 -6", x - 3, y - 3.0)
                };
            }
            for (lane, path) in paths {
                let lane = lane % LANE_COLOURS;
                let class = if good {
                    format!("lane lane{lane}")
                } else {
                    "wrong".to_owned()
                };
                let _ = writeln!(self.out, "<path class=\"{class}\" d=\"{path}\"/>");
            }
        }
    }

    /// What the colours of the lanes mean.
    fn legend(&mut self) {
        let lanes = self
            .timeline
            .lanes
            .iter()
            .enumerate()
            .map(|(number, name)| (Some(number), name.as_str()));
        let wrong = self.timeline.samples.iter().any(|sample| !sample.good);
        let wrong = wrong.then_some((None, "failed"));
        let mut x = LEFT;
        for (lane, name) in lanes.chain(wrong) {
            let width = text_width(name) + 18.0;
            if x + width > WIDTH - RIGHT && x > LEFT {
                (x, self.y) = (LEFT, self.y + LEGEND);
            }
            let _ = match lane {
                Some(number) => write!(
                    self.out,
                    "<path class=\"lane lane{}\" d=\"M{:.1} {:.1}h0\"/>",
                    number % LANE_COLOURS,
                    x + 4.0,
                    self.y + 6.0
                ),
                None => write!(
                    self.out,
                    "<path class=\"wrong\" d=\"M{:.1} {:.1}l6 6m-6 0l6 -6\"/>",
                    x + 1.0,
                    self.y + 3.0
                ),
            };
            let _ = writeln!(
                self.out,
                "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 12.0,
                self.y + 10.0,
                escape(name)
            );
            x += width;
        }
        self.y += LEGEND;
    }
}
