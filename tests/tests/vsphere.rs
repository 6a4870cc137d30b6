//! What vSphere's storage offloads send: ATS heartbeats (COMPARE AND WRITE), clones (EXTENDED COPY), zeroing (WRITE SAME) and UNMAP, from
//! several hosts through both portals, in peace and while the primary dies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use holdfast_drill::cdb::{self, Cdb};
use holdfast_drill::error::Error;
use holdfast_drill::initiator::{Dial, Session};
use holdfast_tests::cluster::Demo;
use holdfast_tests::say;
use holdfast_types::Lba;
use tokio::time::{Instant, sleep};

const BLOCK: usize = 512;
/// Where hosts keep their heartbeat.
const HEARTBEAT: Lba = Lba(2048);
/// As much as vSphere copies with one command by default.
const CLONE_BLOCKS: u16 = 8192;
/// How long a host tries on.
const PATIENCE: Duration = Duration::from_secs(30);

/// A host: one session at a time, on another path after it was lost.
struct Host {
    paths: Vec<Dial>,
    session: Option<Session>,
    /// Whether the command under way may have been carried out by an earlier try.
    tried: bool,
}

impl Host {
    fn new(demo: &Demo, names: &[&str]) -> Result<Self> {
        let paths = names.iter().map(|name| demo.dial(name)).collect::<Result<_>>()?;
        let (session, tried) = (None, false);
        Ok(Self {
            paths,
            session,
            tried,
        })
    }

    /// The session, or the next path's.
    async fn session(&mut self) -> Result<&Session, Error> {
        if self.session.is_none() {
            let connected = Session::connect(&self.paths[0]).await;
            if connected.is_err() {
                self.paths.rotate_left(1);
                sleep(Duration::from_millis(50)).await;
            }
            self.session = Some(connected?);
        }
        self.session
            .as_ref()
            .ok_or_else(|| Error::Usage("there is a session".to_owned()))
    }

    /// Sends a command until it is answered for good: again after a unit attention or a transition, elsewhere where the path is lost.
    async fn send(&mut self, cdb: Cdb, allocation: Option<u32>, data: &Bytes) -> Result<Bytes, Error> {
        self.tried = false;
        let began = Instant::now();
        loop {
            let answer = match self.session().await {
                Ok(session) if data.is_empty() => session.command(cdb, allocation).await,
                Ok(session) => session
                    .command_out(cdb, data.clone())
                    .await
                    .map(|()| Bytes::new()),
                Err(error) => Err(error),
            };
            let late = began.elapsed() > PATIENCE;
            match answer {
                Err(Error::CheckCondition(sense)) if !late && sense.key == 0x06 => {}
                Err(Error::CheckCondition(sense)) if !late && (sense.key, sense.asc) == (0x02, 0x04) => {
                    sleep(Duration::from_millis(20)).await;
                    // Standby: the other path.
                    if sense.ascq != 0x0a {
                        self.session = None;
                        self.paths.rotate_left(1);
                    }
                }
                Err(Error::Connect { .. }) if !late => {}
                Err(Error::Lost(_) | Error::Timeout(_)) if !late => {
                    self.tried = true;
                    self.session = None;
                    self.paths.rotate_left(1);
                }
                answer => return answer,
            }
        }
    }

    async fn read(&mut self, lba: Lba, blocks: u32) -> Result<Bytes> {
        let length = blocks * u32::try_from(BLOCK)?;
        Ok(self
            .send(cdb::read_16(lba, blocks), Some(length), &Bytes::new())
            .await?)
    }

    async fn write(&mut self, lba: Lba, data: Bytes) -> Result<()> {
        let blocks = u32::try_from(data.len() / BLOCK)?;
        self.send(cdb::write_16(lba, blocks), None, &data).await?;
        Ok(())
    }
}

/// A heartbeat: how often the lock was taken, and by whom last.
fn heartbeat(count: u64, host: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..8].copy_from_slice(&count.to_be_bytes());
    block[8..16].copy_from_slice(&host.to_be_bytes());
    block
}

fn count_of(block: &[u8]) -> u64 {
    block[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// What one host's heartbeats came to.
#[derive(Debug, Default)]
struct Beats {
    /// Counts that it put, as it was told.
    won: Vec<u64>,
    /// Counts of which it was told that another host had been there first, after a path was lost on the way: they may be its own.
    open: BTreeSet<u64>,
    miscompares: usize,
}

/// Takes the lock over and over, as hosts do that contend for one.
async fn beat(mut host: Host, id: u64, stop: Arc<AtomicBool>) -> Result<Beats> {
    let mut beats = Beats::default();
    while !stop.load(Ordering::Relaxed) {
        let found = host.read(HEARTBEAT, 1).await?;
        let next = count_of(&found) + 1;
        let both = Bytes::from([found.to_vec(), heartbeat(next, id)].concat());
        match host.send(cdb::compare_and_write(HEARTBEAT, 1), None, &both).await {
            Ok(_) => beats.won.push(next),
            Err(Error::CheckCondition(sense)) if sense.key == 0x0e => {
                beats.miscompares += 1;
                if host.tried {
                    beats.open.insert(next);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(beats)
}

/// Four hosts, two on each portal.
fn start_beats(demo: &Demo, stop: &Arc<AtomicBool>) -> Result<Vec<tokio::task::JoinHandle<Result<Beats>>>> {
    [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"]]
        .iter()
        .zip(1..)
        .map(|(paths, id)| Ok(tokio::spawn(beat(Host::new(demo, paths)?, id, Arc::clone(stop)))))
        .collect()
}

/// Each count was put once: by the host that was told so, or by one that lost its path before it was told.
async fn judge(hosts: Vec<tokio::task::JoinHandle<Result<Beats>>>, last: u64, losses: bool) -> Result<()> {
    let (mut won, mut open, mut miscompares) = (BTreeSet::new(), BTreeSet::new(), 0);
    for host in hosts {
        let beats = host.await??;
        for count in beats.won {
            ensure!(
                won.insert(count),
                "two hosts were told that they put count {count}"
            );
        }
        open.extend(beats.open);
        miscompares += beats.miscompares;
    }
    for count in 1..=last {
        ensure!(
            won.contains(&count) || open.contains(&count),
            "nobody put count {count}"
        );
    }
    ensure!(
        won.last().is_none_or(|count| *count <= last),
        "the last count is {last}: {won:?}"
    );
    ensure!(losses || open.is_empty(), "paths were lost in peace: {open:?}");
    ensure!(won.len() > 4, "the hosts got nowhere: {won:?}");
    say(&format!(
        "{} heartbeats, {miscompares} lost races, {} with an open end",
        won.len(),
        open.len()
    ));
    Ok(())
}

/// EXTENDED COPY(LID1) within one unit.
fn clone_list(naa: &[u8], from: Lba, to: Lba) -> (Cdb, Bytes) {
    let mut list = vec![1, 0x18, 0, 32, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
    list.extend_from_slice(&[0xe4, 0, 0, 0, 1, 3, 0, 16]);
    list.extend_from_slice(naa);
    list.extend_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0]);
    list.extend_from_slice(&[0x02, 0, 0, 24, 0, 0, 0, 0, 0, 0]);
    list.extend_from_slice(&CLONE_BLOCKS.to_be_bytes());
    list.extend_from_slice(&from.0.to_be_bytes());
    list.extend_from_slice(&to.0.to_be_bytes());
    let mut cdb = [0; 16];
    cdb[0] = 0x83;
    cdb[13] = u8::try_from(list.len()).unwrap_or(u8::MAX);
    (cdb, list.into())
}

/// The unit's NAA name: the first designator of VPD page 83h.
async fn naa(host: &mut Host) -> Result<Vec<u8>> {
    let page = host
        .send(cdb::inquiry(Some(0x83), 255), Some(255), &Bytes::new())
        .await?;
    ensure!(
        page.get(4..8) == Some(&[1, 3, 0, 16]),
        "no NAA designator: {page:02x?}"
    );
    Ok(page.slice(8..24).to_vec())
}

fn pattern(seed: u8) -> Bytes {
    let length = usize::from(CLONE_BLOCKS) * BLOCK;
    (0..length)
        .map(|i| u8::try_from(i / 97 % 251).unwrap_or(0) ^ seed)
        .collect()
}

/// Clones, compares, and takes the clone away with WRITE SAME and UNMAP.
async fn clone_and_clear(host: &mut Host, seed: u8) -> Result<()> {
    let blocks = u32::from(CLONE_BLOCKS);
    let (from, to) = (Lba(8192), Lba(24576));
    let name = naa(host).await?;
    let data = pattern(seed);
    host.write(from, data.clone()).await?;
    let (copy, list) = clone_list(&name, from, to);
    host.send(copy, None, &list).await.context("EXTENDED COPY")?;
    ensure!(host.read(to, blocks).await? == data, "the clone is another one");
    // Half of it is zeroed, in steps of 1 MiB as vSphere does, the other half unmapped.
    for step in 0..2 {
        let same = cdb::write_same_16(Lba(to.0 + step * 2048), 2048);
        host.send(same, None, &Bytes::from(vec![0; BLOCK]))
            .await
            .context("WRITE SAME")?;
    }
    let (unmap, list) = cdb::unmap(Lba(to.0 + 4096), 4096);
    host.send(unmap, None, &Bytes::copy_from_slice(&list))
        .await
        .context("UNMAP")?;
    let after = host.read(to, blocks).await?;
    ensure!(
        after.iter().all(|byte| *byte == 0),
        "what was zeroed and unmapped is not zeros"
    );
    ensure!(host.read(from, blocks).await? == data, "the source was changed");
    // Both halves gave their space back: one run without space, up to the end of the clone at least.
    let mut status = [0; 16];
    (status[0], status[1], status[13]) = (0x9e, 0x12, 24);
    status[2..10].copy_from_slice(&to.0.to_be_bytes());
    let found = host
        .send(status, Some(24), &Bytes::new())
        .await
        .context("GET LBA STATUS")?;
    let run = found.get(16..20).map_or(0, |bytes| {
        bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    });
    ensure!(
        found.get(20) == Some(&1) && run >= blocks,
        "the space was not given back: {found:02x?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_clones_zeroing_and_unmap_through_both_portals() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut own = Host::new(&demo, &["a", "b"])?;
    own.write(HEARTBEAT, heartbeat(0, 0).into()).await?;
    let hosts = start_beats(&demo, &stop)?;
    for (seed, paths) in [(1, ["a", "b"]), (2, ["b", "a"])] {
        let mut host = Host::new(&demo, &paths)?;
        clone_and_clear(&mut host, seed)
            .await
            .with_context(|| format!("through {}", paths[0]))?;
    }
    stop.store(true, Ordering::Relaxed);
    // Joined before the last count is read.
    let ended = join(hosts).await?;
    let last = count_of(&own.read(HEARTBEAT, 1).await?);
    judge(ended, last, false).await
}

/// Waits until every host has stopped, without looking at what it came to.
async fn join(
    hosts: Vec<tokio::task::JoinHandle<Result<Beats>>>,
) -> Result<Vec<tokio::task::JoinHandle<Result<Beats>>>> {
    let began = Instant::now();
    while hosts.iter().any(|host| !host.is_finished()) {
        if began.elapsed() > PATIENCE * 2 {
            bail!("a host does not stop");
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(hosts)
}

/// The primary dies in the middle of heartbeats and clones.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_and_clones_go_on_across_a_failover() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(PATIENCE).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut own = Host::new(&demo, &["b", "a"])?;
    own.write(HEARTBEAT, heartbeat(0, 0).into()).await?;
    let hosts = start_beats(&demo, &stop)?;
    let mut cloner = Host::new(&demo, &["a", "b"])?;
    let clones = tokio::spawn(async move {
        for seed in 10..16 {
            clone_and_clear(&mut cloner, seed).await?;
        }
        anyhow::Ok(())
    });
    sleep(Duration::from_millis(300)).await;
    let primary = demo.primary().await?;
    demo.kill(&primary)?;
    clones.await?.context("clones across the failover")?;
    stop.store(true, Ordering::Relaxed);
    let ended = join(hosts).await?;
    let last = count_of(&own.read(HEARTBEAT, 1).await?);
    judge(ended, last, true).await
}
