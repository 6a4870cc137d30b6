//! A front with portals on loopback, over memory instead of the data plane, and a peer that speaks iSCSI to it byte by byte.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use holdfast_drill::initiator::{Dial, Session};
use holdfast_iscsi::initiator::{Event, Initiator, ScsiRequest, ScsiResult, Settings, Tag};
use holdfast_iscsi::pdu::{Cdb, ScsiStatus, TaskFunction, TaskResult};
use holdfast_raft::lease::LeaseCell;
use holdfast_raft::model::{
    ClusterId, ClusterKey, ClusterState, Command, Init, NewExtent, NewNode, NodeAddresses, Reply, Role,
    SecondaryAccess, UnitCall,
};
use holdfast_replication::core::api::OpId;
use holdfast_types::{
    BlockSize, ExtentId, Incarnation, IscsiName, Isid, LeaseGeneration, Lun, Mono, NodeId, Revision, TpgId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::memory_test::{Handle, Memory};
use super::{Front, FrontState, Portals, Registry, UnitAnswer, UnitJob, UnitWant, Units};

pub(super) const A: NodeId = NodeId(1);
pub(super) const B: NodeId = NodeId(2);
pub(super) const EXTENT: ExtentId = ExtentId::from_u128(0xe1);
pub(super) const TARGET: &str = "iqn.2026-11.example.holdfast:front";
/// Size of the extent.
pub(super) const DISK_BYTES: usize = 16 << 20;
/// Longer than anything takes that happens.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const RUN: Incarnation = Incarnation(7);
const FOR_EVER: Mono = Mono::from_nanos(u64::MAX);

/// The front of node `a`, alone in its process.
pub(super) struct Rig {
    pub(super) front: Arc<Front>,
    pub(super) memory: Arc<Memory>,
    pub(super) cluster: Arc<Mutex<ClusterState>>,
    pub(super) portal: SocketAddr,
    ahead: Arc<AtomicU64>,
    behind: Behind,
    cut_off: Arc<AtomicBool>,
    publish: Arc<watch::Sender<Arc<FrontState>>>,
    _port: watch::Sender<Option<TpgId>>,
    portals: tokio::task::JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.portals.abort();
    }
}

fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn node(id: NodeId, name: &str, role: Role, portals: Vec<SocketAddr>) -> NewNode {
    let port = u16::try_from(id.0).unwrap();
    let address = |base| SocketAddr::from(([127, 0, 0, 1], base + port));
    NewNode {
        id,
        name: name.to_owned(),
        role,
        addresses: NodeAddresses {
            raft: address(1000),
            replication: (role == Role::Data).then(|| address(2000)),
            spare_replication: Vec::new(),
            admin: None,
            heartbeat: address(4000),
            portals,
        },
    }
}

fn announce(node: NodeId) -> Command {
    Command::Announce {
        node,
        incarnation: RUN,
        number: 1,
        unfit: BTreeSet::new(),
        after: None,
    }
}

/// a and b, one extent of `bytes` on both, one target with it as LUN 0. Nobody is primary yet.
fn commands(portal: SocketAddr, bytes: u64) -> Vec<Command> {
    let other = SocketAddr::from(([127, 0, 0, 1], 1));
    vec![
        Command::Init(Init {
            name: "front".to_owned(),
            id: ClusterId(0xf),
            nodes: vec![
                node(A, "a", Role::Data, vec![portal]),
                node(B, "b", Role::Data, vec![other]),
            ],
        }),
        announce(A),
        announce(B),
        Command::CreateExtent(NewExtent {
            id: EXTENT,
            name: "e".to_owned(),
            size_bytes: bytes,
            block_size: BlockSize::B512,
            thin: true,
            on_devices: false,
            confirmed_reads: false,
            write_cache: false,
            replicas: [A, B].into(),
            preferred: Some(A),
            secondary: SecondaryAccess::NonOptimized,
        }),
        Command::CreateTarget { name: target() },
        Command::MapLun {
            target: target(),
            lun: Lun::ZERO,
            extent: EXTENT,
        },
    ]
}

/// What secrets of tests are sealed with.
pub(super) fn key() -> ClusterKey {
    ClusterKey::from_random([0x6b; 32])
}

pub(super) fn target() -> IscsiName {
    TARGET.parse().unwrap()
}

fn apply(cluster: &mut ClusterState, command: &Command) {
    let next = Revision(cluster.revision.0 + 1);
    let reply = cluster.apply(next, command);
    assert!(!matches!(reply, Reply::Refused { .. }), "{command:?}: {reply:?}");
}

/// The cluster as the front sees it when units' state is changed: at once, and fenced already.
struct Cluster {
    state: Arc<Mutex<ClusterState>>,
    publish: Arc<watch::Sender<Arc<FrontState>>>,
    registry: Arc<Registry>,
    serial: AtomicU64,
    behind: Behind,
    cut_off: Arc<AtomicBool>,
}

/// Whether node `b` is behind what `a` has applied, and who waits for it.
#[derive(Debug, Clone, Default)]
struct Behind(Arc<Mutex<(bool, Vec<OpId>)>>);

impl Units for Cluster {
    fn ask(&self, job: UnitJob) {
        if let Some(op) = job.op.filter(|_| self.cut_off.load(Ordering::SeqCst)) {
            return self.registry.unit_done(op, UnitAnswer::Unknown);
        }
        if job.want == UnitWant::KnownEverywhere {
            let (behind, waiting) = &mut *self.behind.0.lock().unwrap();
            if *behind {
                waiting.extend(job.op);
                return;
            }
        }
        let (UnitWant::Change(change) | UnitWant::ChangeEverywhere(change)) = job.want else {
            let op = job.op.expect("somebody waits for it");
            return self.registry.unit_done(op, UnitAnswer::Confirmed);
        };
        let command = Command::Unit {
            call: UnitCall {
                node: A,
                incarnation: RUN,
                serial: self.serial.fetch_add(1, Ordering::SeqCst),
            },
            extent: job.extent,
            by: job.by,
            change,
        };
        let mut state = self.state.lock().unwrap();
        let next = Revision(state.revision.0 + 1);
        let Reply::Unit { outcome, .. } = state.apply(next, &command) else {
            panic!("{command:?} is refused");
        };
        self.publish
            .send_replace(Arc::new(FrontState::derive(&state, Some(&key()))));
        if let Some(op) = job.op {
            self.registry.unit_done(op, UnitAnswer::Outcome(outcome));
        }
    }
}

impl Rig {
    /// Open for initiators, the extent on `a`.
    pub(super) async fn start() -> Self {
        let rig = Self::start_on(free_port(), DISK_BYTES);
        rig.reopen(A);
        rig.until_open().await;
        rig
    }

    /// As [`Self::start`], but nobody is primary: the group is transitioning.
    pub(super) async fn start_without_primary() -> Self {
        let rig = Self::start_on(free_port(), DISK_BYTES);
        rig.until_open().await;
        rig
    }

    pub(super) fn start_on(portal: SocketAddr, bytes: usize) -> Self {
        let mut cluster = ClusterState::default();
        for command in commands(portal, bytes as u64) {
            apply(&mut cluster, &command);
        }
        let tpg = cluster.nodes[&A].tpg;
        let registry = Arc::new(Registry::default());
        let memory = Memory::new(Arc::clone(&registry), EXTENT, bytes);
        let (publish, state) = watch::channel(Arc::new(FrontState::derive(&cluster, Some(&key()))));
        let (_port, port) = watch::channel(Some(tpg));
        let (cluster, publish) = (Arc::new(Mutex::new(cluster)), Arc::new(publish));
        let (behind, cut_off) = (Behind::default(), Arc::<AtomicBool>::default());
        let units = Arc::new(Cluster {
            state: Arc::clone(&cluster),
            publish: Arc::clone(&publish),
            registry: Arc::clone(&registry),
            serial: AtomicU64::new(1),
            behind: behind.clone(),
            cut_off: Arc::clone(&cut_off),
        });
        let began = Instant::now();
        let ahead = Arc::new(AtomicU64::new(0));
        let jump = Arc::clone(&ahead);
        let front = Arc::new(Front {
            node: A,
            incarnation: RUN,
            clock: Arc::new(move || {
                let jumped = Duration::from_nanos(jump.load(Ordering::SeqCst));
                Mono::ZERO + Duration::from_secs(1000) + began.elapsed() + jumped
            }),
            lease: Arc::new(LeaseCell::default()),
            backend: Arc::new(Handle(Arc::clone(&memory))),
            units,
            registry,
            state,
        });
        front.lease.publish(Some(FOR_EVER), LeaseGeneration(1), FOR_EVER);
        let portals = tokio::spawn(Portals::new(Arc::clone(&front), vec![portal], port).run());
        Self {
            front,
            memory,
            cluster,
            portal,
            ahead,
            behind,
            cut_off,
            publish,
            _port,
            portals,
        }
    }

    async fn until_open(&self) {
        eventually("the portal opens", || {
            std::net::TcpStream::connect(self.portal).is_ok()
        })
        .await;
        eventually("the probe is gone", || self.front.registry.len() == 0).await;
    }

    /// Applies a command and tells the front.
    pub(super) fn apply(&self, command: &Command) {
        let mut cluster = self.cluster.lock().unwrap();
        apply(&mut cluster, command);
        self.publish
            .send_replace(Arc::new(FrontState::derive(&cluster, Some(&key()))));
    }

    /// Whether the cluster cannot be asked about units from now on.
    pub(super) fn cut_off(&self, is: bool) {
        self.cut_off.store(is, Ordering::SeqCst);
    }

    /// Whether node `b` is behind from now on.
    pub(super) fn set_behind(&self, is: bool) {
        let (behind, waiting) = &mut *self.behind.0.lock().unwrap();
        *behind = is;
        if !is {
            for op in waiting.drain(..) {
                self.front.registry.unit_done(op, UnitAnswer::Confirmed);
            }
        }
    }

    /// Opens the extent on a node.
    pub(super) fn reopen(&self, node: NodeId) {
        let command = self.cluster.lock().unwrap().reopening_late(node, RUN).unwrap();
        self.apply(&command);
    }

    /// Another primary: both groups' states change.
    pub(super) fn switchover(&self, from: NodeId, to: NodeId) {
        let stamp = self.cluster.lock().unwrap().extents[&EXTENT].stamp(EXTENT);
        self.apply(&Command::Switchover {
            items: vec![stamp],
            from,
            from_incarnation: RUN,
            to,
            to_incarnation: RUN,
        });
    }

    /// The clock goes forward.
    pub(super) fn jump(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap();
        self.ahead.fetch_add(nanos, Ordering::SeqCst);
    }

    /// A lease, held for ever, of this generation.
    pub(super) fn lease(&self, generation: u64) {
        self.front
            .lease
            .publish(Some(FOR_EVER), LeaseGeneration(generation), FOR_EVER);
    }

    /// The lease is lost, in a process that runs.
    pub(super) fn lose_lease(&self) {
        self.front.lease.publish(None, LeaseGeneration(1), FOR_EVER);
    }

    /// As after SIGSTOP and SIGCONT: the lease stands, but its thread has not run for long.
    pub(super) fn pause(&self) {
        self.front
            .lease
            .publish(Some(FOR_EVER), LeaseGeneration(1), Mono::ZERO);
    }

    /// How the drill's initiator gets here; sessions of one number replace each other.
    pub(super) fn dial(&self, number: u16) -> Dial {
        let url = format!("iscsi://{}/{TARGET}/0", self.portal).parse().unwrap();
        let mut dial = Dial::new(url, "iqn.2026-11.example:drill".parse().unwrap(), number);
        dial.login_timeout = PATIENCE;
        dial.command_timeout = PATIENCE;
        dial
    }

    pub(super) async fn session(&self, number: u16) -> Session {
        Session::connect(&self.dial(number)).await.unwrap()
    }

    /// A peer that has logged in; its first command will hear 06/29/00.
    pub(super) async fn fresh(&self, number: u8) -> Peer {
        let mut peer = Peer::dial(self.portal, number).await;
        peer.logged_in().await;
        peer
    }

    /// A peer that has logged in and heard its 06/29/00.
    pub(super) async fn peer(&self, number: u8) -> Peer {
        let mut peer = self.fresh(number).await;
        assert_eq!(sense(&peer.ready().await), (6, 0x29, 0));
        peer
    }

    /// Waits until storage keeps this many operations.
    pub(super) async fn until_kept(&self, count: usize) {
        eventually("operations are kept", || self.memory.kept() == count).await;
    }
}

/// Waits for something that is about to be so.
pub(super) async fn eventually(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "not so: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sense key, code and qualifier of a CHECK CONDITION; zeros for GOOD.
pub(super) fn sense(result: &ScsiResult) -> (u8, u8, u8) {
    if result.status == ScsiStatus::GOOD {
        return (0, 0, 0);
    }
    assert_eq!(result.status, ScsiStatus::CHECK_CONDITION);
    let code = holdfast_drill::error::SenseCode::parse(&result.sense).unwrap();
    (code.key, code.asc, code.ascq)
}

/// READ(16), WRITE(16) and their like.
pub(super) fn cdb(opcode: u8, lba: u64, blocks: u32) -> Cdb {
    let mut bytes = [0; 16];
    bytes[0] = opcode;
    bytes[2..10].copy_from_slice(&lba.to_be_bytes());
    bytes[10..14].copy_from_slice(&blocks.to_be_bytes());
    Cdb::Short(bytes)
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// TCP reset.
    Reset,
    /// In order: FIN.
    Closed,
}

/// An initiator's end of one connection, which sees how it ends.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    pub(super) initiator: Initiator,
    buffer: BytesMut,
}

impl Peer {
    /// Connects and sends the first login request.
    pub(super) async fn dial(portal: SocketAddr, number: u8) -> Self {
        let stream = TcpStream::connect(portal).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut settings = Settings::new("iqn.2026-11.example:peer".parse().unwrap(), Some(target()));
        settings.isid = Isid([0x80, 0, 0, 0, 1, number]);
        Self::connect(stream, settings).await
    }

    /// As [`Self::dial`], with these settings.
    pub(super) async fn dial_with(portal: SocketAddr, settings: Settings) -> Self {
        let stream = TcpStream::connect(portal).await.unwrap();
        Self::connect(stream, settings).await
    }

    async fn connect(stream: TcpStream, settings: Settings) -> Self {
        let initiator = Initiator::new(settings);
        let mut peer = Self {
            stream,
            initiator,
            buffer: BytesMut::new(),
        };
        peer.flush().await;
        peer
    }

    pub(super) async fn logged_in(&mut self) {
        let event = self.event().await.unwrap();
        assert!(matches!(event, Event::LoggedIn { .. }), "{event:?}");
    }

    /// Sends what is to be sent. A connection that is gone is noticed by who reads.
    pub(super) async fn flush(&mut self) {
        while self.initiator.outbox().has_remaining() {
            if self.stream.write_buf(self.initiator.outbox()).await.is_err() {
                return;
            }
        }
    }

    /// The next thing that comes.
    pub(super) async fn event(&mut self) -> Result<Event, Ending> {
        loop {
            if let Some(event) = self.initiator.poll_event() {
                return Ok(event);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            match read.expect("nothing comes") {
                Ok(0) => return Err(Ending::Closed),
                Ok(_) => self.initiator.receive(&mut self.buffer).unwrap(),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(Ending::Reset),
                Err(error) => panic!("{error}"),
            }
            self.flush().await;
        }
    }

    /// How it ends; nothing may come before.
    pub(super) async fn ending(&mut self) -> Ending {
        match self.event().await {
            Err(ending) => ending,
            Ok(event) => panic!("{event:?}"),
        }
    }

    /// Sends a command.
    pub(super) async fn send(&mut self, request: ScsiRequest) -> Tag {
        let tag = self.initiator.command(request);
        self.flush().await;
        tag
    }

    /// Sends a WRITE(16) of one block.
    pub(super) async fn send_write(&mut self, lba: u64, byte: u8) -> Tag {
        self.send(ScsiRequest::write(
            0,
            cdb(0x8a, lba, 1),
            bytes::Bytes::from(vec![byte; 512]),
        ))
        .await
    }

    /// The next event, which is a command's end.
    pub(super) async fn end(&mut self) -> (Tag, ScsiResult) {
        match self.event().await {
            Ok(Event::Command(tag, result)) => (tag, result),
            other => panic!("{other:?}"),
        }
    }

    /// A command from its beginning to its end.
    pub(super) async fn command(&mut self, request: ScsiRequest) -> ScsiResult {
        let tag = self.send(request).await;
        let (ended, result) = self.end().await;
        assert_eq!(ended, tag);
        result
    }

    /// TEST UNIT READY.
    pub(super) async fn ready(&mut self) -> ScsiResult {
        self.command(ScsiRequest::none(0, cdb(0, 0, 0))).await
    }

    /// Sends a task management function.
    pub(super) async fn manage(&mut self, function: TaskFunction, task: Option<Tag>) -> Tag {
        let tag = self.initiator.task_management(function, 0, task);
        self.flush().await;
        tag
    }

    /// The next event, which is a function's answer.
    pub(super) async fn managed(&mut self, tag: Tag) -> TaskResult {
        match self.event().await {
            Ok(Event::TaskManagement(answered, result)) if answered == tag => result,
            other => panic!("{other:?}"),
        }
    }

    /// Whether nothing comes for a short while.
    pub(super) async fn is_silent(&mut self) -> bool {
        timeout(Duration::from_millis(100), self.event()).await.is_err()
    }
}
