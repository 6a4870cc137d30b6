//! `holdfast drill chaos` on what CI has: storms of all failures at a time, whose seed is printed and taken back (`HOLDFAST_SEED`).
//! `HOLDFAST_MINUTES` is how long they last in all (5).

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_drill::ground::{self, Network};
use holdfast_tests::{say, seed, tools};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

/// Runs side by side would take each other's processors.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
/// A run lasts so long at most, in minutes; then comes the next seed.
const RUN_MINUTES: f64 = 2.5;
/// For the cluster to be up.
const START_LIMIT: Duration = Duration::from_secs(240);
/// What a killed drill leaves behind is gone by then.
const GONE_LIMIT: Duration = Duration::from_secs(30);

/// Whether networks can be made here; if not, a line says so.
fn has_ground() -> Result<bool> {
    Ok(tools::or_left_out(Network::make(&["x"]))?.is_some())
}

/// I1 to I5, I8, I11: nothing acknowledged is lost, nothing stale read, nothing forked, no reservation forgotten, and every storm heals by
/// itself.
#[tokio::test]
async fn chaos_finds_nothing() -> Result<()> {
    if !has_ground()? {
        return Ok(());
    }
    let _turn = ONE_AT_A_TIME.lock().await;
    let minutes: f64 = std::env::var("HOLDFAST_MINUTES").map_or(Ok(5.0), |text| text.parse())?;
    let runs = (minutes / RUN_MINUTES).ceil().max(1.0);
    // A few digits read better in a table.
    let seed = (seed::seed("chaos") % 1_000_000).to_string();
    let (each, count) = ((minutes / runs).to_string(), runs.to_string());
    let arguments = [
        "drill",
        "chaos",
        "--json",
        "--seed",
        &seed,
        "--minutes",
        &each,
        "--runs",
        &count,
    ];
    let limit = Duration::from_secs_f64(runs * (minutes / runs * 60.0 + 420.0));
    let finished = tools::run(&tools::holdfast()?, &arguments, limit).await?;
    let held = finished.code == Some(0);
    let told = finished.err.lines().filter(|line| !line.starts_with(' '));
    told.for_each(say);
    ensure!(held, "{}", finished.err);
    let document: serde_json::Value = serde_json::from_str(&finished.out)?;
    let reports = document.as_array().cloned().unwrap_or_else(|| vec![document]);
    for report in &reports {
        ensure!(report["held"] == true, "{report}");
        // A workload that was not served, or a run without storms, would find nothing, too.
        ensure!(report["acknowledged"].as_u64() > Some(500), "{report}");
        ensure!(
            report["storms"]
                .as_array()
                .is_some_and(|storms| !storms.is_empty()),
            "{report}"
        );
    }
    Ok(())
}

/// What is left of a process's ground: namespaces, mounts, interfaces, directories.
fn left(process: u32) -> Result<Vec<String>> {
    let ip = ground::find("ip", "iproute2")?;
    let spaces = ground::call(&ip, &["netns", "list"])?;
    let links = ground::call(&ip, &["-brief", "link"])?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let marks = [
        format!("hfnet{process}x"),
        format!("hf{process}x"),
        format!("{}{process}-", ground::DIR_MARK),
    ];
    let dirs = std::fs::read_dir(std::env::temp_dir())?.filter_map(Result::ok);
    let dirs = dirs.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let lines = spaces.lines().chain(links.lines()).chain(mounts.lines());
    let is_its = |line: &String| marks.iter().any(|mark| line.contains(mark));
    Ok(lines.map(str::to_owned).chain(dirs).filter(is_its).collect())
}

/// What an ended chaos printed after it was told to end, and its exit status; `None` where there is no ground for it.
type Ended = Option<(String, Option<i32>)>;

/// Starts chaos with these arguments, sends it a signal once it has printed a line with `until`, and looks what is left.
async fn ends_without_a_trace(arguments: &[&str], until: &str, signal: Signal) -> Result<Ended> {
    if !has_ground()? {
        return Ok(None);
    }
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut chaos = Command::new(tools::holdfast()?)
        .args(["drill", "chaos", "--seed", "1"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let process = chaos.id().context("it runs")?;
    let mut lines = BufReader::new(chaos.stdout.take().context("piped")?).lines();
    let told = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(until) {
                return Ok(());
            }
        }
        anyhow::bail!("it ended")
    };
    timeout(START_LIMIT, told).await??;
    let pid = Pid::from_raw(i32::try_from(process)?).context("a process id")?;
    let there = left(process)?;
    kill_process(pid, signal)?;
    let status = timeout(GONE_LIMIT, chaos.wait()).await??;
    let mut rest = String::new();
    while let Some(line) = lines.next_line().await? {
        rest += &format!("{line}\n");
    }
    // Once the first strike is told, the cluster is up; between two runs there may be little.
    ensure!(
        there.len() >= 4 || until != FIRST_STRIKE,
        "its ground is not seen: {there:?}"
    );
    let start = Instant::now();
    loop {
        let left = left(process)?;
        if left.is_empty() {
            return Ok(Some((rest, status.code())));
        }
        ensure!(start.elapsed() < GONE_LIMIT, "still there: {left:#?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// How the line of a strike is known.
const FIRST_STRIKE: &str = " s  ";

#[tokio::test]
async fn chaos_that_is_interrupted_leaves_nothing_behind() -> Result<()> {
    let ended = ends_without_a_trace(&["--minutes", "10"], FIRST_STRIKE, Signal::INT).await?;
    ensure!(ended.is_none_or(|(_, code)| code == Some(1)));
    Ok(())
}

#[tokio::test]
async fn chaos_that_is_killed_leaves_nothing_behind() -> Result<()> {
    let ended = ends_without_a_trace(&["--minutes", "10"], FIRST_STRIKE, Signal::KILL).await?;
    ensure!(ended.is_none_or(|(_, code)| code.is_none()));
    Ok(())
}

/// The run that was over is told all the same.
#[tokio::test]
async fn chaos_that_is_ended_in_its_second_run_tells_of_the_first() -> Result<()> {
    let arguments = ["--minutes", "0.1", "--runs", "9"];
    let ended = ends_without_a_trace(&arguments, "Seed 2: starting", Signal::TERM).await?;
    let Some((rest, code)) = ended else {
        return Ok(());
    };
    ensure!(code == Some(1) && rest.contains("1 runs, "), "{code:?}: {rest}");
    Ok(())
}
