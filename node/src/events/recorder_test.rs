//! Tests of the recorder, through a subscriber of its own.

use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

fn with_ear(recorder: &Arc<Recorder>, told: impl FnOnce()) {
    let subscriber = tracing_subscriber::registry().with(Ear(Arc::clone(recorder)));
    tracing::subscriber::with_default(subscriber, told);
}

fn texts(recorder: &Recorder, all: bool) -> Vec<String> {
    let document = recorder.document("a", 100, all);
    document.events.iter().map(Event::sentence).collect()
}

#[test]
fn events_and_lines_of_the_log_are_told_apart_and_ids_become_names() {
    let recorder = Arc::new(Recorder::default());
    let mut names = recorder.inner();
    names.names.nodes.insert("2".to_owned(), "b".to_owned());
    names.names.extents.insert("77".to_owned(), "disk".to_owned());
    drop(names);
    with_ear(&recorder, || {
        tracing::info!(target: EVENTS, what = "in_sync", extent = %77, node = %2, "node 2 is in sync");
        tracing::warn!(port = 3, "something else");
        tracing::info!(target: EVENTS, what = "nonsense", "never heard of");
    });
    assert_eq!(texts(&recorder, false), ["disk: b is in sync"]);
    assert_eq!(
        texts(&recorder, true),
        ["disk: b is in sync", "something else port=3", "never heard of"]
    );
    let event = recorder.document("a", 1, false).events.remove(0);
    assert_eq!((event.what, event.node.as_deref()), (Kind::InSync, Some("b")));
}

/// What chatters does not push out what is rare, and nothing grows without bound.
#[test]
fn memory_is_bounded_and_lines_of_the_log_push_no_event_out() {
    let recorder = Arc::new(Recorder::default());
    with_ear(&recorder, || {
        tracing::info!(target: EVENTS, what = "leader", "{}", "x".repeat(9000));
        for _ in 0..LINES_MAX + 100 {
            tracing::info!("chatter");
        }
    });
    assert_eq!(
        recorder.document("a", usize::MAX, true).events.len(),
        LINES_MAX + 1
    );
    assert_eq!(texts(&recorder, false)[0].len(), TEXT_MAX);
}

/// A restart does not forget, and what was said before the directory was known is filed, too.
#[test]
fn the_next_run_knows_what_the_last_one_recorded() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..2 {
        let recorder = Arc::new(Recorder::default());
        with_ear(&recorder, || {
            tracing::info!(target: EVENTS, what = "leader", "early {run}");
            recorder.file_in(dir.path()).unwrap();
            tracing::info!(target: EVENTS, what = "leader", "late {run}");
        });
        let expected: Vec<String> = (0..=run)
            .flat_map(|run| [format!("early {run}"), format!("late {run}")])
            .collect();
        assert_eq!(texts(&recorder, false), expected);
        drop(recorder);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let files = LineFiles::new(dir.path(), "events", FILES);
        while files.read::<Event>(100).len() < expected.len() {
            assert!(std::time::Instant::now() < deadline, "the events are not filed");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
