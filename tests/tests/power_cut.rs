//! Power cuts of the Raft part: the image of a mounted file system, copied while a writer is at work on it, is what a power cut leaves.
//!
//! The writer appends to log and vote, applies to the state's store, and prints each number once it is acknowledged. A copy is taken
//! with the writer stopped and without any flush, so whatever was acknowledged must be in it by the writer's own flushes.
//!
//! And what a failed write-back leaves: a page cache that holds, as clean pages, what the disk never got.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use holdfast_drill::ground::{Image, Tools};
use holdfast_replication::store::{Devices, ExtentFile, ExtentMeta, StoreError};
use holdfast_tests::tools::call;
use holdfast_tests::{say, seed, tools};
use holdfast_types::{BlockRange, BlockSize, ExtentId, Lba, Revision};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

const IMAGE_MIB: u64 = 192;

/// The writer at work, and the newest number that it said was acknowledged.
struct Writer {
    child: Child,
    acknowledged: Arc<AtomicU64>,
}

impl Writer {
    fn start(program: &Path, dir: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("standard output is piped")?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&acknowledged);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(number) = line.split_whitespace().last().and_then(|word| word.parse().ok()) {
                    told.fetch_max(number, Ordering::AcqRel);
                }
            }
        });
        Ok(Self { child, acknowledged })
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a process id")?, signal)?)
    }

    /// Waits until more than `than` is acknowledged.
    fn wait(&mut self, than: u64) -> Result<()> {
        let start = Instant::now();
        while self.acknowledged() <= than {
            if let Some(status) = self.child.try_wait()? {
                bail!("the writer ended: {status}");
            }
            ensure!(
                start.elapsed() < Duration::from_secs(60),
                "the writer stands still at {than}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Already dead is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies the image of a stopped writer until two copies in a row are equal: nothing was written back between them, so the copy
/// is of one moment.
fn copy_of_one_moment(from: &Path, to: &Path) -> Result<()> {
    for _ in 0..10 {
        std::fs::copy(from, to)?;
        if std::fs::read(from)? == std::fs::read(to)? {
            return Ok(());
        }
    }
    bail!("the image does not hold still while the writer is stopped")
}

/// Log, vote and applied state lose nothing acknowledged. `HOLDFAST_CUTS` says how often (50).
#[test]
fn power_cuts_of_log_vote_and_applied_state_lose_nothing_acknowledged() -> Result<()> {
    let Some(tools) = tools::or_left_out(Tools::find())? else {
        return Ok(());
    };
    // The whole workspace, so that what `cargo test --workspace` has built is not built again with other features.
    let writer = tools::built(&["--workspace", "--example", "powercut_writer"])?;
    let mut random = StdRng::seed_from_u64(seed::seed("power cuts"));
    let dir = tempfile::tempdir()?;
    let image = Image::make(
        &tools,
        &dir.path().join("live.img"),
        &dir.path().join("live"),
        IMAGE_MIB,
    )?;
    let mut running = Writer::start(&writer, &image.at.join("raft"))?;
    let cuts = seed::number("HOLDFAST_CUTS", 50);
    let mut last = 0;
    for cut in 1..=cuts {
        running.wait(last)?;
        std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
        running.signal(Signal::STOP)?;
        // What the reader has seen until now was acknowledged before the copy begins.
        last = running.acknowledged();
        let copy = dir.path().join("cut.img");
        copy_of_one_moment(&image.file, &copy)?;
        running.signal(Signal::CONT)?;
        let after = Image::mount(&tools, &copy, &dir.path().join("cut"))?;
        let place = after.at.join("raft");
        let place = place.to_str().context("a path in UTF-8")?;
        let verdict = call(&writer, &[place, "--verify", &last.to_string()]);
        verdict.with_context(|| format!("cut {cut} of {cuts}, {last} acknowledged"))?;
    }
    say(&format!(
        "{cuts} power cuts, {last} numbers acknowledged in the end"
    ));
    Ok(())
}

/// Puts `new` where `old` is in the image, behind the back of the file system that is mounted on it.
fn swap_on_disk(image: &Path, old: &[u8], new: &[u8]) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let contents = std::fs::read(image)?;
    let pages = (0..contents.len()).step_by(512);
    let found: Vec<usize> = pages.filter(|at| contents[*at..].starts_with(old)).collect();
    ensure!(found.len() == 1, "the pattern is in {} places", found.len());
    let file = std::fs::File::options().write(true).open(image)?;
    file.write_all_at(new, found[0] as u64)?;
    Ok(file.sync_all()?)
}

/// J2, I6: a start reads, compares and trusts what the disk holds, not what the page cache still holds of a write that never got there.
#[test]
fn j2_what_the_disk_never_got_is_not_read_after_a_start() -> Result<()> {
    let Some(tools) = tools::or_left_out(Tools::find())? else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let image = Image::make(&tools, &dir.path().join("disk.img"), &dir.path().join("disk"), 64)?;
    let range = BlockRange::new(Lba(64), 8)?;
    for (number, sums) in [(1_u8, true), (2, false)] {
        let (new, old) = ([0xa0 + number; 4096], [0x50 + number; 4096]);
        let id = ExtentId::from_u128(number.into());
        let meta = ExtentMeta {
            id,
            bytes: 1 << 20,
            block_size: BlockSize::B512,
            created: Revision(1),
            damaged: None,
            sums,
            device: None,
        };
        let file = ExtentFile::create(&image.at, meta)?;
        file.write(range, &new)?;
        file.sync()?;
        drop(file);
        swap_on_disk(&image.file, &new, &old)?;
        let cached = std::fs::read(image.at.join(format!("{id}.img")))?;
        ensure!(
            cached[64 * 512..][..4096] == new,
            "the page cache holds what was written"
        );
        let again = ExtentFile::open(&image.at, id, &Devices::none())?;
        match again.read(range) {
            Err(StoreError::Rotten { range: bad, .. }) if sums => assert_eq!(bad, range),
            Ok(data) if !sums => assert_eq!(data, old[..], "what the disk holds"),
            other => bail!("checksums {sums}: {other:?}"),
        }
    }
    Ok(())
}
