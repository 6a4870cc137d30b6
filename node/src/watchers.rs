//! Looks at every node of a cluster that is being hurt: what each says of it, some times a second, for timelines.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_drill::rehearsal::{Look, View};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::{AdminAddress, AdminClient};
use crate::status::StatusDocument;

/// Between two looks at each node.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A node that has not answered such a look by then counts as silent. Longer than a busy machine lets a node wait for a processor.
const SILENT_AFTER: Duration = Duration::from_millis(700);
/// Looks kept at most, should nobody ask for them.
const LOOKS_MAX: usize = 100_000;

/// What they have seen since somebody asked.
type Looks = Arc<Mutex<Vec<Look<Instant>>>>;

/// The unit that is looked at: an extent, and the target whose LUN 0 it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) extent: &'static str,
    pub(crate) target: &'static str,
}

/// Watchers at work: a connection and a task for each node, so that a silent one holds up nobody. They end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    looks: Looks,
    tasks: JoinSet<()>,
}

impl Watchers {
    /// Asks these nodes for their status from now on. Must be called within a runtime.
    pub(crate) fn start(nodes: impl IntoIterator<Item = (String, AdminAddress)>, unit: Unit) -> Self {
        let mut watchers = Self::default();
        for (number, (name, address)) in nodes.into_iter().enumerate() {
            let looks = Arc::clone(&watchers.looks);
            watchers.tasks.spawn(watch((number, name), address, unit, looks));
        }
        watchers
    }

    /// What the nodes said since the last call, in the order of time for each of them.
    pub(crate) fn looks(&self) -> Vec<Look<Instant>> {
        std::mem::take(&mut *self.looks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks at a node for ever.
async fn watch((node, name): (usize, String), address: AdminAddress, unit: Unit, looks: Looks) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut client: Option<AdminClient> = None;
    loop {
        every.tick().await;
        let asked = Instant::now();
        let known = client.take();
        let ask = async {
            let mut client = match known {
                Some(client) => client,
                None => AdminClient::connect(&address).await?,
            };
            let status = client.status().await?;
            anyhow::Ok((client, status))
        };
        let (at, view) = match timeout(SILENT_AFTER, ask).await {
            Ok(Ok((known, status))) => {
                client = Some(known);
                (Instant::now(), Some(view(&status, &name, unit)))
            }
            // Its connection is of no use any more.
            Ok(Err(_)) | Err(_) => (asked, None),
        };
        let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() < LOOKS_MAX {
            looks.push(Look {
                node,
                asked,
                at,
                view,
            });
        }
    }
}

/// What a node says of the unit.
fn view(status: &StatusDocument, node: &str, unit: Unit) -> View {
    let extent = status.extents.iter().find(|extent| extent.name == unit.extent);
    let target = status
        .targets
        .iter()
        .find(|target| target.iqn.as_str() == unit.target);
    let lun = target.and_then(|target| target.luns.iter().find(|lun| lun.lun == 0));
    let group = lun.and_then(|lun| lun.groups.iter().find(|group| group.node == node));
    View {
        revision: status.revision,
        quorum: status.quorum,
        leader: status.leader.clone(),
        primary: extent.and_then(|extent| extent.primary.clone()),
        epoch: extent.map_or(0, |extent| extent.epoch),
        serves: extent.is_some_and(|extent| extent.served && extent.primary.as_deref() == Some(node)),
        group: group.map(|group| group.state.clone()),
    }
}
