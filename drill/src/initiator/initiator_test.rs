//! Sessions with targets that are absent, silent or mad. What a sound target answers is tested against the real one.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::target_test::{DISK_BYTES, Mood, target};
use super::*;
use crate::bench;
use crate::bench_guard::find_foreign_data;
use crate::workload;

async fn listener() -> (TcpListener, Dial) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("iscsi://127.0.0.1:{port}/iqn.2026-11.example:a/0");
    let name = "iqn.2026-11.example:drill".parse().unwrap();
    let mut dial = Dial::new(url.parse().unwrap(), name, 1);
    dial.login_timeout = Duration::from_millis(300);
    (listener, dial)
}

#[tokio::test]
async fn nobody_there_is_a_connect_error() {
    let (listener, dial) = listener().await;
    drop(listener);
    assert!(matches!(
        Session::connect(&dial).await,
        Err(Error::Connect { .. })
    ));
}

#[tokio::test]
async fn a_target_that_hangs_up_is_a_lost_connection() {
    let (listener, mut dial) = listener().await;
    dial.login_timeout = Duration::from_secs(20);
    let target = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let error = Session::connect(&dial).await.unwrap_err();
    assert!(error.is_unknown(), "{error}");
    target.await.unwrap();
}

#[tokio::test]
async fn a_silent_target_runs_into_the_timer() {
    let (listener, dial) = listener().await;
    let target = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        sleep(Duration::from_secs(2)).await;
        drop(stream);
    });
    let error = Session::connect(&dial).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
    target.abort();
}

#[tokio::test]
async fn a_target_that_talks_nonsense_is_left() {
    let (listener, mut dial) = listener().await;
    dial.login_timeout = Duration::from_secs(20);
    let target = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(&[0x5a; 4096]).await;
        sleep(Duration::from_secs(20)).await;
    });
    let error = Session::connect(&dial).await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    target.abort();
}

#[tokio::test]
async fn blocks_of_any_size_come_back_as_they_were_written() {
    for digests in [false, true] {
        let (mut dial, target) = target(Mood::Attentive).await;
        dial.digests = digests;
        let session = Session::connect(&dial).await.unwrap();
        assert_eq!(session.capacity().bytes(), DISK_BYTES as u64);
        // One block, one PDU, more than the first burst, and all: immediate data, unsolicited data, R2T.
        for blocks in [1_u32, 8, 512, 1024, 2048] {
            let data: Vec<u8> = (0..blocks * 512)
                .map(|byte| u8::try_from(byte * 31 % 251).unwrap())
                .collect();
            let lba = Lba(2048 - u64::from(blocks));
            session.write(lba, data.clone().into()).await.unwrap();
            assert!(
                session.read(lba, blocks).await.unwrap() == data,
                "{blocks} blocks, digests {digests}"
            );
        }
        session.ping().await.unwrap();
        session.log_out().await.unwrap();
        target.abort();
    }
}

#[tokio::test]
async fn a_workload_runs_at_depth_over_one_session() {
    let (dial, target) = target(Mood::Sound).await;
    let session = Arc::new(Session::connect(&dial).await.unwrap());
    let plan = workload::Plan {
        writers: 32,
        units: 256,
        ..workload::Plan::small(3)
    };
    let running = workload::start(plan, &[Arc::clone(&session)]).unwrap();
    while running.acknowledged() < 2000 && running.fault_count() == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let (report, verifier) = running.stop().await;
    assert_eq!(
        (report.fault_count, report.unanswered),
        (0, 0),
        "{:?}",
        report.faults
    );
    assert_eq!(verifier.verify(&*session, "memory").await, Ok(256));
    target.abort();
}

#[tokio::test]
async fn errors_are_told_by_their_kind() {
    let (mut dial, target) = target(Mood::Deaf).await;
    dial.command_timeout = Duration::from_millis(300);
    let session = Session::connect(&dial).await.unwrap();
    let behind = session.read(Lba(2048), 1).await.unwrap_err();
    assert_eq!(behind.sense(), Some(SenseCode::new(5, 0x21, 0)));
    let busy = session.command([0xee; 16], None).await.unwrap_err();
    assert!(matches!(busy, Error::Status(0x08)), "{busy}");
    let unanswered = session
        .write(Lba(0), Bytes::from(vec![0; 512]))
        .await
        .unwrap_err();
    assert!(matches!(unanswered, Error::Timeout(_)), "{unanswered}");
    let odd = session
        .write(Lba(0), Bytes::from(vec![0; 100]))
        .await
        .unwrap_err();
    assert!(matches!(odd, Error::Usage(_)), "{odd}");

    let pending = session
        .start(cdb::write_16(Lba(0), 1), None, Bytes::from(vec![0; 512]))
        .await
        .unwrap();
    let result = session
        .task_management(TaskFunction::ABORT_TASK, Some(pending.tag))
        .await
        .unwrap();
    assert_eq!(result, TaskResult::COMPLETE);
    session.close();
    session.ended().await;
    let lost = session.read(Lba(0), 1).await.unwrap_err();
    assert!(matches!(lost, Error::Lost(_)), "{lost}");
    target.abort();
}

#[tokio::test]
async fn an_unknown_target_is_a_refused_login_and_discovery_names_the_known_one() {
    let (mut dial, target) = target(Mood::Sound).await;
    let found = Session::discover(&dial).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, dial.url.target.as_str());
    assert!(found[0].1[0].starts_with(&dial.url.portal()), "{found:?}");
    dial.url.target = "iqn.2026-11.example:other".parse().unwrap();
    let refused = Session::connect(&dial).await.unwrap_err();
    assert!(
        matches!(refused, Error::LoginRefused { class: 2, detail: 3 }),
        "{refused}"
    );
    target.abort();
}

#[tokio::test]
async fn a_redirected_login_is_followed_a_few_times() {
    let (there, target_there) = target(Mood::Sound).await;
    let to = there.url.portal().parse().unwrap();
    let (dial, target_here) = target(Mood::Elsewhere(to)).await;
    let session = Session::connect(&dial).await.unwrap();
    assert_eq!(session.portal(), there.url.portal());
    session.write(Lba(0), Bytes::from(vec![7; 512])).await.unwrap();
    assert_eq!(Session::discover(&dial).await.unwrap().len(), 1);
    let (circle, target_circle) = target(Mood::InCircles).await;
    let error = Session::connect(&circle).await.unwrap_err();
    assert!(matches!(error, Error::Redirected(_)), "{error}");
    for task in [target_there, target_here, target_circle] {
        task.abort();
    }
}

#[tokio::test]
async fn a_measurement_finds_its_own_blocks_and_foreign_ones() {
    let (dial, target) = target(Mood::Sound).await;
    let session = Arc::new(Session::connect(&dial).await.unwrap());
    let plan = bench::Plan {
        depth: 16,
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(300),
        ..bench::Plan::default()
    };
    let report = bench::run(&plan, &[Arc::clone(&session)]).await.unwrap();
    assert!(report.operations > 0 && report.latency.p50_us > 0.0, "{report}");
    assert_eq!(find_foreign_data(&session, 1).await.unwrap(), None);
    session.write(Lba(17), Bytes::from(vec![7; 512])).await.unwrap();
    assert_eq!(find_foreign_data(&session, 1).await.unwrap(), Some(Lba(17)));
    target.abort();
}
