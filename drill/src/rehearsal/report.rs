//! Rounds as figures: a table for people, fields for scripts.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{Failure, Round};
use crate::workload;

/// A figure over several rounds, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of all rounds were at most that.
    pub p50_ms: f64,
    /// 99 of 100 were; with fewer than 100 rounds the worst.
    pub p99_ms: f64,
    /// The worst round.
    pub max_ms: f64,
}

impl Spread {
    /// By nearest rank. `values` must not be empty; of none, all figures are zero.
    fn of(mut values: Vec<Duration>) -> Self {
        values.sort_unstable();
        let at = |share: usize| {
            let rank = (values.len() * share).div_ceil(100).max(1);
            values
                .get(rank - 1)
                .map_or(0.0, |value| value.as_secs_f64() * 1e3)
        };
        Self {
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: at(100),
        }
    }
}

/// One kind of failure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was done.
    pub failure: Failure,
    /// Whether the node that was hurt led Raft.
    pub led_raft: bool,
    /// How often.
    pub rounds: usize,
    /// Longest time without a completed write on any lane.
    pub stall: Spread,
    /// The same on the lane that noticed most.
    pub lane_stall: Spread,
}

/// A whole rehearsal.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// A row for each kind of failure, and one more where the node that was hurt led Raft.
    pub rows: Vec<Row>,
    /// What the workload saw. Its faults are lost, old or torn blocks, and errors that an initiator must not see.
    pub workload: workload::Report,
}

impl Report {
    /// Sums the rounds up.
    pub fn new(rounds: &[Round], workload: workload::Report) -> Self {
        let mut kinds: Vec<(Failure, bool)> = Vec::new();
        for round in rounds {
            if !kinds.contains(&(round.failure, round.led)) {
                kinds.push((round.failure, round.led));
            }
        }
        let row = |(failure, led_raft): (Failure, bool)| {
            let these = || {
                rounds
                    .iter()
                    .filter(move |r| r.failure == failure && r.led == led_raft)
            };
            Row {
                failure,
                led_raft,
                rounds: these().count(),
                stall: Spread::of(these().map(|round| round.stall).collect()),
                lane_stall: Spread::of(these().map(|round| round.lane_stall).collect()),
            }
        };
        Self {
            rows: kinds.into_iter().map(row).collect(),
            workload,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<44} {:>6}   {:^26}   {:^26}",
            "", "", "stall of all writes, ms", "worst lane, ms"
        )?;
        writeln!(
            f,
            "{:<44} {:>6}   {:>8} {:>8} {:>8}   {:>8} {:>8} {:>8}",
            "failure", "rounds", "p50", "p99", "max", "p50", "p99", "max"
        )?;
        for row in &self.rows {
            let led = if row.led_raft { ", Raft leader" } else { "" };
            let (all, lane) = (&row.stall, &row.lane_stall);
            writeln!(
                f,
                "{:<44} {:>6}   {:>8.0} {:>8.0} {:>8.0}   {:>8.0} {:>8.0} {:>8.0}",
                format!("{}{led}", row.failure),
                row.rounds,
                all.p50_ms,
                all.p99_ms,
                all.max_ms,
                lane.p50_ms,
                lane.p99_ms,
                lane.max_ms
            )?;
        }
        write!(
            f,
            "{} writes acknowledged, {} without an answer, {} blocks read and judged, {} faults",
            self.workload.acknowledged,
            self.workload.unanswered,
            self.workload.reads,
            self.workload.fault_count
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(failure: Failure, led: bool, stall: u64) -> Round {
        Round {
            led,
            ..Round::example(failure, Duration::from_millis(stall), Duration::ZERO)
        }
    }

    fn workload() -> workload::Report {
        workload::Report {
            acknowledged: 7,
            unanswered: 0,
            reads: 3,
            longest_gap_seconds: vec![],
            fault_count: 0,
            faults: vec![],
        }
    }

    #[test]
    fn rounds_are_summed_up_by_failure_and_by_who_led() {
        let rounds: Vec<Round> = (1..=100)
            .map(|n| round(Failure::KillPrimary, false, n))
            .chain([round(Failure::KillPrimary, true, 900)])
            .collect();
        let report = Report::new(&rounds, workload());
        assert_eq!(report.rows.len(), 2);
        let first = &report.rows[0];
        assert_eq!((first.rounds, first.led_raft), (100, false));
        let figures = [first.stall.p50_ms, first.stall.p99_ms, first.stall.max_ms];
        assert_eq!(figures.map(f64::round), [50.0, 99.0, 100.0]);
        assert_eq!(report.rows[1].lane_stall.max_ms.round(), 901.0);
        let text = report.to_string();
        assert!(text.contains("kill -9 of the primary, Raft leader"), "{text}");
        assert_eq!(
            serde_json::to_value(&report).unwrap()["rows"][0]["failure"],
            "kill_primary"
        );
    }
}
