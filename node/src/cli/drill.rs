//! `holdfast drill`: failures rehearsed under checked load, with a verdict against a budget.
//!
//! A kind of drill with arguments of its own is a subcommand: a variant of [`DrillCommand`] and an arm in [`run`].

use std::str::FromStr;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use holdfast_drill::rehearsal::{Budget, DrillReport, Failure, Plan};

use super::failover::{Ground, Kind, LANES, Look, rehearse, rehearse_live};
use super::page_file::PageFile;
use super::usage::number;
use super::{Out, watch};
use crate::admin::AdminAddress;
use crate::chaos::{self, ChaosArgs};
use crate::live;

/// Arguments of `holdfast drill`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct DrillArgs {
    #[command(subcommand)]
    command: Option<DrillCommand>,
    /// What to rehearse: switchover, kill-witness, kill-replica, kill-primary, freeze-primary, cut-replication, slow-replication,
    /// slow-primary, sever-primary, hang-primary, hang-replica, or all of them.
    #[arg(default_value = "all", value_name = "SCENARIO")]
    scenarios: Vec<Choice>,
    /// On a demo pair that is started for the drill and removed after it.
    #[arg(long)]
    demo: bool,
    /// On the cluster of the data node at --admin: failures that this node suffers within itself, and takes back by itself (all but those
    /// of witness and replica), seen from a scratch extent that is removed afterwards. What else the node serves fails over, too.
    #[arg(long, conflicts_with = "demo")]
    cluster: bool,
    /// Longest standstill of all writes that is allowed in every scenario, such as 1500ms or 2s; default: what docs/failover.md promises,
    /// from 100 ms for a planned switchover to 1.5 s for a node that falls silent and 6 s for a disk that hangs.
    #[arg(long, value_name = "TIME", value_parser = time)]
    budget: Option<Duration>,
    /// How often each scenario is played.
    #[arg(long, default_value_t = 1, value_parser = number::<u32>(1, 1000))]
    rounds: u32,
    #[command(flatten)]
    report: PageFile,
    #[command(flatten)]
    ground: Ground,
}

/// Drills of other kinds.
#[derive(Debug, Subcommand)]
enum DrillCommand {
    /// Watch any target's paths while you hurt it: stalls, errors and latencies of each, until Ctrl-C.
    Watch(watch::WatchArgs),
    /// Storms of failures, drawn from a seed, on a cluster of processes on machines of their own (root; network namespaces): partitions,
    /// kills, freezes, disks that hang and fill up, several at a time; all that initiators saw is judged.
    Chaos(ChaosArgs),
    /// Takes away what a killed `drill chaos` left behind.
    #[command(hide = true)]
    ChaosGuard,
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
            let kinds = Kind::value_variants().iter().filter_map(Kind::to_possible_value);
            let names: Vec<String> = kinds.map(|kind| kind.get_name().to_owned()).collect();
            format!("the scenarios are {} and all", names.join(", "))
        };
        Kind::from_str(text, false)
            .map(|kind| Self::One(kind.into()))
            .map_err(unknown)
    }
}

/// A time with its unit: `1500ms`, `2s`; not zero, an hour at most.
pub(super) fn time(text: &str) -> Result<Duration, String> {
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
pub(super) fn run(args: &DrillArgs, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    match &args.command {
        Some(DrillCommand::Watch(args)) => return watch::run(args, out),
        Some(DrillCommand::Chaos(args)) => return chaos::run(args, out),
        Some(DrillCommand::ChaosGuard) => return chaos::guard(),
        None => {}
    }
    ensure!(
        args.demo || args.cluster,
        "say where: --demo starts a pair of its own, --cluster hurts the data node at --admin"
    );
    let all: &[Failure] = if args.cluster {
        &live::FAILURES
    } else {
        &Failure::ALL
    };
    let plan = Plan {
        failures: failures(&args.scenarios, all)?,
        rounds: args.rounds,
        observe: Duration::from_secs(3),
    };
    args.report.check()?;
    let (rounds, workload) = if args.cluster {
        rehearse_live(&plan, &args.ground, admin, out)?
    } else {
        rehearse(&plan, &args.ground, Look::On, out)?
    };
    let budget = |failure, led| {
        let usual = Budget::usual(failure, led);
        let stall = args.budget.unwrap_or(usual.stall);
        Budget { stall, ..usual }
    };
    let report = DrillReport::new(&rounds, workload, &LANES.map(str::to_owned), budget);
    args.report.write(|foot| report.page(foot))?;
    out.answer(&report, &report.to_string())?;
    ensure!(
        report.held,
        "the drill broke its budget: {}",
        report.reasons.join("; ")
    );
    Ok(())
}

/// What was chosen out of `all`, each once.
fn failures(choices: &[Choice], all: &[Failure]) -> anyhow::Result<Vec<Failure>> {
    let mut failures = Vec::new();
    for choice in choices {
        match choice {
            Choice::All => failures.extend(all),
            Choice::One(failure) => failures.push(*failure),
        }
    }
    if let Some(other) = failures.iter().find(|failure| !all.contains(failure)) {
        let names: Vec<&str> = all.iter().map(|failure| failure.words()).collect();
        bail!(
            "{other}: a running cluster can be rehearsed with {}",
            names.join(", ")
        );
    }
    let mut seen = Vec::new();
    failures.retain(|failure| {
        !seen.contains(failure) && {
            seen.push(*failure);
            true
        }
    });
    Ok(failures)
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
        let elsewhere = ["kill-replica".parse().unwrap()];
        let refused = failures(&elsewhere, &live::FAILURES).unwrap_err();
        assert!(refused.to_string().contains("a running cluster"), "{refused}");
        let played = failures(&all, &Failure::ALL).unwrap();
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

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: DrillArgs,
    }

    #[test]
    fn scenarios_and_subcommands_live_together() {
        use clap::Parser;
        let parse = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.args);
        let played = parse("drill kill-primary switchover --demo").unwrap();
        assert!(played.command.is_none() && played.scenarios.len() == 2);
        let all = parse("drill --demo").unwrap();
        assert!(all.command.is_none() && all.scenarios == [Choice::All]);
        let url = "iscsi://127.0.0.1:3260/iqn.2026-11.example:a/0";
        let watched = parse(&format!("drill watch --url {url} --url {url} --seconds 3")).unwrap();
        assert!(matches!(watched.command, Some(DrillCommand::Watch(_))));
        for bad in [
            "drill watch",
            "drill --demo watch",
            "drill wacth",
            "drill watch all",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
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
