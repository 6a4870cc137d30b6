//! What came of a run of chaos.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Fault;
use crate::checker::Summary;
use crate::workload::mixed;

/// A strike that was carried out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// When it began, by the workload's clock.
    pub at_ms: f64,
    /// When it ended; the same for what has no end.
    pub until_ms: f64,
    /// What was done.
    pub fault: Fault,
    /// The same in words.
    pub text: String,
}

impl Event {
    pub(super) fn new(fault: Fault, at: Duration) -> Self {
        Self {
            at_ms: Self::ms(at),
            until_ms: Self::ms(at),
            fault,
            text: fault.to_string(),
        }
    }

    pub(super) fn ms(time: Duration) -> f64 {
        (time.as_secs_f64() * 1e6).round() / 1e3
    }
}

/// A storm, and what came after it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StormReport {
    /// When it began, by the workload's clock.
    pub begin_ms: f64,
    /// When everybody was served again, or that was given up.
    pub end_ms: f64,
    /// Its strikes.
    pub events: Vec<Event>,
    /// Longest time in which no initiator had an answer. Nothing is promised while a storm lasts.
    pub stall_ms: f64,
    /// From its end until every replica was in sync.
    pub whole_ms: f64,
    /// From its end until every initiator was served again.
    pub served_ms: f64,
    /// Why it was not healed.
    pub trouble: Option<String>,
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether nothing was found.
    pub held: bool,
    /// What was found, a line each.
    pub reasons: Vec<String>,
    /// What decided it all.
    pub seed: u64,
    /// How long it took.
    pub seconds: f64,
    /// How often what was done.
    pub strikes: BTreeMap<&'static str, u64>,
    /// Calls of initiators that were answered.
    pub acknowledged: u64,
    /// What the checker looked at, for each workload in whose history it found nothing.
    pub checked: BTreeMap<&'static str, Summary>,
    /// Longest time in which no initiator had an answer.
    pub stall_ms: f64,
    /// Longest time from a storm's end until every replica was in sync.
    pub whole_ms: f64,
    /// The storms.
    pub storms: Vec<StormReport>,
}

impl Report {
    /// Sums a run up. `loads` are what came of the workloads, by name; `troubles` are what was found beside the storms, for example a
    /// last look that failed.
    pub fn new(
        seed: u64,
        lasted: Duration,
        storms: Vec<StormReport>,
        loads: Vec<(&'static str, mixed::Report)>,
        troubles: Vec<String>,
    ) -> Self {
        let mut reasons: Vec<String> = storms.iter().filter_map(|storm| storm.trouble.clone()).collect();
        reasons.extend(troubles);
        let (mut checked, mut acknowledged) = (BTreeMap::new(), 0);
        for (name, load) in loads {
            acknowledged += load.acknowledged;
            reasons.extend(load.faults.into_iter().map(|fault| format!("{name}: {fault}")));
            match load.verdict {
                Ok(summary) => {
                    if summary.undecided > 0 {
                        reasons.push(format!(
                            "{name}: {} blocks could not be judged",
                            summary.undecided
                        ));
                    }
                    checked.insert(name, summary);
                }
                Err(violation) => reasons.push(format!("{name}: {violation}")),
            }
        }
        let mut strikes = BTreeMap::new();
        for event in storms.iter().flat_map(|storm| &storm.events) {
            *strikes.entry(event.fault.kind()).or_default() += 1;
        }
        let longest = |of: fn(&StormReport) -> f64| storms.iter().map(of).fold(0.0, f64::max);
        Self {
            held: reasons.is_empty(),
            reasons,
            seed,
            seconds: lasted.as_secs_f64(),
            strikes,
            acknowledged,
            checked,
            stall_ms: longest(|storm| storm.stall_ms),
            whole_ms: longest(|storm| storm.whole_ms),
            storms,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let strikes: Vec<String> = self
            .strikes
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        writeln!(
            f,
            "seed {}: {} storms in {:.0} s: {}",
            self.seed,
            self.storms.len(),
            self.seconds,
            strikes.join(", ")
        )?;
        writeln!(
            f,
            "{} calls answered; longest standstill {:.1} s, longest way back into sync {:.1} s",
            self.acknowledged,
            self.stall_ms / 1e3,
            self.whole_ms / 1e3
        )?;
        for (name, checked) in &self.checked {
            writeln!(
                f,
                "{name}: {} calls to {} blocks judged, {} of them without an answer",
                checked.calls, checked.blocks, checked.unanswered
            )?;
        }
        for reason in &self.reasons {
            writeln!(f, "{reason}")?;
        }
        f.write_str(if self.held {
            "Nothing was lost, stale, forked or stuck."
        } else {
            "Something was found."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Place;
    use super::*;

    fn load(undecided: u64, faults: &[&str]) -> mixed::Report {
        mixed::Report {
            acknowledged: 12,
            faults: faults.iter().map(|text| (*text).to_owned()).collect(),
            verdict: Ok(Summary {
                undecided,
                ..Summary::default()
            }),
        }
    }

    fn storm(trouble: Option<&str>) -> StormReport {
        StormReport {
            events: vec![Event::new(
                Fault::Kill { at: Place::B },
                Duration::from_millis(1500),
            )],
            begin_ms: 1000.0,
            end_ms: 4000.0,
            stall_ms: 700.0,
            whole_ms: 1200.0,
            served_ms: 1300.0,
            trouble: trouble.map(str::to_owned),
        }
    }

    #[test]
    fn a_run_holds_only_if_nothing_at_all_was_found() {
        let report = |trouble, undecided, faults: &[&str], troubles: &[&str]| {
            let troubles = troubles.iter().map(|text| (*text).to_owned()).collect();
            let storms = vec![storm(None), storm(trouble)];
            Report::new(
                3,
                Duration::from_secs(9),
                storms,
                vec![("blocks", load(undecided, faults))],
                troubles,
            )
        };
        let good = report(None, 0, &[], &[]);
        assert!(good.held && good.strikes["kill -9"] == 2, "{good}");
        assert!(good.to_string().contains("seed 3: 2 storms"), "{good}");
        assert!(!report(Some("b is not back"), 0, &[], &[]).held);
        assert!(!report(None, 1, &[], &[]).held);
        assert!(!report(None, 0, &["MEDIUM ERROR"], &[]).held);
        let last = report(None, 0, &[], &["no look"]);
        assert!(!last.held && last.to_string().contains("no look"));
        let json = serde_json::to_value(&good).unwrap();
        assert_eq!(json["storms"][0]["events"][0]["fault"]["kind"], "kill");
        assert_eq!(json["storms"][0]["events"][0]["at_ms"], 1500.0);
    }
}
