//! Paths in memory that can be cut.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use holdfast_types::BlockSize;
use tokio::sync::Notify;

use super::*;
use crate::error::SenseCode;

/// A portal that can be cut: its paths end, and no login comes through.
#[derive(Debug, Default)]
struct Portal {
    cut: AtomicBool,
    standby: AtomicBool,
    end: Notify,
}

#[derive(Debug)]
struct Wire(Arc<Portal>);

struct To(&'static str, Arc<Portal>);

impl Disk for Wire {
    fn block_size(&self) -> BlockSize {
        BlockSize::B512
    }

    fn blocks(&self) -> u64 {
        1 << 16
    }

    async fn read(&self, lba: Lba, blocks: u32) -> Result<Bytes, Error> {
        assert!(
            lba.0 + u64::from(blocks) <= PLACES * 8,
            "only the start of the unit is read"
        );
        sleep(Duration::from_millis(1)).await;
        if self.0.cut.load(Ordering::Relaxed) {
            return Err(Error::Lost("cut".to_owned()));
        }
        if self.0.standby.load(Ordering::Relaxed) {
            return Err(Error::CheckCondition(SenseCode::STANDBY));
        }
        Ok(Bytes::new())
    }

    async fn write(&self, _lba: Lba, _data: Bytes) -> Result<(), Error> {
        panic!("a watch that reads does not write");
    }
}

impl Path for Wire {
    async fn ended(&self) {
        self.0.end.notified().await;
    }

    fn close(&self) {
        self.0.end.notify_waiters();
    }
}

impl Connect for To {
    type Path = Wire;

    async fn connect(&self) -> Result<Wire, Error> {
        if self.1.cut.load(Ordering::Relaxed) {
            let source = std::io::ErrorKind::ConnectionRefused.into();
            let portal = self.0.to_owned();
            return Err(Error::Connect { portal, source });
        }
        Ok(Wire(Arc::clone(&self.1)))
    }

    fn name(&self) -> String {
        self.0.to_owned()
    }
}

fn plan() -> Plan {
    Plan {
        depth: 2,
        pause: Duration::from_millis(1),
        seed: 1,
    }
}

fn patience() -> Patience {
    Patience {
        redial: Duration::from_millis(5),
        again: Duration::from_millis(5),
        ..Patience::default()
    }
}

#[tokio::test]
async fn a_path_that_is_cut_stalls_and_the_unit_over_both_goes_on() {
    let (a, b) = (Arc::new(Portal::default()), Arc::new(Portal::default()));
    let paths = vec![To("a", Arc::clone(&a)), To("b", b)];
    let mut watching = Watching::start(plan(), paths);
    watching.read_all();
    sleep(Duration::from_millis(200)).await;
    a.cut.store(true, Ordering::Relaxed);
    // Time for everybody to meet it; told first, a lane that is just between two commands would not.
    sleep(Duration::from_millis(50)).await;
    a.end.notify_waiters();
    sleep(Duration::from_millis(450)).await;
    assert!(
        watching.glance().contains("a: no connection"),
        "{}",
        watching.glance()
    );
    a.cut.store(false, Ordering::Relaxed);
    sleep(Duration::from_millis(600)).await;
    let report = watching
        .report()
        .judged(Some(Duration::from_secs(20)), None, None);
    let stall = |lane: &LaneReport| lane.longest_stall.as_ref().unwrap().ms;
    let (cut, whole) = (&report.paths[0], &report.paths[1]);
    assert!(stall(cut) >= 500.0 && stall(cut) > stall(whole), "{report}");
    assert!(stall(&report.target) <= stall(whole), "{report}");
    assert!(cut.errors.contains_key("connection lost") && cut.errors.contains_key("no connection"));
    assert!(whole.errors.is_empty() && whole.failed == 0 && whole.answered > 10);
    let together = &report.together[0];
    assert!(together.failed == 0 && together.answered > 10, "{report}");
    assert!(report.hidden.contains_key("connection lost"), "{report}");
    assert!(report.held, "{report}");
    let told: Vec<_> = report.timelines[0]
        .bands
        .iter()
        .filter(|band| band.row == "a")
        .map(|band| band.text.as_str())
        .collect();
    assert_eq!(told, ["answers", "connection lost", "no connection", "answers"]);
    let html = report.page("test".to_owned()).html();
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..roxmltree::ParsingOptions::default()
    };
    roxmltree::Document::parse_with_options(&html, options).unwrap();
    let strict = report.judged(Some(Duration::from_micros(1)), None, None);
    assert!(!strict.held && strict.reasons[0].starts_with("nothing was answered for"));
}

#[tokio::test]
async fn a_target_that_never_answers_is_told() {
    let a = Arc::new(Portal::default());
    a.cut.store(true, Ordering::Relaxed);
    let mut watching = Watching::start(plan(), vec![To("a", a)]);
    let short = Patience {
        command: Duration::from_millis(20),
        ..patience()
    };
    assert!(watching.disk(0, short).await.is_err());
    assert!(!watching.has_answered());
    let report = watching.report().judged(None, None, None);
    assert!(
        !report.held && report.reasons == ["no path ever answered"],
        "{report}"
    );
    assert_eq!(
        serde_json::to_value(&report).unwrap()["paths"][0]["longest_stall"],
        serde_json::Value::Null
    );
}

#[tokio::test]
async fn standby_is_no_answer_and_no_lost_path() {
    let a = Arc::new(Portal::default());
    a.standby.store(true, Ordering::Relaxed);
    let watching = Watching::start(plan(), vec![To("a", a)]);
    sleep(Duration::from_millis(150)).await;
    let report = watching.report();
    let path = &report.paths[0];
    assert!(
        path.answered == 0 && path.failed > 0 && path.errors.len() == 1,
        "{report}"
    );
    assert!(path.errors.keys().all(|kind| kind.contains("02/04/0B")));
}
