//! Answers probes at this node's replication addresses, by UDP on the same ports, while somebody measures. At its heartbeat address the
//! heartbeat thread does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_raft::lease::driver::{Clock, boot_clock};
use holdfast_raft::lease::probe::{Nonce, Nonces, PROBE_MAX};
use holdfast_types::Mono;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A broken socket must not spin.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Sockets that are there while they are needed.
pub(super) struct Echo {
    addresses: Vec<SocketAddr>,
    nonces: Arc<Mutex<Known>>,
    clock: Clock,
}

/// Who is answered, and where.
#[derive(Default)]
pub(super) struct Known {
    nonces: Nonces,
    /// Addresses that are answered at.
    open: Vec<SocketAddr>,
}

impl Known {
    /// One number, from now on.
    pub(super) fn of(nonce: Nonce, now: Mono) -> Self {
        let mut nonces = Nonces::default();
        nonces.add(nonce, now);
        Self {
            nonces,
            open: Vec::new(),
        }
    }
}

impl Echo {
    /// Answers at these addresses once it is asked to.
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            nonces: Arc::default(),
            clock: boot_clock(),
        }
    }

    /// From now on, for some seconds, probes with this number are answered. To be called within a runtime.
    pub(super) fn answer(&self, nonce: Nonce) {
        let mut known = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        known.nonces.add(nonce, (self.clock)());
        for address in &self.addresses {
            if known.open.contains(address) {
                continue;
            }
            match bind(*address) {
                Ok(socket) => {
                    known.open.push(*address);
                    let (nonces, clock) = (Arc::clone(&self.nonces), Arc::clone(&self.clock));
                    tokio::spawn(serve(socket, *address, nonces, clock));
                }
                // Somebody else has the port; whoever measures hears no answer there.
                Err(error) => tracing::info!(%address, %error, "probes are not answered here"),
            }
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Answers probes that arrive at `socket`, as long as any number counts.
pub(super) async fn serve(socket: UdpSocket, address: SocketAddr, nonces: Arc<Mutex<Known>>, clock: Clock) {
    let mut buffer = vec![0; PROBE_MAX + 1];
    loop {
        let now = clock();
        let left = {
            let mut known = nonces.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(until) = known.nonces.until(now) else {
                known.open.retain(|open| *open != address);
                return;
            };
            until.since(now)
        };
        let (len, from) = match timeout(left, socket.recv_from(&mut buffer)).await {
            Ok(Ok(came)) => came,
            Err(_) => continue,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "probes could not be read");
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        let answer = {
            let known = nonces.lock().unwrap_or_else(PoisonError::into_inner);
            known.nonces.answer(&buffer[..len], clock())
        };
        if let Some(answer) = answer {
            // A lost answer and one that could not be sent are the same to who waits for it.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}
