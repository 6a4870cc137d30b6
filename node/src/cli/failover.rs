//! `holdfast bench failover`: how long writes stand still when something fails, measured on a demo pair that this command starts itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use holdfast_drill::initiator::{Dial, Session};
use holdfast_drill::multipath::{MultiPath, Patience};
use holdfast_drill::rehearsal::{self, Failure, Plan, Report, Round, Stage, Step};
use holdfast_drill::workload;
use holdfast_types::ByteSize;
use tokio::signal::unix::{SignalKind, signal};

use super::Out;
use super::progress::Progress;
use super::usage::number;
use crate::admin::AdminAddress;
use crate::demo::DemoStage;
use crate::live::LiveStage;

/// Arguments of `holdfast bench failover`.
#[derive(Debug, Args)]
pub(super) struct FailoverArgs {
    /// Rounds of each kind of failure.
    #[arg(long, default_value_t = 5, value_parser = number::<u32>(1, 10_000))]
    rounds: u32,
    /// Which failures; default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    failures: Vec<Kind>,
    /// Seconds that a round looks on after the failure.
    #[arg(long, default_value_t = 3, value_parser = number::<u64>(1, 60))]
    observe: u64,
    #[command(flatten)]
    ground: Ground,
    /// Draws latency over time around the worst round of each kind into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// The demo pair that is hurt, and the load on it.
#[derive(Debug, Args)]
pub(super) struct Ground {
    /// Writers, half of them through each node's path first, with one write on its way each.
    #[arg(long, default_value_t = 8, value_parser = number::<u16>(2, 256))]
    writers: u16,
    /// First of the ten ports that the demo takes.
    #[arg(long, default_value_t = 13260, value_parser = number::<u16>(1024, 65526))]
    base_port: u16,
    /// Size of the demo's LUN.
    #[arg(long, default_value = "256MiB")]
    size: ByteSize,
    /// Decides what is written where.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A [`Failure`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// The extent is moved, planned.
    Switchover,
    /// `kill -9` of the witness.
    KillWitness,
    /// `kill -9` of the replica.
    KillReplica,
    /// `kill -9` of the primary.
    KillPrimary,
    /// The primary is stopped (SIGSTOP).
    FreezePrimary,
    /// The link between the two replicas is cut.
    CutReplication,
    /// The link between the two replicas is slow: 20 ms more for all that passes it.
    SlowReplication,
    /// The primary's disk is slow: 20 ms more for each operation.
    SlowPrimary,
    /// The primary is cut off from the other nodes; initiators reach it.
    SeverPrimary,
    /// The primary's disk hangs.
    HangPrimary,
    /// The other replica's disk hangs.
    HangReplica,
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Switchover => Self::Switchover,
            Kind::KillWitness => Self::KillWitness,
            Kind::KillReplica => Self::KillReplica,
            Kind::KillPrimary => Self::KillPrimary,
            Kind::FreezePrimary => Self::FreezePrimary,
            Kind::CutReplication => Self::CutReplication,
            Kind::SlowReplication => Self::SlowReplication,
            Kind::SlowPrimary => Self::SlowPrimary,
            Kind::SeverPrimary => Self::SeverPrimary,
            Kind::HangPrimary => Self::HangPrimary,
            Kind::HangReplica => Self::HangReplica,
        }
    }
}

/// `holdfast bench failover`
pub(super) fn run(args: &FailoverArgs, out: Out) -> anyhow::Result<()> {
    let failures = match args.failures.as_slice() {
        [] => Failure::ALL.to_vec(),
        some => some.iter().map(|kind| Failure::from(*kind)).collect(),
    };
    let plan = Plan {
        failures,
        rounds: args.rounds,
        observe: Duration::from_secs(args.observe),
    };
    let (rounds, workload) = rehearse(&plan, &args.ground, Look::Away, out)?;
    let report = Report::new(&rounds, workload);
    if let Some(path) = &args.svg {
        std::fs::write(path, rehearsal::svg(&rounds))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    out.answer(&report, &report.to_string())?;
    let faults = &report.workload.faults;
    ensure!(
        report.workload.fault_count == 0,
        "the workload found {} faults, the first: {}",
        report.workload.fault_count,
        faults.first().map_or("", String::as_str)
    );
    Ok(())
}

/// The lanes of the load on a demo, in the order of its disks.
pub(super) const LANES: [&str; 2] = ["writes through a, then b", "writes through b, then a"];

/// Whether the nodes are asked how they are while they are hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Yes: for a timeline.
    On,
    /// No: for figures alone.
    Away,
}

/// Plays the plan on a demo pair that is started for it, and looks at every block at the end.
pub(super) fn rehearse(
    plan: &Plan,
    ground: &Ground,
    look: Look,
    out: Out,
) -> anyhow::Result<(Vec<Round>, workload::Report)> {
    // The demo ends with the thread that starts it: this one.
    runtime()?.block_on(play(plan, ground, look, out))
}

/// One thread beside this one: the load is the cluster's to carry.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
}

async fn play(
    plan: &Plan,
    ground: &Ground,
    look: Look,
    out: Out,
) -> anyhow::Result<(Vec<Round>, workload::Report)> {
    let progress = Progress::new(out);
    progress.narrate("Starting a demo pair …");
    progress.set(Some(0.0), "starting a demo pair".to_owned());
    let mut stage = DemoStage::start(ground.base_port, ground.size).await?;
    if look == Look::On {
        stage.watch();
    }
    let urls = [stage.url(0), stage.url(1)];
    under_load(plan, ground, &stage, &urls, &progress).await
}

/// Plays the plan on the cluster of the node at `admin`, on a scratch extent that is removed afterwards, also when it is interrupted.
pub(super) fn rehearse_live(
    plan: &Plan,
    ground: &Ground,
    admin: &AdminAddress,
    out: Out,
) -> anyhow::Result<(Vec<Round>, workload::Report)> {
    runtime()?.block_on(play_live(plan, ground, admin, out))
}

async fn play_live(
    plan: &Plan,
    ground: &Ground,
    admin: &AdminAddress,
    out: Out,
) -> anyhow::Result<(Vec<Round>, workload::Report)> {
    let progress = Progress::new(out);
    progress.set(Some(0.0), "making a scratch extent".to_owned());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stage = LiveStage::new(admin).await?;
    progress.narrate(&stage.announcement());
    stage.watch();
    let play = async {
        stage.make(ground.size).await?;
        under_load(plan, ground, &stage, stage.urls(), &progress).await
    };
    let played = tokio::select! {
        played = play => played,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted; everything was healed")),
        _ = terminate.recv() => Err(anyhow::anyhow!("interrupted; everything was healed")),
    };
    progress.set(Some(1.0), "healing, and removing the scratch extent".to_owned());
    match (played, stage.end().await) {
        (played, Ok(())) => played,
        (Ok(_), Err(left)) => Err(left),
        (Err(error), Err(left)) => Err(error.context(format!("{left:#}"))),
    }
}

/// Plays the plan while writers, half of them through each path first, check every block.
async fn under_load(
    plan: &Plan,
    ground: &Ground,
    stage: &impl Stage<Error = anyhow::Error>,
    urls: &[String],
    progress: &Progress,
) -> anyhow::Result<(Vec<Round>, workload::Report)> {
    let disks = [disk(urls, [0, 1]).await?, disk(urls, [1, 0]).await?];
    let load = workload::Plan {
        writers: usize::from(ground.writers),
        readers: 2,
        pause: Duration::from_millis(1),
        ..workload::Plan::small(ground.seed)
    };
    let load = workload::start(load, &disks)?;
    let met = || {
        let mut all = rehearsal::Errors::new();
        for (kind, count) in disks.iter().flat_map(|disk| disk.counts().kinds()) {
            *all.entry(kind).or_default() += count;
        }
        all
    };
    let mut done = 0;
    let rounds = rehearsal::run(plan, stage, &load, met, |step| {
        tell(plan, &mut done, step, progress);
    })
    .await?;
    progress.set(Some(1.0), "looking at every block".to_owned());
    let (workload, verifier) = load.stop().await;
    for (index, name) in ["the first path", "the second path"].into_iter().enumerate() {
        let verified = verifier.verify(&*disks[index], name).await;
        verified.map_err(anyhow::Error::msg)?;
    }
    Ok((rounds, workload))
}

/// Shows how far a plan is, and tells each round's end. `done` counts the rounds that are over.
fn tell(plan: &Plan, done: &mut u32, step: Step<'_>, progress: &Progress) {
    let total = plan.rounds;
    let set = |part: f64, failure: Failure, number: u32, text: &str| {
        #[expect(clippy::cast_precision_loss, reason = "a share, for people")]
        let all = plan.failures.len() as f64 * f64::from(total);
        let round = if total > 1 {
            format!(", round {number} of {total}")
        } else {
            String::new()
        };
        progress.set(
            Some((f64::from(*done) + part) / all.max(1.0)),
            format!("{failure}{round}: {text}"),
        );
    };
    match step {
        Step::Settling(failure, number) => set(0.0, failure, number, "waiting until all is well"),
        Step::Watching(failure, number) => set(0.2, failure, number, "done; watching"),
        Step::Healing(failure, number) => set(0.7, failure, number, "taken back; healing"),
        Step::Done(number, round) => {
            *done += 1;
            let led = if round.led { ", Raft leader" } else { "" };
            progress.narrate(&format!(
                "{}{led}, round {number} of {total}: nothing completed for {:.0} ms, on the worst lane {:.0} ms",
                round.failure,
                round.stall.as_secs_f64() * 1e3,
                round.lane_stall.as_secs_f64() * 1e3
            ));
        }
    }
}

/// The unit over both paths, in that order of preference.
async fn disk(urls: &[String], order: [usize; 2]) -> anyhow::Result<Arc<MultiPath<Session>>> {
    let mut dials = Vec::new();
    for (place, index) in order.into_iter().enumerate() {
        let number = u16::try_from(order[0] * 2 + place).context("a small number")?;
        let initiator = "iqn.2026-11.io.holdfast:bench".parse()?;
        let url = urls.get(index).context("a URL for each path")?;
        dials.push(Dial::new(url.parse()?, initiator, number));
    }
    Ok(Arc::new(MultiPath::connect(dials, Patience::default()).await?))
}
