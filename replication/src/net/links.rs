//! Which links there are, and the order in which the cores hear of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use holdfast_proto::replication as pb;
use holdfast_types::{ExtentId, NodeId};
use tokio::sync::Notify;

use super::frame;
use super::hello::{Hello, Refusal};
use super::outbox::Outbox;
use crate::core::api::{Identity, LinkId, Message, Room};

/// Bytes that may wait for one peer. The core bounds what it has under way, so more means that the peer takes nothing off: the
/// link is reset.
const OUTBOX_BYTES_MAX: usize = 1 << 30;
/// Bytes that wait for one peer from which on new writes wait with them.
const CONGESTED_BYTES: usize = 32 << 20;

/// What a connection must be able to do besides carrying batches: the seam between [`Links`] and a transport.
pub trait Carrier: Send + Sync + std::fmt::Debug {
    /// Sends as much of `bytes` as goes without waiting, and says how much that was.
    ///
    /// # Errors
    /// [`std::io::ErrorKind::WouldBlock`]: nothing now, more once the connection has room. All others are the end of the connection.
    fn send(&self, bytes: &[u8]) -> std::io::Result<usize>;
    /// Ends the connection at once, so that nothing that was sent and has not arrived ever arrives.
    fn abort(&self);
}

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

/// One link.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    peer: Identity,
    outbox: Outbox,
    wire: Mutex<Wire>,
    /// The connection had no room: its task sends on once it has.
    blocked: Notify,
    carrier: Box<dyn Carrier>,
    /// What the peer said last of its disk.
    room: Mutex<Room>,
    /// No batch is handed on any more.
    ended: AtomicBool,
}

/// Frames on their way into the socket. Only who sends touches it.
#[derive(Debug, Default)]
struct Wire {
    bytes: Vec<u8>,
    /// Bytes of it that were sent.
    sent: usize,
}

/// More than this is not kept for the next batch.
const WIRE_KEEP_BYTES: usize = 2 << 20;

/// What sending came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// All that waited, or the link has ended. The caller is sender no more.
    All,
    /// The connection has no room for the rest; the caller is sender still.
    Blocked,
}

impl Link {
    /// Its number.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// The other end.
    pub fn peer(&self) -> Identity {
        self.peer
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whether it was ended.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// When the connection has no room for what a thread had to send: whoever hears it is sender now.
    pub(crate) async fn blocked(&self) {
        self.blocked.notified().await;
    }

    /// Sends what waits, from the caller's thread, unless somebody does so already. Never waits.
    pub(crate) fn flush(&self) {
        if self.outbox.begin() && self.send_on() == Sent::Blocked {
            self.blocked.notify_one();
        }
    }

    /// For whoever opens the link: sends `first`, then what waits, and is sender no more.
    pub(crate) fn open(&self, first: &pb::Frame) {
        frame::put(first, &mut self.wire().bytes);
        self.start();
    }

    /// The same where the first frame was sent already.
    pub(crate) fn start(&self) {
        if self.send_on() == Sent::Blocked {
            self.blocked.notify_one();
        }
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the sender: goes on.
    pub(crate) fn send_on(&self) -> Sent {
        let mut wire = self.wire();
        loop {
            while wire.sent < wire.bytes.len() {
                match self.carrier.send(&wire.bytes[wire.sent..]) {
                    Ok(sent) => wire.sent += sent,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Sent::Blocked,
                    Err(error) => {
                        tracing::debug!(peer = %self.peer.node, link = self.id.0, %error, "cannot send");
                        self.end();
                        break;
                    }
                }
            }
            wire.bytes.clear();
            wire.bytes.shrink_to(WIRE_KEEP_BYTES);
            wire.sent = 0;
            let Some(batch) = self.outbox.next() else {
                return Sent::All;
            };
            frame::put(
                &frame::batch(batch.number, batch.room, batch.messages),
                &mut wire.bytes,
            );
        }
    }

    /// Ends it at once.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.outbox.close();
        self.carrier.abort();
    }
}

/// The links of one node.
pub struct Links {
    me: Identity,
    cluster: u128,
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
            peers: RwLock::new(Vec::new()),
            room: Mutex::default(),
            events,
        }
    }

    /// Who this node is.
    pub fn me(&self) -> Identity {
        self.me
    }

    /// The hello for a link to `to`.
    pub fn hello(&self, to: NodeId, link: LinkId) -> Hello {
        Hello {
            cluster: self.cluster,
            from: self.me,
            to,
            link,
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

    /// A handshake is done: the link counts from now on, and any older one of that peer is down.
    ///
    /// # Errors
    /// [`Refusal`] if the peer may have no link, or this one's number is not newer than that of its present one in the same run.
    pub fn up(&self, hello: &Hello, carrier: Box<dyn Carrier>) -> Result<Arc<Link>, Refusal> {
        let node = hello.from.node;
        let peer = self.peer(node).ok_or(Refusal::Stranger(node))?;
        let _order = peer.order();
        if let Some(old) = peer.current()
            && old.peer == hello.from
            && old.id >= hello.link
        {
            return Err(Refusal::Stale(hello.link.0));
        }
        self.end_current(&peer);
        let link = Arc::new(Link {
            id: hello.link,
            peer: hello.from,
            outbox: Outbox::default(),
            wire: Mutex::default(),
            blocked: Notify::new(),
            carrier,
            room: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        link.outbox
            .say(*self.room.lock().unwrap_or_else(PoisonError::into_inner));
        peer.set(Some(Arc::clone(&link)));
        self.events.link_up(hello.from, hello.link);
        Ok(link)
    }

    /// The connection of a link has ended.
    pub fn down(&self, link: &Link) {
        link.end();
        let Some(peer) = self.peer(link.peer.node) else {
            return;
        };
        let _order = peer.order();
        if peer
            .current()
            .is_some_and(|current| std::ptr::eq(&*current, link))
        {
            self.end_current(&peer);
        }
    }

    /// With the peer's order held.
    fn end_current(&self, peer: &Peer) {
        if let Some(old) = peer.set(None) {
            old.end();
            self.events.link_down(peer.node, old.id);
        }
    }

    /// A batch came over a link. False if the link has ended: then it was dropped, and nothing more will be taken.
    pub fn receive(&self, link: &Link, room: Room, messages: Vec<(ExtentId, Message)>) -> bool {
        let node = link.peer.node;
        let Some(peer) = self.peer(node) else { return false };
        let _order = peer.order();
        if link.ended()
            || !peer
                .current()
                .is_some_and(|current| std::ptr::eq(&*current, link))
        {
            return false;
        }
        let news = {
            let mut known = link.room.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *known, room) != room
        };
        if news {
            self.events.room(node, room);
        }
        if !messages.is_empty() {
            self.events.receive(node, link.id, messages);
        }
        true
    }

    /// Whether so much waits for some peer that new writes had better wait.
    pub fn congested(&self) -> bool {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().any(|peer| {
            let current = peer.current.read().unwrap_or_else(PoisonError::into_inner);
            current
                .as_ref()
                .is_some_and(|link| link.outbox.bytes() > CONGESTED_BYTES)
        })
    }

    /// Tells all peers, those of later links too, what this node's disk can take in.
    pub fn say(&self, room: Room) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = room;
        for link in self.peers().iter().filter_map(|peer| peer.current()) {
            link.outbox.say(room);
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
        if current.id != link {
            return;
        }
        if current.outbox.push(messages) > OUTBOX_BYTES_MAX {
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
            && current.id == link
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
            .map(|link| (link.peer, link.id))
            .collect();
        f(&links)
    }
}

#[cfg(test)]
#[path = "links_test.rs"]
mod tests;
