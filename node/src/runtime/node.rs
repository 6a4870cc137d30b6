//! A node's life: its admin service comes first; with a cluster to belong to, the rest follows.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use holdfast_proto::admin::Identity as IdentityMessage;
use holdfast_proto::admin::admin_server::AdminServer;
use holdfast_raft::consensus::{JoinToken, ask_to_join};
use holdfast_raft::model::{ClusterId, ClusterKey, ClusterState, NewNode, NodeAddresses, TakeoverOrder};
use holdfast_trust::{Door, Port};
use holdfast_types::{NodeId, unix_seconds};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tonic::service::Routes;

use super::{End, Identity, Running, certificates, cluster_key, takeover};
use crate::admin::readdress::difference;
use crate::admin::{Audit, Guard, TakeoverPlan};
use crate::check::CheckDocument;
use crate::config::{NodeConfig, Role};
use crate::events::{EventsDocument, Recorder};
use crate::metrics::{self, Facts};
use crate::socket::Reach;
use crate::status::{Seen, StatusDocument, derive};

/// How long the node may take to stop in order.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How long a node that joins is waited for, until it votes.
const JOIN_WITHIN: Duration = Duration::from_secs(15);

/// This process.
pub(crate) struct Node {
    config: NodeConfig,
    identity: watch::Sender<Option<Identity>>,
    running: Mutex<Option<Arc<Running>>>,
    /// What goes wrong for good later on ends the process.
    fatal: mpsc::Sender<anyhow::Error>,
    /// The same without a wait, for the admin port.
    known: std::sync::Mutex<Option<Arc<Running>>>,
    /// Asks for a new start.
    again: Notify,
    recorder: Arc<Recorder>,
}

impl Node {
    fn new(
        config: NodeConfig,
        kept: Option<Identity>,
        fatal: mpsc::Sender<anyhow::Error>,
        recorder: Arc<Recorder>,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            identity: watch::channel(kept).0,
            running: Mutex::new(None),
            known: std::sync::Mutex::default(),
            fatal,
            again: Notify::new(),
            recorder,
        })
    }

    /// One that belongs to no cluster and listens nowhere.
    #[cfg(test)]
    pub(crate) fn idle(config: NodeConfig) -> Arc<Self> {
        Self::new(config, None, mpsc::channel(1).0, Arc::default())
    }

    /// Runs until SIGINT or SIGTERM, until it must stay out of the cluster, or until a takeover wants it to start anew.
    pub(super) async fn run(config: NodeConfig, recorder: Arc<Recorder>) -> anyhow::Result<End> {
        let kept = Identity::load(&config.dir)?;
        let (fatal, mut failed) = mpsc::channel(1);
        let node = Self::new(config, kept, fatal, recorder);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        node.serve_admin()?;
        if let Some(identity) = kept {
            // What a long recovery has not finished yet, the next start does.
            tokio::select! {
                started = node.start(identity) => started?,
                _ = interrupt.recv() => return Ok(End::Stop),
                _ = terminate.recv() => return Ok(End::Stop),
            }
        } else {
            tracing::info!(
                name = node.config.name,
                "waiting to be made a member of a cluster"
            );
        }
        let result = tokio::select! {
            _ = interrupt.recv() => Ok(End::Stop),
            _ = terminate.recv() => Ok(End::Stop),
            () = node.again.notified() => Ok(End::Again),
            error = failed.recv() => Err(error.unwrap_or_else(|| anyhow::anyhow!("the node stopped"))),
        };
        node.known.lock().unwrap_or_else(PoisonError::into_inner).take();
        let running = node.running.lock().await.take();
        if let Some(running) = running
            && tokio::time::timeout(STOP_WITHIN, running.stop()).await.is_err()
        {
            // It would go on sending heartbeats meanwhile, and nobody would take over from it.
            match result {
                // The new start ends whatever hangs.
                Ok(End::Again) => return result,
                Ok(End::Stop) => tracing::error!("the node did not stop in time: a disk hangs?"),
                Err(error) => tracing::error!("{error:#}; and the node did not stop in time: a disk hangs?"),
            }
            std::process::exit(1);
        }
        result
    }

    /// The part of the node that belongs to a cluster.
    pub(crate) async fn running(&self) -> Option<Arc<Running>> {
        self.running.lock().await.clone()
    }

    /// Joins a cluster, once.
    pub(crate) async fn adopt(
        self: &Arc<Self>,
        cluster: ClusterId,
        node: NodeId,
        key: Option<ClusterKey>,
    ) -> anyhow::Result<()> {
        let identity = Identity::new(cluster, node);
        identity.check(&self.config.dir)?;
        // An init that was broken off may have left a key that nothing is sealed with. Once the cluster is made its key stays.
        if let Some(key) = key
            && !identity.was_member(&self.config.dir)
            && self.running().await.is_none_or(|running| !running.is_made())
        {
            cluster_key::store(&self.config.dir, &key)?;
            if let Some(running) = self.running().await {
                running.set_key(key)?;
            }
        }
        self.start(identity).await
    }

    /// Joins a cluster with a token, after a look at the ways to its members; what became of it and what to know about it, for people. Safe
    /// to repeat: the number that names this try is kept in the directory
    /// before anybody is asked, so that the same node is let in once.
    pub(crate) async fn join(
        self: &Arc<Self>,
        token: JoinToken,
        me: NewNode,
        (replaces, force): (&str, bool),
    ) -> anyhow::Result<(String, Vec<String>)> {
        let name = self.config.name.clone();
        let mut joined = *self.identity.borrow();
        let mut warnings = Vec::new();
        if joined.is_none() {
            warnings = crate::check::before_joining(&self.config, &me, &token, (replaces, force)).await?;
            let nonce = super::identity::join_nonce(&self.config.dir)?;
            let welcome = ask_to_join(&token, &nonce, &me, replaces).await?;
            // Both before the identity: with that alone the node could not prove who it is.
            cluster_key::store(&self.config.dir, &welcome.key)?;
            certificates::store(&self.config.dir, &welcome.generations)?;
            joined = Some(Identity::new(welcome.cluster, welcome.node));
        }
        let identity = joined.context("it was asked for just now")?;
        self.start(identity).await?;
        let running = self.running().await.context("the node stops")?;
        if running.wait_for_vote(identity.node, JOIN_WITHIN).await {
            return Ok((format!("{name} is a member, and votes."), warnings));
        }
        let state = running.state();
        if state.is_initialized() && state.node(identity.node).is_none() {
            bail!(
                "{name} is no member of its cluster any more: stop it, empty {}, start it, and join again",
                self.config.dir.display()
            );
        }
        let waits = format!(
            "{name} is let in; it gets its vote once it has caught up and every node is up (see 'holdfast status')."
        );
        Ok((waits, warnings))
    }

    /// Plans a takeover of the cluster by this node alone, and with `confirmed` orders it: the node starts anew a moment later, and carries
    /// it out. Refused while anybody else is there.
    pub(crate) async fn take_over(&self, confirmed: bool, by: &str) -> anyhow::Result<TakeoverPlan> {
        let running = self
            .running()
            .await
            .context("this node belongs to no cluster yet")?;
        let identity = (*self.identity.borrow()).context("this node belongs to no cluster yet")?;
        let committed = running.state().revision;
        let plan = running.plan_takeover().await?;
        if confirmed {
            let order = TakeoverOrder {
                before: identity.cluster,
                cluster: ClusterId(rand::random()),
                node: identity.node,
                committed,
                at: unix_seconds(SystemTime::now()),
                by: by.chars().take(64).collect(),
            };
            let others = takeover::others(&running.state(), identity.node);
            takeover::order(&self.config.dir, &order, others)?;
            tracing::warn!(
                by,
                "a takeover is ordered: this node starts anew, as a new incarnation of the cluster"
            );
            self.again.notify_one();
        }
        Ok(plan)
    }

    /// One at a time: what is kept in the directory is what runs. From the moment that it is kept the node says so, also where it cannot
    /// start: a repeated init then finds it.
    async fn start(self: &Arc<Self>, identity: Identity) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        identity.store(&self.config.dir)?;
        self.identity.send_replace(Some(identity));
        if running.is_none() {
            let started = Running::start(&self.config, identity, &self.recorder, self.fatal.clone()).await?;
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&started));
            *running = Some(started);
        }
        Ok(())
    }

    /// Who this node is.
    pub(crate) fn identify(&self) -> IdentityMessage {
        let identity = *self.identity.borrow();
        let listen = self.addresses();
        let text =
            |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
        let texts = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect();
        IdentityMessage {
            name: self.config.name.clone(),
            role: match self.config.role {
                Role::Data => "data",
                Role::Witness => "witness",
            }
            .to_owned(),
            cluster_id: identity
                .map(|identity| identity.cluster.to_string())
                .unwrap_or_default(),
            node_id: identity.map_or(0, |identity| identity.node.value()),
            raft: listen.raft.to_string(),
            heartbeat: listen.heartbeat.to_string(),
            replication: text(listen.replication),
            spare_replication: texts(&listen.spare_replication),
            portals: texts(&listen.portals),
            admin: text(listen.admin),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Where this node listens, by its configuration.
    pub(crate) fn addresses(&self) -> NodeAddresses {
        let listen = &self.config.listen;
        NodeAddresses {
            raft: listen.raft,
            replication: listen.replication.first().copied(),
            spare_replication: listen.replication.iter().skip(1).copied().collect(),
            admin: self.config.admin.tcp,
            heartbeat: listen.heartbeat,
            portals: listen.portals.clone(),
        }
    }

    /// What its configuration says otherwise than the cluster, for people.
    fn moved(&self, running: &Running) -> Option<String> {
        let state = running.state();
        let member = state.node(running.me())?;
        let news = difference(&member.addresses, &self.addresses())?;
        Some(format!(
            "{name} listens elsewhere than the cluster knows ({news}): 'holdfast cluster readdress' on {name} tells it",
            name = member.name
        ))
    }

    /// The cluster as this node sees it.
    pub(crate) async fn status(&self) -> StatusDocument {
        let mut seen = Seen {
            my_name: self.config.name.clone(),
            ..Seen::default()
        };
        match self.running().await {
            Some(running) => {
                seen.alarms.extend(self.moved(&running));
                running.status(seen)
            }
            None => derive(&ClusterState::default(), seen),
        }
    }

    /// Looks at the whole cluster, from every node; `None` where there is none yet.
    pub(crate) async fn check(&self) -> Option<CheckDocument> {
        let seen = Seen {
            my_name: self.config.name.clone(),
            ..Seen::default()
        };
        Some(self.running().await?.check(seen).await)
    }

    /// What it has recorded.
    pub(crate) fn events(&self, last: usize, all: bool) -> EventsDocument {
        self.recorder.document(&self.config.name, last, all)
    }

    /// What the metrics show beside the status.
    pub(crate) async fn facts(&self) -> Facts {
        let mut facts = Facts::of_process();
        if let Some(running) = self.running().await {
            running.facts(&mut facts);
        }
        facts
    }

    fn serve_admin(self: &Arc<Self>) -> anyhow::Result<()> {
        if let Some(address) = self.config.admin.metrics {
            metrics::serve(Arc::clone(self), address)?;
        }
        let audit = Audit::start(self, &self.config.name, &self.config.dir);
        let guard = Arc::new(Guard::new(Arc::clone(self), Some(audit)));
        let service = AdminServer::from_arc(Arc::clone(&guard));
        // The admin service speaks gRPC (HTTP/2); whoever asks for metrics asks in HTTP/1.1, too.
        let routes = Routes::new(service)
            .into_axum_router()
            .merge(crate::rest::for_who_may_see(
                metrics::routes(Arc::clone(self)),
                Arc::clone(&guard),
            ))
            .merge(crate::rest::routes(guard));
        let routes = Routes::from(routes);
        let server = || tonic::transport::Server::builder().accept_http1(true);
        let path = self.config.admin_socket();
        let unix = UnixListenerStream::new(listen_unix(&path)?);
        let admin = server().add_routes(routes.clone());
        tokio::spawn(report("admin service", admin.serve_with_incoming(unix)));
        if let Some(address) = self.config.admin.tcp {
            let listener = std::net::TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .and_then(TcpListener::from_std)
                .with_context(|| format!("cannot listen on {address} (admin.tcp)"))?;
            let admin = server().add_routes(routes);
            if !self.config.admin.open_loopback {
                let (callers, incoming) = tokio::sync::mpsc::channel(16);
                tokio::spawn(self.door().watch(listener, callers));
                let incoming = ReceiverStream::new(incoming);
                tokio::spawn(report("admin service", admin.serve_with_incoming(incoming)));
                return Ok(());
            }
            tracing::warn!(%address, "the admin port is open to every user of this machine");
            tokio::spawn(report(
                "admin service",
                admin.serve_with_incoming(TcpListenerStream::new(listener)),
            ));
        }
        Ok(())
    }
}

impl Node {
    /// The admin port lets in who has an administrator's certificate of the cluster, once there is a cluster.
    fn door(self: &Arc<Self>) -> Door {
        let node = Arc::downgrade(self);
        let trust = move || {
            let node = node.upgrade()?;
            let known = node.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.as_ref().map(|running| Arc::clone(running.trust()))
        };
        Door {
            port: Port::Admin,
            trust: Box::new(trust),
            token: Box::new(|_| None),
        }
    }
}

/// The socket lets in root and the group of its directory alone.
fn listen_unix(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => {}
    }
    let listener = Reach::new(path)
        .and_then(|reach| UnixListener::bind(reach.path()))
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o660);
    std::fs::set_permissions(path, mode).with_context(|| format!("cannot protect {}", path.display()))?;
    Ok(listener)
}

/// Runs a server; that it ends is worth a line.
pub(super) async fn report(
    what: &'static str,
    server: impl Future<Output = Result<(), tonic::transport::Error>>,
) {
    if let Err(error) = server.await {
        tracing::error!(what, %error, "a server ended");
    }
}
