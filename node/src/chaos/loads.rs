//! What keeps the cluster busy during chaos, and notices.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_drill::chaos::{Load, Place};
use holdfast_drill::checker::{Initial, Rules};
use holdfast_drill::disk::Disk;
use holdfast_drill::error::{Error, SenseCode};
use holdfast_drill::initiator::{Dial, Session};
use holdfast_drill::multipath::{MultiPath, Patience};
use holdfast_drill::workload::mixed::{self, Mixed, Stopped};
use holdfast_drill::workload::{self, Running, Verifier};
use holdfast_types::{BlockSize, Lba};

use super::cluster::{BULK, BULK_BYTES, Cluster, DISK, SHARED};

/// Blocks that the initiators meet on, and in how many groups: most of their calls go to the first.
const BLOCKS: u64 = 64;
const GROUPS: u64 = 8;
/// Initiators: half of them prefer a's path, half b's. The last ones only read.
pub(super) const INITIATORS: u16 = 6;
pub(super) const READERS: usize = 2;
/// Pause of each initiator after a call: more calls are no harder to survive, and longer to judge.
const PAUSE: Duration = Duration::from_millis(4);
/// The same of those that reserve.
const RESERVING_PAUSE: Duration = Duration::from_millis(60);
const RESERVED_BLOCKS: u64 = 8;
/// Numbers of sessions, which are names of initiators: of those that reserve, four for each unit; and half of those of the bulk unit.
const SHARED_NUMBERS: u16 = 50;
const BULK_NUMBERS: [u16; 2] = [40, 41];
/// How long after it was sent a call without an answer may still take effect: the hold limit (3 s), the longest fault, behind which it
/// may wait in a socket, TCP's longest pause between two attempts after one that long, and a slow machine.
const LATE: Duration = Duration::from_secs(45);
/// What is written all over the bulk unit at a time, and how long its writers and readers pause: some MiB a second.
const BULK_UNIT: usize = 64 << 10;
const BULK_PAUSE: Duration = Duration::from_millis(25);
/// Before that it is filled, so much at a time.
const FILLED_AT_ONCE: usize = 1 << 20;
/// Writers of the bulk unit, and as many readers: one through each node.
const BULK_WRITERS: usize = 2;
/// Before a write is sent again that found no space.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// Initiators with two paths each on LUN 0; two of them that write all over LUN 1, and read it; paths that reserve the other ones.
pub(super) struct Loads {
    blocks: Mixed,
    bulk: Running,
    reserving: Vec<(&'static str, Mixed)>,
}

impl Load for Loads {
    fn now(&self) -> Duration {
        self.blocks.now()
    }

    fn answered(&self) -> u64 {
        self.blocks.acknowledged()
    }

    async fn served(&self, limit: Duration) -> Result<(), Error> {
        self.blocks.served(limit).await?;
        for lane in 0..self.bulk.lanes() {
            self.bulk.served(lane, limit).await?;
        }
        for (_, reserving) in &self.reserving {
            reserving.served(limit).await?;
        }
        Ok(())
    }
}

impl Loads {
    /// Starts them all.
    pub(super) async fn start(cluster: &Cluster, seed: u64) -> anyhow::Result<Self> {
        let plan = mixed::Plan {
            seed,
            first: Lba(0),
            blocks: BLOCKS,
            groups: GROUPS,
            readers: READERS,
            pause: PAUSE,
            rules: Rules {
                initial: Initial::Zeros,
                late: Some(LATE),
            },
            reserves: false,
            may_be_full: true,
        };
        let initiators = (0..INITIATORS).map(|number| paths(cluster, DISK, number));
        let blocks = mixed::start(plan, BlockSize::B512, initiators.collect::<anyhow::Result<_>>()?)?;
        let plan = mixed::Plan {
            blocks: RESERVED_BLOCKS,
            groups: 1,
            readers: 0,
            pause: RESERVING_PAUSE,
            reserves: true,
            ..plan
        };
        let mut reserving = Vec::new();
        for (number, (lun, name)) in (0..).zip(SHARED) {
            let path = |(place, number)| Ok(vec![cluster.dial(place, lun, number)?]);
            let nexuses = [Place::A, Place::B, Place::A, Place::B].into_iter();
            let nexuses = nexuses.zip(SHARED_NUMBERS + number * 4..).map(path);
            let plan = mixed::Plan {
                seed: seed.wrapping_add(u64::from(number) << 32),
                ..plan
            };
            let nexuses = nexuses.collect::<anyhow::Result<_>>()?;
            reserving.push((name, mixed::start(plan, BlockSize::B512, nexuses)?));
        }
        let bulk = start_bulk(cluster, seed).await?;
        Ok(Self {
            blocks,
            bulk,
            reserving,
        })
    }

    /// Calls on LUN 0 that were answered since the last time that somebody asked.
    pub(super) fn samples(&self) -> Vec<workload::Sample> {
        self.blocks.samples()
    }

    /// Ends them, and waits for what they have under way.
    pub(super) async fn stop(self) -> Over {
        let blocks = self.blocks.stop().await;
        let mut reserving = Vec::new();
        for (name, load) in self.reserving {
            reserving.push((name, load.stop().await));
        }
        let (bulk, written) = self.bulk.stop().await;
        Over {
            blocks,
            bulk,
            written,
            reserving,
        }
    }
}

/// Loads that have ended, and are yet to be judged.
pub(super) struct Over {
    blocks: Stopped,
    bulk: workload::Report,
    written: Verifier,
    reserving: Vec<(&'static str, Stopped)>,
}

impl Over {
    /// Looks at every block that was written, through this node; `number` is that of its session.
    pub(super) async fn look(&self, cluster: &Cluster, place: Place, number: u16) -> anyhow::Result<()> {
        let session = Session::connect(&cluster.dial(place, DISK, number)?).await?;
        self.blocks.look(&session).await?;
        let session = Session::connect(&cluster.dial(place, BULK, number)?).await?;
        let path = format!("{place}, at the end");
        self.written
            .verify(&session, &path)
            .await
            .map_err(anyhow::Error::msg)?;
        Ok(())
    }

    /// What was found beside the histories.
    pub(super) fn faults(&self) -> Vec<String> {
        let faults = self.bulk.faults.iter();
        faults.map(|fault| format!("bulk: {fault}")).collect()
    }

    /// Judges the histories.
    pub(super) fn judge(self) -> Vec<(&'static str, mixed::Report)> {
        let mut judged = vec![("blocks", self.blocks.judge())];
        judged.extend(
            self.reserving
                .into_iter()
                .map(|(name, load)| (name, load.judge())),
        );
        judged
    }
}

/// Paths to a unit, for initiator number `number`: through a and then b, or the other way round.
fn paths(cluster: &Cluster, lun: u8, number: u16) -> anyhow::Result<Vec<Dial>> {
    let order = if number.is_multiple_of(2) {
        [Place::A, Place::B]
    } else {
        [Place::B, Place::A]
    };
    let dial = |(place, at)| cluster.dial(place, lun, number * 2 + at);
    order.into_iter().zip(0..).map(dial).collect()
}

async fn start_bulk(cluster: &Cluster, seed: u64) -> anyhow::Result<Running> {
    let mut disks = Vec::new();
    for number in BULK_NUMBERS {
        let paths = MultiPath::connect(paths(cluster, BULK, number)?, Patience::default()).await?;
        disks.push(Arc::new(Unhurried(paths)));
    }
    // All of it has its room before a disk may be full: a write there is whole or not at all.
    let filler = Bytes::from(vec![0x55; FILLED_AT_ONCE]);
    for first in (0..disks[0].blocks()).step_by(FILLED_AT_ONCE >> BlockSize::B512.shift()) {
        disks[0].write(Lba(first), filler.clone()).await?;
    }
    let plan = workload::Plan {
        seed,
        writers: BULK_WRITERS,
        readers: BULK_WRITERS,
        units: usize::try_from(BULK_BYTES)? / BULK_UNIT,
        unit_bytes: BULK_UNIT,
        pause: BULK_PAUSE,
    };
    Ok(workload::start(plan, &disks)?)
}

/// A disk whose readers pause, too, and that is not given up when it is full for a while.
struct Unhurried<D>(D);

impl<D: Disk> Disk for Unhurried<D> {
    fn block_size(&self) -> BlockSize {
        self.0.block_size()
    }

    fn blocks(&self) -> u64 {
        self.0.blocks()
    }

    async fn read(&self, lba: Lba, blocks: u32) -> Result<Bytes, Error> {
        tokio::time::sleep(BULK_PAUSE).await;
        self.0.read(lba, blocks).await
    }

    async fn write(&self, lba: Lba, data: Bytes) -> Result<(), Error> {
        loop {
            match self.0.write(lba, data.clone()).await {
                Err(Error::CheckCondition(SenseCode::SPACE_ALLOCATION_FAILED)) => {
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                other => return other,
            }
        }
    }
}
