//! `holdfast drill chaos`: storms of failures on a cluster of processes on machines of their own, and the judgement of all that its
//! initiators saw.

mod cluster;
mod guard;
mod loads;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use holdfast_drill::chaos::{
    self, Event, Fault, Ground, Limits, Load, Place, Plan, Report, Seen, StormReport,
};
use holdfast_drill::ground::KEPT;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Out, PageFile, foot, number};
use crate::watchers::Watchers;
use cluster::{Cluster, machine};
pub(crate) use guard::guard;
use loads::{INITIATORS, Loads, Over, READERS};

/// How often the last look is tried again.
const LOOKS_MAX: u32 = 10;
/// Arguments of `holdfast drill chaos`.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// Decides the storms and the calls; the next runs take the next seeds. Default: a random one.
    #[arg(long)]
    seed: Option<u64>,
    /// Minutes of storms of each run; fractions are taken.
    #[arg(long, default_value = "5", value_parser = minutes)]
    minutes: Duration,
    /// How many runs, each on a fresh cluster.
    #[arg(long, default_value_t = 1, value_parser = number::<u32>(1, 10_000))]
    runs: u32,
    /// Empty directory for all state, for one run; kept. Default: a fresh one, removed after a run that found nothing.
    #[arg(long, conflicts_with = "runs")]
    dir: Option<PathBuf>,
    /// Of several runs, the report is of the first that found something, or else of the last.
    #[command(flatten)]
    report: PageFile,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes = text
        .parse::<f64>()
        .ok()
        .filter(|minutes| (0.1..=1440.0).contains(minutes));
    minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0))
        .ok_or_else(|| "minutes are a number from 0.1 to 1440".to_owned())
}

const INTERRUPTED: &str = "interrupted; everything was taken away";

/// `holdfast drill chaos`
pub(crate) fn run(args: &ChaosArgs, out: Out) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    args.report.check()?;
    holdfast_drill::ground::sweep();
    let _guard = guard::start()?;
    let first = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    // Nodes end with the thread that starts them: this one.
    let mut reports = Vec::new();
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = all(args, first, out, &mut reports) => done,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!(INTERRUPTED)),
            _ = terminate.recv() => Err(anyhow::anyhow!(INTERRUPTED)),
        }
    });
    // Runs that were over count, whatever came of the one that was not.
    match reports.as_slice() {
        [] => {}
        [one] if args.runs == 1 => out.answer(one, &one.to_string())?,
        all => out.answer(&all, &total(all))?,
    }
    ended?;
    let found: Vec<u64> = reports
        .iter()
        .filter(|report| !report.held)
        .map(|report| report.seed)
        .collect();
    ensure!(found.is_empty(), "something was found with seeds {found:?}");
    Ok(())
}

async fn all(args: &ChaosArgs, first: u64, out: Out, reports: &mut Vec<Report>) -> anyhow::Result<()> {
    for number in 0..u64::from(args.runs) {
        let (report, seen) = one(args, first.wrapping_add(number), out).await?;
        if reports.iter().all(|earlier: &Report| earlier.held) {
            args.report.write(|foot| report.page(&seen, foot))?;
        }
        if args.runs > 1 {
            out.narrate(&report.to_string());
        }
        reports.push(report);
    }
    Ok(())
}

fn total(reports: &[Report]) -> String {
    let seconds: f64 = reports.iter().map(|report| report.seconds).sum();
    let storms: usize = reports.iter().map(|report| report.storms.len()).sum();
    let calls: u64 = reports.iter().map(|report| report.acknowledged).sum();
    let found = reports.iter().filter(|report| !report.held).count();
    format!(
        "{} runs, {:.0} minutes, {storms} storms, {calls} calls answered: {found} runs found something",
        reports.len(),
        seconds / 60.0
    )
}

async fn one(args: &ChaosArgs, seed: u64, out: Out) -> anyhow::Result<(Report, Seen)> {
    out.narrate(&format!(
        "Seed {seed}: starting nodes a, b and w on machines of their own …"
    ));
    let cluster = Cluster::start(args.dir.as_deref()).await?;
    let load = Loads::start(&cluster, seed).await?;
    let watchers = cluster.watch();
    let plan = Plan {
        seed,
        lasts: args.minutes,
        disks: cluster.has_disks(),
        limits: Limits::default(),
    };
    let began = Instant::now();
    let mut stage = Stage::new(cluster);
    let tell = |event: &Event| out.narrate(&format!("{:8.3} s  {}", event.at_ms / 1e3, event.text));
    let over = |storm: &StormReport| {
        let end = match &storm.trouble {
            Some(trouble) => trouble.clone(),
            None => format!("whole after {:.1} s", storm.whole_ms / 1e3),
        };
        out.narrate(&format!(
            "            healed: {end}; nothing answered for {:.1} s",
            storm.stall_ms / 1e3
        ));
    };
    let storms = chaos::run(&plan, &mut stage, &load, tell, over).await;
    let lasted = began.elapsed();
    let mut cluster = stage.cluster;
    let seen = seen(&load, &watchers);
    drop(watchers);
    let (storms, mut troubles) = match storms {
        Ok(storms) => (storms, Vec::new()),
        Err(error) => (Vec::new(), vec![format!("{error:#}")]),
    };
    troubles.extend(cluster.ended());
    troubles.extend(seen.outdated());
    let over = load.stop().await;
    if let Err(error) = look(&cluster, &over).await {
        troubles.push(format!("the last look: {error:#}"));
    }
    troubles.extend(over.faults());
    let judged = tokio::task::spawn_blocking(|| over.judge()).await?;
    let report = Report::new(seed, lasted, storms, judged, troubles);
    if !report.held {
        let dir = cluster.keep();
        std::fs::write(dir.join(KEPT), serde_json::to_vec_pretty(&report)?)?;
        std::fs::write(dir.join("report.html"), report.page(&seen, foot()).html())?;
        out.narrate(&format!("All of it is kept in {}", dir.display()));
    }
    Ok((report, seen))
}

/// What the workload and the watchers have noted, by the workload's clock.
fn seen(load: &Loads, watchers: &Watchers) -> Seen {
    let (now, clock) = (load.now(), Instant::now());
    let looks = watchers.looks().into_iter();
    let looks = looks.map(|look| look.by_workload(now, clock));
    let lane = |number: u16| {
        let path = if number.is_multiple_of(2) {
            "a, then b"
        } else {
            "b, then a"
        };
        let reads = usize::from(number) + READERS >= usize::from(INITIATORS);
        let does = if reads { "reader" } else { "initiator" };
        format!("{does} {}: through {path}", number + 1)
    };
    Seen {
        lanes: (0..INITIATORS).map(lane).collect(),
        samples: load.samples(),
        nodes: Place::NODES.map(|place| place.name().to_owned()).to_vec(),
        looks: looks.collect(),
    }
}

/// Reads every block of each node's own copy: with the node as primary, through its own portal.
async fn look(cluster: &Cluster, over: &Over) -> anyhow::Result<()> {
    for (place, number) in [(Place::A, 100), (Place::B, 101)] {
        cluster.move_to(place, Limits::default().whole).await?;
        let mut tries = 0;
        // A switchover that somebody asked for in the last storm may just be carried out.
        while let Err(error) = over.look(cluster, place, number).await {
            ensure!(tries < LOOKS_MAX, "{error:#}");
            tries += 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

/// The cluster, and what is being done to it.
struct Stage {
    cluster: Cluster,
    /// Faults under way.
    open: Vec<Fault>,
}

impl Stage {
    const fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            open: Vec::new(),
        }
    }

    /// All links that some fault cuts, and no others.
    fn set_cuts(&self) -> anyhow::Result<()> {
        let cuts = self.open.iter().flat_map(|fault| fault.cuts());
        let links: Vec<_> = cuts.map(|(from, to)| (machine(from), machine(to))).collect();
        Ok(self.cluster.network().cut_these(links)?)
    }
}

impl Ground for Stage {
    type Error = anyhow::Error;

    async fn begin(&mut self, fault: Fault) -> anyhow::Result<()> {
        self.open.push(fault);
        match fault {
            Fault::Cut { .. } | Fault::Isolate { .. } | Fault::Sever { .. } => self.set_cuts(),
            Fault::Slow { at, rate } => Ok(self.cluster.network().slow(at.name(), rate).map(drop)?),
            Fault::Kill { at } => self.cluster.kill(at),
            Fault::Freeze { at } => self.cluster.signal(at, Signal::STOP),
            Fault::HangDisk { at } => self.cluster.hang_disk(at),
            Fault::FillDisk { at } => self.cluster.fill_disk(at, true),
            Fault::Switchover { to } => {
                self.open.retain(|open| *open != fault);
                // Through whoever is asked: the node that it goes to.
                self.cluster.ask_to_move(to, to);
                Ok(())
            }
        }
    }

    async fn end(&mut self, fault: Fault) -> anyhow::Result<()> {
        if let Some(at) = self.open.iter().position(|open| *open == fault) {
            self.open.remove(at);
        }
        match fault {
            Fault::Cut { .. } | Fault::Isolate { .. } | Fault::Sever { .. } => self.set_cuts(),
            Fault::Slow { at, .. } => Ok(self.cluster.network().fast(at.name())?),
            Fault::Kill { at } => self.cluster.restart(at).await,
            Fault::Freeze { at } => self.cluster.signal(at, Signal::CONT),
            Fault::HangDisk { at } => {
                self.cluster.thaw_disk(at);
                Ok(())
            }
            Fault::FillDisk { at } => self.cluster.fill_disk(at, false),
            Fault::Switchover { .. } => Ok(()),
        }
    }

    async fn whole(&mut self, limit: Duration) -> anyhow::Result<()> {
        let ended = self.cluster.ended();
        ensure!(ended.is_empty(), "{}", ended.join("; "));
        self.cluster.until_whole(limit).await
    }

    async fn same(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.cluster.compare(limit).await
    }
}
