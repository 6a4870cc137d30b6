use super::*;
use crate::lease::PeerView;
use crate::model::fixture::{self, A, B, W, extent_id};
use crate::model::{AdminCommand, Command, ExtentChange};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A node that looks, at a run that the epochs name.
struct Looks {
    placement: Placement,
    state: ClusterState,
    me: NodeId,
    run: u64,
    stable: Duration,
    stopping: bool,
    now: u64,
}

impl Looks {
    fn new(state: ClusterState, me: NodeId, run: u64) -> Self {
        let (stable, stopping, now) = (s(100_000), false, 0);
        let placement = Placement::new();
        Self {
            placement,
            state,
            me,
            run,
            stable,
            stopping,
            now,
        }
    }

    fn look(&mut self) -> Vec<(ExtentId, NodeId)> {
        let peer = PeerView {
            both_for: self.stable,
            ..PeerView::default()
        };
        let view = KeeperView {
            peers: [A, B, W].into_iter().map(|node| (node, peer.clone())).collect(),
            ..KeeperView::default()
        };
        let input = PlacementInput {
            state: &self.state,
            me: self.me,
            incarnation: Incarnation(self.run),
            view: &view,
            stopping: self.stopping,
        };
        self.placement.tick(Mono::ZERO + s(self.now), &input)
    }

    /// Seconds until it hands extent 1 to `to`.
    fn hands(&mut self, to: NodeId, limit: u64) -> Option<u64> {
        let start = self.now;
        while self.now - start <= limit {
            if self.look().contains(&(extent_id(1), to)) {
                return Some(self.now - start);
            }
            self.now += 1;
        }
        None
    }

    fn must(&mut self, command: impl Into<Command>) {
        fixture::must(&command.into(), &mut self.state);
    }

    fn moves(&mut self, from: (NodeId, u64), to: (NodeId, u64)) {
        let switchover = fixture::switchover(&self.state, from, to);
        self.must(switchover);
    }
}

/// b (run 20) is primary of an extent that prefers a (run 10).
fn away() -> ClusterState {
    let mut state = fixture::led_by_a(1);
    fixture::must(&fixture::switchover(&state, (A, 10), (B, 20)), &mut state);
    state
}

#[test]
fn an_extent_goes_back_to_its_preferred_node_after_a_while() {
    let mut b = Looks::new(away(), B, 20);
    assert_eq!(b.hands(A, 200), Some(60));
    assert_eq!(
        b.hands(A, 100),
        Some(12),
        "it did not come about: again, not at once"
    );
}

#[test]
fn failback_waits_for_a_stable_node_that_is_in_sync_and_for_peace() {
    let mut b = Looks::new(away(), B, 20);
    b.stable = s(59);
    assert_eq!(b.hands(A, 300), None, "it comes and goes");
    let mut b = Looks::new(away(), B, 20);
    let shrink = fixture::shrink(&b.state, B, A);
    b.must(shrink);
    assert_eq!(b.hands(A, 100), None, "it is not in sync");
    let grow = fixture::grow(&b.state, B, A);
    b.must(grow);
    assert_eq!(b.hands(A, 100), Some(60), "counted from when it was in sync");
    let mut b = Looks::new(away(), B, 20);
    fixture::suspect(&mut b.state, W);
    assert_eq!(b.hands(A, 300), None, "somebody is suspect");
}

#[test]
fn failback_can_be_switched_off_and_set() {
    let set = |value| AdminCommand::SetSetting {
        key: SettingKey::FailbackAfter,
        value,
    };
    let mut b = Looks::new(away(), B, 20);
    b.must(set(0));
    assert_eq!(b.hands(A, 10_000), None);
    b.must(set(5000));
    assert_eq!(Looks::new(b.state, B, 20).hands(A, 100), Some(5));
}

#[test]
fn an_extent_that_does_not_stay_waits_twice_as_long_each_time() {
    let mut b = Looks::new(away(), B, 20);
    let mut waits = Vec::new();
    for _ in 0..4 {
        waits.push(b.hands(A, 10_000).unwrap());
        b.moves((B, 20), (A, 10));
        b.look();
        b.now += 30;
        b.moves((A, 10), (B, 20));
    }
    assert_eq!(waits, [60, 120, 240, 480]);
    b.hands(A, 10_000).unwrap();
    b.moves((B, 20), (A, 10));
    b.look();
    b.now += 100_000;
    b.moves((A, 10), (B, 20));
    assert_eq!(b.hands(A, 10_000), Some(60), "it stayed for long: a new story");
}

#[test]
fn the_first_failover_costs_no_second_wait() {
    let mut b = Looks::new(fixture::led_by_a(1), B, 20);
    b.look();
    b.now += 10;
    b.moves((A, 10), (B, 20));
    assert_eq!(b.hands(A, 200), Some(60));
}

#[test]
fn a_draining_node_gives_its_extents_away_and_gets_none_back() {
    let drain = |node| AdminCommand::SetDraining { node, draining: true };
    let mut a = Looks::new(fixture::led_by_a(1), A, 10);
    assert_eq!(a.hands(B, 0), None);
    a.must(drain(A));
    assert_eq!(a.hands(B, 0), Some(0));
    let mut b = Looks::new(away(), B, 20);
    b.must(drain(A));
    assert_eq!(b.hands(A, 1000), None);
    // Both drain: nobody takes anything.
    b.must(drain(B));
    assert_eq!(b.hands(A, 100), None);
}

#[test]
fn a_process_that_ends_gives_its_extents_away() {
    let mut a = Looks::new(fixture::led_by_a(1), A, 10);
    a.stopping = true;
    assert_eq!(a.hands(B, 0), Some(0));
    let shrink = fixture::shrink(&a.state, A, B);
    a.must(shrink);
    a.now += 20;
    assert_eq!(a.hands(B, 50), None, "b is not in sync");
}

#[test]
fn a_requested_switchover_is_made_at_once_by_the_primary_alone() {
    let ask = AdminCommand::RequestSwitchover {
        extents: vec![extent_id(1)],
        to: Some(B),
    };
    let mut a = Looks::new(fixture::led_by_a(1), A, 10);
    a.must(ask);
    let mut b = Looks::new(a.state.clone(), B, 20);
    assert_eq!((a.hands(B, 0), b.look()), (Some(0), vec![]));
    let mut earlier_run = Looks::new(a.state.clone(), A, 9);
    assert_eq!(earlier_run.look(), []);
    a.moves((A, 10), (B, 20));
    assert_eq!(
        a.state.extents[&extent_id(1)].handover,
        None,
        "over with the reign"
    );
}

#[test]
fn the_preferred_node_can_be_changed() {
    let mut a = Looks::new(fixture::led_by_a(1), A, 10);
    let change = ExtentChange::Preferred(Some(B));
    a.must(AdminCommand::SetExtent {
        extent: extent_id(1),
        change,
    });
    assert_eq!(a.hands(B, 100), Some(60));
}
