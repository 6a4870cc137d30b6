//! Links of several lanes that come and go, fall silent and take little at a time: whatever happens, each end hears of what the other one
//! sent over a link, in order, once, and without a gap.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use holdfast_types::{Epoch, ExtentId, Incarnation, NodeId};
use proptest::prelude::*;

use super::lane::{Frames, take_all};
use super::{Carrier, Hello, Lane, LaneHello, Link, LinkEvents, Links};
use crate::core::api::{Identity, LinkId, Message};

const PATHS: usize = 3;
/// Bytes that a connection holds in one direction.
const HOLDS: usize = 4096;

/// One direction of a connection, or a handle to it.
#[derive(Debug, Clone, Default)]
struct Pipe(Arc<Mutex<Wire>>);

#[derive(Debug, Default)]
struct Wire {
    bytes: VecDeque<u8>,
    closed: bool,
}

/// Both directions, as one end has them.
#[derive(Debug)]
struct End {
    out: Pipe,
    back: Pipe,
}

impl Pipe {
    fn with<R>(&self, f: impl FnOnce(&mut Wire) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn close(&self) {
        self.with(|wire| (wire.closed, wire.bytes) = (true, VecDeque::new()));
    }
}

impl Carrier for End {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.out.with(|wire| {
            let sent = bytes.len().min(HOLDS - wire.bytes.len());
            if wire.closed {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if sent == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            wire.bytes.extend(&bytes[..sent]);
            Ok(sent)
        })
    }

    fn abort(&self) {
        self.out.close();
        self.back.close();
    }
}

/// What an end heard over each link: the next number that it expects, and whether the link is up.
#[derive(Debug, Clone, Default)]
struct Heard(Arc<Mutex<BTreeMap<u64, (u64, bool)>>>);

impl LinkEvents for Heard {
    fn link_up(&self, _: Identity, link: LinkId) {
        let before = self.0.lock().unwrap().insert(link.0, (0, true));
        assert_eq!(before, None, "{link:?} comes up twice");
    }

    fn link_down(&self, _: NodeId, link: LinkId) {
        self.0.lock().unwrap().get_mut(&link.0).unwrap().1 = false;
    }

    fn receive(&self, _: NodeId, link: LinkId, messages: Vec<(ExtentId, Message)>) {
        let mut heard = self.0.lock().unwrap();
        let (next, up) = heard.get_mut(&link.0).unwrap();
        assert!(*up, "{link:?} is down");
        for (_, message) in messages {
            assert_eq!(message, Message::Probe { epoch: Epoch(*next) });
            *next += 1;
        }
    }
}

struct Node {
    links: Links,
    heard: Heard,
    /// Messages sent over each link.
    sent: BTreeMap<u64, u64>,
}

impl Node {
    fn new(node: u64) -> Self {
        let heard = Heard::default();
        let me = Identity {
            node: NodeId(node),
            incarnation: Incarnation(1),
        };
        let links = Links::new(me, 7, Box::new(heard.clone()));
        links.set_peers(&[NodeId(1), NodeId(2)]);
        Self {
            links,
            heard,
            sent: BTreeMap::new(),
        }
    }

    fn peer(&self) -> NodeId {
        NodeId(3 - self.links.me().node.0)
    }

    fn send(&mut self, count: u64) {
        let Some(link) = self.links.current(self.peer()).filter(|link| !link.ended()) else {
            return;
        };
        let sent = self.sent.entry(link.id().0).or_default();
        let epochs = *sent..*sent + count;
        let message = |epoch| (ExtentId::from_u128(1), Message::Probe { epoch: Epoch(epoch) });
        *sent += count;
        self.links.send(link.peer().node, link.id(), epochs.map(message));
        self.links.flush();
    }
}

/// One end of a connection, as its tasks have it.
struct Served {
    link: Arc<Link>,
    lane: Arc<Lane>,
    from: Pipe,
    to: Pipe,
    frames: Frames,
    buffer: BytesMut,
    heard: bool,
}

impl Served {
    /// Takes so many bytes; false at the end of the connection.
    fn read(&mut self, links: &Links, most: usize) -> bool {
        let came: Vec<u8> = self.from.with(|wire| {
            let len = wire.bytes.len().min(most);
            wire.bytes.drain(..len).collect()
        });
        self.heard |= !came.is_empty();
        self.buffer.extend_from_slice(&came);
        let taken = take_all(links, &mut self.frames, &mut self.buffer, &self.link, &self.lane);
        taken.is_ok() && !self.from.with(|wire| wire.closed)
    }
}

/// Both ends of a connection, and which of them hears nothing.
type Connection = ([Option<Served>; 2], [bool; 2]);

struct Pair {
    nodes: [Node; 2],
    /// By path.
    served: Vec<Option<Connection>>,
    next: u64,
}

impl Pair {
    fn new() -> Self {
        Self {
            nodes: [Node::new(1), Node::new(2)],
            served: (0..PATHS).map(|_| None).collect(),
            next: 1,
        }
    }

    fn dial(&mut self, path: usize) {
        if self.served[path].is_some() {
            return;
        }
        let (there, back) = (Pipe::default(), Pipe::default());
        let present = self.nodes[0].links.current(NodeId(2));
        let present = present.filter(|link| !link.ended());
        let number = self.next;
        self.next += 1;
        let lane = LaneHello {
            paths: PATHS,
            path,
            lane: number,
            joins: present.is_some(),
        };
        let link = present.as_ref().map_or(LinkId(number), |link| link.id());
        let attach = |at: usize, (out, back): (&Pipe, &Pipe)| {
            let node = &self.nodes[at].links;
            let hello = Hello {
                from: self.nodes[1 - at].links.me(),
                ..node.hello(node.me().node, link, lane)
            };
            let (to, from) = (out.clone(), back.clone());
            let carrier = Box::new(End {
                out: to.clone(),
                back: from.clone(),
            });
            let (link, lane) = if lane.joins {
                node.join(&hello, carrier).ok()?
            } else {
                node.up(&hello, carrier).ok()?
            };
            if !hello.lane.joins {
                link.start();
            }
            Some(Served {
                link,
                lane,
                from,
                to,
                frames: Frames::default(),
                buffer: BytesMut::new(),
                heard: false,
            })
        };
        // Who is dialled goes first.
        let Some(second) = attach(1, (&back, &there)) else {
            if let Some(link) = present {
                self.nodes[0].links.down(&link);
            }
            return;
        };
        let first = attach(0, (&there, &back));
        if first.is_none() {
            there.close();
            back.close();
        }
        self.served[path] = Some(([first, Some(second)], [false; 2]));
    }

    /// One end of a connection reads; what has ended is ended.
    fn read(&mut self, path: usize, at: usize, most: usize) {
        let Some((ends, silent)) = &mut self.served[path] else {
            return;
        };
        let links = &self.nodes[at].links;
        if let Some(end) = &mut ends[at] {
            let most = if silent[at] { 0 } else { most };
            if end.read(links, most) {
                end.link.room_on(&end.lane);
            } else {
                end.lane.abort();
                if links.lane_down(&end.link, &end.lane, "closed") {
                    links.down(&end.link);
                }
                ends[at] = None;
            }
        }
        if ends.iter().all(Option::is_none) {
            self.served[path] = None;
        }
    }

    fn tick(&mut self, path: usize, at: usize) {
        if let Some((ends, _)) = &mut self.served[path]
            && let Some(end) = &mut ends[at]
        {
            let heard = std::mem::take(&mut end.heard);
            self.nodes[at].links.tick(&end.link, &end.lane, heard);
        }
    }

    fn round(&mut self, most: usize) {
        for path in 0..PATHS {
            for at in [0, 1] {
                self.tick(path, at);
                self.read(path, at, most);
            }
        }
    }

    /// Everything works again: all that was sent over a link that is still up arrives.
    fn settle(&mut self) {
        for path in 0..PATHS {
            if let Some((_, silent)) = &mut self.served[path] {
                *silent = [false; 2];
            }
        }
        for _ in 0..200 {
            self.round(HOLDS);
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let other = &self.nodes[1 - at];
            let heard = other.heard.0.lock().unwrap();
            let Some(link) = node.links.current(node.peer()) else {
                continue;
            };
            let sent = node.sent.get(&link.id().0).copied().unwrap_or_default();
            assert_eq!(heard.get(&link.id().0), Some(&(sent, true)), "{:?}", link.id());
            assert_eq!(link.kept_bytes(), 0, "all of it was acknowledged");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Dial(usize),
    Send(usize, u64),
    Read(usize, usize, usize),
    Tick(usize, usize),
    Rounds(usize),
    /// Nothing is heard by one end, over one path.
    Silence(usize, usize),
    Cut(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (path, end) = (0..PATHS, 0..2_usize);
    prop_oneof![
        4 => path.clone().prop_map(Step::Dial),
        6 => (end.clone(), 1..40_u64).prop_map(|(at, count)| Step::Send(at, count)),
        6 => (path.clone(), end.clone(), 1..HOLDS).prop_map(|(path, at, most)| Step::Read(path, at, most)),
        4 => (path.clone(), end.clone()).prop_map(|(path, at)| Step::Tick(path, at)),
        4 => (1..30_usize).prop_map(Step::Rounds),
        2 => (path.clone(), end).prop_map(|(path, at)| Step::Silence(path, at)),
        1 => path.prop_map(Step::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn f1_moves_lose_double_and_reorder_nothing(steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair::new();
        for step in steps {
            match step {
                Step::Dial(path) => pair.dial(path),
                Step::Send(at, count) => pair.nodes[at].send(count),
                Step::Read(path, at, most) => pair.read(path, at, most),
                Step::Tick(path, at) => pair.tick(path, at),
                Step::Rounds(count) => (0..count).for_each(|_| pair.round(HOLDS)),
                Step::Silence(path, at) => {
                    if let Some((_, silent)) = &mut pair.served[path] {
                        silent[at] = !silent[at];
                    }
                }
                Step::Cut(path) => {
                    if let Some((ends, _)) = &pair.served[path]
                        && let Some(end) = ends.iter().flatten().next()
                    {
                        end.from.close();
                        end.to.close();
                    }
                }
            }
        }
        pair.settle();
    }
}

/// The link itself survives whatever single path fails, with all that was on its way.
#[test]
fn a_silent_path_costs_no_link_and_no_message() {
    for at in [0, 1] {
        let mut pair = Pair::new();
        (0..2).for_each(|path| pair.dial(path));
        pair.round(HOLDS);
        let link = pair.nodes[0].links.current(NodeId(2)).unwrap();
        // More than the silent connection holds.
        pair.served[0].as_mut().unwrap().1[at] = true;
        for _ in 0..40 {
            pair.nodes[0].send(20);
            pair.nodes[1].send(20);
            pair.round(HOLDS);
        }
        pair.settle();
        let now = pair.nodes[0].links.current(NodeId(2)).unwrap();
        assert!(Arc::ptr_eq(&link, &now), "the same link");
        assert_eq!(pair.nodes[0].sent, BTreeMap::from([(1, 800)]));
        for node in &pair.nodes {
            let report = &node.links.reports()[0];
            assert!(report.paths[1].1.used && !report.paths[0].1.up, "{report:?}");
            assert_eq!(report.moves, 1);
        }
    }
}
