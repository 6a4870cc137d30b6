//! Tests of the story, over committed states.

use holdfast_proto::admin::CreateExtentRequest;
use holdfast_raft::model::Command;
use holdfast_types::{Epoch, Incarnation, Revision, SuspicionId};

use super::*;
use crate::admin::server::new_extent;
use crate::configuration::rig::Rig;

/// Data nodes a, b and c, a witness w, and an extent on a and b, whose first primary is a.
fn state() -> ClusterState {
    let mut state = Rig::new().state;
    let request = CreateExtentRequest {
        name: "disk".into(),
        size_bytes: 1 << 30,
        block_size: 512,
        replicas: vec!["a".into(), "b".into()],
        ..CreateExtentRequest::default()
    };
    let new = new_extent(&state, request).unwrap();
    state.apply(Revision(state.revision.0 + 1), &Command::CreateExtent(new));
    let [a, b] = ["a", "b"].map(|name| state.node_named(name).unwrap());
    let extent = disk(&mut state);
    extent.in_sync = [a, b].into();
    (extent.epoch, extent.primary) = (Epoch(1), Some(a));
    state
}

fn disk(state: &mut ClusterState) -> &mut Extent {
    state.extents.values_mut().next().unwrap()
}

fn member<'a>(state: &'a mut ClusterState, name: &str) -> &'a mut Node {
    let id = state.node_named(name).unwrap();
    state.nodes.get_mut(&id).unwrap()
}

fn told(before: &ClusterState, after: &ClusterState) -> Vec<(Level, Kind, String)> {
    let sentence = |told: Told| {
        let subject = told
            .extent
            .map(|extent| format!("{extent}: "))
            .unwrap_or_default();
        (told.level, told.what, format!("{subject}{}", told.text))
    };
    differences(before, after).into_iter().map(sentence).collect()
}

#[test]
fn a_failover_and_the_way_back_are_told() {
    let quiet = state();
    assert_eq!(told(&quiet, &quiet), []);
    let b = quiet.node_named("b").unwrap();
    let mut after = quiet.clone();
    member(&mut after, "a").suspicion = Some(SuspicionId(3));
    let extent = disk(&mut after);
    (extent.epoch, extent.primary) = (Epoch(2), Some(b));
    extent.in_sync = [b].into();
    let lost = "disk: a is not in sync any more: writes go on without it";
    assert_eq!(
        told(&quiet, &after),
        [
            (
                Level::Warning,
                Kind::Node,
                "a is not heard any more: others may take over from it".to_owned()
            ),
            (
                Level::Warning,
                Kind::Primary,
                "disk: b is its primary instead of a, because that is not heard any more, epoch 2".to_owned()
            ),
            (Level::Warning, Kind::InSync, lost.to_owned()),
        ]
    );
    let mut back = after.clone();
    member(&mut back, "a").suspicion = None;
    member(&mut back, "a").incarnation = Some(Incarnation(7));
    let a = back.node_named("a").unwrap();
    disk(&mut back).in_sync.insert(a);
    let texts: Vec<String> = told(&after, &back).into_iter().map(|told| told.2).collect();
    assert_eq!(texts, ["a is heard again", "disk: a is in sync"]);
    let again = {
        let mut again = back.clone();
        member(&mut again, "a").incarnation = Some(Incarnation(8));
        again
    };
    assert_eq!(told(&back, &again)[0].2, "a has started anew");
}

#[test]
fn a_planned_move_is_no_warning_and_an_extent_without_a_primary_is_an_error() {
    let quiet = state();
    let b = quiet.node_named("b").unwrap();
    let mut wanted = quiet.clone();
    disk(&mut wanted).handover = Some(b);
    assert_eq!(told(&quiet, &wanted)[0].2, "disk: is to move to b, planned");
    let mut moved = wanted.clone();
    let extent = disk(&mut moved);
    (extent.epoch, extent.primary, extent.handover) = (Epoch(2), Some(b), None);
    assert_eq!(
        told(&wanted, &moved),
        [(
            Level::Info,
            Kind::Primary,
            "disk: b is its primary instead of a, as planned, epoch 2".to_owned()
        )]
    );
    let mut nobody = moved.clone();
    disk(&mut nobody).primary = None;
    let (level, kind, text) = told(&moved, &nobody).remove(0);
    assert_eq!((level, kind), (Level::Error, Kind::Primary));
    assert!(text.starts_with("disk: has no primary"), "{text}");
}

#[test]
fn what_comes_and_goes_is_told() {
    let quiet = state();
    let mut grown = quiet.clone();
    disk(&mut grown).size_bytes *= 2;
    member(&mut grown, "c").draining = true;
    let texts: Vec<String> = told(&quiet, &grown).into_iter().map(|told| told.2).collect();
    assert_eq!(texts, ["c is drained", "disk: has 2 GiB now"]);
    let mut less = quiet.clone();
    less.extents.clear();
    less.nodes.pop_last();
    let texts: Vec<String> = told(&quiet, &less).into_iter().map(|told| told.2).collect();
    assert_eq!(texts, ["w is no member any more", "disk: is deleted"]);
    let texts: Vec<String> = told(&less, &quiet).into_iter().map(|told| told.2).collect();
    assert_eq!(texts, ["w is a member", "disk: is created, 1 GiB"]);
}

#[test]
fn leader_and_lease_are_told_when_they_change() {
    let state = state();
    let view = |leader, leased| View { leader, leased };
    let w = state.node_named("w");
    let told = |before, after| {
        let told = view_differences(&state, before, after);
        told.into_iter().map(|told| told.text).collect::<Vec<_>>()
    };
    assert_eq!(told(view(w, true), view(w, true)), [""; 0]);
    assert_eq!(told(view(None, true), view(w, true)), ["w leads the cluster"]);
    assert_eq!(told(view(w, true), view(None, false)).len(), 2);
}
