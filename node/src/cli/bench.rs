//! `holdfast bench`: a first look at a target's latency and throughput, through real iSCSI sessions.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use holdfast_drill::bench::{Direction, Order, Plan, Report, run as measure};
use holdfast_drill::bench_guard::find_foreign_data;
use holdfast_drill::initiator::{Dial, Session};
use holdfast_drill::url::IscsiUrl;
use holdfast_types::{ByteSize, IscsiName, TRANSFER_BYTES_MAX};

use super::Out;
use super::failover::FailoverArgs;
use super::usage::number;

/// Arguments of `holdfast bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// What to measure: iscsi://HOST:PORT/TARGET/LUN (the port may be left out). Repeated: sessions to the same unit, used in turn.
    #[arg(long = "url", required = true, value_name = "URL")]
    urls: Vec<IscsiUrl>,
    /// What to send. Writes overwrite the unit.
    #[arg(long, value_enum, default_value_t = Op::Write)]
    op: Op,
    /// One block after the other instead of at random.
    #[arg(long)]
    sequential: bool,
    /// Bytes of each command.
    #[arg(long, default_value = "4KiB")]
    block_size: ByteSize,
    /// Commands on their way at once; each depth is measured on its own.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32], value_parser = number::<u16>(1, 4096))]
    depth: Vec<u16>,
    /// Seconds measured, for each depth.
    #[arg(long, default_value_t = 5, value_parser = number::<u64>(1, 86400))]
    seconds: u64,
    /// Seconds not measured, before that.
    #[arg(long, default_value_t = 1, value_parser = number::<u64>(0, 3600))]
    warm_up: u64,
    /// How much of the unit is used, from its start; default: all.
    #[arg(long)]
    span: Option<ByteSize>,
    /// Decides the order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The name to log in with.
    #[arg(long, default_value = "iqn.2026-11.io.holdfast:bench")]
    initiator: IscsiName,
    /// Use CRC32C digests.
    #[arg(long)]
    digests: bool,
    /// Measure writes although the unit holds other data, which is lost.
    #[arg(long)]
    overwrite: bool,
}

/// What else can be measured.
#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Measure failover: hurts a demo pair of its own, round after round, under checked load.
    Failover(FailoverArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Op {
    Read,
    Write,
    Mixed,
}

/// `holdfast bench`
pub(super) fn run(args: BenchArgs, out: Out) -> anyhow::Result<()> {
    if let Some(BenchCommand::Failover(failover)) = args.command {
        return super::failover::run(&failover, out);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let reports = runtime.block_on(bench(&args))?;
    let mut text = Report::HEADING.to_owned();
    for report in &reports {
        text.push('\n');
        text.push_str(&report.to_string());
    }
    out.answer(&reports, &text)
}

async fn bench(args: &BenchArgs) -> anyhow::Result<Vec<Report>> {
    let mut sessions = Vec::new();
    for (number, url) in args.urls.iter().enumerate() {
        let mut dial = Dial::new(
            url.clone(),
            args.initiator.clone(),
            u16::try_from(number).context("too many URLs")?,
        );
        dial.digests = args.digests;
        dial.command_timeout = Duration::from_secs(30);
        let session = Session::connect(&dial)
            .await
            .with_context(|| format!("cannot log in to {url}"))?;
        sessions.push(Arc::new(session));
    }
    if args.op != Op::Read && !args.overwrite {
        guard(args, &sessions).await?;
    }
    let block_bytes = usize::try_from(args.block_size.0).context("--block-size is too large")?;
    ensure!(
        block_bytes > 0 && block_bytes <= TRANSFER_BYTES_MAX as usize,
        "--block-size {}: up to {} MiB",
        args.block_size,
        TRANSFER_BYTES_MAX >> 20
    );
    let mut reports = Vec::new();
    for depth in &args.depth {
        let plan = Plan {
            direction: match args.op {
                Op::Read => Direction::Read,
                Op::Write => Direction::Write,
                Op::Mixed => Direction::Mixed,
            },
            order: if args.sequential {
                Order::Sequential
            } else {
                Order::Random
            },
            block_bytes,
            depth: usize::from(*depth),
            warm_up: Duration::from_secs(args.warm_up),
            duration: Duration::from_secs(args.seconds),
            span_bytes: args.span.map(|span| span.0),
            seed: args.seed,
        };
        let ticker = tokio::spawn(tick(*depth, args.warm_up + args.seconds));
        let report = measure(&plan, &sessions).await;
        ticker.abort();
        reports.push(report?);
    }
    Ok(reports)
}

/// Refuses to overwrite what no measurement has written.
async fn guard(args: &BenchArgs, sessions: &[Arc<Session>]) -> anyhow::Result<()> {
    let Some(first) = sessions.first() else {
        return Ok(());
    };
    if let Some(lba) = find_foreign_data(first, args.seed).await? {
        bail!(
            "{} holds data (at block {}), which writes would destroy: measure reads (--op read), or give it up with --overwrite",
            args.urls[0],
            lba.0
        );
    }
    Ok(())
}

/// Tells a person at a terminal how far a measurement is.
async fn tick(depth: u16, seconds: u64) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    for second in 0..seconds {
        // Written where no figures go.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("\rqueue depth {depth}: {second} of {seconds} s "),
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
