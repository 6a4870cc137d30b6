use std::collections::BTreeSet;

use crate::fixture::Fixture;
use crate::sense::asc;
use crate::table::COMMANDS;
use crate::{Sense, Step, commands};

fn rsoc(options: u8, opcode: u8, action: u8) -> [u8; 12] {
    [0xa3, 0x0c, options, opcode, 0, action, 0, 0, 0x40, 0, 0, 0]
}

/// The commands that the list names: operation code, service action, length.
fn listed() -> BTreeSet<(u8, Option<u8>, u16)> {
    let data = Fixture::new().data(&rsoc(0, 0, 0));
    assert_eq!(data[..4], u32::try_from(data.len() - 4).unwrap().to_be_bytes());
    let read = |descriptor: &[u8]| {
        let action = (descriptor[5] & 1 == 1).then_some(descriptor[3]);
        (
            descriptor[0],
            action,
            u16::from_be_bytes([descriptor[6], descriptor[7]]),
        )
    };
    data[4..].chunks_exact(8).map(read).collect()
}

#[test]
fn golden_one_command() {
    let mut fixture = Fixture::new();
    assert_eq!(
        fixture.data(&rsoc(1, 0x28, 0))[..],
        [0, 3, 0, 10, 0x28, 0xf8, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 4]
    );
    assert_eq!(
        fixture.data(&rsoc(0x82, 0x9e, 0x10))[..],
        [
            0, 0x83, 0, 16, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 4, // usage
            0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, // timeouts
        ]
    );
    assert_eq!(
        fixture.data(&rsoc(2, 0x9e, 0x12))[..],
        [
            0, 3, 0, 16, 0x9e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0, 4
        ]
    );
    assert_eq!(fixture.data(&rsoc(1, 0x46, 0))[..], [0, 1, 0, 0]);
}

#[test]
fn golden_list_with_timeouts() {
    let data = Fixture::new().data(&rsoc(0x80, 0, 0));
    assert_eq!(data.len(), 4 + 20 * COMMANDS.len());
    assert_eq!(
        data[4..24],
        [0, 0, 0, 0, 0, 2, 0, 6, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]
    );
    assert!(
        data[4..]
            .chunks_exact(20)
            .all(|descriptor| descriptor[5] & 2 == 2 && descriptor[9] == 10)
    );
}

#[test]
fn every_listed_command_is_dispatched_and_every_dispatched_one_listed() {
    let listed = listed();
    assert_eq!(listed.len(), COMMANDS.len());
    let mut fixture = Fixture::new();
    for opcode in 0..=255 {
        for action in 0..32 {
            let mut cdb = [0; 16];
            (cdb[0], cdb[1]) = (opcode, action);
            let refused = matches!(
                fixture.start(&cdb),
                Step::Done(response) if response.sense.is_some_and(|sense| {
                    let no_such_action = sense == Sense::cdb_bit(1, 4) && matches!(opcode, 0x48 | 0x5e | 0x5f);
                    sense.code == asc::INVALID_OPERATION_CODE || no_such_action
                })
            );
            let is_listed = listed
                .iter()
                .any(|(code, own, _)| *code == opcode && own.is_none_or(|own| own == action));
            assert_eq!(is_listed, !refused, "{opcode:02x}/{action:02x}");
        }
    }
}

#[test]
fn one_command_agrees_with_the_list() {
    let listed = listed();
    let mut fixture = Fixture::new();
    for opcode in 0..=255 {
        let has_actions = listed
            .iter()
            .any(|(code, action, _)| *code == opcode && action.is_some());
        let is_there = listed.iter().any(|(code, ..)| *code == opcode);
        let plain = fixture.start(&rsoc(1, opcode, 0));
        assert_eq!(
            crate::fixture::sense(plain) == "05/24/00",
            has_actions,
            "{opcode:02x}"
        );
        for action in 0..32 {
            let own = |wanted: &&(u8, Option<u8>, u16)| wanted.0 == opcode && wanted.1 == Some(action);
            let entry = listed.iter().find(own);
            if is_there && !has_actions {
                assert_eq!(fixture.sense(&rsoc(2, opcode, action)), "05/24/00");
            } else {
                let data = fixture.data(&rsoc(2, opcode, action));
                assert_eq!(data[1] == 3, entry.is_some(), "{opcode:02x}/{action:02x}");
                assert_eq!(data, fixture.data(&rsoc(3, opcode, action)));
            }
            if let Some((code, _, length)) = entry {
                let data = fixture.data(&rsoc(2, opcode, action));
                assert_eq!((data.len(), data[4]), (usize::from(*length) + 4, *code));
                assert_eq!(data[5] & 0x1f, action);
            }
        }
        if is_there && !has_actions {
            assert_eq!(fixture.data(&rsoc(3, opcode, 0))[1], 3);
            assert_eq!(fixture.data(&rsoc(3, opcode, 1))[1], 1);
        }
    }
    for options in 4..8 {
        assert_eq!(fixture.sense(&rsoc(options, 0, 0)), "05/24/00");
    }
}

#[test]
fn a_service_action_beyond_its_field_is_not_there() {
    let mut fixture = Fixture::new();
    // 010Ah and 0Ah differ, although their low bytes are the same.
    let cdb = [0xa3, 0x0c, 2, 0xa3, 1, 0x0a, 0, 0, 1, 0, 0, 0];
    assert_eq!(fixture.data(&cdb)[1], 1);
}

#[test]
fn later_commands_are_absent_for_now() {
    // SANITIZE's CRYPTO ERASE, SET TARGET PORT GROUPS.
    let mut fixture = Fixture::new();
    for (opcode, action, told) in [(0x48, 0x03, "05/24/00"), (0xa4, 0x0a, "05/20/00")] {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (opcode, action);
        assert_eq!(fixture.sense(&cdb), told, "{opcode:02x}");
        assert_eq!(fixture.data(&rsoc(3, opcode, action))[..], [0, 1, 0, 0]);
    }
}

#[test]
fn usage_data_is_well_formed() {
    for command in COMMANDS {
        let length = match command.opcode >> 5 {
            0 => 6,
            1 | 2 => 10,
            4 => 16,
            _ => 12,
        };
        assert_eq!(command.usage.len(), length, "{}", command.name);
        assert_eq!(command.usage[0], command.opcode, "{}", command.name);
        assert_eq!(command.usage[length - 1], 0x04, "{}", command.name);
        // NACA is looked at, the group number is not.
        if let Some(action) = command.action {
            assert_eq!(command.usage[1] & 0x1f, action, "{}", command.name);
        }
        let expected = command.opcode >> 5 != 0
            && ["READ(", "WRITE(", "WRITE AND"]
                .iter()
                .any(|start| command.name.starts_with(start));
        if expected {
            // DPO, as DPOFUA=1 in the mode parameter header promises.
            assert_eq!(command.usage[1] & 0x10, 0x10, "{}", command.name);
        }
    }
    let names: BTreeSet<_> = commands().map(|command| command.name).collect();
    assert_eq!(names.len(), COMMANDS.len());
}

#[test]
fn golden_task_management_functions() {
    let mut fixture = Fixture::new();
    assert_eq!(
        fixture.data(&[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0])[..],
        [0x88, 0, 0, 0]
    );
    let extended = fixture.data(&[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 255, 0, 0]);
    assert_eq!(extended[..], [0x88, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}
