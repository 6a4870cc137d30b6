//! sled's files damaged at random: what comes back is what was saved, or nothing, and the node lives.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::applied::{Applied, AppliedError, AppliedStore, Flat, flatten, unflatten};
use super::keeper::Keeper;
use super::kind::log_id;
use super::sled_store::SledStore;
use crate::model::{ClusterState, Target, fixture};
use holdfast_types::{NodeId, Revision};

/// A state with some targets, as of entry `index`.
fn applied(index: u64) -> Applied {
    let target = |number: u64| {
        let name = format!("iqn.2026-11.example:t{number}").parse().unwrap();
        (name, Target::default())
    };
    let state = ClusterState {
        revision: Revision(index),
        targets: (index..index + 50).map(target).collect::<BTreeMap<_, _>>(),
        ..ClusterState::default()
    };
    Applied {
        last: Some(log_id(2, 1, index)),
        state: Arc::new(state),
        ..Applied::default()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

fn damage(path: &Path, rng: &mut StdRng) {
    let mut bytes = std::fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |at| at + 1);
    match rng.random_range(0..4) {
        0 => bytes.truncate(rng.random_range(0..used)),
        1 => {
            let start = rng.random_range(0..used);
            let end = used.min(start + rng.random_range(1..5000));
            bytes[start..end].fill(0);
        }
        2 => {
            for _ in 0..rng.random_range(1..40) {
                bytes[rng.random_range(0..used)] = rng.random();
            }
        }
        _ => bytes[rng.random_range(0..used)] ^= 1 << rng.random_range(0..8),
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn random_damage_never_gives_a_state_that_was_not_saved() {
    let seed = std::env::var("HOLDFAST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("HOLDFAST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let saved: Vec<Applied> = (1..8).map(|index| applied(index * 3)).collect();
    let mut store = SledStore::open(&whole).unwrap();
    assert!(store.load().unwrap().is_none());
    for applied in &saved {
        store.save(applied).unwrap();
    }
    drop(store);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut rebuilt, rounds) = (0, 40);
    for round in 0..rounds {
        let hurt = dir.path().join(format!("hurt{round}"));
        copy(&whole, &hurt);
        damage(&hurt.join("db"), &mut rng);
        let (mut keeper, found) = Keeper::start_sled(&hurt);
        match found {
            None => rebuilt += 1,
            Some(found) => assert!(
                saved
                    .iter()
                    .any(|saved| saved.last == found.last && saved.state == found.state),
                "round {round}: {found:?}"
            ),
        }
        // Whatever was found, it works from here on.
        runtime.block_on(keeper.save(applied(1000)));
        keeper.close();
        let (_keeper, found) = Keeper::start_sled(&hurt);
        assert_eq!(found.unwrap().last, Some(log_id(2, 1, 1000)), "round {round}");
        std::fs::remove_dir_all(&hurt).unwrap();
    }
    eprintln!("{rebuilt} of {rounds} were rebuilt");
}

/// Fails in a way that is chosen.
struct Failing(&'static str);

impl AppliedStore for Failing {
    fn load(&mut self) -> Result<Option<Applied>, AppliedError> {
        assert_ne!(self.0, "load", "on purpose");
        Ok(None)
    }

    fn save(&mut self, _: &Applied) -> Result<(), AppliedError> {
        assert_ne!(self.0, "save", "on purpose");
        Err(AppliedError::Incomplete)
    }
}

#[tokio::test]
async fn a_store_that_panics_or_fails_is_given_up_and_nothing_else() {
    let error = Keeper::start(|| Ok(Failing("load"))).unwrap_err();
    assert!(matches!(error, AppliedError::Panicked), "{error}");
    for how in ["save", "error"] {
        let (mut keeper, found) = Keeper::start(move || Ok(Failing(how))).unwrap();
        assert!(found.is_none());
        keeper.save(applied(1)).await;
        keeper.save(applied(2)).await;
        keeper.close();
    }
}

/// What follows a state from commit to commit holds what one that is made of the last state holds, and names what it changed.
#[test]
fn values_follow_a_state_as_if_they_were_made_of_it() {
    let seed = std::env::var("HOLDFAST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("HOLDFAST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut state = fixture::led_by_a(5);
    let mut flat = Flat::default();
    let mut stored = BTreeMap::new();
    for index in 100..400 {
        let number = rng.random_range(0..20_u128);
        let found = state.extents.get_mut(&fixture::extent_id(number));
        match (rng.random_range(0..7), found) {
            (0, _) => drop(state.extents.remove(&fixture::extent_id(number))),
            (1, None) => drop(fixture::go(
                &fixture::new_extent(number, &[NodeId(1)]),
                &mut state,
            )),
            (1 | 2, Some(extent)) => extent.capacity_changes += 1,
            (3, _) => state
                .targets
                .append(&mut applied(rng.random_range(0..20)).state.targets.clone()),
            (4, _) => drop(state.targets.pop_first()),
            (5, _) => drop(state.isns.insert(fixture::address(rng.random_range(1..9)))),
            _ => drop(state.nodes.pop_last()),
        }
        if rng.random_range(0..30) == 0 {
            // What a snapshot brings may have nothing in common with what was there.
            state = fixture::led_by_a(rng.random_range(1..9));
        }
        state.revision = Revision(index);
        let applied = Applied {
            last: Some(log_id(2, 1, index)),
            state: Arc::new(state.clone()),
            ..Applied::default()
        };
        for key in flat.follow(&applied).unwrap() {
            match flat.values().get(&key) {
                Some(value) => drop(stored.insert(key, value.clone())),
                None => drop(stored.remove(&key)),
            }
        }
        assert_eq!(stored, flatten(&applied).unwrap());
        assert_eq!(unflatten(stored.clone()).unwrap().unwrap().state, applied.state);
        if rng.random_range(0..10) == 0 {
            flat = Flat::new(stored.clone(), unflatten(stored.clone()).unwrap().as_ref());
        }
    }
}

#[test]
fn values_that_are_missing_or_changed_show() {
    let whole = flatten(&applied(5)).unwrap();
    assert_eq!(unflatten(whole.clone()).unwrap().unwrap().state, applied(5).state);
    for key in whole.keys() {
        let mut less = whole.clone();
        less.remove(key);
        assert!(unflatten(less).is_err(), "without {key}");
        let mut other = whole.clone();
        let value = other.get_mut(key).unwrap();
        value.push(b' ');
        // The seal has no seal of its own here: its store's checksum is over it.
        assert!(key.starts_with('~') || unflatten(other).is_err(), "changed {key}");
    }
    let mut more = whole.clone();
    more.insert("targets/x".into(), b"{}".to_vec());
    assert!(unflatten(more).is_err());
}
