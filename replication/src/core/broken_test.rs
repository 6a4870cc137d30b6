//! Traces of rules broken on purpose, for those that no walk of the simulator needs: another rule stands before each of them.

use super::*;
use crate::fault::{self, Fault};

fn appended(out: &[Command]) -> bool {
    out.iter().any(|one| matches!(one, Command::Append { .. }))
}

/// b stood still with its clock, was suspected and cleared; its initiators gave it up and sent their data elsewhere. What it then forwards
/// has not waited at all, by that clock.
fn forward_of_an_older_generation() -> bool {
    let mut rig = Rig::serving();
    rig.later(1000);
    rig.set_view(|view| view.nodes[1].generation = LeaseGeneration(1));
    appended(&forward(&mut rig, 1, 1, false))
}

#[test]
fn f1_a_forward_after_a_generation_change_is_noticed() {
    assert!(!forward_of_an_older_generation());
    let ghost = fault::with(
        Some(Fault::ForwardOfOldGeneration),
        forward_of_an_older_generation,
    );
    assert!(ghost, "a command that its initiator has given up takes effect");
}

/// The same forward waits for its range behind another write when the generation ends.
fn held_in_an_older_generation() -> bool {
    let mut rig = Rig::serving();
    rig.later(1000);
    rig.submit(9, write(3, 9));
    let compares = BlockOp::CompareAndWrite {
        range: range(3, 1),
        expect: data(9),
        data: data(4),
    };
    let message = forward_of(1, 1, false, Origin::default(), compares);
    assert_eq!(rig.hear(B, message), []);
    rig.set_view(|view| view.nodes[1].generation = LeaseGeneration(1));
    rig.on(Event::Appended { seq: JournalSeq(2) });
    let out = rig.hear(B, ack(1, 2));
    let Some(io) = out.iter().find_map(|one| match one {
        Command::Apply { io, .. } => Some(*io),
        _ => None,
    }) else {
        panic!("{out:?}");
    };
    let out = rig.on(Event::Applied { io });
    let Some(io) = out.iter().find_map(|one| match one {
        Command::Read { io, .. } => Some(*io),
        _ => None,
    }) else {
        return false;
    };
    let data = data(9);
    appended(&rig.on(Event::ReadDone { io, data }))
}

#[test]
fn f1_a_forward_that_waits_while_its_generation_ends_is_noticed() {
    assert!(!held_in_an_older_generation());
    let ghost = fault::with(Some(Fault::ForwardOfOldGeneration), held_in_an_older_generation);
    assert!(ghost, "a command that its initiator has given up takes effect");
}

/// b asked for a command's fate before the command came, and was told that it never takes effect.
fn forward_after_its_fate() -> bool {
    let mut rig = Rig::serving();
    rig.later(10_000);
    let out = rig.hear(
        B,
        Message::Fate {
            op: OpId(1),
            epoch: Epoch(1),
            name: name(B, 1),
        },
    );
    let told = Message::FateIs {
        op: OpId(1),
        epoch: Epoch(1),
        fate: Fate::Barred,
    };
    assert_eq!(out, [send(B, told)]);
    appended(&forward(&mut rig, 1, 1, false))
}

#[test]
fn f2_a_fate_query_that_does_not_bar_is_noticed() {
    assert!(!forward_after_its_fate());
    let ghost = fault::with(Some(Fault::FateDoesNotBar), forward_after_its_fate);
    assert!(ghost, "a command that was called aborted takes effect");
}
