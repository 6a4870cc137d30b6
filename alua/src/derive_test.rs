use super::*;
use AccessState::{ActiveNonOptimized, ActiveOptimized, Standby, Transitioning, Unavailable};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const W: NodeId = NodeId(3);

fn home(id: u16, node: NodeId, served_by: Option<NodeId>) -> HomeGroup {
    HomeGroup {
        id: TpgId(id),
        ports: vec![RelativePortId(id)],
        node,
        served_by,
    }
}

fn states(
    primary: Option<NodeId>,
    secondary: SecondaryAccess,
    groups: &[HomeGroup],
    linked: &[NodeId],
) -> Vec<AccessState> {
    derive(&LuInputs {
        primary,
        preferred: None,
        secondary,
        groups,
        linked,
    })
    .iter()
    .map(|group| group.state)
    .collect()
}

#[test]
fn a_healthy_pair() {
    let groups = [home(1, A, Some(A)), home(2, B, Some(B))];
    assert_eq!(
        states(Some(A), SecondaryAccess::NonOptimized, &groups, &[B]),
        [ActiveOptimized, ActiveNonOptimized]
    );
    assert_eq!(
        states(Some(B), SecondaryAccess::NonOptimized, &groups, &[A]),
        [ActiveNonOptimized, ActiveOptimized]
    );
    assert_eq!(
        states(Some(A), SecondaryAccess::Standby, &groups, &[B]),
        [ActiveOptimized, Standby]
    );
}

#[test]
fn p4_without_a_link_the_other_group_is_standby() {
    let groups = [home(1, A, Some(A)), home(2, B, Some(B))];
    assert_eq!(
        states(Some(A), SecondaryAccess::NonOptimized, &groups, &[]),
        [ActiveOptimized, Standby]
    );
}

#[test]
fn a_lost_node_is_unavailable_and_its_taken_over_group_follows_the_server() {
    let lost = [home(1, A, None), home(2, B, Some(B))];
    assert_eq!(
        states(Some(B), SecondaryAccess::NonOptimized, &lost, &[]),
        [Unavailable, ActiveOptimized]
    );
    let taken = [home(1, A, Some(B)), home(2, B, Some(B))];
    assert_eq!(
        states(Some(B), SecondaryAccess::NonOptimized, &taken, &[]),
        [ActiveOptimized, ActiveOptimized]
    );
}

#[test]
fn p4_transitioning_without_a_primary() {
    let groups = [home(1, A, None), home(2, B, Some(B))];
    assert_eq!(
        states(None, SecondaryAccess::NonOptimized, &groups, &[B]),
        [Unavailable, Transitioning]
    );
    let none = [home(1, A, None), home(2, B, None)];
    assert_eq!(
        states(None, SecondaryAccess::NonOptimized, &none, &[]),
        [Transitioning, Transitioning]
    );
}

/// Every input of up to three groups, each served by anybody or nobody, any primary, preference, link set and configuration.
fn every_input(mut check: impl FnMut(&LuInputs<'_>)) {
    let nodes = [A, B, NodeId(4)];
    let anybody = [None, Some(A), Some(B), Some(W), Some(NodeId(4))];
    for count in 1..=3_usize {
        for code in 0..5_usize.pow(u32::try_from(count).unwrap()) {
            let groups: Vec<HomeGroup> = (0..count)
                .map(|i| {
                    home(
                        u16::try_from(i).unwrap() + 1,
                        nodes[i],
                        anybody[code / 5_usize.pow(u32::try_from(i).unwrap()) % 5],
                    )
                })
                .collect();
            for links in 0..8_usize {
                let linked: Vec<NodeId> = (0..3).filter(|i| links >> i & 1 == 1).map(|i| nodes[i]).collect();
                for primary in anybody {
                    for preferred in anybody {
                        for secondary in [SecondaryAccess::NonOptimized, SecondaryAccess::Standby] {
                            check(&LuInputs {
                                primary,
                                preferred,
                                secondary,
                                groups: &groups,
                                linked: &linked,
                            });
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn invariants_hold_over_all_small_inputs() {
    every_input(|inputs| {
        let groups = derive(inputs);
        let count = |state| groups.iter().filter(|group| group.state == state).count();
        assert_eq!(groups.len(), inputs.groups.len());
        assert!(count(Unavailable) < groups.len(), "all unavailable: {inputs:?}");
        assert_eq!(
            inputs.primary.is_none(),
            count(Transitioning) > 0,
            "transitioning: {inputs:?}"
        );
        assert_eq!(count(AccessState::Offline), 0);
        // As many active/optimized groups as the primary serves: exactly one where everybody serves its own home set.
        let served = inputs.primary.map_or(0, |primary| {
            let own = |home: &&HomeGroup| {
                home.served_by == Some(primary) || (home.served_by.is_none() && home.node == primary)
            };
            inputs.groups.iter().filter(own).count()
        });
        assert_eq!(count(ActiveOptimized), served, "active/optimized: {inputs:?}");
        for (group, home) in groups.iter().zip(inputs.groups) {
            assert_eq!(
                (group.id, group.node, &group.ports),
                (home.id, home.node, &home.ports)
            );
            assert!(
                !group.preferred || group.state == ActiveOptimized,
                "PREF: {inputs:?}"
            );
            if group.state == ActiveNonOptimized {
                assert_eq!(inputs.secondary, SecondaryAccess::NonOptimized);
                assert!(
                    home.served_by
                        .is_some_and(|server| inputs.linked.contains(&server)),
                    "no link: {inputs:?}"
                );
            }
        }
        assert!(groups.iter().filter(|group| group.preferred).count() <= 1);
    });
}

#[test]
fn exactly_one_optimized_group_where_everybody_serves_its_own() {
    for primary in [A, B] {
        let groups = [home(1, A, Some(A)), home(2, B, Some(B))];
        let found = derive(&LuInputs {
            primary: Some(primary),
            preferred: Some(A),
            secondary: SecondaryAccess::NonOptimized,
            groups: &groups,
            linked: &[A, B],
        });
        let optimized: Vec<_> = found
            .iter()
            .filter(|group| group.state == ActiveOptimized)
            .collect();
        assert_eq!(optimized.len(), 1);
        assert_eq!(optimized[0].node, primary);
        assert_eq!(optimized[0].preferred, primary == A);
    }
}

/// The groups are part of cluster state, which snapshots carry as text.
#[test]
fn tracked_groups_are_read_back_from_text() {
    let groups = [home(1, A, Some(A)), home(2, B, Some(B))];
    let tracked = Tracked::new(&LuInputs {
        primary: Some(A),
        preferred: Some(A),
        secondary: SecondaryAccess::NonOptimized,
        groups: &groups,
        linked: &[B],
    });
    let text = serde_json::to_string(&tracked).unwrap();
    assert!(text.contains("\"active/optimized\""), "{text}");
    assert_eq!(serde_json::from_str::<Tracked>(&text).unwrap(), tracked);
    assert!(serde_json::from_str::<Tracked>(&text.replace("active/optimized", "busy")).is_err());
}

#[test]
fn p3_the_counter_moves_only_with_what_initiators_see() {
    let groups = [home(1, A, Some(A)), home(2, B, Some(B))];
    let inputs = LuInputs {
        primary: Some(A),
        preferred: None,
        secondary: SecondaryAccess::NonOptimized,
        groups: &groups,
        linked: &[B],
    };
    let mut tracked = Tracked::new(&inputs);
    assert_eq!(tracked.changes(), 0);
    assert!(!tracked.update(&inputs));
    // A link to a node that serves no group changes nothing that is shown.
    assert!(!tracked.update(&LuInputs {
        linked: &[B, W],
        ..inputs
    }));
    assert_eq!(tracked.changes(), 0);
    assert!(tracked.update(&LuInputs {
        primary: None,
        ..inputs
    }));
    assert!(tracked.update(&LuInputs {
        primary: Some(B),
        linked: &[A],
        ..inputs
    }));
    assert_eq!(tracked.changes(), 2);
    assert_eq!(tracked.groups()[1].state, ActiveOptimized);
}
