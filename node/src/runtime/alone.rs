//! What a node may do alone, when those who held what it lacks are gone: take the cluster over, serve a replica that is not whole.

use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use holdfast_raft::lease::HEARS_WITHIN;
use holdfast_raft::model::{AdminCommand, ClusterState, Extent, LossAccepted, Reply, Role, SettingKey};
use holdfast_types::{ExtentId, NodeId, unix_seconds};
use tokio::net::TcpStream;

use super::Running;
use crate::admin::{GoneNode, PlannedExtent, TakeoverPlan};

/// For how long nobody else may be heard before a takeover. Heartbeats come every 50 ms; a longer lease time makes it longer.
const LISTEN: Duration = Duration::from_secs(3);
/// Between two looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a connection to another node may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

impl Running {
    /// What a takeover by this node would do; listens for a few seconds first.
    ///
    /// # Errors
    /// One line: why there is nothing to take over, or why not by this node, or not now.
    pub(super) async fn plan_takeover(&self) -> anyhow::Result<TakeoverPlan> {
        let state = self.control.newest_state();
        let name = may_take_over(&state, self.me)?;
        let metrics = self.control.metrics();
        let listen = LISTEN.max(Duration::from_millis(state.settings.get(SettingKey::LeaseTime)) * 2);
        let until = tokio::time::Instant::now() + listen;
        loop {
            if let Some(heard) = self.someone_heard() {
                let who = name_of(&state, heard);
                bail!(
                    "{who} is up: {name} hears it now; a takeover is for when nobody else is left (see 'holdfast status'). Stop the \
                     node on {who} for good first, if it is to be left behind"
                );
            }
            if tokio::time::Instant::now() >= until {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        ensure!(
            !(metrics.am_leader && state.voters.is_majority(|node| node == self.me)),
            "{name} has its quorum alone: there is nothing to take over"
        );
        self.nobody_answers(&state, &name).await?;
        // Once more: something may have come meanwhile.
        Ok(self.plan(&self.control.newest_state(), name))
    }

    /// Another voter from which something has come just now.
    fn someone_heard(&self) -> Option<NodeId> {
        let view = self.lease.view();
        let mut peers = view.peers.into_iter();
        let heard = peers.find(|(_, peer)| peer.incarnation.is_some() && peer.silent <= HEARS_WITHIN);
        heard.map(|(node, _)| node)
    }

    /// Heartbeats may be lost where connections are not, and a process that was stopped answers no heartbeat, and may go on at any time: a
    /// node whose port takes connections is there.
    async fn nobody_answers(&self, state: &ClusterState, name: &str) -> anyhow::Result<()> {
        let others = state.nodes.iter().filter(|(id, _)| **id != self.me);
        let tries = others.map(|(_, member)| async move {
            let connected = TcpStream::connect(member.addresses.raft);
            let there = matches!(tokio::time::timeout(CONNECT_WITHIN, connected).await, Ok(Ok(_)));
            there.then(|| (member.name.clone(), member.addresses.raft))
        });
        let there = futures::future::join_all(tries)
            .await
            .into_iter()
            .flatten()
            .next();
        if let Some((who, address)) = there {
            bail!(
                "{who} is there: {address} takes connections, though {name} hears no heartbeat of it. Stop the node on {who} for good first"
            );
        }
        Ok(())
    }

    fn plan(&self, state: &ClusterState, node: String) -> TakeoverPlan {
        let view = self.lease.view();
        let silent = |id: NodeId| {
            let peer = view.peers.get(&id)?;
            peer.incarnation.is_some().then_some(peer.silent.as_secs())
        };
        let others = state.nodes.iter().filter(|(id, _)| **id != self.me);
        TakeoverPlan {
            cluster: state
                .cluster
                .as_ref()
                .map(|cluster| cluster.name.clone())
                .unwrap_or_default(),
            node,
            revision: state.revision.value(),
            gone: others
                .map(|(id, member)| GoneNode {
                    name: member.name.clone(),
                    role: member.role,
                    silent_seconds: silent(*id),
                })
                .collect(),
            extents: state
                .extents
                .iter()
                .map(|(id, extent)| PlannedExtent {
                    name: extent.name.clone(),
                    id: *id,
                    fate: state.fate(self.me, *id, extent),
                    in_sync: extent.in_sync.iter().map(|node| name_of(state, *node)).collect(),
                })
                .collect(),
            takeovers_before: state.takeovers.len(),
        }
    }

    /// Says, for people, what the replica here of an extent holds and what may be missing in it; with `confirmed` it counts as whole from
    /// now on (T4).
    ///
    /// # Errors
    /// One line: another replica is whole, or the one here is not fit to serve at all.
    pub(crate) async fn accept_data_loss(
        &self,
        extent: ExtentId,
        confirmed: bool,
        by: &str,
    ) -> anyhow::Result<String> {
        let state = self.control.state();
        let found = state.extents.get(&extent).context("the extent is gone")?;
        let what = self.what_is_left(&state, extent, found)?;
        if !confirmed {
            return Ok(what);
        }
        let loss = LossAccepted {
            extent,
            node: self.me,
            at: unix_seconds(SystemTime::now()),
            by: by.chars().take(64).collect(),
        };
        let name = &found.name;
        tracing::warn!(by, %extent, "an operator accepts what may be lost of extent {name}");
        match self.propose(AdminCommand::AcceptDataLoss(loss).into()).await? {
            Reply::Refused { refusal } => Err(refusal.into()),
            _ => Ok(format!("{what} That is lost, and the replica is served.")),
        }
    }

    /// What the replica here of an extent that nobody serves reaches up to.
    fn what_is_left(&self, state: &ClusterState, id: ExtentId, extent: &Extent) -> anyhow::Result<String> {
        let (name, me) = (&extent.name, name_of(state, self.me));
        if !extent.replicas.contains(&self.me) {
            let places: Vec<String> = extent.replicas.iter().map(|node| name_of(state, *node)).collect();
            ensure!(
                !places.is_empty(),
                "no replica of extent {name} is left anywhere: delete it, and restore it from a backup"
            );
            bail!(
                "{me} has no replica of extent {name}: ask at {}",
                places.join(", ")
            );
        }
        ensure!(
            !state.is_unfit(self.me, id),
            "the replica of extent {name} on {me} has lost something: delete the extent, and restore it from a backup"
        );
        let core = self.data.as_ref().and_then(|data| data.core(id));
        let core =
            core.with_context(|| format!("extent {name} is not open on {me} yet: try again in a moment"))?;
        ensure!(
            core.end.lsn.value() > 0 || !extent.in_sync.is_empty(),
            "the replica of extent {name} on {me} never held anything: delete the extent, and restore it from a backup"
        );
        let mixed = core.base.map(|base| {
            format!(
                ", but a resync of it was broken off: parts of it are newer than the rest, which is from before position {}",
                base.pos.lsn
            )
        });
        Ok(format!(
            "The replica of extent {name} on {me} is as it was at position {} of epoch {}{}. What was acknowledged without {me} after that \
             is not in it.",
            core.end.lsn,
            core.end.epoch,
            mixed.unwrap_or_default()
        ))
    }
}

/// The name of the node, if it may take its cluster over at all.
fn may_take_over(state: &ClusterState, me: NodeId) -> anyhow::Result<String> {
    let member = state
        .node(me)
        .context("this node is no member of its cluster (any more)")?;
    let data = state.nodes.values().filter(|member| member.role == Role::Data);
    let names: Vec<&str> = data.map(|member| member.name.as_str()).collect();
    ensure!(
        member.role == Role::Data,
        "{} is a witness and holds no data: take over on one of {}, the one that served last",
        member.name,
        names.join(", ")
    );
    ensure!(
        state.voters.contains(me),
        "{} has no vote yet: take over on a node that has",
        member.name
    );
    Ok(member.name.clone())
}

fn name_of(state: &ClusterState, node: NodeId) -> String {
    state
        .node(node)
        .map_or_else(|| format!("node {node}"), |member| member.name.clone())
}
