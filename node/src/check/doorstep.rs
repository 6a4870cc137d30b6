//! Where a node that is to join answers while members look back at it: at the addresses of its configuration, before anything else listens
//! there. What cannot be listened on is found here, before the cluster counts on the node.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use holdfast_raft::lease::driver::boot_clock;
use holdfast_raft::lease::probe::Nonce;
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::task::JoinSet;

use super::echo::{self, Known};
use crate::config::NodeConfig;

/// Listens, takes connections only to close them, and answers probes with its number.
pub(super) struct Doorstep {
    pub(super) nonce: Nonce,
    tasks: JoinSet<()>,
}

fn cannot(address: SocketAddr, key: &str) -> String {
    format!("cannot listen on {address} (listen.{key} of node.toml)")
}

impl Doorstep {
    /// Listens wherever the node is to.
    ///
    /// # Errors
    /// One line: which address is not this machine's, or is taken.
    pub(super) async fn open(config: &NodeConfig) -> Result<Self> {
        let listen = &config.listen;
        let nonce = rand::random();
        let mut tasks = JoinSet::new();
        let replication = listen.replication.iter().map(|address| (*address, "replication"));
        for (address, key) in [(listen.raft, "raft")].into_iter().chain(replication.clone()) {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| cannot(address, key))?;
            tasks.spawn(async move {
                loop {
                    // One that is closed at once has answered.
                    drop(listener.accept().await);
                }
            });
        }
        let clock = boot_clock();
        let known = Arc::new(Mutex::new(Known::of(nonce, clock())));
        for (address, key) in [(listen.heartbeat, "heartbeat")].into_iter().chain(replication) {
            let socket = UdpSocket::bind(address)
                .await
                .with_context(|| cannot(address, key))?;
            tasks.spawn(echo::serve(
                socket,
                address,
                Arc::clone(&known),
                Arc::clone(&clock),
            ));
        }
        for portal in &listen.portals {
            // Bound and no more: no initiator gets in here.
            let socket = if portal.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            socket.set_reuseaddr(true)?;
            socket.bind(*portal).with_context(|| cannot(*portal, "portals"))?;
        }
        Ok(Self { nonce, tasks })
    }

    /// Nothing listens any more when this returns.
    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data node's configuration with these ports of loopback for Raft, replication and its portal.
    fn config(dir: &std::path::Path, [raft, replication, portal]: [SocketAddr; 3]) -> NodeConfig {
        let text = format!(
            "name = \"c\"\nrole = \"data\"\ndir = \"{}\"\n[listen]\nraft = \"{raft}\"\nheartbeat = \"{raft}\"\n\
             replication = \"{replication}\"\nportals = [\"{portal}\"]\n",
            dir.display()
        );
        toml::from_str(&text).unwrap()
    }

    fn free() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn what_cannot_be_listened_on_is_named_and_nothing_is_held_once_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
        for (place, key) in [(0, "raft"), (1, "replication"), (2, "portals")] {
            for wrong in [taken.1, "192.0.2.1:7400".parse().unwrap()] {
                let mut addresses = [free(), free(), free()];
                addresses[place] = wrong;
                let refused = Doorstep::open(&config(dir.path(), addresses))
                    .await
                    .err()
                    .unwrap();
                let wanted = format!("cannot listen on {wrong} (listen.{key} of node.toml)");
                assert_eq!(refused.to_string(), wanted);
            }
        }
        let addresses = [free(), free(), free()];
        for _ in 0..2 {
            let doorstep = Doorstep::open(&config(dir.path(), addresses)).await.unwrap();
            tokio::net::TcpStream::connect(addresses[1]).await.unwrap();
            doorstep.close().await;
        }
    }
}
