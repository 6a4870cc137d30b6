use holdfast_alua::{AccessState, rtpg};
use holdfast_types::BlockSize;

use crate::fixture::{Fixture, done, sense};
use crate::{Counters, Sense, UnitAttention};

const CAPACITY_16: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];

#[test]
fn golden_read_capacity() {
    assert_eq!(
        Fixture::new().data(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0])[..],
        [0, 0, 3, 0xe7, 0, 0, 2, 0]
    );
    let mut wanted = [0; 32];
    wanted[6..8].copy_from_slice(&[3, 0xe7]);
    wanted[10] = 2;
    wanted[13..15].copy_from_slice(&[3, 0xc0]);
    assert_eq!(Fixture::new().data(&CAPACITY_16)[..], wanted);
}

#[test]
fn capacity_of_large_blocks_and_large_units() {
    let large = |cdb: &[u8], blocks: u64| {
        let step = Fixture::new().start_on(cdb, 0, |view| {
            view.blocks = blocks;
            view.block_size = BlockSize::B4096;
        });
        done(step).data
    };
    let ten = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(large(&ten, 1 << 32)[..], [0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0]);
    assert_eq!(large(&ten, (1 << 32) - 1)[..4], [0xff, 0xff, 0xff, 0xfe]);
    assert_eq!(large(&ten, (1 << 32) + 1)[..4], [0xff; 4]);
    let sixteen = large(&CAPACITY_16, (1 << 32) + 1);
    assert_eq!(sixteen[..15], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0xc0]);
}

#[test]
fn golden_report_luns() {
    let report = |select| [0xa0, 0, select, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let mut wanted = vec![0, 0, 0, 24, 0, 0, 0, 0];
    wanted.extend_from_slice(&[0; 8]);
    wanted.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    // 300 is written flat.
    wanted.extend_from_slice(&[0x41, 0x2c, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Fixture::new().data(&report(0))[..], wanted);
    let well_known = [0xc1, 0x01, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        Fixture::new().data(&report(1))[..],
        [&[0, 0, 0, 8, 0, 0, 0, 0], &well_known[..]].concat()
    );
    wanted[3] = 32;
    wanted.extend_from_slice(&well_known);
    assert_eq!(Fixture::new().data(&report(2))[..], wanted);
    assert_eq!(Fixture::new().sense(&report(3)), "05/24/00");
    assert_eq!(
        Fixture::new().data(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0])[..],
        [0, 0, 0, 24]
    );
}

#[test]
fn report_target_port_groups_in_both_formats() {
    let mut fixture = Fixture::new();
    for (field, format) in [(0, rtpg::Format::LengthOnly), (1, rtpg::Format::Extended)] {
        let data = fixture.data(&[0xa3, 0x0a | field << 5, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        let report = rtpg::decode(&data, format).unwrap();
        let states: Vec<_> = report
            .groups
            .iter()
            .map(|group| (group.id, group.state, group.preferred))
            .collect();
        let wanted: Vec<_> = fixture
            .groups
            .iter()
            .map(|group| (group.id, group.state, group.preferred))
            .collect();
        assert_eq!(states, wanted);
        assert_eq!(report.implicit_transition_seconds.is_some(), field == 1);
    }
    assert_eq!(
        fixture.data(&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0])[..],
        [0, 0, 0, 24]
    );
    for field in 2..8 {
        assert_eq!(
            fixture.sense(&[0xa3, 0x0a | field << 5, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]),
            "05/24/00"
        );
    }
}

#[test]
fn request_sense_tells_a_unit_attention_once() {
    let mut fixture = Fixture::new();
    fixture.nexus.raise(UnitAttention::AccessStateChanged);
    let told = fixture.data(&[0x03, 0, 0, 0, 252, 0]);
    assert_eq!(told[..], UnitAttention::AccessStateChanged.sense().fixed());
    assert_eq!(fixture.data(&[0x03, 0, 0, 0, 252, 0])[..], Sense::NONE.fixed());
    assert_eq!(
        fixture.data(&[0x03, 1, 0, 0, 252, 0])[..],
        [0x72, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(fixture.data(&[0x03, 0, 0, 0, 8, 0]).len(), 8);
}

#[test]
fn report_luns_makes_its_unit_attention_old_news() {
    let report = |select| [0xa0, 0, select, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let changed = Counters {
        luns: 1,
        ..Counters::default()
    };
    let mut fixture = Fixture::new();
    for select in [1, 0] {
        assert!(
            done(fixture.start_on(&report(select), 0, |view| view.counters = changed))
                .sense
                .is_none()
        );
        assert_eq!(fixture.nexus.is_pending(UnitAttention::LunsChanged), select == 1);
    }
    assert_eq!(
        sense(fixture.start_on(&[0; 6], 0, |view| view.counters = changed)),
        ""
    );
}

#[test]
fn start_is_granted_stop_and_eject_are_not() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.sense(&[0x1b, 0, 0, 0, 0x01, 0]), "");
    assert_eq!(fixture.sense(&[0x1b, 1, 0, 0, 0x01, 0]), "");
    assert_eq!(fixture.sense(&[0x1b, 0, 0, 0, 0x10, 0]), "");
    for byte in [0x00, 0x02, 0x03, 0x20, 0xb0, 0xf0] {
        assert_eq!(fixture.sense(&[0x1b, 0, 0, 0, byte, 0]), "05/24/00", "{byte:02x}");
    }
    assert_eq!(fixture.sense(&[0x1b, 0, 0, 1, 0x10, 0]), "05/24/00");
}

#[test]
fn removal_of_a_fixed_medium() {
    let mut fixture = Fixture::new();
    for (prevent, wanted) in [(0, ""), (1, ""), (2, "05/24/00"), (3, "05/24/00")] {
        assert_eq!(fixture.sense(&[0x1e, 0, 0, 0, prevent, 0]), wanted);
    }
}

#[test]
fn i8_a_port_that_is_not_known_yet_answers_who_it_is_and_holds_the_rest() {
    let mut fixture = Fixture::new();
    fixture.groups.pop();
    assert_eq!(fixture.view().state(), AccessState::Transitioning);
    assert!(matches!(fixture.start(&[0; 6]), crate::Step::Hold));
    let data = fixture.data(&[0x12, 1, 0x83, 0, 255, 0]);
    assert!(
        !data.windows(2).any(|pair| pair == [0x51, 0x95]),
        "a group that is not known"
    );
}
