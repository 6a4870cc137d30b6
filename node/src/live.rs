//! A running cluster as a stage for drills: a scratch extent of their own, and failures that one node suffers within itself.
//!
//! Only the node that is asked is hurt, and only by what it takes back by itself: faults are put there for seconds and renewed until they
//! are healed, so that nothing is left of a drill that is killed; a process that is killed or frozen goes on after a while. Extents that
//! are there are not touched, but those whose primary is that node fail over as they would.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use holdfast_drill::rehearsal::{Failure, Look, Roles, Stage};
use holdfast_proto::admin::{CreateExtentRequest, CreateTargetRequest, MapLunRequest, SwitchoverRequest};
use holdfast_types::ByteSize;
use tokio::time::{sleep, timeout};

use crate::admin::access::AccessRequest;
use crate::admin::{AdminAddress, AdminClient};
use crate::config::Role;
use crate::injected::{Injected, strike};
use crate::runtime::blow::Blow;
use crate::status::{Health, StatusDocument};
use crate::watchers::{Unit, Watchers};

/// The scratch extent, and its target.
const EXTENT: &str = "drill-scratch";
const TARGET: &str = "iqn.2026-11.io.holdfast:drill-scratch";
/// For the scratch extent to be served, and for the cluster to be whole again after a failure.
const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// For sessions that have ended to be gone, so that their target can be deleted.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// How long a process stays down or frozen. Nothing heals it earlier.
const STRUCK_FOR: Duration = Duration::from_secs(3);
const LOOK_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What can be played on a running cluster.
pub(crate) const FAILURES: [Failure; 8] = [
    Failure::Switchover,
    Failure::SlowReplication,
    Failure::SlowPrimary,
    Failure::CutReplication,
    Failure::KillPrimary,
    Failure::FreezePrimary,
    Failure::SeverPrimary,
    Failure::HangPrimary,
];

/// A running cluster with a scratch extent, whose primary is the node that is asked.
pub(crate) struct LiveStage {
    admin: AdminAddress,
    me: String,
    replica: String,
    /// All other nodes.
    peers: Vec<String>,
    urls: [String; 2],
    watchers: Watchers,
    injected: Injected,
    /// Until when the node's process is down or frozen.
    struck_until: Mutex<Option<Instant>>,
}

impl LiveStage {
    /// Looks at the cluster, and removes what a killed drill left there.
    ///
    /// # Errors
    /// The cluster is not whole, or not such that one node of it can be hurt; another drill is running.
    pub(crate) async fn new(admin: &AdminAddress) -> anyhow::Result<Self> {
        let mut client = AdminClient::connect(admin).await?;
        let mut status = client.status().await?;
        if is_scratch_there(&status) {
            ensure!(
                !status
                    .sessions
                    .iter()
                    .any(|session| session.target.as_deref() == Some(TARGET)),
                "another drill is running: {TARGET} has sessions"
            );
            remove(&mut client).await?;
            status = client.status().await?;
        }
        ensure!(
            status.health == Health::Ok,
            "a drill begins on a whole cluster only, and {}",
            status.reasons.join("; ")
        );
        let me = status.answered_by.clone();
        let data_nodes = status.nodes.iter().filter(|node| node.role == Role::Data);
        let data_nodes: Vec<String> = data_nodes.map(|node| node.name.clone()).collect();
        ensure!(
            data_nodes.contains(&me),
            "{me} holds no data: ask a data node ({})",
            data_nodes.join(", ")
        );
        let replica = data_nodes.iter().find(|name| **name != me);
        let replica = replica.context("there is only one data node, so nothing can fail over")?;
        let nodes = status.nodes.iter().map(|node| node.name.clone());
        let peers: Vec<String> = nodes.filter(|name| *name != me).collect();
        ensure!(
            peers.len() > 1,
            "there are two nodes and no witness, so nothing would fail over"
        );
        let url = |name: &str| -> anyhow::Result<String> {
            let portal = status.portals.iter().find(|portal| portal.node == name);
            let portal = portal.with_context(|| format!("{name} has no portal"))?;
            Ok(format!("iscsi://{}/{TARGET}/0", portal.address))
        };
        Ok(Self {
            urls: [url(&me)?, url(replica)?],
            admin: admin.clone(),
            replica: replica.clone(),
            peers,
            watchers: Watchers::default(),
            injected: Injected::default(),
            struck_until: Mutex::default(),
            me,
        })
    }

    /// Makes the scratch extent and its target, and waits until they are served. [`LiveStage::end`] removes them, also where this fails or
    /// is given up midway.
    ///
    /// # Errors
    /// Something cannot be made, or is not served.
    pub(crate) async fn make(&self, size: ByteSize) -> anyhow::Result<()> {
        let mut client = AdminClient::connect(&self.admin).await?;
        let iqn = TARGET.to_owned();
        let extent = CreateExtentRequest {
            name: EXTENT.to_owned(),
            size_bytes: size.0,
            block_size: 512,
            replicas: vec![self.me.clone(), self.replica.clone()],
            preferred: self.me.clone(),
            confirmed_reads: false,
            full: false,
            write_cache: false,
            on_devices: false,
        };
        client.create_extent(extent).await?;
        client
            .create_target(CreateTargetRequest { iqn: iqn.clone() })
            .await?;
        let extent = EXTENT.to_owned();
        client.map_lun(MapLunRequest { iqn, lun: 0, extent }).await?;
        self.settle().await.map(drop)
    }

    /// Looks at the node that is hurt from now on, for [`Stage::looks`].
    pub(crate) fn watch(&mut self) {
        let unit = Unit {
            extent: EXTENT,
            target: TARGET,
        };
        self.watchers = Watchers::start([(self.me.clone(), self.admin.clone())], unit);
    }

    /// The unit's URLs: through the node that is hurt, and through the other one.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// What is about to happen, for whoever types it.
    pub(crate) fn announcement(&self) -> String {
        format!(
            "A scratch extent is on {} and {}. {} suffers failures for seconds, and goes on by itself: all that it serves moves to \
             other nodes meanwhile. Ctrl-C heals at once, a struck process within 3 s.",
            self.me, self.replica, self.me
        )
    }

    /// Heals, and removes the scratch extent.
    ///
    /// # Errors
    /// That cannot be done; the text says what is left.
    pub(crate) async fn end(&self) -> anyhow::Result<()> {
        self.goes_on().await;
        let began = Instant::now();
        loop {
            let cleared = async {
                self.injected.heal(&self.admin).await?;
                remove(&mut AdminClient::connect(&self.admin).await?).await
            };
            match cleared.await {
                Ok(()) => return Ok(()),
                Err(error) if began.elapsed() > GONE_WITHIN => {
                    return Err(error.context(format!(
                        "the scratch extent {EXTENT} and target {TARGET} are left: delete them, or run another drill"
                    )));
                }
                Err(_) => sleep(LOOK_EVERY * 4).await,
            }
        }
    }

    /// Waits until a process that was killed or frozen goes on.
    async fn goes_on(&self) {
        let until = self
            .struck_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    async fn strike(&self, blow: Blow) -> anyhow::Result<()> {
        strike(&self.admin, blow, STRUCK_FOR).await?;
        let until = Instant::now() + STRUCK_FOR;
        *self.struck_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        Ok(())
    }

    async fn status(&self) -> anyhow::Result<StatusDocument> {
        let look = async { AdminClient::connect(&self.admin).await?.status().await };
        timeout(LOOK_WITHIN, look).await.context("no answer")?
    }

    async fn switchover(&self, to: &str) -> anyhow::Result<()> {
        let request = SwitchoverRequest {
            extents: vec![EXTENT.to_owned()],
            to: to.to_owned(),
        };
        AdminClient::connect(&self.admin)
            .await?
            .switchover(request)
            .await?;
        Ok(())
    }

    fn roles(&self, status: &StatusDocument) -> Option<Roles> {
        let extent = status.extents.iter().find(|extent| extent.name == EXTENT)?;
        let is_whole = status.health == Health::Ok && extent.served && extent.in_sync.len() == 2;
        is_whole.then(|| Roles {
            primary: self.me.clone(),
            replica: self.replica.clone(),
            // Whoever else votes: no failure of these is about it alone.
            witness: self
                .peers
                .iter()
                .find(|name| **name != self.replica)
                .cloned()
                .unwrap_or_default(),
            leader: status.leader.clone(),
        })
    }
}

fn is_scratch_there(status: &StatusDocument) -> bool {
    status.extents.iter().any(|extent| extent.name == EXTENT)
        || status.targets.iter().any(|target| target.iqn.as_str() == TARGET)
}

/// Removes the scratch target and extent, as far as they are there.
async fn remove(client: &mut AdminClient) -> anyhow::Result<()> {
    let status = client.status().await?;
    let target = TARGET.to_owned();
    if let Some(there) = status.targets.iter().find(|target| target.iqn.as_str() == TARGET) {
        for lun in &there.luns {
            let unmap = AccessRequest::UnmapLun {
                target: target.clone(),
                group: None,
                lun: lun.lun.into(),
            };
            client.change_access(&unmap).await?;
        }
        client
            .change_access(&AccessRequest::DeleteTarget { target })
            .await?;
    }
    if status.extents.iter().any(|extent| extent.name == EXTENT) {
        let extent = EXTENT.to_owned();
        client
            .change_access(&AccessRequest::DeleteExtent { extent })
            .await?;
    }
    Ok(())
}

impl Stage for LiveStage {
    type Error = anyhow::Error;

    /// Whole, with the scratch extent's primary where failures are put.
    async fn settle(&self) -> anyhow::Result<Roles> {
        let began = Instant::now();
        let mut why = String::new();
        while began.elapsed() < WHOLE_WITHIN {
            match self.status().await {
                Ok(status) => {
                    let primary = status.extents.iter().find(|extent| extent.name == EXTENT);
                    let primary = primary.and_then(|extent| extent.primary.as_deref());
                    match self.roles(&status) {
                        Some(roles) if primary == Some(&*self.me) => return Ok(roles),
                        Some(_) => {
                            let moved = self.switchover(&self.me).await;
                            why = moved.err().map_or_else(String::new, |error| format!("{error:#}"));
                        }
                        None => why = status.reasons.join("; "),
                    }
                }
                Err(error) => why = format!("{error:#}"),
            }
            sleep(LOOK_EVERY).await;
        }
        bail!("the cluster was not whole again within {WHOLE_WITHIN:?}: {why}")
    }

    async fn inject(&self, failure: Failure, roles: &Roles) -> anyhow::Result<()> {
        match failure {
            Failure::Switchover => self.switchover(&roles.replica).await,
            Failure::KillPrimary => self.strike(Blow::Kill).await,
            Failure::FreezePrimary => self.strike(Blow::Freeze).await,
            other => {
                self.injected
                    .put(&self.admin, other, &roles.replica, &self.peers)
                    .await
            }
        }
    }

    async fn heal(&self, failure: Failure, _roles: &Roles) -> anyhow::Result<()> {
        match failure {
            Failure::Switchover => Ok(()),
            Failure::KillPrimary | Failure::FreezePrimary => {
                self.goes_on().await;
                Ok(())
            }
            _ => self.injected.heal(&self.admin).await,
        }
    }

    fn nodes(&self) -> Vec<String> {
        vec![self.me.clone()]
    }

    fn looks(&self) -> Vec<Look<Instant>> {
        self.watchers.looks()
    }
}
