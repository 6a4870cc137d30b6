//! Links over loopback.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use holdfast_types::{Epoch, Incarnation};

use super::*;
use crate::core::api::Identity;
use crate::net::LinkEvents;

const EXTENT: ExtentId = ExtentId::from_u128(5);

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Up(Identity, LinkId),
    Down(LinkId),
    Epoch(LinkId, u64),
}

struct Log(mpsc::Sender<Heard>, Arc<AtomicUsize>);

impl LinkEvents for Log {
    fn link_up(&self, peer: Identity, link: LinkId) {
        let _ = self.0.send(Heard::Up(peer, link));
    }

    fn link_down(&self, _: NodeId, link: LinkId) {
        let _ = self.0.send(Heard::Down(link));
    }

    fn receive(&self, _: NodeId, link: LinkId, messages: Vec<(ExtentId, Message)>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        for (_, message) in messages {
            if let Message::Probe { epoch } = message {
                let _ = self.0.send(Heard::Epoch(link, epoch.0));
            }
        }
    }
}

struct End {
    me: Identity,
    links: Arc<Links>,
    net: Net,
    heard: mpsc::Receiver<Heard>,
    batches: Arc<AtomicUsize>,
}

impl End {
    fn hear(&self) -> Heard {
        self.heard.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn send(&self, to: NodeId, link: LinkId, epochs: std::ops::Range<u64>) {
        let messages = epochs.map(|epoch| (EXTENT, Message::Probe { epoch: Epoch(epoch) }));
        self.links.send(to, link, messages);
    }
}

struct Rig {
    runtime: tokio::runtime::Runtime,
    ports: [SocketAddr; 2],
}

impl Rig {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let port = || {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            socket.local_addr().unwrap()
        };
        let ports = [port(), port()];
        Self { runtime, ports }
    }

    fn start(&self, node: u64, run: u64, cluster: u128) -> End {
        let me = Identity {
            node: NodeId(node),
            incarnation: Incarnation(run),
        };
        let (tell, heard) = mpsc::channel();
        let batches = Arc::new(AtomicUsize::new(0));
        let links = Arc::new(Links::new(me, cluster, Box::new(Log(tell, Arc::clone(&batches)))));
        let address = self.ports[usize::try_from(node).unwrap() - 1];
        let listener = self.runtime.block_on(async {
            loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let handle = self.runtime.handle().clone();
        let net = Net::start(handle, Some(listener), Arc::clone(&links), NetConfig::default());
        let peers = [1, 2].map(|peer| PeerAddress {
            node: NodeId(peer),
            address: self.ports[usize::try_from(peer).unwrap() - 1].to_string(),
        });
        net.set_peers(&peers);
        End {
            me,
            links,
            net,
            heard,
            batches,
        }
    }
}

fn up(end: &End, peer: &End) -> LinkId {
    match end.hear() {
        Heard::Up(who, link) if who == peer.me => link,
        other => panic!("{other:?} instead of a link with {:?}", peer.me),
    }
}

#[test]
fn messages_arrive_in_order_and_in_few_batches() {
    let rig = Rig::new();
    let (a, b) = (rig.start(1, 10, 7), rig.start(2, 20, 7));
    let link = up(&a, &b);
    assert_eq!(up(&b, &a), link, "both ends call it the same");
    for i in 0..100 {
        a.send(NodeId(2), link, i * 100..(i + 1) * 100);
        b.send(NodeId(1), link, i * 100..(i + 1) * 100);
    }
    for end in [&a, &b] {
        (0..10_000).for_each(|epoch| assert_eq!(end.hear(), Heard::Epoch(link, epoch)));
        assert!(end.batches.load(Ordering::SeqCst) <= 100);
    }
}

#[test]
fn a_reset_link_is_followed_by_a_new_one_with_another_number() {
    let rig = Rig::new();
    let (a, b) = (rig.start(1, 10, 7), rig.start(2, 20, 7));
    let mut link = up(&a, &b);
    assert_eq!(up(&b, &a), link);
    for resets in [&a, &b, &a] {
        let peer = if resets.me == a.me { b.me.node } else { a.me.node };
        resets.links.reset(peer, link);
        // Sent after the end: never arrives.
        resets.send(peer, link, 1..9);
        assert_eq!(a.hear(), Heard::Down(link));
        assert_eq!(b.hear(), Heard::Down(link));
        let next = up(&a, &b);
        assert_eq!(up(&b, &a), next);
        assert!(next > link);
        link = next;
    }
}

#[test]
fn a_peer_that_starts_anew_gets_a_new_link_at_once() {
    let rig = Rig::new();
    let (a, b) = (rig.start(1, 10, 7), rig.start(2, 20, 7));
    let link = up(&a, &b);
    assert_eq!(up(&b, &a), link);
    drop(b.net);
    assert_eq!(a.hear(), Heard::Down(link));
    let b = rig.start(2, 21, 7);
    let link = up(&a, &b);
    assert_eq!(up(&b, &a), link);
    drop(a.net);
    assert_eq!(b.hear(), Heard::Down(link));
    let a = rig.start(1, 11, 7);
    assert_eq!(up(&a, &b), up(&b, &a));
}

#[test]
fn another_cluster_is_refused_by_name() {
    let rig = Rig::new();
    let a = rig.start(1, 10, 7);
    let b = rig.start(2, 20, 8);
    assert!(a.heard.recv_timeout(Duration::from_millis(400)).is_err());
    assert!(b.heard.recv_timeout(Duration::from_millis(1)).is_err());
    let peer = PeerAddress {
        node: NodeId(2),
        address: rig.ports[1].to_string(),
    };
    let why = rig.runtime.block_on(dial_once(&a.net.shared, &peer)).unwrap_err();
    assert_eq!(why, Refusal::Cluster.to_string());
}
