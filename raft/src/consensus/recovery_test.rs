//! One node, whose parts are lost or damaged between two runs.

use std::path::Path;
use std::sync::Arc;

use super::error::StartError;
use super::rig::{Seat, cluster, files, flip, propose, seats, settle, targets};
use super::{Config, Control};
use crate::model::{ClusterId, ClusterState};
use holdfast_types::NodeId;

/// Targets that the runs before have made.
const MADE: usize = 100;

/// A seat with a log that was purged behind snapshots, and the state that its node left behind.
async fn used() -> (tempfile::TempDir, Seat, Arc<ClusterState>) {
    let (dir, mut seats) = seats(1, 16);
    let control = cluster(&seats).await.remove(0);
    propose(&control, 0..MADE).await;
    let state = settle(&control).await;
    assert!(control.metrics().purged.is_some());
    control.shutdown().await;
    drop(control);
    (dir, seats.remove(0), state)
}

/// Numbers of the targets that [`lives`] makes.
const EXTRA: std::ops::Range<usize> = 10_000..10_002;

/// A further run, which must know all that the first one knew, and go on.
async fn lives(seat: &Seat, before: &ClusterState) -> Control {
    let control = seat.start().await.unwrap();
    let mut after = ClusterState::clone(&*settle(&control).await);
    after.targets.retain(|name, _| {
        EXTRA
            .clone()
            .all(|number| !name.as_str().ends_with(&format!(":t{number}")))
    });
    after.revision = before.revision;
    assert_eq!(after, *before);
    propose(&control, EXTRA).await;
    settle(&control).await;
    control
}

async fn stop(control: Control) {
    control.shutdown().await;
}

fn snapshots(seat: &Seat) -> Vec<std::path::PathBuf> {
    files(&seat.dir.join("snapshots"), |name| name.ends_with(".snapshot"))
}

fn segments(seat: &Seat) -> Vec<std::path::PathBuf> {
    let log = seat.dir.join("log");
    let mut found = files(&log, |_| true);
    // The log is where bytes are; spares are zeros.
    found.retain(|path| std::fs::read(path).unwrap().iter().any(|byte| *byte != 0));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_dropped_without_a_shutdown_knows_everything_again() {
    let (_dir, mut seats) = seats(1, 64);
    let seat = seats.remove(0);
    let mut control = cluster(std::slice::from_ref(&seat)).await.remove(0);
    for round in 0..6 {
        propose(&control, round * 20..round * 20 + 20).await;
        let (term, before) = (control.metrics().term, control.state());
        drop(control);
        control = seat.start().await.unwrap();
        assert_eq!(settle(&control).await.targets, before.targets);
        assert!(control.metrics().term > term, "a new term for a new run");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_applied_state_is_rebuilt() {
    let (_dir, seat, before) = used().await;
    std::fs::remove_dir_all(seat.dir.join("applied")).unwrap();
    stop(lives(&seat, &before).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_applied_state_is_rebuilt() {
    let (_dir, seat, before) = used().await;
    let db = seat.dir.join("applied/db");
    let whole = std::fs::read(&db).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let pattern = |at: usize| u8::try_from(at * 31 % 251).unwrap() | 1;
    let damages: Vec<Vec<u8>> = vec![
        whole[..used / 2].to_vec(),
        whole[..used - 3].to_vec(),
        (0..whole.len()).map(pattern).collect(),
        whole
            .iter()
            .enumerate()
            .map(|(at, b)| if at % 997 == 5 { !b } else { *b })
            .collect(),
        whole
            .iter()
            .enumerate()
            .map(|(at, b)| if at < 64 { pattern(at) } else { *b })
            .collect(),
        whole
            .iter()
            .enumerate()
            .map(|(at, b)| if at.abs_diff(used / 3) < 600 { 0 } else { *b })
            .collect(),
        Vec::new(),
    ];
    for damage in damages {
        std::fs::write(&db, damage).unwrap();
        stop(lives(&seat, &before).await).await;
    }
    // A file where the directory should be.
    std::fs::remove_dir_all(seat.dir.join("applied")).unwrap();
    std::fs::write(seat.dir.join("applied"), b"x").unwrap();
    stop(lives(&seat, &before).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_applied_state_of_another_log_is_not_taken() {
    let (_dir, seat, before) = used().await;
    stop(lives(&seat, &before).await).await;
    // As many entries as the seat has by now, but all of the first term.
    let (_other_dir, mut others) = seats(1, 16);
    let other = others.remove(0);
    let control = cluster(std::slice::from_ref(&other)).await.remove(0);
    propose(&control, 5000..5000 + MADE + 2).await;
    let (theirs, mine) = (settle(&control).await.revision, before.revision);
    assert!(theirs > mine, "{theirs:?} {mine:?}");
    stop(control).await;
    std::fs::remove_dir_all(seat.dir.join("applied")).unwrap();
    std::fs::rename(other.dir.join("applied"), seat.dir.join("applied")).unwrap();
    stop(lives(&seat, &before).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_snapshots_are_replaced_while_anything_else_has_the_state() {
    let (_dir, seat, before) = used().await;
    // All broken, but the applied state is there.
    for path in snapshots(&seat) {
        flip(&path, 40);
    }
    stop(lives(&seat, &before).await).await;
    assert!(!snapshots(&seat).is_empty(), "a new one was written");
    // The newest broken, and no applied state: the older one and the log.
    let control = seat.start().await.unwrap();
    propose(&control, 200..260).await;
    let before = settle(&control).await;
    stop(control).await;
    let found = snapshots(&seat);
    assert_eq!(found.len(), 2);
    flip(&found[1], 100);
    std::fs::remove_dir_all(seat.dir.join("applied")).unwrap();
    let control = seat.start().await.unwrap();
    assert_eq!(targets(&*settle(&control).await), before.targets.len());
    stop(control).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l8_a_node_that_has_lost_the_state_says_so_and_stays_out() {
    let (_dir, seat, _) = used().await;
    for path in snapshots(&seat) {
        std::fs::remove_file(path).unwrap();
    }
    std::fs::remove_dir_all(seat.dir.join("applied")).unwrap();
    let error = seat.start().await.unwrap_err();
    assert!(matches!(error, StartError::StateLost { .. }), "{error}");
    one_line(&error, &seat.dir);
}

fn one_line(error: &StartError, dir: &Path) {
    let line = error.to_string();
    assert!(
        !line.contains('\n') && line.contains(dir.to_str().unwrap()),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l8_a_node_with_a_damaged_log_says_so_and_stays_out() {
    let (_dir, seat, before) = used().await;
    let path = segments(&seat).remove(0);
    let bytes = std::fs::read(&path).unwrap();
    let within = |text: &str| {
        let found = bytes
            .windows(text.len())
            .position(|window| window == text.as_bytes());
        found.unwrap() as u64
    };
    // The last one looks like a torn tail to the journal, but its entry was applied.
    for at in [
        100,
        within("example:t3\""),
        within("example:t50\""),
        within("example:t99\""),
    ] {
        flip(&path, at);
        let error = seat.start().await.unwrap_err();
        assert!(matches!(error, StartError::LogDamaged { .. }), "at {at}: {error}");
        one_line(&error, &seat.dir);
        // The refusal has changed nothing: undone, the node is as before.
        flip(&path, at);
    }
    stop(lives(&seat, &before).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l8_a_node_without_its_log_says_so_and_stays_out() {
    let (_dir, seat, _) = used().await;
    std::fs::remove_dir_all(seat.dir.join("log")).unwrap();
    let error = seat.start().await.unwrap_err();
    assert!(matches!(error, StartError::LogGone { .. }), "{error}");
    std::fs::remove_dir_all(seat.dir.join("applied")).unwrap();
    let error = seat.start().await.unwrap_err();
    assert!(matches!(error, StartError::LogGone { .. }), "{error}");
    one_line(&error, &seat.dir);
    // All is gone, but the node knows that it was a voter.
    std::fs::remove_dir_all(&seat.dir).unwrap();
    let config = Config {
        expect_log: true,
        ..seat.config()
    };
    let error = Control::start(config, Arc::new(|_| {}), Arc::new(|_| {}))
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::LogGone { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_of_another_node_or_cluster_is_refused() {
    let (_dir, seat, before) = used().await;
    let others = [
        Config {
            node: NodeId(2),
            ..seat.config()
        },
        Config {
            cluster: ClusterId(5),
            ..seat.config()
        },
    ];
    for config in others {
        let error = Control::start(config, Arc::new(|_| {}), Arc::new(|_| {}))
            .await
            .unwrap_err();
        assert!(matches!(error, StartError::OtherOwner { .. }), "{error}");
        one_line(&error, &seat.dir);
    }
    stop(lives(&seat, &before).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_hears_of_a_state_before_the_proposal_is_answered() {
    let (_dir, seats) = seats(1, 64);
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hook = heard.clone();
    let control = Control::start(
        seats[0].config(),
        Arc::new(move |state: &Arc<ClusterState>| hook.lock().unwrap().push(state.targets.len())),
        Arc::new(|_| {}),
    )
    .await
    .unwrap();
    assert_eq!(*heard.lock().unwrap(), [0], "the recovered state");
    let members = [(seats[0].node, seats[0].address)].into();
    control.initialize(members).await.unwrap();
    control.propose(super::rig::init(&seats)).await.unwrap();
    for number in 0..10 {
        propose(&control, number..number + 1).await;
        assert_eq!(heard.lock().unwrap().last(), Some(&(number + 1)));
        assert_eq!(targets(&control.state()), number + 1);
    }
}
