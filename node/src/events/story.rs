//! What changed in the committed state and in this node's view of it, in plain words. Every node tells it, so whichever is left knows.

use std::sync::Arc;

use holdfast_raft::consensus::Control;
use holdfast_raft::lease::driver::{Clock, Lease};
use holdfast_raft::model::{ClusterState, Extent, Node};
use holdfast_types::{ByteSize, EVENTS, ExtentId, NodeId};

use super::event::Level;
use super::{Kind, Recorder};

/// How often lease and leader are looked at.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(50);

/// A sentence of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) level: Level,
    pub(super) what: Kind,
    pub(super) extent: Option<String>,
    pub(super) node: Option<String>,
    pub(super) text: String,
}

fn of_node(level: Level, name: &str, text: String) -> Told {
    Told {
        level,
        what: Kind::Node,
        extent: None,
        node: Some(name.to_owned()),
        text,
    }
}

fn of_extent(level: Level, what: Kind, extent: &Extent, text: String) -> Told {
    Told {
        level,
        what,
        extent: Some(extent.name.clone()),
        node: None,
        text,
    }
}

fn name(state: &ClusterState, node: NodeId) -> String {
    state
        .node(node)
        .map_or_else(|| format!("node {node}"), |member| member.name.clone())
}

/// What is different in `after`, in an order that reads well: nodes first, since they are the reason.
pub(super) fn differences(before: &ClusterState, after: &ClusterState) -> Vec<Told> {
    let mut told = Vec::new();
    for (id, now) in &after.nodes {
        match before.nodes.get(id) {
            Some(was) => node_differences(was, now, &mut told),
            None => told.push(of_node(
                Level::Info,
                &now.name,
                format!("{} is a member", now.name),
            )),
        }
    }
    for (_, was) in before
        .nodes
        .iter()
        .filter(|(id, _)| !after.nodes.contains_key(id))
    {
        told.push(of_node(
            Level::Info,
            &was.name,
            format!("{} is no member any more", was.name),
        ));
    }
    for (id, now) in &after.extents {
        match before.extents.get(id) {
            Some(was) => extent_differences(after, was, now, &mut told),
            None => {
                let text = format!("is created, {}", ByteSize(now.size_bytes));
                told.push(of_extent(Level::Info, Kind::Extent, now, text));
            }
        }
    }
    for (_, was) in before
        .extents
        .iter()
        .filter(|(id, _)| !after.extents.contains_key(id))
    {
        told.push(of_extent(Level::Info, Kind::Extent, was, "is deleted".to_owned()));
    }
    told
}

fn node_differences(was: &Node, now: &Node, told: &mut Vec<Told>) {
    let name = &now.name;
    if was.incarnation.is_some() && was.incarnation != now.incarnation {
        told.push(of_node(Level::Info, name, format!("{name} has started anew")));
    }
    match (was.is_suspect(), now.is_suspect()) {
        (false, true) => told.push(of_node(
            Level::Warning,
            name,
            format!("{name} is not heard any more: others may take over from it"),
        )),
        (true, false) => told.push(of_node(Level::Info, name, format!("{name} is heard again"))),
        _ => {}
    }
    match (was.draining, now.draining) {
        (false, true) => told.push(of_node(Level::Info, name, format!("{name} is drained"))),
        (true, false) => told.push(of_node(Level::Info, name, format!("{name} takes extents again"))),
        _ => {}
    }
}

fn extent_differences(state: &ClusterState, was: &Extent, now: &Extent, told: &mut Vec<Told>) {
    if was.size_bytes != now.size_bytes {
        let text = format!("has {} now", ByteSize(now.size_bytes));
        told.push(of_extent(Level::Info, Kind::Extent, now, text));
    }
    if let (None, Some(to)) = (was.handover, now.handover) {
        let text = format!("is to move to {}, planned", name(state, to));
        told.push(of_extent(Level::Info, Kind::Primary, now, text));
    }
    if was.epoch != now.epoch || was.primary != now.primary {
        told.push(primary_changed(state, was, now));
    }
    for gone in was.in_sync.difference(&now.in_sync) {
        let text = format!(
            "{} is not in sync any more: writes go on without it",
            name(state, *gone)
        );
        let mut sentence = of_extent(Level::Warning, Kind::InSync, now, text);
        sentence.node = Some(name(state, *gone));
        told.push(sentence);
    }
    for new in now.in_sync.difference(&was.in_sync) {
        let mut sentence = of_extent(
            Level::Info,
            Kind::InSync,
            now,
            format!("{} is in sync", name(state, *new)),
        );
        sentence.node = Some(name(state, *new));
        told.push(sentence);
    }
}

fn primary_changed(state: &ClusterState, was: &Extent, now: &Extent) -> Told {
    let Some(primary) = now.primary else {
        let text = "has no primary: nobody may serve it until a replica that is in sync is back".to_owned();
        return of_extent(Level::Error, Kind::Primary, now, text);
    };
    let new = name(state, primary);
    let epoch = now.epoch.0;
    let (level, text) = match was.primary {
        Some(old) if old == primary => (Level::Info, format!("{new} is its primary anew, epoch {epoch}")),
        Some(old) => {
            let why = if was.handover == Some(primary) {
                (Level::Info, "as planned")
            } else if state.node(old).is_none_or(Node::is_suspect) {
                (Level::Warning, "because that is not heard any more")
            } else {
                (Level::Warning, "because that cannot serve it")
            };
            let old = name(state, old);
            let text = format!("{new} is its primary instead of {old}, {}, epoch {epoch}", why.1);
            (why.0, text)
        }
        None => (Level::Info, format!("{new} is its primary, epoch {epoch}")),
    };
    let mut told = of_extent(level, Kind::Primary, now, text);
    told.node = Some(new);
    told
}

/// Tells it: to the log, and so to the recorder.
fn tell(told: &Told) {
    let (extent, node) = (told.extent.as_deref(), told.node.as_deref());
    let what = serde_json::to_value(told.what).unwrap_or_default();
    let what = what.as_str().unwrap_or_default();
    let text = &told.text;
    match told.level {
        Level::Info => tracing::info!(target: EVENTS, what, extent, node, "{text}"),
        Level::Warning => tracing::warn!(target: EVENTS, what, extent, node, "{text}"),
        Level::Error => tracing::error!(target: EVENTS, what, extent, node, "{text}"),
    }
}

/// What this node sees besides the committed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct View {
    leader: Option<NodeId>,
    leased: bool,
}

/// Who tells the story of a node's run.
pub(crate) struct Story {
    pub(crate) control: Control,
    pub(crate) lease: Lease,
    pub(crate) clock: Clock,
    pub(crate) recorder: Arc<Recorder>,
}

/// Whether something is there, or called, as it was not before. Every commit asks, so this allocates nothing.
fn names_differ(before: &ClusterState, after: &ClusterState) -> bool {
    fn names(state: &ClusterState) -> impl Iterator<Item = (Named, &str)> {
        let nodes = state.nodes.iter();
        let extents = state.extents.iter();
        nodes
            .map(|(id, node)| (Named::Node(*id), node.name.as_str()))
            .chain(extents.map(|(id, extent)| (Named::Extent(*id), extent.name.as_str())))
    }
    !names(before).eq(names(after))
}

/// What people call by a name.
#[derive(PartialEq, Eq)]
enum Named {
    Node(NodeId),
    Extent(ExtentId),
}

/// Tells everything that changes from now on, until the task is dropped.
pub(crate) async fn follow(story: Story) {
    let mut states = story.control.watch();
    let mut state = Arc::clone(&states.borrow_and_update());
    story.recorder.learn(&state);
    let mut view = None;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let cell = story.lease.cell();
    loop {
        tokio::select! {
            changed = states.changed() => {
                if changed.is_err() {
                    return;
                }
                let next = Arc::clone(&states.borrow_and_update());
                if names_differ(&state, &next) {
                    story.recorder.learn(&next);
                }
                differences(&state, &next).iter().for_each(tell);
                state = next;
            }
            _ = look.tick() => {
                let now = View {
                    leader: story.control.metrics().leader,
                    leased: cell.holds((story.clock)()),
                };
                if let Some(before) = view {
                    view_differences(&state, before, now).iter().for_each(tell);
                }
                view = Some(now);
            }
        }
    }
}

fn view_differences(state: &ClusterState, before: View, now: View) -> Vec<Told> {
    let sentence = |level, what, node: Option<NodeId>, text: String| Told {
        level,
        what,
        extent: None,
        node: node.map(|node| name(state, node)),
        text,
    };
    let mut told = Vec::new();
    if before.leader != now.leader {
        let (level, text) = match now.leader {
            Some(leader) => (Level::Info, format!("{} leads the cluster", name(state, leader))),
            None => (
                Level::Warning,
                "nobody leads the cluster, as far as this node knows".to_owned(),
            ),
        };
        told.push(sentence(level, Kind::Leader, now.leader, text));
    }
    if before.leased != now.leased {
        let (level, text) = match now.leased {
            true => (Level::Info, "this node has its quorum lease"),
            false => (
                Level::Warning,
                "this node has no quorum lease any more: it answers nothing until a majority hears it",
            ),
        };
        told.push(sentence(level, Kind::Lease, None, text.to_owned()));
    }
    told
}

#[cfg(test)]
#[path = "story_test.rs"]
mod tests;
