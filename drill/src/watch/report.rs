//! What came of a watch: text, fields and a page.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::rehearsal::Errors;
use crate::report::{Page, Row, Table, Timeline};
use crate::workload;

/// A pause.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stall {
    /// How long, in milliseconds.
    pub ms: f64,
    /// When it began, by the clock on the wall.
    pub from: String,
}

/// Times from sending a request to its answer, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half of all requests were at least as fast.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// What one path, or all of them together, did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LaneReport {
    /// Its name.
    pub name: String,
    /// Requests that were done.
    pub answered: u64,
    /// Requests and logins that came to nothing.
    pub failed: u64,
    /// Longest time between two requests that were done, or from the last one to the end; `None` where none ever was.
    pub longest_stall: Option<Stall>,
    /// `None` where nothing was ever done.
    pub latency: Option<Latency>,
    /// What requests and logins met, by kind, unit attentions included.
    pub errors: Errors,
}

/// What came of a watch.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether some path answered, every block was right and the budget was held.
    pub held: bool,
    /// Why not, a line each.
    pub reasons: Vec<String>,
    /// When it began.
    pub began: String,
    /// How long it took.
    pub seconds: f64,
    /// The target as such: any path's answer counts. With a workload, any write's.
    pub target: LaneReport,
    /// Every path by itself.
    pub paths: Vec<LaneReport>,
    /// The unit over all paths.
    pub together: Vec<LaneReport>,
    /// What the multipath layer met, and hid where it could.
    pub hidden: Errors,
    /// What the writers saw, where there were any.
    pub workload: Option<workload::Report>,
    /// All of it over time.
    pub timelines: Vec<Timeline>,
}

impl Report {
    /// Judges it. `wrong` is what a last look at all blocks found.
    #[must_use]
    pub fn judged(
        mut self,
        budget: Option<Duration>,
        load: Option<workload::Report>,
        wrong: Option<String>,
    ) -> Self {
        let stall = self.target.longest_stall.as_ref();
        match (stall, budget) {
            (None, _) if self.paths.iter().all(|path| path.answered == 0) => {
                self.reasons.push("no path ever answered".to_owned());
            }
            (Some(stall), Some(budget)) if stall.ms > budget.as_secs_f64() * 1e3 => {
                self.reasons.push(format!(
                    "nothing was answered for {:.0} ms from {} on, at most {} were allowed",
                    stall.ms,
                    stall.from,
                    budget.as_millis()
                ));
            }
            _ => {}
        }
        if let Some(load) = load.as_ref().filter(|load| load.fault_count > 0) {
            let first = load.faults.first().map_or("", String::as_str);
            self.reasons
                .push(format!("{} faults, the first: {first}", load.fault_count));
        }
        self.reasons.extend(wrong);
        self.held = self.reasons.is_empty();
        self.workload = load;
        self
    }

    /// The same to look at. `foot` says with what and when it was made.
    pub fn page(&self, foot: String) -> Page {
        let mut verdict = vec![self.word()];
        verdict.extend(self.reasons.iter().cloned());
        verdict.push(format!(
            "Watched for {:.1} s, from {} on.",
            self.seconds, self.began
        ));
        verdict.extend(self.workload.iter().map(wrote));
        Page {
            title: "Paths of a target".to_owned(),
            held: self.held,
            verdict,
            tables: vec![self.figures(), self.errors()],
            timelines: self.timelines.clone(),
            foot,
        }
    }

    fn word(&self) -> String {
        match &self.target.longest_stall {
            Some(stall) => format!("Longest stall: {:.0} ms", stall.ms),
            None => "Nothing was answered".to_owned(),
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &LaneReport> {
        self.paths
            .iter()
            .chain(&self.together)
            .chain(std::iter::once(&self.target))
    }

    fn figures(&self) -> Table {
        let rows = self.lanes().map(|lane| Row {
            cells: cells(lane).into(),
            good: lane.answered > 0,
        });
        Table {
            title: "Figures".to_owned(),
            heading: HEADING.map(str::to_owned).into(),
            rows: rows.collect(),
        }
    }

    fn errors(&self) -> Table {
        let of_lane = |name: &str, errors: &Errors| -> Vec<Row> {
            let row = |(kind, count): (&String, &u64)| Row {
                cells: vec![name.to_owned(), kind.clone(), count.to_string()],
                good: true,
            };
            errors.iter().map(row).collect()
        };
        let mut rows: Vec<Row> = self
            .lanes()
            .flat_map(|lane| of_lane(&lane.name, &lane.errors))
            .collect();
        rows.extend(of_lane("hidden by multipath", &self.hidden));
        Table {
            title: "What requests met besides GOOD".to_owned(),
            heading: ["path", "answer", "times"].map(str::to_owned).into(),
            rows,
        }
    }
}

const HEADING: [&str; 8] = [
    "path",
    "answered",
    "failed",
    "longest stall, ms",
    "it began",
    "p50, ms",
    "p99, ms",
    "max, ms",
];

fn cells(lane: &LaneReport) -> [String; 8] {
    let none = || "-".to_owned();
    let stall = lane.longest_stall.as_ref();
    let figure = |of: fn(&Latency) -> f64| {
        lane.latency
            .as_ref()
            .map_or_else(none, |l| format!("{:.2}", of(l)))
    };
    [
        lane.name.clone(),
        lane.answered.to_string(),
        lane.failed.to_string(),
        stall.map_or_else(none, |stall| format!("{:.0}", stall.ms)),
        stall.map_or_else(none, |stall| stall.from.clone()),
        figure(|latency| latency.p50_ms),
        figure(|latency| latency.p99_ms),
        figure(|latency| latency.max_ms),
    ]
}

fn wrote(load: &workload::Report) -> String {
    format!(
        "{} writes acknowledged, {} without an answer, {} blocks read and judged, {} faults",
        load.acknowledged, load.unanswered, load.reads, load.fault_count
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, cells: [&str; 8]| {
            let [name, answered, failed, stall, from, p50, p99, max] = cells;
            writeln!(
                f,
                "{name:<36} {answered:>9} {failed:>7} {stall:>18} {from:>28} {p50:>9} {p99:>9} {max:>9}"
            )
        };
        line(f, HEADING)?;
        for lane in self.lanes() {
            let cells = cells(lane);
            line(f, cells.each_ref().map(String::as_str))?;
        }
        for row in self.errors().rows {
            let [path, answer, count] = row.cells.as_slice() else {
                continue;
            };
            writeln!(f, "{path}: {answer}, {count} times")?;
        }
        if let Some(load) = &self.workload {
            writeln!(f, "{}", wrote(load))?;
        }
        for reason in &self.reasons {
            writeln!(f, "{reason}")?;
        }
        write!(f, "{}", self.word())
    }
}
