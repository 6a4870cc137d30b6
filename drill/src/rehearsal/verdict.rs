//! Rounds against a budget: held or not, and why.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::timeline::timeline;
use super::{Errors, Failure, Round};
use crate::report::{Page, Row, Table, Timeline};
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
    /// What users are promised, on a machine with a processor to spare (`docs/failover.md` has it as a table). `led`: the node that is hurt
    /// leads Raft, so that an election comes first.
    pub const fn usual(failure: Failure, led: bool) -> Self {
        let millis = match (failure, led) {
            (Failure::Switchover, _) | (Failure::KillWitness, false) => 100,
            (Failure::KillReplica, false) | (Failure::SlowReplication | Failure::SlowPrimary, _) => 500,
            (Failure::KillReplica | Failure::KillWitness, true) => 800,
            (Failure::KillPrimary, _) => 1000,
            // Nothing says that it is lost but that nothing is heard of it.
            (Failure::FreezePrimary | Failure::SeverPrimary | Failure::CutReplication, _) => 1500,
            // `stuck-after`, and then a failover.
            (Failure::HangPrimary | Failure::HangReplica, _) => 6000,
        };
        Self {
            stall: Duration::from_millis(millis),
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
    /// Longest time without a completed write through either node while it healed. No budget is set on it.
    pub healing_stall_ms: f64,
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
    /// What commands met besides GOOD while scenarios were played, by kind.
    pub errors: Errors,
    /// The worst round of each scenario over time.
    pub timelines: Vec<Timeline>,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl DrillReport {
    /// Holds rounds against what each may cost, given whether the node that was hurt led Raft. `lanes` are the names of the workload's
    /// disks.
    pub fn new(
        rounds: &[Round],
        workload: workload::Report,
        lanes: &[String],
        budget: impl Fn(Failure, bool) -> Budget,
    ) -> Self {
        let mut reasons = Vec::new();
        let mut scenarios = Vec::new();
        for round in rounds {
            let allowed = budget(round.failure, round.led);
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
                healing_stall_ms: ms(round.healing_stall),
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
        let mut errors = Errors::new();
        for (kind, count) in rounds.iter().flat_map(|round| &round.errors) {
            *errors.entry(kind.clone()).or_default() += count;
        }
        Self {
            held: reasons.is_empty(),
            reasons,
            scenarios,
            workload,
            errors,
            timelines: worst(rounds)
                .into_iter()
                .map(|round| timeline(round, lanes))
                .collect(),
        }
    }

    /// The same to look at. `foot` says with what and when it was made.
    pub fn page(&self, foot: String) -> Page {
        let word = if self.held { "Held" } else { "Broken" };
        let verdict = std::iter::once(word.to_owned()).chain(self.reasons.iter().cloned());
        let load = &self.workload;
        let facts = format!(
            "{} writes acknowledged, {} without an answer, {} blocks read and judged, {} faults",
            load.acknowledged, load.unanswered, load.reads, load.fault_count
        );
        Page {
            title: "Failover drill".to_owned(),
            held: self.held,
            verdict: verdict
                .chain([facts])
                .chain(load.faults.iter().cloned())
                .collect(),
            tables: vec![self.figures(), told(&self.errors)],
            timelines: self.timelines.clone(),
            foot,
        }
    }

    fn figures(&self) -> Table {
        let heading = [
            "scenario",
            "stall of all writes, ms",
            "allowed",
            "worst lane, ms",
            "stall while it healed, ms",
            "in sync again after, ms",
            "allowed",
            "verdict",
        ];
        let rows = self.scenarios.iter().map(|one| {
            let led = if one.led_raft { ", Raft leader" } else { "" };
            let figures = [
                one.stall_ms,
                one.stall_budget_ms,
                one.lane_stall_ms,
                one.healing_stall_ms,
                one.in_sync_ms,
                one.in_sync_budget_ms,
            ];
            let word = if one.held { "held" } else { "broken" };
            Row {
                cells: std::iter::once(format!("{}{led}", one.scenario))
                    .chain(figures.map(|figure| format!("{figure:.0}")))
                    .chain([word.to_owned()])
                    .collect(),
                good: one.held,
            }
        });
        Table {
            title: "Figures and budgets".to_owned(),
            heading: heading.map(str::to_owned).into(),
            rows: rows.collect(),
        }
    }
}

/// Of each scenario the round with the longest stall, in the order in which they were played.
fn worst(rounds: &[Round]) -> Vec<&Round> {
    let mut worst: Vec<&Round> = Vec::new();
    for round in rounds {
        match worst.iter_mut().find(|other| other.failure == round.failure) {
            Some(other) if other.stall < round.stall => *other = round,
            Some(_) => {}
            None => worst.push(round),
        }
    }
    worst
}

/// What commands met, as a table.
pub(crate) fn told(errors: &Errors) -> Table {
    let row = |(kind, count): (&String, &u64)| Row {
        cells: vec![kind.clone(), count.to_string()],
        good: true,
    };
    Table {
        title: "What initiators met besides GOOD".to_owned(),
        heading: vec!["answer".to_owned(), "times".to_owned()],
        rows: errors.iter().map(row).collect(),
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
        Round::example(
            failure,
            Duration::from_millis(stall),
            Duration::from_millis(recovery),
        )
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
    fn an_election_is_allowed_for_where_one_comes_first() {
        for failure in [Failure::KillReplica, Failure::KillWitness] {
            let mut rounds = [round(failure, 750, 10)];
            let held = |rounds: &[Round]| DrillReport::new(rounds, workload(&[]), &[], Budget::usual).held;
            assert!(!held(&rounds), "{failure}");
            rounds[0].led = true;
            assert!(held(&rounds), "{failure}, Raft leader");
        }
    }

    #[test]
    fn a_drill_holds_only_if_every_budget_and_every_block_does() {
        let good = [
            round(Failure::KillPrimary, 700, 1500),
            round(Failure::Switchover, 80, 10),
        ];
        let report = DrillReport::new(&good, workload(&[]), &[], Budget::usual);
        assert!(
            report.held && report.scenarios.iter().all(|one| one.held),
            "{report}"
        );
        let slow = [
            round(Failure::KillPrimary, 700, 1500),
            round(Failure::Switchover, 1080, 61_000),
        ];
        let report = DrillReport::new(&slow, workload(&[]), &[], Budget::usual);
        assert!(!report.held && report.scenarios[0].held && !report.scenarios[1].held);
        assert_eq!(report.reasons.len(), 2);
        assert!(
            report.to_string().contains("nothing was written for 1080 ms"),
            "{report}"
        );
        let page = report.page("foot".to_owned());
        assert_eq!(
            (page.held, page.verdict[0].as_str(), &page.verdict[1]),
            (false, "Broken", &report.reasons[0])
        );
        let rows = &page.tables[0].rows;
        assert!(rows[0].good && !rows[1].good, "{rows:?}");
        assert_eq!(rows[1].cells.len(), page.tables[0].heading.len());
        assert_eq!(page.timelines.len(), 2);
        let report = DrillReport::new(&good, workload(&["unit 3 went back"]), &[], Budget::usual);
        assert!(
            report
                .page(String::new())
                .verdict
                .iter()
                .any(|line| line == "unit 3 went back")
        );
        assert!(!report.held && report.to_string().contains("unit 3 went back"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["scenarios"][0]["scenario"], "kill_primary");
        assert_eq!(json["held"], false);
    }
}
