//! What the ports between nodes and the admin port say to whom, what passes on a link's wire, and certificates that change under load.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_drill::initiator::{Dial, Session};
use holdfast_drill::multipath::{MultiPath, Patience};
use holdfast_drill::workload::{self, Plan};
use holdfast_tests::cluster::{self, Demo};
use holdfast_tests::machines::{LONG, Machines, in_sync};
use holdfast_tests::tools::Finished;
use holdfast_tests::{say, seed};
use holdfast_trust::{AdminRole, Generations, HandshakeError, Key, Port, Trust};
use holdfast_types::{Lba, NodeId};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType, recv, socket};
use tokio::time::{Instant, sleep};

const TARGET: &str = "iqn.2026-11.example:tls";
const ADMIN: &str = "[admin]\ntcp = \"ADMIN\"\n";
/// For handshakes on a busy machine.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Ports of the nodes by their offset.
const RAFT: u16 = 1;
const REPLICATION: u16 = 2;
const TCP_ADMIN: u16 = 3;

/// What a member's directory says: its cluster and its key.
fn known(dir: &Path) -> Result<(u128, Key)> {
    let identity: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("identity.json"))?)?;
    let cluster = identity["cluster"].as_str().context("a cluster")?;
    let text = std::fs::read_to_string(dir.join("cluster.key"))?;
    let bytes = |at: usize| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16);
    let mut key = [0; 32];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = bytes(at)?;
    }
    Ok((u128::from_str_radix(cluster, 16)?, Key::new(key)))
}

/// What a port answers to plain bytes, up to the end of the connection or a moment of silence.
fn plain(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    // Cut off in the middle or silent: what came until then counts.
    let _ = stream.read_to_end(&mut answer);
    Ok(answer)
}

async fn admin(address: SocketAddr, certificate: Option<&Path>) -> Result<Finished> {
    let address = address.to_string();
    let mut all = vec!["--admin", &address, "status", "--json"];
    let file = certificate.map(|path| path.to_string_lossy().into_owned());
    if let Some(file) = &file {
        all.extend(["--certificate", file]);
    }
    cluster::holdfast(&all).await
}

/// Every port of every node; for each what it refuses, and that it takes who belongs there: so a port that is dead does not pass.
#[tokio::test(flavor = "multi_thread")]
async fn no_port_but_iscsi_answers_without_a_valid_certificate() -> Result<()> {
    let machines = Machines::trio_with(ADMIN).await?;
    let (cluster, key) = known(&machines.path("a"))?;
    let trust = |me, cluster, key: &Key| Trust::new(NodeId(me), &[cluster], key, &Generations::default());
    let stranger = trust(9, cluster, &Key::new([1; 32]))?;
    let other_cluster = trust(9, cluster + 1, &key)?;
    let member = trust(9, cluster, &key)?;
    for (place, name) in (0..).zip(["a", "b", "w"]) {
        let me = NodeId(u64::from(place) + 1);
        for (offset, port) in [(RAFT, Port::Raft), (REPLICATION, Port::Link)] {
            if name == "w" && port == Port::Link {
                continue;
            }
            let address = machines.address(place, offset);
            for bytes in [
                &b"GET / HTTP/1.1\r\n\r\n"[..],
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                &[0; 64],
            ] {
                let answer = plain(address, bytes)?;
                // At most an alert of TLS, which says that this is not TLS.
                ensure!(
                    answer.len() <= 7 && answer.first().is_none_or(|first| *first == 0x15),
                    "{answer:?}"
                );
            }
            for (who, trust) in [("stranger", &stranger), ("of another cluster", &other_cluster)] {
                let said = trust.dial(port, me, address, HANDSHAKE).await.err();
                let said = said.with_context(|| format!("{who} comes in at {port:?} of {name}"))?;
                ensure!(
                    !matches!(said, HandshakeError::Io(_)),
                    "{who} at {port:?} of {name}: {said}"
                );
            }
            // The right cluster, another node than the one that is meant; and one who has nothing to do with that port.
            let said = member.dial(port, NodeId(77), address, HANDSHAKE).await.err();
            ensure!(
                said.context("somebody else")?
                    .to_string()
                    .contains("was expected")
            );
            let wrong = if port == Port::Raft {
                Port::Link
            } else {
                Port::Raft
            };
            ensure!(member.dial(wrong, me, address, HANDSHAKE).await.is_err());
            member.dial(port, me, address, HANDSHAKE).await?;
        }
        admin_port(&machines, place, &stranger).await?;
    }
    let log = std::fs::read_to_string(machines.path("a.log"))?;
    ensure!(log.contains("a connection to the Raft port was refused"), "{log}");
    Ok(())
}

async fn admin_port(machines: &Machines, place: u8, stranger: &Trust) -> Result<()> {
    let name = ["a", "b", "w"][usize::from(place)];
    let address = machines.address(place, TCP_ADMIN);
    let answer = plain(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
    ensure!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    ensure!(
        admin(address, None).await?.code == Some(1),
        "without a certificate"
    );
    let false_one = machines.path(&format!("false-{name}.pem"));
    std::fs::write(
        &false_one,
        stranger.issue_admin(AdminRole::Admin, "eve")?.as_bytes(),
    )?;
    let said = admin(address, Some(&false_one)).await?;
    ensure!(
        said.code == Some(1) && said.err.contains("authority"),
        "{}",
        said.err
    );
    let good = machines.path(&format!("{name}.pem"));
    let file = good.to_str().context("a path in UTF-8")?;
    machines.ask(name, &["cluster", "certificate", file]).await?;
    let said = admin(address, Some(&good)).await?;
    ensure!(
        said.code == Some(0) && said.out.contains("\"quorum\""),
        "{}{}",
        said.out,
        said.err
    );
    Ok(())
}

/// Counts bytes to and from a TCP port on this machine, and looks for a mark in them.
struct Tap {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(u64, bool)>,
}

impl Tap {
    /// `None` where this process may not look.
    fn new(port: u16, mark: &'static [u8]) -> Result<Option<Self>> {
        /// ETH_P_ALL, in network byte order.
        const ALL: u32 = 0x0003_u16.to_be() as u32;
        let protocol = NonZero::new(ALL).map(Protocol::from_raw);
        let Ok(tap) = socket(AddressFamily::PACKET, SocketType::RAW, protocol) else {
            return Ok(None);
        };
        rustix::net::sockopt::set_socket_recv_buffer_size(&tap, 64 << 20)?;
        let wait = Some(Duration::from_millis(100));
        rustix::net::sockopt::set_socket_timeout(&tap, rustix::net::sockopt::Timeout::Recv, wait)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut bytes, mut found) = (0, false);
            let mut frame = vec![0; 1 << 17];
            while !told.load(Ordering::Relaxed) {
                let Ok((length, _)) = recv(&tap, &mut frame[..], RecvFlags::empty()) else {
                    continue;
                };
                let packet = &frame[..length.min(frame.len())];
                if is_of(packet, port) {
                    bytes += packet.len() as u64;
                    found |= packet.windows(mark.len()).any(|window| window == mark);
                }
            }
            (bytes, found)
        });
        Ok(Some(Self { stop, thread }))
    }

    fn end(self) -> Result<(u64, bool)> {
        std::thread::sleep(Duration::from_millis(500));
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the tap panicked"))
    }
}

/// Whether an Ethernet frame is of TCP over IPv4 from or to that port.
fn is_of(frame: &[u8], port: u16) -> bool {
    let Some(packet) = frame.get(14..) else {
        return false;
    };
    let head = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let ports = packet.get(head..head + 4);
    packet.get(9) == Some(&6)
        && ports.is_some_and(|ports| ports.chunks(2).any(|pair| pair == port.to_be_bytes()))
}

const MARK: &[u8] = b"this-mark-is-written-through-iscsi-and-read-from-the-wire";

/// Writes the mark over and over through iSCSI, while the link is listened to: how much passed there, and whether the mark did.
async fn captured(more: &str) -> Result<Option<(u64, bool)>> {
    /// Of one write; few, with pauses, so that the tap keeps up.
    const BLOCKS: usize = 128;
    const WRITES: usize = 64;
    let machines = Machines::trio_with(more).await?;
    machines
        .ask(
            "a",
            &["extent", "create", "d", "--size", "16MiB", "--replicas", "a,b"],
        )
        .await?;
    machines.ask("a", &["target", "create", TARGET]).await?;
    machines.ask("a", &["lun", "create", TARGET, "d"]).await?;
    machines
        .until("a", "both in sync", |status| in_sync(status) == ["a", "b"])
        .await?;
    let Some(tap) = Tap::new(machines.address(0, REPLICATION).port(), MARK)? else {
        return Ok(None);
    };
    let url = format!("iscsi://{}/{TARGET}/0", machines.portal(0))
        .parse()
        .map_err(anyhow::Error::msg)?;
    let dial = Dial::new(url, "iqn.2026-11.example:host".parse()?, 1);
    // A busy machine may fail over in between; then the next path, or the same again.
    let disk: MultiPath<Session> = MultiPath::connect(vec![dial], Patience::default()).await?;
    let data: Vec<u8> = MARK.iter().copied().cycle().take(BLOCKS * 512).collect();
    let data = Bytes::from(data);
    for round in 0..WRITES as u64 {
        disk.write(Lba(round * BLOCKS as u64), data.clone()).await?;
        sleep(Duration::from_millis(5)).await;
    }
    let (bytes, found) = tap.end()?;
    ensure!(
        // A frame that the tap missed is no fault; hardly anything would be.
        bytes > (BLOCKS * 512 * WRITES / 2) as u64,
        "only {bytes} bytes passed on the link"
    );
    Ok(Some((bytes, found)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_replication_stream_shows_no_payload() -> Result<()> {
    let Some((open, found)) = captured("[replication]\ntls = false\n").await? else {
        say("left out: this process may not look at packets (CAP_NET_RAW)");
        return Ok(());
    };
    ensure!(
        found,
        "on a plain link the mark is there: {open} bytes were looked at"
    );
    let (sealed, found) = captured("").await?.context("it could look a moment ago")?;
    ensure!(!found, "the mark passed on an encrypted link");
    say(&format!(
        "the mark was found in {open} plain bytes, and not in {sealed} encrypted ones"
    ));
    Ok(())
}

/// Waits until no rotation goes on any more, as a node sees it.
async fn rotated(demo: &Demo, name: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let status = demo.status_by(name).await?;
        if !status
            .alarms
            .iter()
            .any(|alarm| alarm.to_string().contains("certificates"))
        {
            return Ok(());
        }
        ensure!(
            start.elapsed() < LONG,
            "the rotation does not end: {:?}\n{}",
            status.alarms,
            demo.logs()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

async fn rotate(demo: &Demo) -> Result<()> {
    let done = cluster::holdfast(&["cluster", "rotate-certificates", "--admin", demo.admin("a")?]).await?;
    ensure!(done.code == Some(0), "{}", done.err);
    Ok(())
}

/// Connections that ended, as the nodes' logs count them.
fn lost(demo: &Demo) -> Result<usize> {
    let mut count = 0;
    for name in ["a", "b"] {
        let log = std::fs::read_to_string(demo.dir().join(name).join("node.log"))?;
        count += log.matches("lost the replication link").count() + log.matches("reset").count();
    }
    Ok(count)
}

/// Several rotations under checked load; then a member that was away for one holds the next one up, and comes back into it.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_rotate_under_load_without_a_lost_connection() -> Result<()> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(LONG).await?;
    let disks = [
        demo.multipath(&["a", "b"]).await?,
        demo.multipath(&["b", "a"]).await?,
    ];
    let load = workload::start(Plan::small(seed::seed("tls")), &disks)?;
    load.served(0, LONG).await?;
    let (before, written) = (lost(&demo)?, load.acknowledged());
    for _ in 0..3 {
        rotate(&demo).await?;
        for name in ["a", "b", "w"] {
            rotated(&demo, name).await?;
        }
    }
    load.served(1, LONG).await?;
    ensure!(lost(&demo)? == before, "a connection was lost\n{}", demo.logs());
    ensure!(load.acknowledged() > written, "writes go on");
    let kept = std::fs::read_to_string(demo.dir().join("w/certificates.json"))?;
    ensure!(kept.contains("\"number\":4"), "{kept}");
    // New connections are of the new generation: a node that starts anew comes in.
    demo.kill("w")?;
    rotate(&demo).await?;
    let status = demo.status_by("a").await?;
    let waits = |alarm: &serde_json::Value| alarm.to_string().contains("waits for w");
    sleep(Duration::from_secs(1)).await;
    ensure!(demo.status_by("a").await?.alarms.iter().any(waits), "{status:?}");
    demo.restart("w").await?;
    for name in ["a", "b", "w"] {
        rotated(&demo, name).await?;
    }
    demo.kill("b")?;
    // Writes go on without it: so it has left the in-sync set, and being in it again means that it is back.
    load.served(0, LONG).await?;
    demo.restart("b").await?;
    demo.wait_in_sync(LONG).await?;
    let (report, verifier) = load.stop().await;
    report.clean().map_err(anyhow::Error::msg)?;
    demo.verify(&verifier).await
}
