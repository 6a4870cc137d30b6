//! The node's iSCSI portals: open only while the node may serve (I8).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_iscsi::target::PortalConfig;
use holdfast_types::{HOLD_LIMIT, Mono, TpgId};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Front;

/// Between two looks at the lease.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Connections that the kernel holds for us. Short, so that none waits long unseen.
const BACKLOG: u32 = 128;
/// Connections of a node at most; more are refused.
const CONNECTIONS_MAX: usize = 4096;

/// Opens and closes portals as the lease comes and goes: without it for longer than commands are held, connections are reset and
/// the ports refuse TCP, so that initiators look elsewhere at once.
pub(crate) struct Portals {
    front: Arc<Front>,
    addresses: Vec<SocketAddr>,
    /// This node's portal group, once it is known.
    port: watch::Receiver<Option<TpgId>>,
    leased_at: Option<Mono>,
}

impl Portals {
    /// Closed portals on these addresses.
    pub(crate) fn new(
        front: Arc<Front>,
        addresses: Vec<SocketAddr>,
        port: watch::Receiver<Option<TpgId>>,
    ) -> Self {
        Self {
            front,
            addresses,
            port,
            leased_at: None,
        }
    }

    /// Runs until the task is dropped.
    pub(crate) async fn run(mut self) {
        let mut open: Option<JoinSet<()>> = None;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let may_serve = self.may_serve();
            match (&open, may_serve) {
                (None, Some(port)) => open = self.open(port),
                (Some(_), None) => {
                    tracing::warn!("without a quorum lease: portals close, connections are reset");
                    open = None;
                    self.front.registry.reset_all("this node has no quorum lease");
                }
                _ => {}
            }
        }
    }

    /// The group to serve, if the node holds its lease or lost it less than the hold limit ago.
    fn may_serve(&mut self) -> Option<TpgId> {
        let now = self.front.now();
        if self.front.lease.holds(now) {
            self.leased_at = Some(now);
        }
        let recently = self.leased_at.is_some_and(|at| now.since(at) < HOLD_LIMIT);
        self.port.borrow().filter(|_| recently)
    }

    fn open(&self, port: TpgId) -> Option<JoinSet<()>> {
        let config = Arc::new(PortalConfig::new(port));
        let mut listeners = Vec::new();
        for address in &self.addresses {
            match listen(*address) {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    tracing::error!(%address, %error, "portal cannot be opened; trying again");
                    return None;
                }
            }
        }
        let mut open = JoinSet::new();
        for (address, listener) in self.addresses.iter().zip(listeners) {
            tracing::info!(%address, group = %port, "portal is open");
            open.spawn(accept(Arc::clone(&self.front), listener, Arc::clone(&config)));
        }
        Some(open)
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(front: Arc<Front>, listener: TcpListener, config: Arc<PortalConfig>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => accepted(&front, stream, peer, &config),
            Err(error) => {
                // Out of descriptors or memory: connections are dropped by the kernel's queue until it is better.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn accepted(front: &Arc<Front>, stream: TcpStream, peer: SocketAddr, config: &Arc<PortalConfig>) {
    if front.registry.len() >= CONNECTIONS_MAX {
        tracing::warn!(%peer, "too many connections: refused");
        let _ = stream.set_zero_linger();
        return;
    }
    // Not part of the listener's set: a connection outlives a portal that closes, and is reset by its own rules.
    tokio::spawn(super::connection::serve(
        Arc::clone(front),
        Arc::clone(config),
        stream,
        peer,
    ));
}
