//! `holdfast drill`: failures rehearsed under checked load, with a verdict against a budget.

use std::str::FromStr;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use holdfast_drill::rehearsal::{Budget, DrillReport, Failure, Plan};

use super::Out;
use super::failover::{Ground, Kind, rehearse};

/// Arguments of `holdfast drill`.
#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    /// What to rehearse: switchover, kill-witness, kill-replica, kill-primary, freeze-primary, or all of them.
    #[arg(default_value = "all", value_name = "SCENARIO")]
    scenarios: Vec<Choice>,
    /// On a demo pair that is started for the drill and removed after it. The only place for drills so far.
    #[arg(long)]
    demo: bool,
    /// Longest standstill of all writes that is allowed in every scenario, such as 1500ms or 2s; default: 1 s where nobody who serves is
    /// lost, else 3 s.
    #[arg(long, value_name = "TIME", value_parser = time)]
    budget: Option<Duration>,
    /// How often each scenario is played.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    #[command(flatten)]
    ground: Ground,
}

/// One scenario, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    All,
    One(Failure),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let unknown = |_| {
            "the scenarios are switchover, kill-witness, kill-replica, kill-primary, freeze-primary and all"
                .to_owned()
        };
        Kind::from_str(text, false)
            .map(|kind| Self::One(kind.into()))
            .map_err(unknown)
    }
}

/// A time with its unit: `1500ms`, `2s`; not zero, an hour at most.
fn time(text: &str) -> Result<Duration, String> {
    let (number, factor) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => return Err("a time has a unit: 1500ms, 2s".to_owned()),
    };
    let millis = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    let millis = millis.filter(|millis| (1..=3_600_000).contains(millis));
    let millis = millis.ok_or("a whole number of ms or s, from 1ms to 3600s")?;
    Ok(Duration::from_millis(millis))
}

/// `holdfast drill`
pub(super) fn run(args: &DrillArgs, out: Out) -> anyhow::Result<()> {
    ensure!(
        args.demo,
        "drills against a running cluster are not there yet: give --demo, which starts a pair of its own"
    );
    let plan = Plan {
        failures: failures(&args.scenarios),
        rounds: args.rounds,
        observe: Duration::from_secs(3),
    };
    let (rounds, workload) = rehearse(&plan, &args.ground, out)?;
    let budget = |failure| {
        let usual = Budget::usual(failure);
        let stall = args.budget.unwrap_or(usual.stall);
        Budget { stall, ..usual }
    };
    let report = DrillReport::new(&rounds, workload, budget);
    out.answer(&report, &report.to_string())?;
    ensure!(
        report.held,
        "the drill broke its budget: {}",
        report.reasons.join("; ")
    );
    Ok(())
}

fn failures(choices: &[Choice]) -> Vec<Failure> {
    let mut failures = Vec::new();
    for choice in choices {
        match choice {
            Choice::All => failures.extend(Failure::ALL),
            Choice::One(failure) => failures.push(*failure),
        }
    }
    let mut seen = Vec::new();
    failures.retain(|failure| {
        !seen.contains(failure) && {
            seen.push(*failure);
            true
        }
    });
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_named_and_played_once_each() {
        let all: Vec<Choice> = ["kill-primary", "all"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let played = failures(&all);
        assert_eq!(
            (played[0], played.len()),
            (Failure::KillPrimary, Failure::ALL.len())
        );
        assert!(
            "kill-everybody"
                .parse::<Choice>()
                .unwrap_err()
                .contains("freeze-primary")
        );
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("2s"), Ok(Duration::from_secs(2)));
        for bad in [
            "2",
            "0s",
            "s",
            "ms",
            "-1s",
            "1.5s",
            "9999999s",
            "18446744073709551615s",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
