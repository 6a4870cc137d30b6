//! Which path is used.

use proptest::prelude::*;

use super::*;

/// Two paths at work, over the first.
fn two() -> Paths {
    let mut paths = Paths::new(2, true, Limits::default());
    paths.begin(0);
    assert_eq!(paths.up(1), []);
    ticks(&mut paths, 50, &[true, true]);
    paths
}

/// So many ticks of each path; all orders.
fn ticks(paths: &mut Paths, count: u32, heard: &[bool]) -> Vec<Order> {
    let tick = |paths: &mut Paths| {
        let each = heard.iter().enumerate();
        each.flat_map(|(at, heard)| paths.tick(at, *heard))
            .collect::<Vec<_>>()
    };
    (0..count).flat_map(|_| tick(paths)).collect()
}

#[test]
fn a_silent_path_is_left_well_before_its_peer_would_be_given_up() {
    let mut paths = two();
    let silent = Limits::default().silent;
    assert_eq!(ticks(&mut paths, silent - 1, &[false, true]), []);
    assert_eq!(
        ticks(&mut paths, 1, &[false, true]),
        [Order::GiveUp(0), Order::Use(1)]
    );
    assert_eq!(paths.used(), Some(1));
    assert_eq!(paths.why(0), Some("does not answer"));
    assert!(TICK * silent < Duration::from_millis(400));
}

#[test]
fn where_all_are_silent_nothing_moves_and_all_end() {
    let mut paths = two();
    let dead = Limits::default().dead;
    assert_eq!(ticks(&mut paths, dead - 1, &[false, false]), []);
    let orders = ticks(&mut paths, 1, &[false, false]);
    assert_eq!(orders, [Order::GiveUp(0), Order::GiveUp(1)]);
    assert!(!paths.is_up(0) && !paths.is_up(1));
    // A new link, over whatever comes first, and nothing is held against the preferred path.
    paths.begin(1);
    assert_eq!(paths.up(0), [Order::Use(0)]);
}

#[test]
fn a_closed_path_is_left_at_once_and_returned_to_once_it_has_worked() {
    let mut paths = two();
    assert_eq!(paths.down(0, "closed"), [Order::Use(1)]);
    assert_eq!(paths.up(0), []);
    let proving = Limits::default().proving;
    assert_eq!(ticks(&mut paths, proving - 1, &[true, true]), []);
    assert_eq!(ticks(&mut paths, 1, &[true, true]), [Order::Use(0)]);
    assert_eq!(paths.moves(), 2);
}

#[test]
fn one_that_relapses_is_trusted_later_each_time() {
    let mut paths = two();
    let mut waited = Vec::new();
    for _ in 0..4 {
        paths.down(0, "closed");
        paths.up(0);
        let mut ticked = 0;
        while paths.used() == Some(1) {
            ticks(&mut paths, 1, &[true, true]);
            ticked += 1;
        }
        waited.push(ticked);
    }
    let first = Limits::default().proving;
    assert_eq!(waited, [first, 2 * first, 4 * first, 8 * first]);
    // After long work the next failure counts as the first.
    ticks(&mut paths, Limits::default().stable, &[true, true]);
    paths.down(0, "closed");
    paths.up(0);
    assert_eq!(ticks(&mut paths, first, &[true, true]), [Order::Use(0)]);
}

#[test]
fn a_silent_spare_is_given_up_and_told_and_nothing_moves() {
    let mut paths = two();
    let Limits { dead, told, .. } = Limits::default();
    assert_eq!(ticks(&mut paths, dead, &[true, false]), [Order::GiveUp(1)]);
    assert!(!paths.report()[1].failed);
    ticks(&mut paths, told, &[true, false]);
    assert!(paths.report()[1].failed && !paths.report()[0].failed);
    assert_eq!((paths.used(), paths.moves()), (Some(0), 0));
}

#[test]
fn who_follows_moves_only_when_told() {
    let mut paths = Paths::new(2, false, Limits::default());
    paths.begin(0);
    assert_eq!(paths.up(1), []);
    assert_eq!(paths.down(0, "closed"), []);
    assert_eq!(paths.used(), None);
    paths.follow(1);
    assert_eq!(paths.used(), Some(1));
    assert_eq!(paths.up(0), []);
    assert_eq!(ticks(&mut paths, 1000, &[true, true]), []);
    // A path that is down is not followed.
    paths.down(0, "closed");
    paths.follow(0);
    assert_eq!(paths.used(), Some(1));
}

#[derive(Debug, Clone)]
enum Step {
    Up(usize),
    Down(usize),
    /// What is heard over each path.
    Ticks(u32, Vec<bool>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..3_usize).prop_map(Step::Up),
        2 => (0..3_usize).prop_map(Step::Down),
        5 => (1..400_u32, prop::collection::vec(any::<bool>(), 3)).prop_map(|(n, heard)| Step::Ticks(n, heard)),
    ];
    prop::collection::vec(step, 0..60)
}

/// Brings a link up over the first path that comes, as the driver does.
fn up(paths: &mut Paths, path: usize) -> Vec<Order> {
    if (0..3).all(|path| !paths.is_up(path)) {
        paths.begin(path);
        return Vec::new();
    }
    paths.up(path)
}

proptest! {
    #[test]
    fn what_is_used_works_and_the_first_is_used_in_the_end(steps in steps()) {
        let mut paths = Paths::new(3, true, Limits::default());
        for step in steps {
            match step {
                Step::Up(path) => drop(up(&mut paths, path)),
                Step::Down(path) => drop(paths.down(path, "closed")),
                Step::Ticks(count, heard) => for _ in 0..count {
                    for (path, heard) in heard.iter().enumerate() {
                        let before = paths.used();
                        for order in paths.tick(path, *heard) {
                            match order {
                                // One that is left for silence is silent, and another one is heard.
                                Order::GiveUp(given_up) => {
                                    prop_assert_eq!((given_up, *heard), (path, false));
                                    prop_assert!(!paths.is_up(path));
                                }
                                Order::Use(to) => {
                                    prop_assert!(paths.is_up(to));
                                    prop_assert_ne!(Some(to), before);
                                    prop_assert_eq!(paths.used(), Some(to));
                                }
                            }
                        }
                    }
                },
            }
            let heard = paths.paths.iter().any(|path| paths.is_fresh(path));
            prop_assert!(paths.used().is_some() || !heard);
            prop_assert!(paths.used().is_none_or(|path| paths.is_up(path)));
        }
        for path in 0..3 {
            if !paths.is_up(path) {
                up(&mut paths, path);
            }
        }
        ticks(&mut paths, Limits::default().proving_max + 1, &[true; 3]);
        prop_assert_eq!(paths.used(), Some(0));
    }

    /// However often the preferred path comes and goes, the link moves to it less and less often.
    #[test]
    fn nothing_flaps(gap in 1..300_u32, work in 1..1100_u32) {
        let mut paths = two();
        let mut spent = 0;
        while spent < 72_000 {
            paths.down(0, "closed");
            ticks(&mut paths, gap, &[false, true]);
            paths.up(0);
            ticks(&mut paths, work, &[true, true]);
            spent += gap + work;
        }
        // An hour: 10 s, 20 s, 40 s, 80 s, 160 s and then 300 s at most; to it and from it.
        prop_assert!(paths.moves() <= 2 * (6 + 12), "{} moves", paths.moves());
    }
}
