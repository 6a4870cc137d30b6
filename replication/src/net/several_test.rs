//! Links of two connections over loopback: 127.0.0.1 and 127.0.0.2, the first of them through a relay that can fall silent.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use holdfast_proto::replication as pb;
use holdfast_trust::{Generations, Key, Trust};
use holdfast_types::{Epoch, ExtentId, Incarnation, NodeId};
use tokio::net::TcpListener;

use super::frame;
use super::{Limits, LinkEvents, Links, Net, NetConfig, PeerAddress, PeerReport};
use crate::core::api::{Identity, LinkId, Message, Room};

const EXTENT: ExtentId = ExtentId::from_u128(5);
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Up(LinkId),
    Down(LinkId),
    Epoch(u64),
}

struct Log(mpsc::Sender<Heard>);

impl LinkEvents for Log {
    fn link_up(&self, _: Identity, link: LinkId) {
        let _ = self.0.send(Heard::Up(link));
    }

    fn link_down(&self, _: NodeId, link: LinkId) {
        let _ = self.0.send(Heard::Down(link));
    }

    fn receive(&self, _: NodeId, _: LinkId, messages: Vec<(ExtentId, Message)>) {
        for (_, message) in messages {
            if let Message::Probe { epoch } = message {
                let _ = self.0.send(Heard::Epoch(epoch.0));
            }
        }
    }
}

/// Hands on what comes, unless it is silent. Ends with the test's process.
struct Relay {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
}

impl Relay {
    fn to(target: SocketAddr) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let silent = Arc::new(AtomicBool::new(false));
        let is_silent = Arc::clone(&silent);
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                let Ok(to) = StdStream::connect(target) else {
                    continue;
                };
                for (from, to) in [(&from, &to), (&to, &from)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let silent = Arc::clone(&is_silent);
                    std::thread::spawn(move || hand_on(from, to, &silent));
                }
            }
        });
        Self { address, silent }
    }

    fn is_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }
}

fn hand_on(mut from: StdStream, mut to: StdStream, silent: &AtomicBool) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        while silent.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

struct End {
    links: Arc<Links>,
    heard: mpsc::Receiver<Heard>,
    _net: Net,
}

impl End {
    fn hear(&self) -> Heard {
        self.heard.recv_timeout(LIMIT).unwrap()
    }

    fn report(&self) -> PeerReport {
        self.links.reports().remove(0)
    }

    fn until(&self, is: impl Fn(&PeerReport) -> bool) {
        let start = Instant::now();
        while !is(&self.report()) {
            assert!(start.elapsed() < LIMIT, "{:?}", self.report());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn send(&self, to: u64, link: LinkId, epochs: std::ops::Range<u64>) {
        let messages = epochs.map(|epoch| (EXTENT, Message::Probe { epoch: Epoch(epoch) }));
        self.links.send(NodeId(to), link, messages);
        self.links.flush();
    }
}

struct Rig {
    a: End,
    b: End,
    relay: Relay,
    link: LinkId,
    _runtime: tokio::runtime::Runtime,
}

impl Rig {
    fn new(tls: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listen = |address: &str| runtime.block_on(TcpListener::bind(address)).unwrap();
        let listeners = vec![listen("127.0.0.1:0"), listen("127.0.0.2:0")];
        let addresses: Vec<SocketAddr> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        let relay = Relay::to(addresses[0]);
        let nowhere: SocketAddr = ([127, 0, 0, 1], 9).into();
        let start = |node: u64, listeners, peer: u64, addresses: Vec<SocketAddr>| {
            let me = Identity {
                node: NodeId(node),
                incarnation: Incarnation(node),
            };
            let (tell, heard) = mpsc::channel();
            let limits = Limits {
                proving: 20,
                ..Limits::default()
            };
            let links = Links::new(me, 7, Box::new(Log(tell))).with_limits(limits);
            let links = Arc::new(links);
            let key = Key::new([7; 32]);
            let trust = || Trust::new(me.node, &[7], &key, &Generations::default()).unwrap();
            let config = NetConfig {
                trust: tls.then(trust),
                from: ["127.0.0.1", "127.0.0.2"]
                    .map(|ip| ip.parse::<IpAddr>().unwrap())
                    .to_vec(),
                ..NetConfig::default()
            };
            let net = Net::start(runtime.handle().clone(), listeners, Arc::clone(&links), config);
            net.set_peers(&[PeerAddress {
                node: NodeId(peer),
                addresses,
            }]);
            End {
                links,
                heard,
                _net: net,
            }
        };
        let b = start(2, listeners, 1, vec![nowhere, ([127, 0, 0, 2], 9).into()]);
        let a = start(1, Vec::new(), 2, vec![relay.address, addresses[1]]);
        let Heard::Up(link) = a.hear() else {
            panic!("no link")
        };
        assert_eq!(b.hear(), Heard::Up(link));
        for end in [&a, &b] {
            end.until(|report| report.paths.iter().all(|(_, path)| path.up) && report.paths[0].1.used);
        }
        Self {
            a,
            b,
            relay,
            link,
            _runtime: runtime,
        }
    }

    /// Both ends send, and hear all of it in order and nothing else: no end of the link, no new one.
    fn exchange(&self, epochs: std::ops::Range<u64>, meanwhile: impl FnOnce()) -> Duration {
        let (half, since) = (epochs.start.midpoint(epochs.end), Instant::now());
        for (end, peer) in [(&self.a, 2), (&self.b, 1)] {
            end.send(peer, self.link, epochs.start..half);
        }
        meanwhile();
        for (end, peer) in [(&self.a, 2), (&self.b, 1)] {
            end.send(peer, self.link, half..epochs.end);
        }
        for end in [&self.a, &self.b] {
            epochs
                .clone()
                .for_each(|epoch| assert_eq!(end.hear(), Heard::Epoch(epoch)));
        }
        since.elapsed()
    }

    fn uses(&self, path: usize) {
        for end in [&self.a, &self.b] {
            end.until(|report| report.paths[path].1.used);
        }
    }
}

#[test]
fn f1_a_silent_connection_is_left_for_the_other_one_and_the_link_lives_on() {
    for tls in [true, false] {
        let rig = Rig::new(tls);
        rig.exchange(0..1000, || ());
        let took = rig.exchange(1000..50_000, || rig.relay.is_silent(true));
        assert!(took < Duration::from_secs(5), "{took:?}");
        rig.uses(1);
        for end in [&rig.a, &rig.b] {
            end.until(|report| report.paths[0].1.failed);
        }
        // It is dialled again, and used once it has worked for a while.
        rig.relay.is_silent(false);
        rig.uses(0);
        rig.exchange(50_000..51_000, || ());
    }
}

#[test]
fn a_closed_connection_is_left_at_once_and_the_last_one_ends_the_link() {
    let rig = Rig::new(true);
    let link = rig.a.links.current(NodeId(2)).unwrap();
    rig.exchange(0..10_000, || link.lane_on(0).unwrap().abort());
    rig.uses(0);
    rig.exchange(10_000..11_000, || ());
    // A reset is of the link, with all its connections.
    rig.b.links.reset(NodeId(1), rig.link);
    assert_eq!(rig.a.hear(), Heard::Down(rig.link));
    assert_eq!(rig.b.hear(), Heard::Down(rig.link));
    let Heard::Up(next) = rig.a.hear() else {
        panic!("no link")
    };
    assert!(next > rig.link);
    assert_eq!(rig.b.hear(), Heard::Up(next));
}

#[test]
fn a_peer_that_is_silent_everywhere_loses_its_link() {
    let rig = Rig::new(true);
    rig.relay.is_silent(true);
    rig.uses(1);
    let link = rig.b.links.current(NodeId(1)).unwrap();
    link.lane_on(1).unwrap().abort();
    assert_eq!(rig.a.hear(), Heard::Down(rig.link));
    assert_eq!(rig.b.hear(), Heard::Down(rig.link));
    // The other connection begins a new one.
    assert!(matches!(rig.a.hear(), Heard::Up(next) if next > rig.link));
    rig.uses(1);
}

/// A peer of an earlier release: it answers a hello as one that knows of one connection does, and says every 50 ms that it lives.
fn serve_as_of_old(listener: &StdListener, hellos: &AtomicUsize) {
    for mut stream in listener.incoming().flatten() {
        let (mut buffer, mut bytes) = (BytesMut::new(), vec![0; 4096]);
        let hello = loop {
            match frame::take(&mut buffer, true).unwrap() {
                Some(frame) => break frame,
                None => match stream.read(&mut bytes) {
                    Ok(read @ 1..) => buffer.extend_from_slice(&bytes[..read]),
                    _ => break frame::beat(0, 0),
                },
            }
        };
        let Some(pb::frame::Kind::Hello(hello)) = hello.kind else {
            continue;
        };
        hellos.fetch_add(1, Ordering::SeqCst);
        let answer = pb::Hello {
            node: hello.to,
            to: hello.node,
            incarnation: 1,
            paths: 0,
            path: 0,
            lane: 0,
            joins: false,
            ..hello
        };
        let mut out = Vec::new();
        frame::put(&frame::of(pb::frame::Kind::Hello(answer)), &mut out);
        for number in 1.. {
            frame::put(&frame::batch(number, Room::default(), Vec::new(), 0), &mut out);
            if stream.write_all(&out).is_err() {
                break;
            }
            out.clear();
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_peer_of_an_earlier_release_has_a_link_of_one_connection() {
    let hellos = Arc::new(AtomicUsize::new(0));
    let addresses = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| {
        let listener = StdListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let hellos = Arc::clone(&hellos);
        std::thread::spawn(move || serve_as_of_old(&listener, &hellos));
        address
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let me = Identity {
        node: NodeId(1),
        incarnation: Incarnation(1),
    };
    let (tell, heard) = mpsc::channel();
    let links = Arc::new(Links::new(me, 7, Box::new(Log(tell))));
    let net = Net::start(
        runtime.handle().clone(),
        Vec::new(),
        Arc::clone(&links),
        NetConfig::default(),
    );
    net.set_peers(&[PeerAddress {
        node: NodeId(2),
        addresses: addresses.to_vec(),
    }]);
    assert!(matches!(heard.recv_timeout(LIMIT).unwrap(), Heard::Up(_)));
    assert!(!links.current(NodeId(2)).unwrap().keeps());
    // Nobody replaces it by a second one.
    assert!(heard.recv_timeout(Duration::from_secs(2)).is_err());
    assert_eq!(hellos.load(Ordering::SeqCst), 1);
    let report = links.reports().remove(0);
    let used = report.paths.iter().filter(|(_, path)| path.used && path.up);
    assert_eq!(used.count(), 1, "{report:?}");
}
