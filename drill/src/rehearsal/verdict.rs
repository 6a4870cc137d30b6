//! Rounds against a budget: held or not, and why.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{Failure, Round};
use crate::workload;

/// What a scenario may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Longest time in which no write is completed through either node.
    pub stall: Duration,
    /// Longest time until every replica is in sync again, from the moment on at which the failure is taken back.
    pub in_sync: Duration,
}

impl Budget {
    /// What users are promised: 3 s of standstill at most when a node is lost, 1 s when the move is planned or when nobody who serves is
    /// lost, and a minute for a small extent to be in sync again.
    pub const fn usual(failure: Failure) -> Self {
        let stall = match failure {
            Failure::Switchover | Failure::KillWitness => Duration::from_secs(1),
            Failure::KillPrimary | Failure::FreezePrimary | Failure::KillReplica => Duration::from_secs(3),
        };
        Self {
            stall,
            in_sync: Duration::from_secs(60),
        }
    }
}

/// One scenario of a drill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scenario {
    /// What was done.
    pub scenario: Failure,
    /// Whether the node that was hurt led Raft.
    pub led_raft: bool,
    /// Longest time without a completed write through either node.
    pub stall_ms: f64,
    /// What that may be.
    pub stall_budget_ms: f64,
    /// The same for the initiators that noticed most; their own path timers included, so that no budget is set on it.
    pub lane_stall_ms: f64,
    /// Until every replica was in sync again.
    pub in_sync_ms: f64,
    /// What that may be.
    pub in_sync_budget_ms: f64,
    /// Whether it held its budget.
    pub held: bool,
}

/// What came of a drill.
#[derive(Debug, Clone, Serialize)]
pub struct DrillReport {
    /// Whether every scenario held its budget and every block was right.
    pub held: bool,
    /// Why not, a line each.
    pub reasons: Vec<String>,
    /// In the order in which they were played.
    pub scenarios: Vec<Scenario>,
    /// What the workload saw.
    pub workload: workload::Report,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl DrillReport {
    /// Holds rounds against what each may cost.
    pub fn new(rounds: &[Round], workload: workload::Report, budget: impl Fn(Failure) -> Budget) -> Self {
        let mut reasons = Vec::new();
        let mut scenarios = Vec::new();
        for round in rounds {
            let allowed = budget(round.failure);
            let figures = [
                ("nothing was written", round.stall, allowed.stall),
                ("replicas were not in sync", round.recovery, allowed.in_sync),
            ];
            let broken = figures.iter().filter(|(_, was, allowed)| was > allowed);
            let before = reasons.len();
            reasons.extend(broken.map(|(what, was, allowed)| {
                let failure = round.failure;
                format!(
                    "{failure}: {what} for {:.0} ms, at most {:.0} were allowed",
                    ms(*was),
                    ms(*allowed)
                )
            }));
            scenarios.push(Scenario {
                scenario: round.failure,
                led_raft: round.led,
                stall_ms: ms(round.stall),
                stall_budget_ms: ms(allowed.stall),
                lane_stall_ms: ms(round.lane_stall),
                in_sync_ms: ms(round.recovery),
                in_sync_budget_ms: ms(allowed.in_sync),
                held: reasons.len() == before,
            });
        }
        if workload.fault_count > 0 {
            let first = workload.faults.first().map_or("", String::as_str);
            reasons.push(format!(
                "{} faults under load, the first: {first}",
                workload.fault_count
            ));
        }
        Self {
            held: reasons.is_empty(),
            reasons,
            scenarios,
            workload,
        }
    }
}

impl fmt::Display for DrillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<40} {:>10} {:>9} {:>12} {:>12}  verdict",
            "scenario", "stall, ms", "allowed", "worst lane", "in sync, ms"
        )?;
        for one in &self.scenarios {
            let led = if one.led_raft { ", Raft leader" } else { "" };
            writeln!(
                f,
                "{:<40} {:>10.0} {:>9.0} {:>12.0} {:>12.0}  {}",
                format!("{}{led}", one.scenario),
                one.stall_ms,
                one.stall_budget_ms,
                one.lane_stall_ms,
                one.in_sync_ms,
                if one.held { "held" } else { "BROKEN" }
            )?;
        }
        let load = &self.workload;
        writeln!(
            f,
            "{} writes acknowledged, {} blocks read and judged, {} faults",
            load.acknowledged, load.reads, load.fault_count
        )?;
        for reason in &self.reasons {
            writeln!(f, "{reason}")?;
        }
        f.write_str(if self.held {
            "The drill held its budget."
        } else {
            "The drill broke its budget."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(failure: Failure, stall: u64, recovery: u64) -> Round {
        Round {
            failure,
            led: false,
            stall: Duration::from_millis(stall),
            lane_stall: Duration::from_millis(stall + 1),
            recovery: Duration::from_millis(recovery),
            at: Duration::ZERO,
            samples: Vec::new(),
        }
    }

    fn workload(faults: &[&str]) -> workload::Report {
        workload::Report {
            acknowledged: 7,
            unanswered: 0,
            reads: 3,
            longest_gap_seconds: vec![],
            fault_count: faults.len() as u64,
            faults: faults.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn a_drill_holds_only_if_every_budget_and_every_block_does() {
        let good = [
            round(Failure::KillPrimary, 700, 1500),
            round(Failure::Switchover, 80, 10),
        ];
        let report = DrillReport::new(&good, workload(&[]), Budget::usual);
        assert!(
            report.held && report.scenarios.iter().all(|one| one.held),
            "{report}"
        );
        let slow = [
            round(Failure::KillPrimary, 700, 1500),
            round(Failure::Switchover, 1080, 61_000),
        ];
        let report = DrillReport::new(&slow, workload(&[]), Budget::usual);
        assert!(!report.held && report.scenarios[0].held && !report.scenarios[1].held);
        assert_eq!(report.reasons.len(), 2);
        assert!(
            report.to_string().contains("nothing was written for 1080 ms"),
            "{report}"
        );
        let report = DrillReport::new(&good, workload(&["unit 3 went back"]), Budget::usual);
        assert!(!report.held && report.to_string().contains("unit 3 went back"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["scenarios"][0]["scenario"], "kill_primary");
        assert_eq!(json["held"], false);
    }
}
