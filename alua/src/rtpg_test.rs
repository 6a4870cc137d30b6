use holdfast_types::NodeId;
use proptest::prelude::*;

use super::*;

fn pair() -> Vec<PortGroup> {
    vec![
        PortGroup {
            id: TpgId(1),
            state: AccessState::ActiveOptimized,
            preferred: true,
            ports: vec![RelativePortId(1)],
            node: NodeId(1),
        },
        PortGroup {
            id: TpgId(0x102),
            state: AccessState::ActiveNonOptimized,
            preferred: false,
            ports: vec![RelativePortId(0x102), RelativePortId(3)],
            node: NodeId(2),
        },
    ]
}

#[test]
fn golden_length_only_header() {
    assert_eq!(
        encode(&pair(), SecondaryAccess::NonOptimized, Format::LengthOnly),
        [
            0, 0, 0, 28, // length
            0x80, 0x8f, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, // PREF, active/optimized
            0x01, 0x8f, 1, 2, 0, 0, 0, 2, 0, 0, 1, 2, 0, 0, 0, 3,
        ]
    );
}

#[test]
fn golden_extended_header() {
    let data = encode(&pair()[..1], SecondaryAccess::Standby, Format::Extended);
    assert_eq!(
        data,
        [
            0, 0, 0, 16, 0x10, 20, 0, 0, 0x80, 0x8d, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1
        ]
    );
}

#[test]
fn support_bits_are_the_states_that_derive_gives() {
    use crate::{HomeGroup, LuInputs, derive};
    let (a, b) = (NodeId(1), NodeId(2));
    for secondary in [SecondaryAccess::NonOptimized, SecondaryAccess::Standby] {
        let mut seen = 0;
        for primary in [None, Some(a), Some(b)] {
            for served in [None, Some(a), Some(b)] {
                for linked in [&[][..], &[a, b][..]] {
                    let groups = [
                        HomeGroup {
                            id: TpgId(1),
                            ports: vec![],
                            node: a,
                            served_by: Some(a),
                        },
                        HomeGroup {
                            id: TpgId(2),
                            ports: vec![],
                            node: b,
                            served_by: served,
                        },
                    ];
                    for group in derive(&LuInputs {
                        primary,
                        preferred: None,
                        secondary,
                        groups: &groups,
                        linked,
                    }) {
                        seen |= match group.state {
                            AccessState::ActiveOptimized => SUPPORTS_OPTIMIZED,
                            AccessState::ActiveNonOptimized => SUPPORTS_NON_OPTIMIZED,
                            AccessState::Standby => SUPPORTS_STANDBY,
                            AccessState::Unavailable => SUPPORTS_UNAVAILABLE,
                            AccessState::Offline => 0x40,
                            AccessState::Transitioning => SUPPORTS_TRANSITIONING,
                        };
                    }
                }
            }
        }
        assert_eq!(seen, support(secondary), "{secondary:?}");
    }
}

fn any_group() -> impl Strategy<Value = PortGroup> {
    let state = prop::sample::select(AccessState::ALL.to_vec());
    (
        any::<u16>(),
        state,
        any::<bool>(),
        prop::collection::vec(any::<u16>(), 0..6),
    )
        .prop_map(|(id, state, preferred, ports)| PortGroup {
            id: TpgId(id),
            state,
            preferred,
            ports: ports.into_iter().map(RelativePortId).collect(),
            node: NodeId(1),
        })
}

proptest! {
    #![proptest_config(crate::seeded::seeded())]

    #[test]
    fn round_trip(groups in prop::collection::vec(any_group(), 0..5), extended: bool) {
        let format = if extended { Format::Extended } else { Format::LengthOnly };
        let report = decode(&encode(&groups, SecondaryAccess::NonOptimized, format), format).unwrap();
        prop_assert_eq!(report.implicit_transition_seconds, extended.then_some(IMPLICIT_TRANSITION_SECONDS));
        prop_assert_eq!(report.groups.len(), groups.len());
        for (read, group) in report.groups.iter().zip(&groups) {
            prop_assert_eq!((read.id, read.state, read.preferred, &read.ports), (group.id, group.state, group.preferred, &group.ports));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..64), extended: bool) {
        let _ = decode(&data, if extended { Format::Extended } else { Format::LengthOnly });
    }

    #[test]
    fn a_cut_report_is_refused(groups in prop::collection::vec(any_group(), 1..4), cut in 1usize..8) {
        let data = encode(&groups, SecondaryAccess::NonOptimized, Format::LengthOnly);
        prop_assert_eq!(decode(&data[..data.len() - cut], Format::LengthOnly), Err(ReadError::Short));
    }
}
