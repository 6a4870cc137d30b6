//! Two data nodes in one process: real journals, extent files and links over loopback, under a control plane that is one plain state
//! with the checks of E2.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_replication::core::api::*;
use holdfast_replication::driver::*;
use holdfast_replication::net::{NetConfig, PeerAddress};
use holdfast_types::*;

pub const EXTENT: ExtentId = ExtentId::from_u128(0xfeed);
pub const BLOCK: u64 = 4096;

fn now() -> Mono {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    Mono::from_nanos(u64::try_from(start.elapsed().as_nanos()).unwrap() + 1)
}

/// Every node that runs holds the lease: a node that is dropped is gone.
struct Lease;

impl LeaseView for Lease {
    fn ctx(&self) -> Ctx {
        let now = now();
        Ctx {
            now,
            lease_until: Some(now + Duration::from_secs(1)),
            generation: LeaseGeneration(0),
            quorum: true,
        }
    }
}

struct Answers(mpsc::Sender<(OpId, OpOutcome)>);

impl Front for Answers {
    fn complete(&self, _: ExtentId, op: OpId, outcome: OpOutcome) {
        let _ = self.0.send((op, outcome));
    }
}

struct Wishes(mpsc::Sender<Ask>);

impl Proposer for Wishes {
    fn propose(&self, batch: Vec<(ExtentId, Proposal)>) {
        let _ = self.0.send(Ask::Propose(batch));
    }
}

enum Ask {
    Propose(Vec<(ExtentId, Proposal)>),
    Promote(NodeId),
    Publish,
    End,
}

pub struct Node {
    pub node: DataNode,
    pub answers: Mutex<mpsc::Receiver<(OpId, OpOutcome)>>,
    pub session: SessionInstance,
    next: AtomicU64,
    early: Mutex<HashMap<OpId, OpOutcome>>,
}

type Nodes = Arc<Mutex<HashMap<NodeId, Arc<Node>>>>;

pub struct Pair {
    pub runtime: tokio::runtime::Runtime,
    pub nodes: Nodes,
    state: Arc<Mutex<View>>,
    ask: mpsc::Sender<Ask>,
    dirs: HashMap<NodeId, PathBuf>,
    ports: HashMap<NodeId, SocketAddr>,
    control: Option<std::thread::JoinHandle<()>>,
    /// The control plane commits nothing that nodes propose.
    deaf: Arc<AtomicBool>,
    runs: u64,
    pub config: DriverConfig,
}

pub const A: NodeId = NodeId(1);
pub const B: NodeId = NodeId(2);

pub fn config() -> DriverConfig {
    let mut config = DriverConfig::default();
    config.journal.segment_size = 16 << 20;
    config.journal.max_segments = 16;
    config
}

impl Pair {
    pub fn new(root: &std::path::Path, bytes: u64, config: DriverConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let state = View {
            revision: Revision(1),
            epoch: Epoch(0),
            primary: None,
            version: InSyncVersion(1),
            in_sync: vec![A, B],
            replicas: vec![A, B],
            blocks: bytes / BLOCK,
            block_size: BlockSize::B4096,
            unit: Default::default(),
            nodes: [A, B]
                .map(|node| NodeState {
                    node,
                    suspect: false,
                    generation: LeaseGeneration(0),
                })
                .to_vec(),
            retiring: Default::default(),
            cache: Default::default(),
            policy: Policy::default(),
        };
        let state = Arc::new(Mutex::new(state));
        let nodes: Nodes = Arc::default();
        let (ask, asked) = mpsc::channel();
        let deaf = Arc::new(AtomicBool::new(false));
        let control = {
            let (state, nodes, deaf) = (Arc::clone(&state), Arc::clone(&nodes), Arc::clone(&deaf));
            std::thread::spawn(move || govern(&asked, &state, &nodes, &deaf))
        };
        let free = || {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            socket.local_addr().unwrap()
        };
        let mut pair = Self {
            runtime,
            nodes,
            state,
            ask,
            dirs: [(A, root.join("a")), (B, root.join("b"))].into(),
            ports: [(A, free()), (B, free())].into(),
            control: Some(control),
            deaf,
            runs: 0,
            config,
        };
        pair.start(A);
        pair.start(B);
        pair.promote(A);
        pair
    }

    pub fn start(&mut self, id: NodeId) {
        self.runs += 1;
        let me = Identity {
            node: id,
            incarnation: Incarnation(self.runs),
        };
        let dir = &self.dirs[&id];
        std::fs::create_dir_all(dir).unwrap();
        let listener = self.runtime.block_on(async {
            loop {
                match tokio::net::TcpListener::bind(self.ports[&id]).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let (tell, answers) = mpsc::channel();
        let parts = Parts {
            me,
            cluster: 77,
            config: self.config.clone(),
            net: NetConfig::default(),
            devices: Vec::new(),
            listeners: vec![listener],
            runtime: self.runtime.handle().clone(),
            front: Arc::new(Answers(tell)),
            proposer: Arc::new(Wishes(self.ask.clone())),
            lease: Arc::new(Lease),
        };
        let node = DataNode::start(dir, parts).unwrap();
        let peers: Vec<PeerAddress> = self
            .ports
            .iter()
            .map(|(node, address)| PeerAddress {
                node: *node,
                addresses: vec![*address],
            })
            .collect();
        node.set_peers(&peers);
        let session = SessionInstance {
            node: id,
            incarnation: me.incarnation,
            serial: 1,
        };
        let node = Arc::new(Node {
            node,
            answers: Mutex::new(answers),
            session,
            next: AtomicU64::new(1),
            early: Mutex::default(),
        });
        self.nodes.lock().unwrap().insert(id, node);
        self.ask.send(Ask::Publish).unwrap();
    }

    /// Drops the node: nothing is flushed on purpose.
    pub fn kill(&self, id: NodeId) {
        let node = self.nodes.lock().unwrap().remove(&id).unwrap();
        // The control thread may be inside it for a moment.
        let mut node = node;
        loop {
            match Arc::try_unwrap(node) {
                Ok(node) => break drop(node),
                Err(back) => node = back,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Drops both, one right after the other, with nobody left to decide anything in between.
    pub fn kill_both(&self, first: NodeId) {
        self.deaf.store(true, Ordering::SeqCst);
        self.kill(first);
        self.kill(if first == A { B } else { A });
        self.deaf.store(false, Ordering::SeqCst);
    }

    pub fn promote(&self, id: NodeId) {
        self.ask.send(Ask::Promote(id)).unwrap();
    }

    pub fn node(&self, id: NodeId) -> Arc<Node> {
        Arc::clone(&self.nodes.lock().unwrap()[&id])
    }

    pub fn view(&self) -> View {
        self.state.lock().unwrap().clone()
    }

    pub fn wait(&self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            if start.elapsed() > limit {
                let nodes = self.nodes.lock().unwrap();
                let all: Vec<_> = nodes.values().map(|node| node.node.statuses()).collect();
                panic!(
                    "{what}: not within {limit:?}; state {:?}, nodes {all:#?}",
                    self.view()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn wait_serving(&self, id: NodeId) {
        self.wait("serving", Duration::from_secs(20), |pair| {
            let status = pair.node(id).node.status(EXTENT);
            status.is_some_and(|status| status.core.role == RoleName::Primary)
        });
    }

    pub fn wait_in_sync(&self) {
        self.wait("both in sync", Duration::from_secs(60), |pair| {
            pair.view().in_sync.len() == 2
        });
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.ask.send(Ask::End);
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
        let nodes: Vec<_> = self.nodes.lock().unwrap().drain().collect();
        drop(nodes);
    }
}

impl Node {
    pub fn submit(&self, op: BlockOp) -> OpId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let request = Request {
            name: CommandName {
                session: self.session,
                cmd_sn: number,
            },
            received: now(),
            generation: LeaseGeneration(0),
            origin: Default::default(),
            op,
        };
        self.node.submit(EXTENT, OpId(number), request).unwrap();
        OpId(number)
    }

    pub fn hold(&self) {
        self.node.hold();
    }

    pub fn release(&self) {
        self.node.release();
    }

    pub fn wait(&self, op: OpId) -> OpOutcome {
        let answers = self.answers.lock().unwrap();
        if let Some(outcome) = self.early.lock().unwrap().remove(&op) {
            return outcome;
        }
        loop {
            let (other, outcome) = answers.recv_timeout(Duration::from_secs(20)).expect("an answer");
            if other == op {
                return outcome;
            }
            self.early.lock().unwrap().insert(other, outcome);
        }
    }

    pub fn write(&self, lba: u64, data: Bytes) -> OpOutcome {
        self.wait(self.submit(write(lba, data)))
    }

    pub fn read(&self, lba: u64, blocks: u64) -> OpOutcome {
        let range = BlockRange::new(Lba(lba), blocks).unwrap();
        self.wait(self.submit(BlockOp::Read { range }))
    }
}

pub fn write(lba: u64, data: Bytes) -> BlockOp {
    BlockOp::Write {
        range: BlockRange::new(Lba(lba), data.len() as u64 / BLOCK).unwrap(),
        data,
        fua: false,
    }
}

/// The control plane: one change after the other, then everybody hears of it.
fn govern(asked: &mpsc::Receiver<Ask>, state: &Mutex<View>, nodes: &Nodes, deaf: &AtomicBool) {
    while let Ok(ask) = asked.recv() {
        let identity = |id: NodeId| nodes.lock().unwrap().get(&id).map(|node| node.node.me());
        {
            let mut view = state.lock().unwrap();
            match ask {
                Ask::Propose(_) if deaf.load(Ordering::SeqCst) => {}
                Ask::Propose(batch) => batch
                    .into_iter()
                    .for_each(|(_, proposal)| decide(&mut view, proposal, &identity)),
                Ask::Promote(id) => {
                    assert!(
                        view.in_sync.contains(&id),
                        "only in-sync replicas are promoted (I5)"
                    );
                    reign(&mut view, identity(id));
                }
                Ask::Publish => {}
                Ask::End => return,
            }
            view.revision = view.revision.next();
        }
        let view = Arc::new(state.lock().unwrap().clone());
        let all: Vec<_> = nodes.lock().unwrap().values().cloned().collect();
        for node in all {
            node.node
                .apply_state(view.revision, &[(EXTENT, Arc::clone(&view))]);
        }
    }
}

fn reign(view: &mut View, primary: Option<Identity>) {
    view.epoch = view.epoch.next();
    view.version = view.version.next();
    view.primary = primary;
}

/// E2.
fn decide(view: &mut View, proposal: Proposal, identity: &dyn Fn(NodeId) -> Option<Identity>) {
    let by_primary = view
        .primary
        .is_some_and(|primary| primary.node == proposal.by.node);
    if proposal.epoch != view.epoch || proposal.version != view.version || !by_primary {
        return;
    }
    let same_run = view.primary == Some(proposal.by);
    match proposal.change {
        Change::Shrink { node } if same_run && node != proposal.by.node => {
            view.in_sync.retain(|member| *member != node);
            view.version = view.version.next();
        }
        Change::Grow { node, .. } if same_run => {
            if !view.in_sync.contains(&node) {
                view.in_sync.push(node);
            }
            view.version = view.version.next();
        }
        Change::GrowVoid if same_run => view.version = view.version.next(),
        Change::Switchover { to } if same_run && view.in_sync.contains(&to.node) => reign(view, Some(to)),
        Change::Reopen if view.in_sync.contains(&proposal.by.node) => reign(view, Some(proposal.by)),
        Change::HandOver => {
            let other = view.in_sync.iter().find(|node| **node != proposal.by.node);
            if let Some(next) = other.and_then(|node| identity(*node)) {
                reign(view, Some(next));
            }
        }
        _ => {}
    }
}
