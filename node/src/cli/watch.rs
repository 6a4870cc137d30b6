//! `holdfast drill watch`: the initiator side of a drill, against any target, while its user does the hurting.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::Args;
use holdfast_drill::bench_guard::find_foreign_data;
use holdfast_drill::disk::Disk;
use holdfast_drill::initiator::{Dial, Session};
use holdfast_drill::multipath::{MultiPath, Patience};
use holdfast_drill::url::IscsiUrl;
use holdfast_drill::watch::{Held, Plan, Report, Watching};
use holdfast_drill::workload;
use holdfast_types::IscsiName;
use tokio::signal::unix::{SignalKind, signal};

use super::Out;
use super::drill::time;
use super::page_file::PageFile;
use super::progress::Progress;
use super::usage::number;

/// Between two glances for the progress line.
const GLANCE_EVERY: Duration = Duration::from_millis(500);
/// Bytes of a unit of the checked writes, and how many there are at most: the first 16 MiB.
const UNIT_BYTES: usize = 4096;
const UNITS_MAX: usize = 4096;

/// Arguments of `holdfast drill watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// A path to the unit: iscsi://HOST:PORT/TARGET/LUN (the port may be left out). Repeated for its other paths.
    #[arg(long = "url", required = true, value_name = "URL")]
    urls: Vec<IscsiUrl>,
    /// Ends after so many seconds; otherwise with Ctrl-C.
    #[arg(long, value_parser = number::<u64>(1, 604_800))]
    seconds: Option<u64>,
    /// Commands on their way at once, on each path.
    #[arg(long, default_value_t = 2, value_parser = number::<u16>(1, 64))]
    depth: u16,
    /// Writes, too, and checks every block: overwrites the first 16 MiB of the unit. Refused where it holds data.
    #[arg(long)]
    write: bool,
    /// Write although the unit holds other data, which is lost.
    #[arg(long, requires = "write")]
    overwrite: bool,
    /// A longer standstill of the target ends with exit status 1, such as 1500ms or 2s. Default: none is too long.
    #[arg(long, value_name = "TIME", value_parser = time)]
    budget: Option<Duration>,
    /// Decides what is read and written. Default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// The name to log in with.
    #[arg(long, default_value = "iqn.2026-11.io.holdfast:watch")]
    initiator: IscsiName,
    #[command(flatten)]
    report: PageFile,
}

/// `holdfast drill watch`
pub(super) fn run(args: &WatchArgs, out: Out) -> anyhow::Result<()> {
    args.report.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let report = runtime.block_on(watch(args, out))?;
    // Connections are cut; nobody waits for what hangs on them.
    runtime.shutdown_background();
    args.report.write(|foot| report.page(foot))?;
    out.answer(&report, &report.to_string())?;
    ensure!(report.held, "{}", report.reasons.join("; "));
    Ok(())
}

async fn watch(args: &WatchArgs, out: Out) -> anyhow::Result<Report> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = args
        .seed
        .unwrap_or_else(|| since.as_secs() << 30 | u64::from(since.subsec_nanos()));
    let dials = dials(args)?;
    if args.write {
        guard(args, &dials, seed).await?;
    }
    let plan = Plan {
        depth: usize::from(args.depth),
        pause: Duration::from_millis(1),
        seed,
    };
    let mut watching = Watching::start(plan, dials);
    let load = if args.write {
        Some(write(args, &mut watching, seed).await?)
    } else {
        None
    };
    let progress = Progress::new(out);
    let until = match args.seconds {
        Some(seconds) => format!("for {seconds} s, or until Ctrl-C"),
        None => "until Ctrl-C".to_owned(),
    };
    progress.narrate(&format!("Watching {} paths {until} …", args.urls.len()));
    look_on(args, &mut watching, load.is_none(), &progress).await?;
    let report = watching.report();
    let (load, wrong) = match load {
        Some(load) => load.end(&progress).await?,
        None => (None, None),
    };
    Ok(report.judged(args.budget, load, wrong))
}

fn dials(args: &WatchArgs) -> anyhow::Result<Vec<Dial>> {
    let each = args.urls.iter().enumerate().map(|(number, url)| {
        let number = u16::try_from(number).context("too many URLs")?;
        Ok(Dial::new(url.clone(), args.initiator.clone(), number))
    });
    each.collect()
}

/// Refuses to overwrite what is somebody's, through whatever path: two URLs may name two units.
async fn guard(args: &WatchArgs, dials: &[Dial], seed: u64) -> anyhow::Result<()> {
    let mut size = None;
    for dial in dials {
        let url = &dial.url;
        let session = Session::connect(dial).await;
        let session = session
            .with_context(|| format!("cannot log in to {url}; --write needs all paths at its start"))?;
        let this = (session.blocks(), session.block_size());
        ensure!(
            *size.get_or_insert(this) == this,
            "{url} is no path to the unit of {}: they differ in size",
            args.urls[0]
        );
        if args.overwrite {
            continue;
        }
        if let Some(lba) = find_foreign_data(&Arc::new(session), seed).await? {
            bail!(
                "{url} holds data (at block {}), which writes would destroy: leave --write out, or give it up with --overwrite",
                lba.0
            );
        }
    }
    Ok(())
}

type Paths = MultiPath<Held<Session>>;

/// Checked writes through all paths.
struct Writes {
    running: workload::Running,
    disks: Vec<Arc<Paths>>,
}

/// Starts writers: as many on each lane as there are commands on a path, each lane with another path first.
async fn write(args: &WatchArgs, watching: &mut Watching<Session>, seed: u64) -> anyhow::Result<Writes> {
    let mut disks = Vec::new();
    for first in 0..args.urls.len() {
        disks.push(watching.disk(first, Patience::default()).await?);
    }
    let bytes = disks[0]
        .blocks()
        .saturating_mul(u64::from(disks[0].block_size().bytes()));
    let units = usize::try_from(bytes / UNIT_BYTES as u64)
        .unwrap_or(UNITS_MAX)
        .min(UNITS_MAX);
    let plan = workload::Plan {
        writers: disks.len() * usize::from(args.depth),
        readers: disks.len(),
        units,
        unit_bytes: UNIT_BYTES,
        pause: Duration::from_millis(1),
        ..workload::Plan::small(seed)
    };
    let running = workload::start(plan, &disks)?;
    let names = args
        .urls
        .iter()
        .map(|url| format!("writes, {} first", url.portal()));
    watching.writes(running.recorder(), names.collect());
    Ok(Writes { running, disks })
}

impl Writes {
    /// Waits for what is on its way, and looks at every block. Another Ctrl-C ends that.
    async fn end(self, progress: &Progress) -> anyhow::Result<(Option<workload::Report>, Option<String>)> {
        progress.set(
            None,
            "waiting for writes on their way, and looking at every block".to_owned(),
        );
        let work = async {
            let (load, verifier) = self.running.stop().await;
            let mut wrong = None;
            for disk in &self.disks {
                wrong = wrong.or(verifier.verify(&**disk, "the last look").await.err());
            }
            (Some(load), wrong)
        };
        tokio::select! {
            done = work => Ok(done),
            _ = tokio::signal::ctrl_c() => bail!("ended before every block was looked at"),
        }
    }
}

/// Until it is time to end. `reads` says whether all paths together are read, too.
async fn look_on(
    args: &WatchArgs,
    watching: &mut Watching<Session>,
    reads: bool,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let end = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    if reads {
        watching.read_all();
    }
    let mut glance = tokio::time::interval(GLANCE_EVERY);
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = glance.tick() => progress.set(None, watching.glance()),
        }
    }
}
