//! Nodes for the tests: controls in one process, over loopback ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_trust::{Generations, Key, Trust};
use holdfast_types::NodeId;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{AppliedHook, Config, Control, StartError};
use crate::model::{ClusterId, ClusterState, Command, Init, NewNode, NodeAddresses, Reply, Role};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
/// Generous: the machine may be busy.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// What a node of these clusters proves itself with.
pub(crate) fn trust(node: NodeId, clusters: &[ClusterId]) -> Arc<Trust> {
    let clusters: Vec<u128> = clusters.iter().map(|cluster| cluster.0).collect();
    Trust::new(node, &clusters, &Key::new([7; 32]), &Generations::default()).unwrap()
}

/// A node's directory and address, which outlive its runs.
pub(crate) struct Seat {
    pub(crate) node: NodeId,
    pub(crate) dir: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) snapshot_after: u64,
}

impl Seat {
    pub(crate) fn config(&self) -> Config {
        Config {
            snapshot_after: self.snapshot_after,
            ..Config::new(&self.dir, CLUSTER, self.node, trust(self.node, &[CLUSTER]))
        }
    }

    /// A run on a listener of its own. A directory that is still being let go by the run before is tried again.
    pub(crate) async fn start(&self) -> Result<Control, StartError> {
        self.start_with(Arc::new(|_| {})).await
    }

    /// The same, with something that is told of each applied state.
    pub(crate) async fn start_with(&self, hook: AppliedHook) -> Result<Control, StartError> {
        let mut tries = 0;
        let control = loop {
            match Control::start(self.config(), hook.clone(), Arc::new(|_| {})).await {
                Err(StartError::Io { error, .. })
                    if tries < 100 && error.to_string().contains("already open") =>
                {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => break other?,
            }
        };
        control.serve(self.listen().await);
        Ok(control)
    }

    async fn listen(&self) -> TcpListener {
        for _ in 0..100 {
            match TcpListener::bind(self.address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        panic!("{} stays taken", self.address);
    }
}

/// `count` seats in a fresh directory, on ports that are free.
pub(crate) fn seats(count: u64, snapshot_after: u64) -> (TempDir, Vec<Seat>) {
    let dir = tempfile::tempdir().unwrap();
    // All bound at once, so that no port is given twice.
    let taken: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let seat = |(node, listener): (u64, &std::net::TcpListener)| Seat {
        node: NodeId(node),
        dir: dir.path().join(format!("node{node}")),
        address: listener.local_addr().unwrap(),
        snapshot_after,
    };
    let seats = (1..).zip(&taken).map(seat).collect();
    (dir, seats)
}

pub(crate) fn init(seats: &[Seat]) -> Command {
    let node = |seat: &Seat| NewNode {
        id: seat.node,
        name: format!("n{}", seat.node),
        role: Role::Data,
        addresses: NodeAddresses {
            raft: seat.address,
            replication: Some(seat.address),
            spare_replication: Vec::new(),
            admin: Some(seat.address),
            heartbeat: seat.address,
            portals: vec![SocketAddr::from((
                [127, 0, 0, 1],
                u16::try_from(seat.node.0).unwrap(),
            ))],
        },
    };
    Command::Init(Init {
        name: "test".into(),
        id: CLUSTER,
        nodes: seats.iter().map(node).collect(),
    })
}

/// Starts all and makes them one cluster.
pub(crate) async fn cluster(seats: &[Seat]) -> Vec<Control> {
    let mut controls = Vec::new();
    for seat in seats {
        controls.push(seat.start().await.unwrap());
    }
    let members: BTreeMap<_, _> = seats.iter().map(|seat| (seat.node, seat.address)).collect();
    controls[0].initialize(members).await.unwrap();
    let reply = controls[0].propose(init(seats)).await.unwrap();
    assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    controls
}

pub(crate) fn target(number: usize) -> Command {
    Command::CreateTarget {
        name: format!("iqn.2026-11.example:t{number}").parse().unwrap(),
    }
}

/// Proposes targets and checks each reply.
pub(crate) async fn propose(control: &Control, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let reply = control.propose(target(number)).await.unwrap();
        assert_eq!(reply, Reply::DONE, "target {number}");
    }
}

/// Which of the numbered targets the state has.
pub(crate) fn targets(state: &ClusterState) -> usize {
    state.targets.len()
}

/// Waits until `control` has applied all that is committed.
pub(crate) async fn settle(control: &Control) -> Arc<ClusterState> {
    let index = control.read_index().await.unwrap();
    assert!(
        control.wait_applied(index, LONG).await,
        "{control:?} does not apply {index}"
    );
    control.state()
}

/// Waits until `is` holds.
pub(crate) async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + LONG;
    while !is() {
        assert!(tokio::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The files below `dir` whose names satisfy `wanted`, sorted.
pub(crate) fn files(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && wanted(path.file_name().unwrap().to_str().unwrap()))
        .collect();
    found.sort();
    found
}

/// Turns every bit of the byte at `at` over.
pub(crate) fn flip(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = usize::try_from(at).unwrap();
    bytes[at] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
}
