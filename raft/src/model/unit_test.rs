use holdfast_scsi::reservation::{ModeValues, UnitChange, UnitOutcome};
use holdfast_types::{ExtentId, Isid, Nexus, NodeId, Revision, TpgId, UnitVersion};

use super::super::fixture::*;
use super::super::*;

fn host(number: u8) -> Nexus {
    Nexus {
        initiator: format!("iqn.2026-11.example:host{number}").parse().unwrap(),
        isid: Isid([number; 6]),
        target: "iqn.2026-11.example:disk".parse().unwrap(),
        tpg: TpgId(1),
    }
}

fn unit(node: NodeId, run_of: u64, serial: u64, by: u8, change: UnitChange) -> Command {
    Command::Unit {
        call: UnitCall {
            node,
            incarnation: run(run_of),
            serial,
        },
        extent: extent_id(1),
        by: host(by),
        change,
    }
}

fn started() -> ClusterState {
    led_by_a(1)
}

fn of(state: &ClusterState) -> &Extent {
    &state.extents[&extent_id(1)]
}

fn reply(outcome: UnitOutcome, version: u64) -> Reply {
    Reply::Unit {
        outcome,
        version: UnitVersion(version),
    }
}

const RESET: UnitChange = UnitChange::Reset;

#[test]
fn p2_a_call_that_comes_again_is_answered_and_not_carried_out() {
    let mut state = started();
    assert_eq!(
        go(&unit(A, 10, 1, 1, RESET), &mut state),
        reply(UnitOutcome::Good, 1)
    );
    assert_eq!(
        go(&unit(A, 10, 1, 1, RESET), &mut state),
        reply(UnitOutcome::Good, 1)
    );
    assert_eq!(of(&state).unit.resets, 1);
    assert_eq!(
        go(&unit(B, 20, 1, 1, RESET), &mut state),
        reply(UnitOutcome::Good, 2)
    );
    assert_eq!(
        go(&unit(A, 10, 3, 1, RESET), &mut state),
        reply(UnitOutcome::Good, 3)
    );
    let late = go(&unit(A, 10, 2, 1, RESET), &mut state);
    assert_eq!(refusals(&late), [Refusal::Superseded], "its node has gone on");
    assert_eq!(of(&state).unit.resets, 3);
}

#[test]
fn p2_a_call_of_an_earlier_run_is_refused() {
    let mut state = started();
    must(&announce(A, 11, 0, &[]), &mut state);
    let late = go(&unit(A, 10, 1, 1, RESET), &mut state);
    assert_eq!(refusals(&late), [Refusal::OtherIncarnation]);
    assert_eq!(
        go(&unit(A, 11, 1, 1, RESET), &mut state),
        reply(UnitOutcome::Good, 1)
    );
}

#[test]
fn i12_a_unit_that_is_not_there() {
    let mut state = started();
    let command = Command::Unit {
        call: UnitCall {
            node: A,
            incarnation: run(10),
            serial: 1,
        },
        extent: ExtentId::from_u128(77),
        by: host(1),
        change: RESET,
    };
    let extent = ExtentId::from_u128(77);
    assert_eq!(
        refusals(&go(&command, &mut state)),
        [Refusal::NoSuchExtent { extent }]
    );
}

#[test]
fn i13_a_lost_node_takes_its_reserve_with_it() {
    for lost in [
        Command::Suspect {
            node: B,
            generation: holdfast_types::LeaseGeneration(0),
        },
        announce(B, 21, 0, &[]),
    ] {
        let mut state = started();
        let reserve = UnitChange::Reserve { node: B };
        assert_eq!(
            go(&unit(B, 20, 1, 1, reserve), &mut state),
            reply(UnitOutcome::Good, 1)
        );
        must(&announce(B, 20, 1, &[]), &mut state);
        assert!(of(&state).unit.legacy.is_some());
        must(&lost, &mut state);
        assert!(of(&state).unit.legacy.is_none());
        assert_eq!(of(&state).unit.version, UnitVersion(2));
    }
}

#[test]
fn i9_reservations_and_modes_are_stored_with_the_state() {
    let mut state = started();
    let modes = ModeValues {
        software_write_protect: true,
    };
    must(&unit(A, 10, 1, 1, UnitChange::Mode(modes)), &mut state);
    let stored = serde_json::to_string(&state).unwrap();
    let read: ClusterState = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, state);
    assert_eq!(of(&read).unit.modes, modes);
    let command = unit(A, 10, 2, 1, RESET);
    let stored = serde_json::to_string(&command).unwrap();
    assert_eq!(serde_json::from_str::<Command>(&stored).unwrap(), command);
    assert!(state.revision > Revision(0));
}
