//! The way to an address, measured: by probes over UDP, which no router may cut into pieces, and by a TCP connection.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use holdfast_raft::lease::probe::{self, Answered, Nonce, PROBE_MAX, PROBE_MIN};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, ip_mtu, ipv6_mtu, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use super::ladder::Ladder;

/// Small probes by which the round trip is measured.
const PINGS: u32 = 5;
/// So many of them without an answer: nobody is there.
const GIVE_UP: u32 = 3;
/// Longest wait for the answer to one.
const PING: Duration = Duration::from_millis(400);
/// Shortest wait for answers to large ones; else some round trips.
const LARGE_MIN: Duration = Duration::from_millis(80);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(1);

/// How large packets may be; bytes with all headers but those of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sizes {
    /// What the kernel takes the way to carry: the interface's size, or less where a route says so or a router has told it.
    pub(super) route: usize,
    /// What passes, as measured; at most what a probe has.
    pub(super) passes: usize,
}

impl Sizes {
    /// Larger packets are not tried.
    pub(super) const fn tried(&self) -> usize {
        let most = PROBE_MAX + 28;
        if self.route < most { self.route } else { most }
    }
}

/// What probes have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probed {
    /// The fastest answer.
    pub(super) round_trip_us: u64,
    /// Of so many small probes.
    pub(super) asked: u32,
    pub(super) answered: u32,
    pub(super) sizes: Sizes,
}

impl Probed {
    /// Small probes without an answer.
    pub(super) const fn lost(&self) -> u32 {
        self.asked.saturating_sub(self.answered)
    }
}

/// Whether the interface itself takes no such packet, or a router has told so of an earlier one.
fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

/// Connects from `local`, and closes again; how long it took.
pub(super) async fn connect(local: IpAddr, to: SocketAddr) -> io::Result<Duration> {
    let socket = match local {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(local, 0))?;
    let began = Instant::now();
    match timeout(CONNECT, socket.connect(to)).await {
        Ok(connected) => connected.map(|_| began.elapsed()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Measures the way from `local` to whoever answers probes with this number at `to`.
pub(super) async fn probe(local: IpAddr, to: SocketAddr, nonce: &Nonce) -> io::Result<Probed> {
    let mut prober = Prober::open(local, to, nonce)?;
    let (fastest, asked, answered) = prober.pings().await?;
    let sizes = prober.sizes(fastest).await?;
    Ok(Probed {
        round_trip_us: u64::try_from(fastest.as_micros()).unwrap_or(u64::MAX),
        asked,
        answered,
        sizes,
    })
}

/// A socket whose packets are never cut into pieces, and are not held back by what the kernel thinks of the way.
struct Prober {
    socket: tokio::net::UdpSocket,
    nonce: Nonce,
    seq: u32,
    /// Bytes of a packet that are not the datagram's.
    headers: usize,
    is_v4: bool,
}

impl Prober {
    fn open(local: IpAddr, to: SocketAddr, nonce: &Nonce) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(local, 0))?;
        if to.is_ipv4() {
            set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
        } else {
            set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
        }
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: tokio::net::UdpSocket::from_std(socket)?,
            nonce: *nonce,
            seq: 0,
            headers: if to.is_ipv4() { 28 } else { 48 },
            is_v4: to.is_ipv4(),
        })
    }

    /// Sends a probe of so many bytes; its number.
    async fn ask(&mut self, len: usize) -> io::Result<u32> {
        self.seq += 1;
        self.socket.send(&probe::ask(&self.nonce, self.seq, len)).await?;
        Ok(self.seq)
    }

    /// The next answer; `None` where none comes until then.
    async fn answer(&self, until: Instant) -> io::Result<Option<Answered>> {
        let mut buffer = [0; PROBE_MIN + 1];
        loop {
            let Ok(came) = timeout_at(until, self.socket.recv(&mut buffer)).await else {
                return Ok(None);
            };
            if let Some(answered) = probe::answered(&buffer[..came?], &self.nonce) {
                return Ok(Some(answered));
            }
        }
    }

    /// The fastest answer, how many were asked for, and how many came.
    async fn pings(&mut self) -> io::Result<(Duration, u32, u32)> {
        let (mut fastest, mut answered) = (None, 0);
        let mut last = None;
        for asked in 1..=PINGS {
            let began = Instant::now();
            match self.ping(began + PING).await {
                Ok(true) => {
                    answered += 1;
                    let took = began.elapsed();
                    fastest = Some(fastest.map_or(took, |fastest: Duration| fastest.min(took)));
                }
                Ok(false) => {}
                // The other end's machine says that nobody listens there, or this one's that there is no way.
                Err(error) => last = Some(error),
            }
            if answered == 0 && asked >= GIVE_UP {
                return Err(last.unwrap_or_else(|| io::ErrorKind::TimedOut.into()));
            }
        }
        let none = || io::Error::from(io::ErrorKind::TimedOut);
        Ok((fastest.ok_or_else(none)?, PINGS, answered))
    }

    async fn ping(&mut self, until: Instant) -> io::Result<bool> {
        let seq = self.ask(PROBE_MIN).await?;
        while let Some(answered) = self.answer(until).await? {
            if answered.seq == seq {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn sizes(&mut self, round_trip: Duration) -> io::Result<Sizes> {
        let route = if self.is_v4 {
            ip_mtu(&self.socket)?
        } else {
            ipv6_mtu(&self.socket)?
        };
        let route = usize::try_from(route).unwrap_or(usize::MAX);
        let mut sizes = Sizes {
            route,
            passes: self.headers + PROBE_MIN,
        };
        let mut ladder = Ladder::new(sizes.passes, sizes.tried());
        loop {
            let tried = ladder.next();
            if tried.is_empty() {
                break;
            }
            let answered = self.round(&tried, round_trip).await?;
            ladder.heard(&answered);
        }
        sizes.passes = ladder.passes();
        Ok(sizes)
    }

    /// Tries all of these sizes; those that were answered.
    async fn round(&mut self, tried: &[usize], round_trip: Duration) -> io::Result<Vec<usize>> {
        let wait = LARGE_MIN.max(round_trip * 4);
        let mut answered = Vec::new();
        // One of two may get lost.
        for _ in 0..2 {
            for size in tried
                .iter()
                .filter(|size| !answered.contains(*size))
                .copied()
                .collect::<Vec<_>>()
            {
                match self.ask(size - self.headers).await {
                    Ok(_) => {}
                    Err(error) if is_too_large(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            let until = Instant::now() + wait;
            while answered.len() < tried.len() {
                match self.answer(until).await {
                    Ok(Some(came)) => {
                        let size = came.len + self.headers;
                        if tried.contains(&size) && !answered.contains(&size) {
                            answered.push(size);
                        }
                    }
                    Ok(None) => break,
                    Err(error) if is_too_large(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            if answered.len() == tried.len() {
                break;
            }
        }
        Ok(answered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::echo::Echo;
    use super::*;

    /// Loopback carries whatever a probe has; who has another number, or asks where nobody is, hears nothing.
    #[tokio::test]
    async fn a_way_is_measured_by_who_has_the_number_alone() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let echo = Arc::new(Echo::new(vec![address]));
        let nonce = [3; 16];
        echo.answer(nonce);
        let local = address.ip();
        let probed = loop {
            match probe(local, address, &nonce).await {
                Ok(probed) => break probed,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
            }
        };
        assert!(probed.answered >= 1 && probed.asked == PINGS, "{probed:?}");
        assert_eq!(probed.sizes.passes, probed.sizes.tried(), "{probed:?}");
        let stranger = probe(local, address, &[4; 16]).await.unwrap_err();
        assert_eq!(stranger.kind(), io::ErrorKind::TimedOut);
        let nobody = probe(local, SocketAddr::new(local, 1), &nonce).await.unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_told_from_one_that_is() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        connect(address.ip(), address).await.unwrap();
        drop(listener);
        let refused = connect(address.ip(), address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
