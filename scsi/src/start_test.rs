use bytes::Bytes;
use holdfast_alua::{AccessState, Admission, CommandClass, Refusal, admit};
use holdfast_types::BlockSize;
use proptest::prelude::*;

use crate::fixture::{Fixture, done, sense};
use crate::seeded::seeded;
use crate::table::{COMMANDS, Command};
use crate::{Counters, Step, UnitAttention, command_of, start, start_absent};

/// A CDB of a command with zeros in every other field.
fn cdb_of(command: &Command) -> Vec<u8> {
    let mut cdb = vec![0; command.usage.len()];
    cdb[0] = command.opcode;
    cdb[1] = command.action.unwrap_or(0);
    cdb
}

#[test]
fn a_command_that_is_not_there() {
    let mut fixture = Fixture::new();
    for cdb in [
        &[][..],
        &[0xff],
        &[0x01; 16],
        &[0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(fixture.sense(cdb), "05/20/00", "{cdb:02x?}");
        assert_eq!(command_of(cdb), None);
    }
    assert_eq!(command_of(&[0x28, 0]).unwrap().name, "READ(10)");
}

#[test]
fn a_cdb_that_ends_early_is_refused() {
    for command in COMMANDS {
        let cdb = cdb_of(command);
        // Below two bytes the service action is not there either.
        for length in 2..cdb.len() {
            assert_eq!(
                Fixture::new().sense(&cdb[..length]),
                "05/24/00",
                "{} cut to {length}",
                command.name
            );
        }
    }
}

#[test]
fn naca_is_refused() {
    for command in COMMANDS {
        let mut cdb = cdb_of(command);
        *cdb.last_mut().unwrap() = 0x04;
        assert_eq!(Fixture::new().sense(&cdb), "05/24/00", "{}", command.name);
    }
}

#[test]
fn a_unit_attention_goes_first_but_for_three_commands() {
    for command in COMMANDS {
        let mut fixture = Fixture::new();
        fixture.nexus.raise(UnitAttention::CapacityChanged);
        let step = fixture.start(&cdb_of(command));
        let passes = ["INQUIRY", "REPORT LUNS", "REQUEST SENSE"].contains(&command.name);
        if passes {
            assert_eq!(sense(step), "", "{}", command.name);
            // REQUEST SENSE has told it in its data.
            let told = command.name == "REQUEST SENSE";
            assert_eq!(fixture.nexus.is_pending(UnitAttention::CapacityChanged), !told);
        } else {
            assert_eq!(sense(step), "06/2A/09", "{}", command.name);
            assert_eq!(fixture.nexus.take(), None);
        }
    }
}

#[test]
fn p3_one_unit_attention_for_each_kind_of_difference() {
    let mut fixture = Fixture::new();
    let counters = Counters {
        groups: 5,
        capacity: 1,
        luns: 9,
        ..Counters::default()
    };
    let mut answers = vec![];
    for _ in 0..5 {
        answers.push(sense(
            fixture.start_on(&[0; 6], 0, |view| view.counters = counters),
        ));
    }
    assert_eq!(answers, ["06/2A/09", "06/2A/06", "06/3F/0E", "", ""]);
    // Going back is a difference too.
    assert_eq!(fixture.sense(&[0; 6]), "06/2A/09");
}

/// Every command in every state, against the table of SPC-4, by name.
#[test]
fn i8_admission_of_every_command_in_every_state() {
    let always = [
        "INQUIRY",
        "REPORT LUNS",
        "REQUEST SENSE",
        "REPORT TARGET PORT GROUPS",
    ];
    let standby = [
        "LOG SENSE",
        "MODE SE",
        "READ CAPACITY",
        "REPORT SUPPORTED",
        "PERSISTENT RESERVE",
        "RESERVE",
        "RELEASE",
    ];
    for command in COMMANDS {
        let wanted_class = if always.contains(&command.name) {
            CommandClass::Identify
        } else if standby.iter().any(|start| command.name.starts_with(start)) {
            CommandClass::Manage
        } else {
            CommandClass::Medium
        };
        assert_eq!(command.class, wanted_class, "{}", command.name);
        for state in AccessState::ALL {
            let step = Fixture::in_state(state).start(&cdb_of(command));
            match admit(command.class, state) {
                Admission::Refuse(Refusal::Transition) => assert!(matches!(step, Step::Hold)),
                Admission::Refuse(refusal) => {
                    let (asc, ascq) = refusal.asc_ascq();
                    assert_eq!(
                        sense(step),
                        format!("02/{asc:02X}/{ascq:02X}"),
                        "{} in {state}",
                        command.name
                    );
                }
                Admission::Admit => {
                    let refused = matches!(&step, Step::Done(response)
                        if response.sense.is_some_and(|sense| sense.to_string().starts_with("02/")));
                    assert!(
                        !refused && !matches!(step, Step::Hold),
                        "{} in {state}",
                        command.name
                    );
                }
            }
        }
    }
}

#[test]
fn write_protection_refuses_every_command_that_may_change_blocks() {
    for command in COMMANDS {
        let by_name = ["WRITE", "COMPARE AND WRITE", "ORWRITE", "UNMAP", "SANITIZE"]
            .iter()
            .any(|start| command.name.starts_with(start))
            && command.usage[1] != 0xbf;
        assert_eq!(command.writes, by_name, "{}", command.name);
        let cdb = cdb_of(command);
        for announced in [0, 512, 1024] {
            let step = Fixture::new().start_on(&cdb, announced, |view| view.write_protected = true);
            let refused = matches!(&step, Step::Done(response)
                if response.sense.is_some_and(|sense| sense.to_string() == "07/27/00"));
            assert_eq!(refused, command.writes, "{}", command.name);
        }
    }
}

/// Runs a command to its end in whatever way it goes, checking every step.
fn run_through(
    fixture: &mut Fixture,
    cdb: &[u8],
    data: &[u8],
    size: BlockSize,
    blocks: u64,
    protected: bool,
) {
    let mut nexus = fixture.nexus;
    let mut view = fixture.view();
    view.block_size = size;
    view.blocks = blocks;
    view.write_protected = protected;
    let announced = u32::try_from(data.len()).unwrap();
    let mut step = start(cdb, &view, &mut nexus, announced);
    if let Step::NeedData { bytes, then } = step {
        assert!(bytes > 0 && bytes <= announced, "{bytes} of {announced}");
        step = then.with_data(&view, Bytes::copy_from_slice(&data[..bytes as usize]));
        assert!(!matches!(step, Step::NeedData { .. } | Step::Hold));
    }
    match step {
        Step::Storage(storage) => {
            assert!(storage.op.check(blocks, size), "{storage:?}");
            assert!(!(protected && storage.op.writes()), "{storage:?}");
            assert!(
                !storage.op.ranges().iter().any(|range| range.is_empty()),
                "{storage:?}"
            );
            assert_eq!(
                storage.op.writes(),
                command_of(cdb).is_some() && writes(cdb),
                "{storage:?}"
            );
        }
        Step::Done(response) => {
            if let Some(sense) = response.sense {
                assert!(response.data.is_empty());
                assert!(matches!(sense.fixed().len(), 18) && sense.descriptor().len() <= 28);
            }
        }
        Step::Hold | Step::NeedData { .. } | Step::Unit(_) | Step::Copy(_) => {}
    }
    fixture.nexus = nexus;
}

fn writes(cdb: &[u8]) -> bool {
    let opcode = cdb[0];
    COMMANDS
        .iter()
        .any(|command| command.opcode == opcode && command.writes)
}

/// Mostly commands that are there, with bytes that are often zero, so that many of them get far.
fn any_cdb() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0_u8), 2 => any::<u8>(), 1 => 0_u8..4];
    let bytes = prop::collection::vec(byte, 0..20);
    let command = prop::option::weighted(0.9, prop::sample::select((0..COMMANDS.len()).collect::<Vec<_>>()));
    (bytes, command, any::<bool>()).prop_map(|(mut cdb, command, low_flags)| {
        if let Some(command) = command.map(|at| &COMMANDS[at]) {
            cdb.resize(command.usage.len().max(cdb.len()), 0);
            cdb[0] = command.opcode;
            if low_flags {
                cdb[1] = 0;
            }
            if let Some(action) = command.action {
                cdb[1] = cdb[1] & 0xe0 | action;
            }
        }
        cdb
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..seeded() })]

    #[test]
    fn any_cdb_and_any_data_end_in_a_checked_step(
        cdb in any_cdb(),
        fill: u8,
        parameters in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..64),
        length in prop_oneof![Just(0_usize), 1_usize..64, Just(512), Just(1024), Just(4096), Just(8192)],
        state in prop::sample::select(AccessState::ALL.to_vec()),
        large: bool,
        blocks in prop_oneof![Just(1_u64), 2_u64..2000, Just(1 << 32), Just(1 << 40)],
        protected in prop::bool::weighted(0.2),
    ) {
        let mut data = vec![fill; length];
        for (to, from) in data.iter_mut().zip(&parameters) {
            *to = *from;
        }
        let state = if fill < 200 { AccessState::ActiveOptimized } else { state };
        let size = if large { BlockSize::B4096 } else { BlockSize::B512 };
        run_through(&mut Fixture::in_state(state), &cdb, &data, size, blocks, protected);
        let _ = start_absent(&cdb, &Fixture::new().luns);
    }

    #[test]
    fn any_parameter_list_is_taken_or_refused(
        unmap: bool,
        head in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => 0_u8..32, 1 => any::<u8>()], 0..48),
        truthful: bool,
    ) {
        let mut list = head;
        if truthful && unmap && list.len() >= 8 {
            let length = u16::try_from(list.len() - 8).unwrap().to_be_bytes();
            list[2..4].copy_from_slice(&length);
        }
        let length = u8::try_from(list.len()).unwrap();
        let cdb = if unmap {
            vec![0x42, 0, 0, 0, 0, 0, 0, 0, length, 0]
        } else {
            vec![0x15, 0x10, 0, 0, length, 0]
        };
        run_through(&mut Fixture::new(), &cdb, &list, BlockSize::B512, 1000, false);
    }

    #[test]
    fn data_in_is_never_longer_than_the_allocation_length(command in 0..COMMANDS.len(), allocation: u8) {
        let command = &COMMANDS[command];
        let mut cdb = cdb_of(command);
        let at = match (command.opcode, command.opcode >> 5) {
            (0x03 | 0x12 | 0x1a, _) => 4,
            (0x5a, _) => 8,
            (0x9e, _) if command.action == Some(0x10) => 13,
            (0x84, _) if command.action == Some(0x03) => 13,
            (0xa0 | 0xa3, _) => 9,
            _ => return Ok(()),
        };
        cdb[at] = allocation;
        if matches!(command.opcode, 0x1a | 0x5a) {
            cdb[2] = 0x3f;
        }
        let response = done(Fixture::new().start(&cdb));
        prop_assert_eq!(response.sense, None);
        prop_assert!(response.data.len() <= usize::from(allocation));
    }
}
