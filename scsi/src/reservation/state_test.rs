use holdfast_types::{NodeId, UnitVersion};
use proptest::prelude::*;

use super::table_test::{Rig, list, nexus};
use super::*;

const A: NodeId = NodeId(1);

fn change(rig: &mut Rig, host: u8, change: &UnitChange) -> UnitOutcome {
    rig.state.apply(&nexus(host), change, &[])
}

#[test]
fn i13_reserve_is_exclusive_until_it_is_released() {
    let mut rig = Rig::new();
    let reserve = UnitChange::Reserve { node: A };
    assert_eq!(change(&mut rig, 1, &reserve), UnitOutcome::Good);
    assert_eq!(change(&mut rig, 1, &reserve), UnitOutcome::Good);
    assert_eq!(change(&mut rig, 2, &reserve), UnitOutcome::Conflict);
    assert_eq!(change(&mut rig, 2, &UnitChange::Release), UnitOutcome::Good);
    assert!(rig.state.legacy.is_some(), "another one's RELEASE does nothing");
    assert!(rig.state.refuses(Conflict::Legacy, &nexus(2)) && !rig.state.refuses(Conflict::Never, &nexus(2)));
    assert!(!rig.state.refuses(Conflict::Write, &nexus(1)));
    let rule = rig.state.rule();
    assert_eq!((rule.others_read, rule.others_write), (false, false));
    assert_eq!(
        rig.out(1, 0, 0, 0, 1),
        UnitOutcome::Conflict,
        "not beside RESERVE"
    );
    let answer = PersistentIn::ReadKeys.answer(&rig.state, 100);
    assert_eq!(answer.status, crate::Status::ReservationConflict);
    assert_eq!(change(&mut rig, 1, &UnitChange::Release), UnitOutcome::Good);
    assert_eq!(change(&mut rig, 2, &reserve), UnitOutcome::Good);
}

#[test]
fn i13_reserve_ends_with_its_nexus_its_node_and_every_reset() {
    let ends: [fn(&mut Rig); 3] = [
        |rig| assert_eq!(change(rig, 1, &UnitChange::NexusLost), UnitOutcome::Good),
        |rig| assert_eq!(change(rig, 2, &UnitChange::Reset), UnitOutcome::Good),
        |rig| assert!(rig.state.node_lost(A)),
    ];
    for end in ends {
        let mut rig = Rig::new();
        change(&mut rig, 1, &UnitChange::Reserve { node: A });
        assert_eq!(change(&mut rig, 2, &UnitChange::NexusLost), UnitOutcome::Good);
        assert!(!rig.state.node_lost(NodeId(2)) && rig.state.legacy.is_some());
        let before = rig.state.version;
        end(&mut rig);
        assert!(rig.state.legacy.is_none() && rig.state.version > before);
    }
}

#[test]
fn i9_a_reset_leaves_persistent_reservations() {
    let mut rig = Rig::new();
    rig.register(&[1]);
    assert_eq!(rig.out(1, 1, 5, 1, 0), UnitOutcome::Good);
    let (table, before) = (rig.state.reservations.clone(), rig.state.version);
    assert_eq!(change(&mut rig, 2, &UnitChange::Reset), UnitOutcome::Good);
    assert_eq!((&rig.state.reservations, rig.state.resets), (&table, 1));
    assert_eq!(rig.state.cleared, before.next());
    assert_eq!(rig.state.rule().cleared, before.next());
    assert_eq!(
        change(&mut rig, 2, &UnitChange::ClearReservations),
        UnitOutcome::Good
    );
    assert!(rig.state.reservations.is_empty());
    assert_eq!(rig.state.reservations.generation(), 2, "it never goes back");
    assert_eq!(
        rig.state.notices(&nexus(1)).reservations_preempted,
        rig.state.version
    );
}

#[test]
fn reserve_beside_persistent_reservations_as_crh_says() {
    let mut rig = Rig::new();
    rig.register(&[1, 2]);
    let reserve = UnitChange::Reserve { node: A };
    assert_eq!(
        change(&mut rig, 1, &reserve),
        UnitOutcome::Conflict,
        "registered, nothing held"
    );
    assert_eq!(rig.out(1, 1, 1, 1, 0), UnitOutcome::Good);
    assert_eq!(change(&mut rig, 1, &reserve), UnitOutcome::Good);
    assert_eq!(change(&mut rig, 1, &UnitChange::Release), UnitOutcome::Good);
    assert_eq!(change(&mut rig, 2, &reserve), UnitOutcome::Conflict);
    assert_eq!(change(&mut rig, 3, &UnitChange::Release), UnitOutcome::Conflict);
    assert!(rig.state.legacy.is_none() && rig.state.reservations.held().is_some());
}

#[test]
fn p3_mode_changes_are_news_to_everybody_but_who_made_them() {
    let mut rig = Rig::new();
    let on = ModeValues {
        software_write_protect: true,
    };
    assert_eq!(change(&mut rig, 1, &UnitChange::Mode(on)), UnitOutcome::Good);
    let first = rig.state.version;
    assert_eq!(rig.state.modes_changed_for(&nexus(1)), UnitVersion(0));
    assert_eq!(rig.state.modes_changed_for(&nexus(2)), first);
    assert_eq!(
        change(&mut rig, 2, &UnitChange::Mode(on)),
        UnitOutcome::Good,
        "no change"
    );
    assert_eq!(
        (rig.state.version, rig.state.modes_changed_for(&nexus(1))),
        (first, UnitVersion(0))
    );
    assert_eq!(
        change(&mut rig, 2, &UnitChange::Mode(ModeValues::default())),
        UnitOutcome::Good
    );
    assert_eq!(rig.state.modes_changed_for(&nexus(1)), rig.state.version);
    assert_eq!(rig.state.modes_changed_for(&nexus(2)), first);
    rig.register(&[1]);
    assert_eq!(rig.out(1, 1, 5, 1, 0), UnitOutcome::Good);
    assert_eq!(change(&mut rig, 2, &UnitChange::Mode(on)), UnitOutcome::Conflict);
}

proptest! {
    #![proptest_config(crate::seeded::seeded())]

    /// Whatever is asked for in whatever order: holders are registered, keys are never 0, generation and version never go back, a refusal
    /// changes nothing, and what is stored reads back the same.
    #[test]
    fn i9_the_table_stays_sound(steps in prop::collection::vec((1_u8..4, 0_u8..8, 0_u8..10, 0_u64..4, 0_u64..4, 0_u8..8), 1..60)) {
        let mut rig = Rig::new();
        for (host, action, kind, key, new_key, other) in steps {
            let before = rig.state.clone();
            let outcome = match other {
                0 => change(&mut rig, host, &UnitChange::Reset),
                1 => change(&mut rig, host, &UnitChange::Reserve { node: A }),
                2 => change(&mut rig, host, &UnitChange::NexusLost),
                _ => match rig.try_out(&nexus(host), action, kind, &list(key, new_key, 0)) {
                    Ok(outcome) => outcome,
                    Err(_) => continue,
                },
            };
            let state = &rig.state;
            if outcome != UnitOutcome::Good {
                prop_assert_eq!(&before, state);
            }
            prop_assert!(state.version >= before.version);
            prop_assert!(state.reservations.generation() >= before.reservations.generation());
            if let Some(held) = state.reservations.held() {
                prop_assert!(state.reservations.holders().next().is_some());
                prop_assert!(held.by.as_ref().is_none_or(|by| state.reservations.key(by).is_some()));
                prop_assert!(held.by.is_none() == held.kind.all_registrants());
            }
            prop_assert!(state.reservations.registrations().iter().all(|one| one.key != 0));
            prop_assert!(state.legacy.is_none() || state.reservations.is_empty());
            let stored = serde_json::to_string(state).unwrap();
            prop_assert_eq!(&serde_json::from_str::<UnitState>(&stored).unwrap(), state);
        }
    }
}
