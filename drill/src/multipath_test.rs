//! Paths that answer by a script.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::*;

/// A path that gives scripted answers to writes, then GOOD for ever.
#[derive(Debug, Default)]
struct Scripted {
    answers: Mutex<VecDeque<Error>>,
    served: Arc<AtomicU64>,
    end: Notify,
}

impl Disk for Scripted {
    fn block_size(&self) -> BlockSize {
        BlockSize::B512
    }

    fn blocks(&self) -> u64 {
        1000
    }

    async fn read(&self, _lba: Lba, _blocks: u32) -> Result<Bytes, Error> {
        Err(Error::Status(0x18))
    }

    async fn write(&self, _lba: Lba, _data: Bytes) -> Result<(), Error> {
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            Some(error) => {
                if matches!(error, Error::Lost(_)) {
                    self.close();
                }
                Err(error)
            }
            None => {
                self.served.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

impl Path for Scripted {
    async fn ended(&self) {
        self.end.notified().await;
    }

    fn close(&self) {
        self.end.notify_one();
    }
}

/// Gives its script to the first connection; later ones answer GOOD.
struct Script {
    first: Mutex<Option<Vec<Error>>>,
    served: Arc<AtomicU64>,
}

impl Script {
    fn new(answers: Vec<Error>) -> (Self, Arc<AtomicU64>) {
        let served = Arc::new(AtomicU64::new(0));
        let first = Mutex::new(Some(answers));
        (
            Self {
                first,
                served: Arc::clone(&served),
            },
            served,
        )
    }
}

impl Connect for Script {
    type Path = Scripted;

    async fn connect(&self) -> Result<Scripted, Error> {
        let answers = self.first.lock().unwrap().take().unwrap_or_default();
        Ok(Scripted {
            answers: Mutex::new(answers.into()),
            served: Arc::clone(&self.served),
            end: Notify::new(),
        })
    }

    fn name(&self) -> String {
        "scripted".to_owned()
    }
}

fn patience() -> Patience {
    Patience {
        command: Duration::from_secs(10),
        redial: Duration::from_millis(5),
        again: Duration::from_millis(1),
    }
}

async fn two(first: Vec<Error>) -> (MultiPath<Scripted>, Arc<AtomicU64>, Arc<AtomicU64>) {
    let (a, a_served) = Script::new(first);
    let (b, b_served) = Script::new(Vec::new());
    let disk = MultiPath::connect(vec![a, b], patience()).await.unwrap();
    while disk.paths_up() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    (disk, a_served, b_served)
}

#[tokio::test]
async fn attentions_and_transitions_stay_on_the_path() {
    let sense = |code| Error::CheckCondition(code);
    let script = vec![
        sense(SenseCode::GROUP_STATE_CHANGED),
        sense(SenseCode::RESET),
        sense(SenseCode::TRANSITION),
        Error::Status(0x08),
    ];
    let (disk, a, b) = two(script).await;
    disk.write(Lba(0), Bytes::new()).await.unwrap();
    assert_eq!((a.load(Ordering::Relaxed), b.load(Ordering::Relaxed)), (1, 0));
    let counts = disk.counts();
    assert_eq!(counts.attentions.load(Ordering::Relaxed), 2);
    assert_eq!(counts.later.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_standby_group_or_a_lost_path_sends_the_command_elsewhere() {
    for error in [
        Error::CheckCondition(SenseCode::STANDBY),
        Error::Lost("reset".to_owned()),
        Error::Timeout(Duration::from_secs(5)),
    ] {
        let (disk, a, b) = two(vec![error]).await;
        disk.write(Lba(0), Bytes::new()).await.unwrap();
        assert_eq!((a.load(Ordering::Relaxed), b.load(Ordering::Relaxed)), (0, 1));
    }
}

#[tokio::test]
async fn a_lost_path_is_dialled_again_and_preferred_again() {
    let (disk, a, _) = two(vec![Error::Lost("reset".to_owned())]).await;
    disk.write(Lba(0), Bytes::new()).await.unwrap();
    while disk.paths_up() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    disk.write(Lba(0), Bytes::new()).await.unwrap();
    assert_eq!(a.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn other_errors_reach_the_application() {
    for (error, wanted) in [
        (Error::CheckCondition(SenseCode::new(3, 0x11, 0)), "03/11/00"),
        (Error::CheckCondition(SenseCode::new(5, 0x25, 0)), "05/25/00"),
        (Error::CheckCondition(SenseCode::new(0xb, 0, 0)), "0B/00/00"),
        (Error::Status(0x18), "0x18"),
    ] {
        let (disk, ..) = two(vec![error]).await;
        let error = disk.write(Lba(0), Bytes::new()).await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn patience_ends() {
    let (a, _) = Script::new(
        (0..1000)
            .map(|_| Error::CheckCondition(SenseCode::TRANSITION))
            .collect(),
    );
    let short = Patience {
        command: Duration::from_millis(50),
        ..patience()
    };
    let disk = MultiPath::connect(vec![a], short).await.unwrap();
    let error = disk.write(Lba(0), Bytes::new()).await.unwrap_err();
    assert_eq!(error.sense(), Some(SenseCode::TRANSITION));
}
