use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_raft::consensus::{Config, Control};
use holdfast_raft::model::{ClusterId, ClusterState, Command, Init, NewNode, NodeAddresses, Role};
use holdfast_types::Revision;

use super::*;

const ME: NodeId = NodeId(1);
const OLD: ClusterId = ClusterId(0x01d);
const NEW: ClusterId = ClusterId(0xfe0_0000_0000_0000_0000_0000_0000_0000);

fn asked() -> TakeoverOrder {
    TakeoverOrder {
        before: OLD,
        cluster: NEW,
        node: ME,
        committed: Revision(0),
        at: 1,
        by: "test".into(),
    }
}

fn node(id: u64, raft: SocketAddr) -> NewNode {
    NewNode {
        id: NodeId(id),
        name: format!("n{id}"),
        role: Role::Data,
        addresses: NodeAddresses {
            raft,
            replication: Some(raft),
            spare_replication: Vec::new(),
            admin: None,
            heartbeat: raft,
            portals: vec![raft],
        },
    }
}

async fn run(dir: &Path, cluster: ClusterId) -> anyhow::Result<Control> {
    let key = holdfast_trust::Key::new([7; 32]);
    let trust = holdfast_trust::Trust::new(ME, &[cluster.0], &key, &holdfast_trust::Generations::default())?;
    let mut config = Config::new(dir.join("raft"), cluster, ME, trust);
    config.expect_log = Identity::new(cluster, ME).was_member(dir);
    Ok(Control::start(config, Arc::new(|_| {}), Arc::new(|_| {})).await?)
}

/// A node's directory as its run leaves it, with a target in its state.
async fn used(dir: &Path) {
    let identity = Identity::new(OLD, ME);
    identity.store(dir).unwrap();
    let control = run(dir, OLD).await.unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], 9).into();
    control.initialize(BTreeMap::from([(ME, address)])).await.unwrap();
    let init = Init {
        name: "test".into(),
        id: OLD,
        nodes: vec![node(1, address)],
    };
    control.propose(Command::Init(init)).await.unwrap();
    let name = "iqn.2026-11.example:t".parse().unwrap();
    control.propose(Command::CreateTarget { name }).await.unwrap();
    identity.note_member(dir).unwrap();
    control.shutdown().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

/// Starts the node's control plane as what its directory says it is.
async fn state_of(dir: &Path) -> ClusterState {
    let identity = Identity::load(dir).unwrap().unwrap();
    let control = run(dir, identity.cluster).await.unwrap();
    let index = control.newest_state().revision;
    assert!(
        control
            .wait_applied(index, std::time::Duration::from_secs(30))
            .await
    );
    let state = ClusterState::clone(&control.state());
    control.shutdown().await;
    state
}

/// Soon after [`asked`].
fn soon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(60)
}

fn ordered(dir: &Path, asked: &TakeoverOrder) -> anyhow::Result<()> {
    order(dir, asked, BTreeMap::new())
}

/// How far a start came before it was killed.
type Killed = fn(&Places, &TakeoverOrder);

fn steps(count: usize, places: &Places, order: &TakeoverOrder) {
    for _ in 0..count {
        let step = next_step(places, order).unwrap();
        take(step, places, order).unwrap();
    }
}

/// T3: wherever a start is killed, the next one ends what was ordered, and the node is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t3_a_start_that_is_killed_anywhere_is_finished_by_the_next() {
    let home = tempfile::tempdir().unwrap();
    let made = home.path().join("made");
    std::fs::create_dir(&made).unwrap();
    used(&made).await;
    let before = state_of(&made).await;
    let killed: [(&str, Killed); 8] = [
        ("before anything", |_, _| {}),
        ("while the log is written", |places, _| {
            std::fs::create_dir_all(places.next.join("log")).unwrap();
            std::fs::write(places.next.join("log/segment-0000000000000001"), b"HFjrn").unwrap();
        }),
        ("with the log written", |places, order| {
            drop(begin_incarnation(&places.raft, &places.next, order).unwrap());
        }),
        ("with the old log put aside", |places, order| {
            steps(1, places, order)
        }),
        ("with the new log in its place", |places, order| {
            steps(2, places, order)
        }),
        ("with the member noted", |places, order| {
            steps(2, places, order);
            Identity::new(order.cluster, order.node)
                .renew_member(&places.dir)
                .unwrap();
        }),
        ("with the identity changed", |places, order| {
            steps(3, places, order)
        }),
        ("done", |places, order| steps(4, places, order)),
    ];
    for (number, (what, kill)) in killed.iter().enumerate() {
        let dir = home.path().join(number.to_string());
        copy(&made, &dir);
        finish(&dir, soon()).unwrap();
        assert_eq!(
            state_of(&dir).await.cluster.unwrap().id,
            OLD,
            "nothing is ordered"
        );
        ordered(&dir, &asked()).unwrap();
        assert!(ordered(&dir, &asked()).is_err(), "it is ordered once");
        kill(&Places::new(&dir, &asked()), &asked());
        finish(&dir, soon()).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert_eq!(
            Identity::load(&dir).unwrap(),
            Some(Identity::new(NEW, ME)),
            "{what}"
        );
        assert!(read(&dir).unwrap().is_none(), "{what}");
        let state = state_of(&dir).await;
        assert_eq!(state.takeovers.len(), 1, "{what}");
        assert_eq!(state.targets, before.targets, "{what}");
        assert_eq!(state.cluster.unwrap().id, NEW, "{what}");
        assert!(dir.join("raft.before-takeover-0fe00000").is_dir(), "{what}");
        assert!(!dir.join("raft.next").exists(), "{what}");
        finish(&dir, soon()).unwrap();
    }
}

/// T3: an order that cannot be carried out leaves everything as it was, also for a start without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t3_an_order_for_somebody_else_is_refused_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    used(dir).await;
    let other = TakeoverOrder {
        before: ClusterId(3),
        ..asked()
    };
    ordered(dir, &other).unwrap();
    let why = format!("{:#}", finish(dir, soon()).unwrap_err());
    assert!(why.contains("not for this node") && !why.contains('\n'), "{why}");
    std::fs::write(order_file(dir), b"{").unwrap();
    let why = format!("{:#}", finish(dir, soon()).unwrap_err());
    assert!(why.contains("damaged"), "{why}");
    std::fs::remove_file(order_file(dir)).unwrap();
    assert_eq!(state_of(dir).await.cluster.unwrap().id, OLD);
}

/// T3: an order of which any bit has flipped is none, and the node stays out until somebody has looked at it.
#[test]
fn t3_j1_an_order_with_a_flipped_bit_is_damaged() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let others = BTreeMap::from([("b".to_owned(), SocketAddr::from(([127, 0, 0, 1], 9)))]);
    order(dir, &asked(), others).unwrap();
    let sound = std::fs::read(order_file(dir)).unwrap();
    assert_eq!(read(dir).unwrap().unwrap().order, asked());
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(order_file(dir), bytes).unwrap();
        let why = format!("{:#}", read(dir).unwrap_err());
        assert!(
            why.contains("is damaged") && !why.contains('\n'),
            "bit {bit}: {why}"
        );
    }
    let newer = String::from_utf8(sound)
        .unwrap()
        .replace("\"format\":1", "\"format\":2");
    std::fs::write(order_file(dir), summed(newer.lines().next().unwrap())).unwrap();
    let why = format!("{:#}", read(dir).unwrap_err());
    assert!(why.contains("newer version"), "{why}");
}

/// T3: a machine that lost power right after the order, and is started when others have served for days, changes nothing and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t3_an_order_is_void_once_it_is_old_or_somebody_is_there() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    used(dir).await;
    let day = Duration::from_secs(86_400);
    ordered(dir, &asked()).unwrap();
    finish(dir, soon() + day).unwrap();
    assert!(read(dir).unwrap().is_none(), "it is withdrawn");
    assert_eq!(state_of(dir).await.cluster.unwrap().id, OLD);

    let there = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let others = BTreeMap::from([("b".to_owned(), there.local_addr().unwrap())]);
    order(dir, &asked(), others.clone()).unwrap();
    finish(dir, soon()).unwrap();
    assert!(read(dir).unwrap().is_none(), "it is withdrawn");
    assert_eq!(state_of(dir).await.cluster.unwrap().id, OLD);

    // What was begun is finished whenever that is.
    order(dir, &asked(), others).unwrap();
    steps(1, &Places::new(dir, &asked()), &asked());
    finish(dir, soon() + day).unwrap();
    assert_eq!(state_of(dir).await.cluster.unwrap().id, NEW);
}
