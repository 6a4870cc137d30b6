//! The heartbeat thread: a UDP socket and a clock around the keeper (L1). It never touches a disk.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_injection::{HERE, Held, Passage, Site, Way};
use holdfast_trust::{MacKeys, Trust};
use holdfast_types::{Incarnation, LeaseGeneration, Mono, NodeId};

use super::cell::LeaseCell;
use super::keeper::{Action, Keeper, ResetCause};
use super::probe::{Nonce, Nonces, PROBE_MAX};
use super::view::KeeperView;
use super::wire::{DATAGRAM_MAX, Datagram};
use crate::model::ClusterState;

/// The longest wait for a datagram: bounds how late a report or a pause is noticed.
const WAIT_MAX: Duration = Duration::from_millis(10);
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Reads CLOCK_BOOTTIME.
pub type Clock = Arc<dyn Fn() -> Mono + Send + Sync>;
/// Gets told to reset connections of generations up to the one named, at once and from any thread; it must not block, nor call the
/// [`Lease`].
pub type OnReset = Arc<dyn Fn(LeaseGeneration, ResetCause) + Send + Sync>;

/// CLOCK_BOOTTIME of this machine (L2: it goes on while the machine sleeps).
pub fn boot_clock() -> Clock {
    Arc::new(|| {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
        Mono::ZERO + seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
    })
}

/// The keeper as the rest of the process uses it. Clones share it.
#[derive(Clone)]
pub struct Lease {
    keeper: Arc<Mutex<Keeper>>,
    cell: Arc<LeaseCell>,
    clock: Clock,
    on_reset: OnReset,
    /// Of whoever measures the way to this node.
    probes: Arc<Mutex<Nonces>>,
}

impl Lease {
    /// A keeper that starts now.
    pub fn new(me: NodeId, incarnation: Incarnation, clock: Clock, on_reset: OnReset) -> Self {
        let keeper = Keeper::new(me, incarnation, clock());
        Self {
            keeper: Arc::new(Mutex::new(keeper)),
            cell: Arc::default(),
            clock,
            on_reset,
            probes: Arc::default(),
        }
    }

    /// What the data path reads.
    pub fn cell(&self) -> Arc<LeaseCell> {
        Arc::clone(&self.cell)
    }

    /// See [`Keeper::applied`]: to be called inside the state machine's apply. The cell is up to date and connections are told to reset
    /// when this returns.
    pub fn applied(&self, state: &ClusterState) {
        let mut keeper = self.lock();
        let now = (self.clock)();
        let actions = keeper.applied(state, now);
        self.publish(&keeper, now);
        drop(keeper);
        self.resets(&actions);
    }

    /// See [`Keeper::voters_in_log`]: to be called before the log's entry is acknowledged.
    pub fn voters_in_log(&self, id: u64) {
        let mut keeper = self.lock();
        keeper.voters_in_log(id);
    }

    /// See [`Keeper::caught_up`].
    pub fn caught_up(&self) {
        self.lock().caught_up();
    }

    /// See [`Keeper::raft_hint`].
    pub fn raft_hint(&self, term: u64, leader: Option<NodeId>) {
        self.lock().raft_hint(term, leader);
    }

    /// From now on, for a while, the heartbeat thread answers probes that carry this number.
    pub fn answer_probes(&self, nonce: Nonce) {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.add(nonce, (self.clock)());
    }

    /// See [`Keeper::view`].
    pub fn view(&self) -> KeeperView {
        let keeper = self.lock();
        keeper.view((self.clock)())
    }

    /// Starts the heartbeat thread on `socket`; `trust` tells members' heartbeats from others.
    ///
    /// # Errors
    /// The socket takes no timeout, or there is no thread to be had.
    pub fn spawn(&self, socket: UdpSocket, trust: Arc<Trust>) -> io::Result<HeartbeatThread> {
        socket.set_read_timeout(Some(WAIT_MAX))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (lease, told) = (self.clone(), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("heartbeat".into())
            .spawn(move || lease.run(&socket, &trust, &told))?;
        Ok(HeartbeatThread {
            stop,
            thread: Some(thread),
        })
    }

    fn run(&self, socket: &UdpSocket, trust: &Trust, stop: &AtomicBool) {
        const { assert!(PROBE_MAX > DATAGRAM_MAX) };
        let mut buffer = [0; PROBE_MAX + 1];
        let mut delayed = Delayed::default();
        while !stop.load(Ordering::Relaxed) {
            let keys = trust.macs();
            let out = Out { socket, keys: &keys };
            delayed.send(out, self.tick());
            for parcel in delayed.due() {
                match parcel {
                    Parcel::Out(to, bytes) => put(socket, to, &bytes),
                    Parcel::In(datagram) => delayed.send(out, self.receive(&datagram)),
                }
            }
            let now = (self.clock)();
            let longest = if delayed.parcels.is_empty() {
                WAIT_MAX
            } else {
                WAIT_MIN
            };
            let wait = self.lock().next_wake().since(now).clamp(WAIT_MIN, longest);
            // A socket that refuses a timeout keeps the one it was given at the start.
            let _ = socket.set_read_timeout(Some(wait));
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    self.answer_probe(socket, from, &buffer[..len]);
                    if let Ok(datagram) = Datagram::decode(&buffer[..len], &keys)
                        && let Some(datagram) = delayed.hears(datagram)
                    {
                        delayed.send(out, self.receive(&datagram));
                    }
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                // A port unreachable from an earlier send shows up here; a broken socket must not spin.
                Err(_) => std::thread::sleep(WAIT_MIN),
            }
        }
    }

    fn answer_probe(&self, socket: &UdpSocket, from: SocketAddr, question: &[u8]) {
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = probes.answer(question, (self.clock)()) {
            put(socket, from, &answer);
        }
    }

    /// The clock is read under the lock and before anything is sent (see the keeper's module).
    fn tick(&self) -> Vec<Action> {
        let mut keeper = self.lock();
        let now = (self.clock)();
        let actions = keeper.tick(now);
        self.reset_and_publish(&keeper, now, &actions);
        actions
    }

    fn receive(&self, datagram: &Datagram) -> Vec<Action> {
        let mut keeper = self.lock();
        let now = (self.clock)();
        let actions = keeper.receive(now, datagram);
        self.reset_and_publish(&keeper, now, &actions);
        actions
    }

    /// L7: after a pause the cell shows it until every connection has been told; whoever looks at the cell first and at what it was told
    /// next misses neither.
    fn reset_and_publish(&self, keeper: &Keeper, now: Mono, actions: &[Action]) {
        self.resets(actions);
        self.publish(keeper, now);
    }

    fn publish(&self, keeper: &Keeper, now: Mono) {
        let generation = keeper.generation().unwrap_or_default();
        self.cell
            .publish(keeper.lease_until(now), generation, keeper.last_run());
    }

    fn resets(&self, actions: &[Action]) {
        for action in actions {
            if let Action::ResetConnections { generation, cause } = action {
                (self.on_reset)(*generation, *cause);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Keeper> {
        // A panic elsewhere leaves the keeper as it was between two calls, or halfway through one that only made it more careful.
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(socket: &UdpSocket, to: SocketAddr, bytes: &[u8]) {
    // A lost heartbeat and one that could not be sent are the same to everybody.
    let _ = socket.send_to(bytes, to);
}

/// The way out: where to, and signed with what.
#[derive(Clone, Copy)]
struct Out<'a> {
    socket: &'a UdpSocket,
    keys: &'a MacKeys,
}

/// A datagram that a drill delays.
enum Parcel {
    Out(SocketAddr, Vec<u8>),
    In(Datagram),
}

/// What drills delay. What they cut is lost, as datagrams are.
#[derive(Default)]
struct Delayed {
    parcels: Vec<(Held, Parcel)>,
}

impl Delayed {
    /// Sends what no drill is in the way of.
    fn send(&mut self, out: Out<'_>, actions: Vec<Action>) {
        for action in actions {
            let Action::Send { to, datagram } = action else {
                continue;
            };
            let (_, receiver) = datagram.parties();
            let bytes = datagram.encode(out.keys);
            match HERE.admit(Site::Link(receiver, Way::Out), bytes.len(), Instant::now()) {
                Passage::Free => put(out.socket, to, &bytes),
                Passage::Held(held) if !held.is_cut => self.parcels.push((held, Parcel::Out(to, bytes))),
                Passage::Held(_) | Passage::Lost => {}
            }
        }
    }

    /// What came, unless a drill is in the way.
    fn hears(&mut self, datagram: Datagram) -> Option<Datagram> {
        let (sender, _) = datagram.parties();
        match HERE.admit(Site::Link(sender, Way::In), DATAGRAM_MAX, Instant::now()) {
            Passage::Free => return Some(datagram),
            Passage::Held(held) if !held.is_cut => self.parcels.push((held, Parcel::In(datagram))),
            Passage::Held(_) | Passage::Lost => {}
        }
        None
    }

    /// What was delayed for long enough.
    fn due(&mut self) -> Vec<Parcel> {
        if self.parcels.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let due = self
            .parcels
            .extract_if(.., |(held, _)| HERE.still(held, now).is_none());
        due.map(|(_, parcel)| parcel).collect()
    }
}

/// Ends the thread when dropped.
#[derive(Debug)]
pub struct HeartbeatThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[path = "driver_test.rs"]
mod tests;
