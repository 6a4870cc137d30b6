//! Random commands, in force or stale, in any order: what must always hold of the state.

use proptest::prelude::*;

use holdfast_alua::AccessState;
use holdfast_types::{Epoch, InSyncVersion, NodeId, SuspicionId};

use super::fixture::*;
use super::*;

/// A command as numbers, so that it can be made to fit (or nearly fit) the state it meets.
type Draw = (u8, u8, u8, u8, bool);

fn node(number: u8) -> NodeId {
    NodeId(u64::from(number % 5) + 1)
}

/// Stamps of the extents whose bit is set, in force or one version back.
fn stamps(state: &ClusterState, which: u8, back: u64) -> Vec<ExtentStamp> {
    let picked = state
        .extents
        .iter()
        .enumerate()
        .filter(|(n, _)| which & (1 << n) != 0);
    picked
        .map(|(_, (id, e))| {
            let mut stamp = e.stamp(*id);
            stamp.version = InSyncVersion(stamp.version.0.saturating_sub(back));
            stamp
        })
        .collect()
}

fn command(state: &ClusterState, (kind, x, y, z, stale): Draw) -> Command {
    let back = u64::from(stale);
    let suspicion = |n| {
        state
            .suspicion(n)
            .map_or(SuspicionId(1), |s| SuspicionId(s.0 - back))
    };
    let (who, incarnation) = (node(x), run(u64::from(y)));
    let announced = |node| {
        state
            .node(node)
            .and_then(|member| member.incarnation)
            .unwrap_or(run(7))
    };
    let items = stamps(state, z, back);
    let first = items.first().map(|s| &state.extents[&s.extent]);
    let proposer = first.and_then(|e| e.primary).unwrap_or(node(y));
    match kind % 9 {
        0 => {
            let found = state.nodes.get(&who);
            let generation = found.map(|n| n.lease_generation).unwrap_or_default();
            Command::Suspect {
                node: who,
                generation,
            }
        }
        1 => Command::ClearSuspect {
            node: who,
            suspicion: suspicion(who),
        },
        2 => new_epoch(
            who,
            suspicion(who),
            &[y, z].map(|n| (node(n), announced(node(n)).0 + back)),
        ),
        3 => Command::Reopen {
            items,
            node: if stale { who } else { proposer },
            incarnation,
        },
        4 => Command::Shrink {
            items,
            proposer,
            remove: who,
        },
        5 => Command::Grow {
            items,
            proposer,
            add: who,
            run: None,
        },
        6 => Command::GrowVoid { items, proposer },
        7 => Command::Announce {
            node: who,
            incarnation,
            number: u64::from(z),
            unfit: (1..=3)
                .filter(|number| z >> number & 1 == 1)
                .map(extent_id)
                .collect(),
            after: None,
        },
        _ => Command::Switchover {
            from_incarnation: first.and_then(|e| e.primary_incarnation).unwrap_or(run(0)),
            items,
            from: proposer,
            to: who,
            to_incarnation: announced(who),
        },
    }
}

fn four() -> ClusterState {
    let mut state = ClusterState::default();
    let nodes = vec![
        new_node(A, "a", Role::Data),
        new_node(B, "b", Role::Data),
        new_node(W, "w", Role::Witness),
        new_node(C, "c", Role::Data),
    ];
    must(&init(nodes), &mut state);
    must(&new_extent(1, &[A, B]), &mut state);
    must(&new_extent(2, &[A, B, C]), &mut state);
    must(&new_extent(3, &[C]), &mut state);
    all_announce(&mut state);
    state
}

fn check(before: &Extent, after: &Extent, unfit: impl Fn(NodeId) -> bool) -> Result<(), TestCaseError> {
    prop_assert!(!after.in_sync.is_empty());
    prop_assert!(after.in_sync.is_subset(&after.replicas));
    if let Some(primary) = after.primary {
        prop_assert!(after.in_sync.contains(&primary));
    }
    prop_assert_eq!(after.primary.is_some(), after.primary_incarnation.is_some());
    prop_assert!(after.epoch >= before.epoch && after.version >= before.version);
    let reign = |e: &Extent| (e.primary, e.primary_incarnation);
    // I2: a change of primary, or of its run, is a new epoch; a new epoch or another set is a new version.
    if reign(before) != reign(after) {
        prop_assert_eq!(after.epoch, Epoch(before.epoch.0 + 1));
    }
    if before.epoch != after.epoch || before.in_sync != after.in_sync {
        prop_assert_eq!(after.version, InSyncVersion(before.version.0 + 1));
    }
    // I5: who becomes primary was in sync before, and had not announced that its replica cannot serve.
    if let Some(primary) = after.primary {
        prop_assert!(before.in_sync.contains(&primary));
        prop_assert!(after.epoch == before.epoch || !unfit(primary));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn i2_i5_primaries_and_sets_move_only_forward(
        draws in prop::collection::vec((0u8..9, any::<u8>(), any::<u8>(), any::<u8>(), prop::bool::weighted(0.1)), 1..80),
    ) {
        let mut state = four();
        for draw in draws {
            let command = command(&state, draw);
            let before = state.clone();
            let reply = go(&command, &mut state);
            if reply.refusal().is_some() {
                // I12: no reply but a refusal, no change.
                prop_assert_eq!(&state, &ClusterState { revision: state.revision, ..before.clone() });
            }
            for (id, after) in &state.extents {
                let old = &before.extents[id];
                check(old, after, |node| before.is_unfit(node, *id))?;
                // P3: by difference, whatever the command was; and never every group gone.
                let (was, is) = (before.lu(*id).unwrap().groups, state.lu(*id).unwrap().groups);
                prop_assert_eq!(after.alua_changes - old.alua_changes, u64::from(was != is));
                prop_assert!(is.iter().any(|g| g.state != AccessState::Unavailable));
            }
            // The same entry on another node that holds the same state.
            let mut other = before.clone();
            prop_assert_eq!(&go(&command, &mut other), &reply);
            prop_assert_eq!(&other, &state);
            // Late doubles of what names a version change no reign: their precondition is gone.
            if !matches!(command, Command::Suspect { .. } | Command::NewEpoch { .. }) {
                let once = state.clone();
                go(&command, &mut state);
                prop_assert_eq!(&state.extents, &once.extents);
            }
        }
    }

    #[test]
    fn the_stored_state_is_the_state(
        draws in prop::collection::vec((0u8..9, any::<u8>(), any::<u8>(), any::<u8>(), any::<bool>()), 1..30),
    ) {
        let mut state = four();
        for draw in draws {
            let command = command(&state, draw);
            go(&command, &mut state);
            let text = serde_json::to_vec(&command).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Command>(&text).unwrap(), &command);
        }
        let text = serde_json::to_vec(&state).unwrap();
        prop_assert_eq!(serde_json::from_slice::<ClusterState>(&text).unwrap(), state);
    }
}
