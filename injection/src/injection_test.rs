use super::*;

const LINK: Site = Site::Link(NodeId(2), Way::Out);
const SECOND: Duration = Duration::from_secs(1);

fn held(injections: &Injections, bytes: usize, now: Instant) -> Held {
    match injections.admit(LINK, bytes, now) {
        Passage::Held(held) => held,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cut_holds_until_it_is_over_or_healed_and_only_its_site() {
    let (injections, now) = (Injections::new(), Instant::now());
    assert_eq!(injections.admit(LINK, 1, now), Passage::Free);
    injections.put(LINK, Harm::Cut, 5 * SECOND, now);
    let waiting = held(&injections, 1, now + SECOND);
    assert!(waiting.is_cut);
    for other in [
        Site::Link(NodeId(2), Way::In),
        Site::Link(NodeId(3), Way::Out),
        Site::Disk(Disk::Journal),
    ] {
        assert_eq!(injections.admit(other, 1, now), Passage::Free);
    }
    assert_eq!(injections.still(&waiting, now + SECOND), Some(LOOK_EVERY));
    assert_eq!(injections.list(now + SECOND), [(LINK, Harm::Cut, 4 * SECOND)]);
    assert_eq!(injections.still(&waiting, now + 5 * SECOND), None);
    assert_eq!(injections.admit(LINK, 1, now + 5 * SECOND), Passage::Free);
    assert_eq!(injections.heal(None), [(LINK, Harm::Cut)]);
    assert_eq!(injections.still(&waiting, now + SECOND), None);
    assert_eq!(injections.heal(None), []);
}

#[test]
fn nothing_lasts_longer_than_a_minute_and_what_is_put_again_begins_anew() {
    let (injections, now) = (Injections::new(), Instant::now());
    injections.put(LINK, Harm::Cut, 1000 * SECOND, now);
    let first = held(&injections, 1, now);
    assert_eq!(injections.list(now), [(LINK, Harm::Cut, LASTS_MAX)]);
    injections.put(LINK, Harm::Slow(4096), 2 * SECOND, now + SECOND);
    assert_eq!(injections.still(&first, now + SECOND), None);
    assert_eq!(injections.list(now + 3 * SECOND), []);
    assert_eq!(injections.admit(LINK, 1, now + 3 * SECOND), Passage::Free);
}

#[test]
fn healing_one_site_leaves_the_others() {
    let (injections, now) = (Injections::new(), Instant::now());
    let disk = Site::Disk(Disk::Raft);
    injections.put(LINK, Harm::Cut, SECOND, now);
    injections.put(disk, Harm::Slow(4096), SECOND, now);
    assert_eq!(injections.heal(Some(LINK)), [(LINK, Harm::Cut)]);
    assert_eq!(injections.admit(LINK, 1, now), Passage::Free);
    assert!(matches!(injections.admit(disk, 1, now), Passage::Held(_)));
}

#[test]
fn delays_are_from_each_messages_coming_and_speed_is_shared() {
    let (injections, now) = (Injections::new(), Instant::now());
    injections.put(LINK, Harm::Delay(SECOND / 2), 10 * SECOND, now);
    for at in [now, now + SECOND] {
        let waiting = held(&injections, 1 << 20, at);
        assert!(!waiting.is_cut);
        assert!(injections.still(&waiting, at + SECOND / 4).is_some());
        assert_eq!(injections.still(&waiting, at + SECOND / 2), None);
    }
    injections.put(LINK, Harm::Slow(1 << 20), 10 * SECOND, now);
    let (first, second) = (held(&injections, 1 << 20, now), held(&injections, 1 << 20, now));
    assert_eq!(injections.still(&first, now + SECOND), None);
    assert!(injections.still(&second, now + SECOND).is_some());
    assert_eq!(injections.still(&second, now + 2 * SECOND), None);
}

#[test]
fn so_many_of_a_hundred_are_lost() {
    let (injections, now) = (Injections::new(), Instant::now());
    for percent in [1, 30, 100] {
        injections.put(LINK, Harm::Lose(percent), SECOND, now);
        let lost = (0..100)
            .filter(|_| injections.admit(LINK, 1, now) == Passage::Lost)
            .count();
        assert_eq!(lost, usize::from(percent));
    }
}

#[test]
fn harms_are_read_as_they_are_written_and_within_their_ranges() {
    for text in ["cut", "delay=50ms", "slow=1048576", "lose=10"] {
        assert_eq!(text.parse::<Harm>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "cut=1",
        "delay",
        "delay=50",
        "delay=0ms",
        "delay=10001ms",
        "slow=1023",
        "slow=-1",
        "lose=0",
        "lose=101",
        "hang",
    ] {
        assert!(text.parse::<Harm>().unwrap_err().contains(&format!("'{text}'")));
    }
}

#[test]
fn a_thread_goes_on_when_its_disk_is_healed() {
    let injections = Injections::new();
    injections.put(Site::Disk(Disk::Extents), Harm::Cut, LASTS_MAX, Instant::now());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| injections.reach(Disk::Extents, 4096));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        injections.heal(Some(Site::Disk(Disk::Extents)));
        waiting.join().unwrap();
    });
}

#[test]
fn a_renewed_cut_goes_on_holding_what_it_held() {
    let (injections, now) = (Injections::new(), Instant::now());
    injections.put(LINK, Harm::Cut, 2 * SECOND, now);
    let waiting = held(&injections, 1, now);
    injections.put(LINK, Harm::Cut, 2 * SECOND, now + SECOND);
    assert!(injections.still(&waiting, now + 2 * SECOND).is_some());
    // A shorter one does not cut it short; healing does.
    injections.put(LINK, Harm::Cut, SECOND / 2, now + SECOND);
    assert!(injections.still(&waiting, now + 2 * SECOND).is_some());
    assert_eq!(injections.still(&waiting, now + 3 * SECOND), None);
    injections.put(LINK, Harm::Cut, 2 * SECOND, now + SECOND);
    injections.heal(Some(LINK));
    assert_eq!(injections.still(&waiting, now + SECOND), None);
}
