//! W5 in the cluster state: who may be promoted while acknowledged writes are in memory alone.

use holdfast_types::{Incarnation, UnitVersion};

use super::super::fixture::*;
use super::super::{ClusterState, Command, Refusal, Reply};
use crate::fault::{self, Fault};

fn switch(state: &mut ClusterState, on: bool, lost: bool) {
    let extent = extent_id(1);
    must(&Command::SetWriteCache { extent, on, lost }, state);
}

/// One extent of a (run 10, primary) and b (run 20), with write-back.
fn cached() -> ClusterState {
    let mut state = led_by_a(1);
    switch(&mut state, true, false);
    let cache = &extent(&state, 1).cache;
    assert_eq!(cache.runs, [(A, run(10)), (B, run(20))].into());
    state
}

fn settled(state: &ClusterState) -> Command {
    Command::CacheSettled {
        items: vec![stamp(state, 1)],
        proposer: A,
    }
}

#[test]
fn w5_a_member_that_started_anew_is_promoted_only_when_all_have() {
    let mut state = cached();
    must(&announce(B, 21, 1, &[]), &mut state);
    assert!(!state.may_reign(B, extent_id(1)) && state.may_reign(A, extent_id(1)));
    let suspicion = suspect(&mut state, A);
    let mut other = state.clone();
    must(&new_epoch(A, suspicion, &[(B, 21)]), &mut state);
    assert_eq!(
        extent(&state, 1).primary,
        None,
        "a may have in memory what b lost"
    );
    assert_eq!(state.reopening(B, run(21)), None);
    assert_eq!(state.remembering(extent_id(1)), [A]);
    assert_eq!(cached().remembering(extent_id(1)), [], "nobody lost anything");

    // With a started anew as well, whoever is there may serve, and members count in their present runs.
    must(&announce(A, 11, 1, &[]), &mut other);
    must(&new_epoch(A, suspicion, &[(B, 21)]), &mut other);
    assert_eq!(extent(&other, 1).primary, Some(B));
    assert_eq!(extent(&other, 1).cache.runs, [(A, run(11)), (B, run(21))].into());
}

#[test]
fn w5_promoting_a_member_that_started_anew_is_noticed() {
    let mut state = cached();
    must(&announce(B, 21, 1, &[]), &mut state);
    let suspicion = suspect(&mut state, A);
    fault::with(Some(Fault::RestartedPromoted), || {
        must(&new_epoch(A, suspicion, &[(B, 21)]), &mut state);
    });
    assert_eq!(extent(&state, 1).primary, Some(B));
}

#[test]
fn w5_a_primary_that_started_anew_does_not_reopen_but_hands_over() {
    let mut state = cached();
    must(&announce(A, 11, 1, &[]), &mut state);
    let reopen = Command::Reopen {
        items: vec![stamp(&state, 1)],
        node: A,
        incarnation: run(11),
    };
    assert_eq!(refusals(&go(&reopen, &mut state)), [Refusal::Forgot { node: A }]);
    must(&switchover(&state, (A, 10), (B, 20)), &mut state);
    assert_eq!(extent(&state, 1).primary, Some(B));
    let runs = &extent(&state, 1).cache.runs;
    assert_eq!(runs.get(&A), Some(&run(10)), "a has not come back into the set");

    // b takes it out, and lets it in once it has everything; it is remembered in the run that b saw.
    must(&shrink(&state, B, A), &mut state);
    assert_eq!(extent(&state, 1).cache.runs, [(B, run(20))].into());
    let mut grow = grow(&state, B, A);
    if let Command::Grow { run: seen, .. } = &mut grow {
        *seen = Some(run(11));
    }
    must(&grow, &mut state);
    assert_eq!(extent(&state, 1).cache.runs, [(A, run(11)), (B, run(20))].into());
}

#[test]
fn w5_a_damaged_member_is_not_noted_when_all_memory_is_gone_and_stops_nobody() {
    let mut state = cached();
    must(&announce(A, 11, 1, &[]), &mut state);
    must(&announce(B, 21, 1, &[1]), &mut state);
    reopen(&mut state, A, 11);
    assert_eq!(extent(&state, 1).cache.runs, [(A, run(11))].into());
    // a starts anew before it has taken b out: b has nothing that anybody could wait for.
    must(&announce(A, 12, 1, &[]), &mut state);
    reopen(&mut state, A, 12);
    assert_eq!(extent(&state, 1).primary_incarnation, Some(run(12)));
}

#[test]
fn w5_a_newcomer_counts_only_in_the_run_that_it_has_announced() {
    let mut state = cached();
    must(&shrink(&state, A, B), &mut state);
    let came_in = |state: &ClusterState, run_seen: Option<Incarnation>| {
        let mut grow = grow(state, A, B);
        if let Command::Grow { run, .. } = &mut grow {
            *run = run_seen;
        }
        grow
    };
    for seen in [None, Some(run(21))] {
        let grow = came_in(&state, seen);
        assert_eq!(refusals(&go(&grow, &mut state)), [Refusal::OtherIncarnation]);
    }
    must(&announce(B, 21, 1, &[]), &mut state);
    must(&came_in(&state, Some(run(21))), &mut state);
    must(&announce(A, 11, 1, &[]), &mut state);
    assert!(!state.may_reign(A, extent_id(1)) && state.may_reign(B, extent_id(1)));
}

#[test]
fn w5_when_all_memory_is_gone_every_nexus_hears_of_a_reset() {
    let mut state = cached();
    let resets = |state: &ClusterState| extent(state, 1).unit.resets;
    let before = (resets(&state), extent(&state, 1).unit.version);
    must(&announce(B, 21, 1, &[]), &mut state);
    must(&announce(A, 11, 1, &[]), &mut state);
    reopen(&mut state, A, 11);
    let unit = &extent(&state, 1).unit;
    assert_eq!((unit.resets, unit.cleared), (before.0 + 1, unit.version));
    assert!(unit.version > before.1);
    // The next time nothing is lost: b takes no part in it.
    must(&shrink(&state, A, B), &mut state);
    assert_eq!(resets(&state), before.0 + 1);
}

#[test]
fn w5_a_late_announcement_of_an_earlier_run_makes_nobody_forgetful() {
    let mut state = cached();
    let mut late = announce(B, 19, 7, &[]);
    if let Command::Announce { after, .. } = &mut late {
        *after = Some(Incarnation(0));
    }
    assert_eq!(
        refusals(&go(&late, &mut state)),
        [Refusal::AnnouncedSince { node: B }]
    );
    assert!(state.may_reign(B, extent_id(1)));
}

#[test]
fn w5_off_is_over_when_the_primary_says_that_all_is_stable() {
    let mut state = cached();
    assert_eq!(refusals(&go(&settled(&state), &mut state)).len(), 1, "it is on");
    let late = settled(&state);
    switch(&mut state, false, false);
    assert!(
        extent(&state, 1).cache.is_in_force(),
        "what was answered before may be in memory alone"
    );
    assert_eq!(
        refusals(&go(&late, &mut state)).len(),
        1,
        "a word from before the switch"
    );
    must(&announce(B, 21, 1, &[]), &mut state);
    assert!(!state.may_reign(B, extent_id(1)));
    must(&settled(&state), &mut state);
    assert!(!extent(&state, 1).cache.is_in_force());
    assert!(
        state.may_reign(B, extent_id(1)),
        "every member has everything on its disk"
    );
}

#[test]
fn w5_on_again_before_all_is_stable_forgets_nobody() {
    let mut state = cached();
    must(&announce(B, 21, 1, &[]), &mut state);
    switch(&mut state, false, false);
    switch(&mut state, true, false);
    assert_eq!(extent(&state, 1).cache.runs.get(&B), Some(&run(20)));
    assert!(!state.may_reign(B, extent_id(1)));
}

#[test]
fn w5_what_is_given_up_stops_nobody() {
    let mut state = cached();
    must(&announce(B, 21, 1, &[]), &mut state);
    let suspicion = suspect(&mut state, A);
    must(&new_epoch(A, suspicion, &[(B, 21)]), &mut state);
    switch(&mut state, false, true);
    reopen(&mut state, B, 21);
    assert_eq!(extent(&state, 1).primary, Some(B));
}

#[test]
fn w5_a_retiring_replica_stays_while_it_alone_remembers() {
    let mut state = cached();
    must(&announce(A, 11, 1, &[]), &mut state);
    let retiring = state.extents.get_mut(&extent_id(1)).unwrap();
    retiring.retiring = set(&[B]);
    let found = state.extents[&extent_id(1)].clone();
    assert!(!state.may_retire(extent_id(1), &found));
    must(&announce(B, 21, 1, &[]), &mut state);
    assert!(state.may_retire(extent_id(1), &found));
}

#[test]
fn p3_a_switch_is_news_to_every_nexus_and_counts_from_its_version_on() {
    let mut state = led_by_a(1);
    let before = extent(&state, 1).unit.version;
    switch(&mut state, true, false);
    let unit = &extent(&state, 1).unit;
    assert_eq!(unit.version, before.next());
    assert_eq!(extent(&state, 1).cache.since, Some(unit.version));
    let nexus = holdfast_types::Nexus {
        initiator: "iqn.2026-11.example:host".parse().unwrap(),
        isid: holdfast_types::Isid([1; 6]),
        target: "iqn.2026-11.example:disk".parse().unwrap(),
        tpg: holdfast_types::TpgId(1),
    };
    assert_eq!(unit.modes_changed_for(&nexus), unit.version);
    assert_ne!(unit.version, UnitVersion(0));
    switch(&mut state, true, false);
    assert_eq!(
        extent(&state, 1).unit.version,
        before.next(),
        "nothing has changed"
    );
    assert_eq!(
        go(
            &Command::SetWriteCache {
                extent: extent_id(9),
                on: true,
                lost: false
            },
            &mut state
        ),
        Reply::from(Refusal::NoSuchExtent { extent: extent_id(9) })
    );
}
