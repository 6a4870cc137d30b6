//! Links over loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use holdfast_types::{Epoch, ExtentId, Incarnation};

use super::super::dial::{dial_once, prove};
use super::super::hello::LaneHello;
use super::super::wire;
use super::*;
use crate::core::api::{Identity, Message};
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
        self.links.flush();
    }
}

struct Rig {
    runtime: tokio::runtime::Runtime,
    ports: [SocketAddr; 2],
    tls: bool,
}

impl Rig {
    fn new() -> Self {
        Self::with(false)
    }

    fn with(tls: bool) -> Self {
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
        Self { runtime, ports, tls }
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
        let config = NetConfig {
            trust: self.tls.then(|| trust(NodeId(node), cluster, 7)),
            ..NetConfig::default()
        };
        let net = Net::start(handle, vec![listener], Arc::clone(&links), config);
        let peers = [1, 2].map(|peer| PeerAddress {
            node: NodeId(peer),
            addresses: vec![self.ports[usize::try_from(peer).unwrap() - 1]],
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

fn trust(node: NodeId, cluster: u128, key: u8) -> Arc<Trust> {
    let generations = holdfast_trust::Generations::default();
    Trust::new(
        node,
        &[cluster],
        &holdfast_trust::Key::new([key; 32]),
        &generations,
    )
    .unwrap()
}

fn up(end: &End, peer: &End) -> LinkId {
    match end.hear() {
        Heard::Up(who, link) if who == peer.me => link,
        other => panic!("{other:?} instead of a link with {:?}", peer.me),
    }
}

#[test]
fn messages_arrive_in_order_and_in_few_batches() {
    for tls in [false, true] {
        messages_arrive(&Rig::with(tls));
    }
}

fn messages_arrive(rig: &Rig) {
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
        addresses: vec![rig.ports[1]],
    };
    let why = rig
        .runtime
        .block_on(dial_once(&a.net.shared, &peer, 0, &tokio::sync::Mutex::new(())))
        .unwrap_err();
    assert_eq!(why, Refusal::Cluster.to_string());
}

/// A peer of node 2 that shakes hands and does nothing else.
fn mute(rig: &Rig, me: Identity, link: u64) -> std::net::TcpStream {
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(rig.ports[1]).unwrap();
    let hello = Hello {
        cluster: 7,
        from: me,
        to: NodeId(2),
        link: LinkId(link),
        lane: LaneHello::default(),
    };
    let mut bytes = Vec::new();
    frame::put(&frame::of(pb::frame::Kind::Hello(hello.encode())), &mut bytes);
    stream.write_all(&bytes).unwrap();
    stream
}

#[test]
fn a_silent_peers_link_ends_and_one_that_only_lives_keeps_it() {
    let rig = Rig::new();
    let b = rig.start(2, 20, 7);
    let me = Identity {
        node: NodeId(1),
        incarnation: Incarnation(10),
    };
    let stream = mute(&rig, me, 1);
    assert_eq!(b.hear(), Heard::Up(me, LinkId(1)));
    let since = std::time::Instant::now();
    assert_eq!(b.hear(), Heard::Down(LinkId(1)));
    assert!(
        since.elapsed() >= Duration::from_millis(500),
        "{:?}",
        since.elapsed()
    );
    drop(stream);
    let a = rig.start(1, 11, 7);
    let link = up(&b, &a);
    // Nothing but empty batches goes over it meanwhile.
    assert!(b.heard.recv_timeout(Duration::from_secs(3)).is_err());
    a.send(NodeId(2), link, 5..6);
    assert_eq!(b.hear(), Heard::Epoch(link, 5));
}

#[test]
fn a_peer_that_reads_nothing_for_a_while_gets_everything_in_order() {
    use std::io::Read as _;
    let rig = Rig::new();
    let b = rig.start(2, 20, 7);
    let me = Identity {
        node: NodeId(1),
        incarnation: Incarnation(10),
    };
    let mut stream = mute(&rig, me, 1);
    assert_eq!(b.hear(), Heard::Up(me, LinkId(1)));
    // It speaks: a silent one would be cut off.
    let mut speaks = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        use std::io::Write as _;
        for number in 1.. {
            let mut bytes = Vec::new();
            frame::put(
                &frame::batch(number, crate::core::api::Room::default(), vec![], 0),
                &mut bytes,
            );
            if speaks.write_all(&bytes).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    // Far more than sockets take.
    const SENT: u64 = 1_000_000;
    for from in (0..SENT).step_by(10_000) {
        b.send(NodeId(1), LinkId(1), from..from + 10_000);
    }
    let (mut buffer, mut expected) = (BytesMut::new(), 0);
    let mut bytes = vec![0; 1 << 20];
    assert!(matches!(
        frame_of(&mut stream, &mut buffer, &mut bytes).kind,
        Some(pb::frame::Kind::Hello(_))
    ));
    while expected < SENT {
        let Some(pb::frame::Kind::Batch(batch)) = frame_of(&mut stream, &mut buffer, &mut bytes).kind else {
            panic!("something else than a batch");
        };
        for envelope in batch.messages {
            let (_, message) = wire::decode(envelope).unwrap();
            let epoch = Epoch(expected);
            assert_eq!(message, Message::Probe { epoch });
            expected += 1;
        }
    }

    fn frame_of(stream: &mut std::net::TcpStream, buffer: &mut BytesMut, bytes: &mut [u8]) -> pb::Frame {
        loop {
            if let Some(frame) = frame::take(buffer, false).unwrap() {
                return frame;
            }
            let read = stream.read(bytes).unwrap();
            assert!(read > 0, "the link has ended");
            buffer.extend_from_slice(&bytes[..read]);
        }
    }
}

#[test]
fn garbage_ends_a_connection_and_nothing_else() {
    use std::io::{Read as _, Write as _};
    let rig = Rig::new();
    let (a, b) = (rig.start(1, 10, 7), rig.start(2, 20, 7));
    let link = up(&a, &b);
    assert_eq!(up(&b, &a), link);
    for garbage in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0; 64], &[255; 64]] {
        let mut stream = std::net::TcpStream::connect(rig.ports[1]).unwrap();
        stream.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        // Closed, in order or with a reset.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 256, "{} bytes were answered", rest.len());
    }
    a.send(NodeId(2), link, 3..4);
    assert_eq!(b.hear(), Heard::Epoch(link, 3));
}

/// More than sockets and session hold, both ways at once: nothing is lost, doubled or left behind.
#[test]
fn what_waits_for_room_under_tls_arrives_whole() {
    let rig = Rig::with(true);
    let (a, b) = (rig.start(1, 10, 7), rig.start(2, 20, 7));
    let link = up(&a, &b);
    up(&b, &a);
    let (rounds, each) = (40, 10_000);
    for round in 0..rounds {
        let epochs = round * each..(round + 1) * each;
        a.send(NodeId(2), link, epochs.clone());
        b.send(NodeId(1), link, epochs);
    }
    for end in [&a, &b] {
        (0..rounds * each).for_each(|epoch| assert_eq!(end.hear(), Heard::Epoch(link, epoch)));
    }
}

/// Who proves nothing, something of another cluster, or to be another node, gets no link; who is plain gets no answer.
#[test]
fn a_link_needs_the_certificate_of_the_node_that_says_hello() {
    let rig = Rig::with(true);
    let b = rig.start(2, 20, 7);
    let address = rig.ports[1];
    let hello = Hello {
        cluster: 7,
        from: Identity {
            node: NodeId(1),
            incarnation: Incarnation(10),
        },
        to: NodeId(2),
        link: LinkId(1),
        lane: LaneHello::default(),
    };
    let answer = |proof: Option<Arc<Trust>>| {
        rig.runtime.block_on(async {
            let shared = Shared {
                links: Arc::clone(&b.links),
                config: NetConfig {
                    trust: proof,
                    ..NetConfig::default()
                },
                next_link: AtomicU64::new(1),
            };
            let stream = TcpStream::connect(address).await.unwrap();
            let (mut reading, socket) = prove(&shared, NodeId(2), stream)
                .await
                .map_err(|error| error.to_string())?;
            let mut bytes = Vec::new();
            frame::put(&frame::of(pb::frame::Kind::Hello(hello.encode())), &mut bytes);
            socket.send_all(&bytes).await.map_err(|error| error.to_string())?;
            first_frame(&socket, &mut reading, &mut BytesMut::new()).await
        })
    };
    let refused = |proof| match answer(proof) {
        Err(why) => why,
        Ok(pb::Frame {
            kind: Some(pb::frame::Kind::Rejected(rejected)),
        }) => rejected.reason,
        Ok(other) => panic!("{other:?}"),
    };
    assert!(refused(Some(trust(NodeId(3), 7, 7))).contains("does not name node 1"));
    assert!(refused(Some(trust(NodeId(1), 7, 8))).contains("authority"));
    let plain = refused(None);
    assert!(!plain.contains("link"), "{plain}");
    assert!(matches!(
        answer(Some(trust(NodeId(1), 7, 7))).unwrap().kind,
        Some(pb::frame::Kind::Hello(_))
    ));
}
