//! Workloads against disks in memory, sound ones and bad ones.

use bytes::Bytes;
use holdfast_types::BlockSize;

use super::*;

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Every 50th write is acknowledged and forgotten.
    Forgets,
    /// Every 50th write leaves its second half out.
    Tears,
    /// Every 50th write gets MEDIUM ERROR.
    Errs,
}

#[derive(Debug)]
struct Memory {
    data: Mutex<Vec<u8>>,
    writes: AtomicU64,
    flaw: Flaw,
}

impl Memory {
    fn new(flaw: Flaw) -> Arc<Self> {
        Arc::new(Self {
            data: Mutex::new(vec![0; 1 << 20]),
            writes: AtomicU64::new(0),
            flaw,
        })
    }
}

impl Disk for Memory {
    fn block_size(&self) -> BlockSize {
        BlockSize::B512
    }

    fn blocks(&self) -> u64 {
        2048
    }

    async fn read(&self, lba: Lba, blocks: u32) -> Result<Bytes, Error> {
        tokio::task::yield_now().await;
        let at = usize::try_from(lba.0).unwrap() * 512;
        Ok(Bytes::copy_from_slice(
            &self.data.lock().unwrap()[at..at + blocks as usize * 512],
        ))
    }

    async fn write(&self, lba: Lba, data: Bytes) -> Result<(), Error> {
        tokio::task::yield_now().await;
        let is_bad = self.writes.fetch_add(1, Ordering::Relaxed) % 50 == 49;
        let at = usize::try_from(lba.0).unwrap() * 512;
        let length = match self.flaw {
            Flaw::Errs if is_bad => {
                return Err(Error::CheckCondition(crate::error::SenseCode::new(3, 0xc, 2)));
            }
            Flaw::Forgets if is_bad => 0,
            Flaw::Tears if is_bad => data.len() / 2,
            _ => data.len(),
        };
        self.data.lock().unwrap()[at..at + length].copy_from_slice(&data[..length]);
        Ok(())
    }
}

fn plan() -> Plan {
    Plan {
        writers: 4,
        readers: 2,
        units: 64,
        ..Plan::small(9)
    }
}

async fn run(flaw: Flaw) -> (Report, Result<usize, String>) {
    let disk = Memory::new(flaw);
    let running = start(plan(), &[Arc::clone(&disk), Arc::clone(&disk)]).unwrap();
    running.served(0, Duration::from_secs(20)).await.unwrap();
    running.served(1, Duration::from_secs(20)).await.unwrap();
    while running.acknowledged() < 2000 && running.fault_count() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let (report, verifier) = running.stop().await;
    let verdict = verifier.verify(&*disk, "memory").await;
    (report, verdict)
}

#[tokio::test]
async fn a_sound_disk_passes() {
    let (report, verdict) = run(Flaw::None).await;
    assert_eq!(
        (report.fault_count, report.unanswered),
        (0, 0),
        "{:?}",
        report.faults
    );
    assert!(report.reads > 0 && report.acknowledged >= 2000);
    assert_eq!(verdict, Ok(64));
}

#[tokio::test]
async fn a_disk_that_forgets_tears_or_errs_does_not() {
    for (flaw, words) in [
        (Flaw::Forgets, "went back"),
        (Flaw::Tears, "torn"),
        (Flaw::Errs, "03/0C/02"),
    ] {
        let (report, verdict) = run(flaw).await;
        let all = format!("{:?} {verdict:?}", report.faults);
        assert!(all.contains(words), "{flaw:?}: {all}");
    }
}

#[tokio::test]
async fn a_plan_that_does_not_fit_is_refused() {
    let disk = Memory::new(Flaw::None);
    let cases = [
        Plan { units: 257, ..plan() },
        Plan {
            unit_bytes: 1000,
            ..plan()
        },
        Plan { writers: 0, ..plan() },
        Plan {
            writers: 65,
            ..plan()
        },
    ];
    for plan in cases {
        assert!(
            matches!(start(plan, &[Arc::clone(&disk)]), Err(Error::Usage(_))),
            "{plan:?}"
        );
    }
}
