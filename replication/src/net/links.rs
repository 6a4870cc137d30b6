//! Which links there are, and the order in which the cores hear of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use holdfast_types::{EVENTS, ExtentId, NodeId};

use super::hello::{Hello, LaneHello, Refusal};
use super::link::{Carrier, Lane, Link, Taken};
use super::paths::{Limits, Order, PathReport, Paths};
use crate::core::api::{Identity, LinkId, Message, Room};

/// Bytes that may wait for one peer. The core bounds what it has under way, so more means that the peer takes nothing off: the
/// link is reset.
const OUTBOX_BYTES_MAX: usize = 1 << 30;
/// Bytes that wait for one peer from which on new writes wait with them.
const CONGESTED_BYTES: usize = 32 << 20;

/// Who hears of links and messages. For one peer the calls come one at a time, in order: up, its messages, down.
pub trait LinkEvents: Send + Sync + 'static {
    /// A link is up.
    fn link_up(&self, peer: Identity, link: LinkId);
    /// A link is down.
    fn link_down(&self, node: NodeId, link: LinkId);
    /// A batch came over a link, in the order it was sent.
    fn receive(&self, from: NodeId, link: LinkId, messages: Vec<(ExtentId, Message)>);
    /// What the peer's disk can take in has changed; at first it has room for all.
    fn room(&self, node: NodeId, room: Room) {
        let _ = (node, room);
    }
}

/// How the links to a peer stand, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    /// Who.
    pub peer: NodeId,
    /// A link is up.
    pub up: bool,
    /// How often it has moved from one pair of addresses to another, since this process started.
    pub moves: u64,
    /// Each pair of addresses in order of preference: what it is called, and how it stands. All are down while no link is up.
    pub paths: Vec<(String, PathReport)>,
}

/// What came over a lane at once.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// What the last batch says of the peer's disk.
    pub(crate) room: Room,
    /// Number of the first batch.
    pub(crate) first: u64,
    /// Where the messages of each further batch begin, the end of the last one included.
    pub(crate) ends: Vec<usize>,
    /// Messages of all batches.
    pub(crate) messages: Vec<(ExtentId, Message)>,
    /// Batches that the peer has received.
    pub(crate) received: u64,
}

/// The links of one node.
pub struct Links {
    me: Identity,
    cluster: u128,
    /// For what decides which pair of addresses a link runs over.
    limits: Limits,
    peers: RwLock<Vec<Arc<Peer>>>,
    /// What peers are told of this node's disk.
    room: Mutex<Room>,
    events: Box<dyn LinkEvents>,
}

struct Peer {
    node: NodeId,
    /// Held while the cores hear of this peer: keeps up, messages and down in order. Taken before any lock of an extent.
    order: Mutex<()>,
    /// The link to send over.
    current: RwLock<Option<Arc<Link>>>,
    /// Which pair of addresses it runs over. Taken before a link's own locks, and never while they are held.
    routes: Mutex<Routes>,
}

struct Routes {
    paths: Paths,
    /// What people call each.
    names: Vec<String>,
}

impl Peer {
    fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Option<Arc<Link>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn is_current(&self, link: &Link) -> bool {
        let current = self.current();
        current.is_some_and(|current| std::ptr::eq(&*current, link))
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, link: Option<Arc<Link>>) -> Option<Arc<Link>> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, link)
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Links of node {}", self.me.node)
    }
}

impl Links {
    /// No links yet, and no peers that may have one.
    pub fn new(me: Identity, cluster: u128, events: Box<dyn LinkEvents>) -> Self {
        Self {
            me,
            cluster,
            limits: Limits::default(),
            peers: RwLock::new(Vec::new()),
            room: Mutex::default(),
            events,
        }
    }

    /// The same with other times for links that have several pairs of addresses. For tests.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Who this node is.
    pub fn me(&self) -> Identity {
        self.me
    }

    /// The hello for a link to `to`.
    pub fn hello(&self, to: NodeId, link: LinkId, lane: LaneHello) -> Hello {
        Hello {
            cluster: self.cluster,
            from: self.me,
            to,
            link,
            lane,
        }
    }

    /// The cluster that links must belong to.
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    fn peers(&self) -> Vec<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().find(|peer| peer.node == node).cloned()
    }

    /// Says which nodes may have links. Links of others are ended.
    pub fn set_peers(&self, nodes: &[NodeId]) {
        let gone: Vec<Arc<Peer>> = {
            let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
            for &node in nodes.iter().filter(|node| **node != self.me.node) {
                if !peers.iter().any(|peer| peer.node == node) {
                    peers.push(Arc::new(Peer {
                        node,
                        order: Mutex::new(()),
                        current: RwLock::new(None),
                        routes: Mutex::new(Routes {
                            paths: self.paths(node, 1),
                            names: Vec::new(),
                        }),
                    }));
                }
            }
            // In one order everywhere, since `while_quiet` takes all their locks.
            peers.sort_by_key(|peer| peer.node);
            peers.extract_if(.., |peer| !nodes.contains(&peer.node)).collect()
        };
        for peer in gone {
            let _order = peer.order();
            self.end_current(&peer);
        }
    }

    fn paths(&self, peer: NodeId, count: usize) -> Paths {
        // Who dials decides.
        Paths::new(count, self.me.node < peer, self.limits.clone())
    }

    /// Says what people call the pairs of addresses towards a peer, the preferred one first. A present link goes on.
    pub(crate) fn name_paths(&self, node: NodeId, names: Vec<String>) {
        if let Some(peer) = self.peer(node) {
            let mut routes = peer.routes();
            if peer.current().is_none() && routes.paths.count() != names.len() {
                routes.paths = self.paths(node, names.len());
            }
            routes.names = names;
        }
    }

    /// A handshake is done: the link counts from now on, and any older one of that peer is down.
    ///
    /// # Errors
    /// [`Refusal`] if the peer may have no link, or this one's number is not newer than that of its present one in the same run.
    pub fn up(&self, hello: &Hello, carrier: Box<dyn Carrier>) -> Result<(Arc<Link>, Arc<Lane>), Refusal> {
        let node = hello.from.node;
        let peer = self.peer(node).ok_or(Refusal::Stranger(node))?;
        let _order = peer.order();
        if let Some(old) = peer.current()
            && old.peer() == hello.from
            && old.id() >= hello.link
        {
            return Err(Refusal::Stale(hello.link.0));
        }
        self.end_current(&peer);
        let room = *self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let (link, lane) = Link::begin(hello, carrier, room);
        {
            let mut routes = peer.routes();
            // The end that dials knows how many there are; a peer of an earlier release has one connection, which may run over any.
            let count = hello.lane.paths.max(hello.lane.path + 1);
            if routes.paths.count() != count {
                routes.paths = self.paths(node, count);
            }
            routes.paths.begin(lane.path());
        }
        peer.set(Some(Arc::clone(&link)));
        self.events.link_up(hello.from, hello.link);
        Ok((link, lane))
    }

    /// A handshake is done: the connection is one more lane of the present link.
    ///
    /// # Errors
    /// [`Refusal`] if there is no such link (any more), or the peer may have none.
    pub fn join(&self, hello: &Hello, carrier: Box<dyn Carrier>) -> Result<(Arc<Link>, Arc<Lane>), Refusal> {
        let node = hello.from.node;
        let peer = self.peer(node).ok_or(Refusal::Stranger(node))?;
        let mut routes = peer.routes();
        let link = peer
            .current()
            .filter(|link| link.id() == hello.link && link.peer() == hello.from && link.keeps())
            .ok_or(Refusal::Gone(hello.link.0))?;
        let lane = link.join(hello, carrier).ok_or(Refusal::Gone(hello.link.0))?;
        let orders = routes.paths.up(lane.path());
        self.obey(&routes, &link, None, &orders);
        Ok((link, lane))
    }

    /// A lane's connection is over. True if the link is over with it: then [`Links::down`] is next.
    pub(crate) fn lane_down(&self, link: &Link, lane: &Lane, why: &str) -> bool {
        let left = link.detach(lane);
        let is_over = left == 0 || link.ended();
        let Some(peer) = self.peer(link.peer().node) else {
            return true;
        };
        let path = lane.path();
        let mut routes = peer.routes();
        let is_current = peer.is_current(link);
        // Another lane may have taken its place already, and who gave it up has said so.
        if is_current && link.lane_on(path).is_none() && routes.paths.is_up(path) {
            let orders = routes.paths.down(path, why);
            if !is_over {
                self.obey(&routes, link, Some(path), &orders);
            }
        }
        is_over
    }

    /// A lane cannot be made.
    pub(crate) fn lane_fails(&self, node: NodeId, path: usize, why: &str) {
        let Some(peer) = self.peer(node) else { return };
        let mut routes = peer.routes();
        if !routes.paths.is_up(path) {
            routes.paths.down(path, why);
        }
    }

    /// A tick of a lane of several; whether anything was heard over it since the one before.
    pub(crate) fn tick(&self, link: &Link, lane: &Lane, heard: bool) {
        let Some(peer) = self.peer(link.peer().node) else {
            return;
        };
        let mut routes = peer.routes();
        let newest = link.lane_on(lane.path());
        if peer.is_current(link) && newest.is_some_and(|newest| std::ptr::eq(&*newest, lane)) {
            let orders = routes.paths.tick(lane.path(), heard);
            self.obey(&routes, link, None, &orders);
        }
        drop(routes);
        link.beat(lane);
    }

    /// The peer told over a lane how far it is, and with `turn` whether it moved there.
    pub(crate) fn beat(&self, link: &Link, lane: &Lane, turn: u64, received: u64) {
        if let Some(turn) = link.heard(lane, turn, received)
            && self.me.node > link.peer().node
            && let Some(peer) = self.peer(link.peer().node)
        {
            let mut routes = peer.routes();
            if link.move_to(lane, Some(turn)) {
                let from = routes.paths.used();
                routes.paths.follow(lane.path());
                told_of_move(link, &routes, from, lane.path());
            }
        }
    }

    /// With the peer's routes held.
    fn obey(&self, routes: &Routes, link: &Link, mut left: Option<usize>, orders: &[Order]) {
        for order in orders {
            match *order {
                Order::GiveUp(path) => {
                    left = Some(path);
                    if let Some(lane) = link.lane_on(path) {
                        lane.give_up();
                    }
                }
                Order::Use(path) => {
                    // A lane that is gone is told of in a moment, and another one is chosen then.
                    if let Some(lane) = link.lane_on(path)
                        && link.move_to(&lane, None)
                    {
                        told_of_move(link, routes, left, path);
                    }
                }
            }
        }
    }

    /// How the links to all peers stand.
    pub fn reports(&self) -> Vec<PeerReport> {
        let report = |peer: &Arc<Peer>| {
            let routes = peer.routes();
            let up = peer.current().is_some_and(|link| !link.ended());
            let name = |at| {
                let unnamed = || format!("link {}", at + 1);
                routes.names.get(at).cloned().unwrap_or_else(unnamed)
            };
            let paths = routes.paths.report().into_iter().enumerate();
            let seen = |(at, path): (usize, PathReport)| {
                let there = if up {
                    path
                } else {
                    PathReport {
                        why: path.why,
                        ..PathReport::default()
                    }
                };
                (name(at), there)
            };
            PeerReport {
                peer: peer.node,
                up,
                moves: routes.paths.moves(),
                paths: paths.map(seen).collect(),
            }
        };
        self.peers().iter().map(report).collect()
    }

    /// The connection of a link has ended.
    pub fn down(&self, link: &Link) {
        link.end();
        let Some(peer) = self.peer(link.peer().node) else {
            return;
        };
        let _order = peer.order();
        if peer.is_current(link) {
            self.end_current(&peer);
        }
    }

    /// With the peer's order held.
    fn end_current(&self, peer: &Peer) {
        if let Some(old) = peer.set(None) {
            old.end();
            self.events.link_down(peer.node, old.id());
        }
    }

    /// Batches came over a lane of a link. What has come before, over another lane, is dropped.
    pub(crate) fn receive(&self, link: &Link, lane: &Lane, mut came: Received) -> Taken {
        let node = link.peer().node;
        let Some(peer) = self.peer(node) else {
            return Taken::Ended;
        };
        let _order = peer.order();
        if link.ended() || !peer.is_current(link) {
            return Taken::Ended;
        }
        link.heard(lane, 0, came.received);
        let batches = came.ends.len();
        let known = match link.take(lane, came.first, batches as u64) {
            Ok(known) => usize::try_from(known).unwrap_or(batches),
            Err(taken) => return taken,
        };
        if known >= batches {
            return Taken::Fine;
        }
        if known > 0 {
            came.messages.drain(..came.ends[known - 1]);
        }
        let news = {
            let mut known = link.room.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *known, came.room) != came.room
        };
        if news {
            self.events.room(node, came.room);
        }
        if !came.messages.is_empty() {
            self.events.receive(node, link.id(), came.messages);
        }
        Taken::Fine
    }

    /// Whether so much waits for some peer that new writes had better wait.
    pub fn congested(&self) -> bool {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().any(|peer| {
            let current = peer.current.read().unwrap_or_else(PoisonError::into_inner);
            current
                .as_ref()
                .is_some_and(|link| link.outbox().bytes() > CONGESTED_BYTES)
        })
    }

    /// Tells all peers, those of later links too, what this node's disk can take in.
    pub fn say(&self, room: Room) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = room;
        for link in self.peers().iter().filter_map(|peer| peer.current()) {
            link.outbox().say(room);
            link.flush();
        }
    }

    /// What the peer of a node's present link said last of its disk.
    pub fn room_of(&self, node: NodeId) -> Room {
        let room = |link: Arc<Link>| *link.room.lock().unwrap_or_else(PoisonError::into_inner);
        self.current(node).map(room).unwrap_or_default()
    }

    /// Queues messages for a link; dropped if it is not the present one of that node. [`Links::flush`] sends them.
    pub fn send(&self, to: NodeId, link: LinkId, messages: impl IntoIterator<Item = (ExtentId, Message)>) {
        let Some(current) = self.peer(to).and_then(|peer| peer.current()) else {
            return;
        };
        if current.id() != link {
            return;
        }
        if current.outbox().push(messages) + current.kept_bytes() > OUTBOX_BYTES_MAX {
            tracing::warn!(node = %to, link = link.0, "the peer takes nothing off its link: it is reset");
            current.end();
        }
    }

    /// Sends what waits for peers, from the caller's thread and as far as their sockets take it. Not under an extent's lock, which others
    /// wait for meanwhile.
    pub fn flush(&self) {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        for peer in &*peers {
            if let Some(link) = peer.current() {
                link.flush();
            }
        }
    }

    /// Ends a link at once; its down follows, from the task that serves it. Safe under an extent's lock.
    pub fn reset(&self, node: NodeId, link: LinkId) {
        if let Some(current) = self.peer(node).and_then(|peer| peer.current())
            && current.id() == link
        {
            current.end();
        }
    }

    /// The present link of a node.
    pub fn current(&self, node: NodeId) -> Option<Arc<Link>> {
        self.peer(node)?.current()
    }

    /// Ends every link, downs included.
    pub fn close(&self) {
        self.set_peers(&[]);
    }

    /// Calls `f` with the links that are up, while no link comes, goes or hands on messages. For whoever starts to listen.
    pub(crate) fn while_quiet<R>(&self, f: impl FnOnce(&[(Identity, LinkId)]) -> R) -> R {
        let peers = self.peers();
        let _orders: Vec<MutexGuard<'_, ()>> = peers.iter().map(|peer| peer.order()).collect();
        let links: Vec<_> = peers
            .iter()
            .filter_map(|peer| peer.current())
            .map(|link| (link.peer(), link.id()))
            .collect();
        f(&links)
    }
}

/// People are told that a link moved; with the peer's routes held.
fn told_of_move(link: &Link, routes: &Routes, from: Option<usize>, to: usize) {
    let name = |path: usize| {
        let address = routes.names.get(path).map_or("", String::as_str);
        format!("link {} ({address})", path + 1)
    };
    let why = match from.and_then(|from| routes.paths.why(from)) {
        Some(why) if from.is_some_and(|from| !routes.paths.is_up(from)) => {
            format!(", since {} {why}", from.map(name).unwrap_or_default())
        }
        _ => String::new(),
    };
    let (peer, number, to) = (link.peer().node, link.id().0, name(to));
    if why.is_empty() {
        tracing::info!(target: EVENTS, what = "link", %peer, link = number, "replication with node {peer} moved to its {to}");
    } else {
        tracing::warn!(target: EVENTS, what = "link", %peer, link = number, "replication with node {peer} moved to its {to}{why}");
    }
}

#[cfg(test)]
#[path = "links_test.rs"]
mod tests;
