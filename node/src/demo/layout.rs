//! Where the demo's nodes live: directories and ports, all of which follow from one directory and one port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use holdfast_types::{ByteSize, EXTENT_BYTES_MAX, EXTENT_BYTES_MIN};

use crate::config::{AdminConfig, Listen, NodeConfig, RaftConfig, ReplicationConfig, Role};

/// The demo's target.
pub(super) const TARGET: &str = "iqn.2026-11.io.holdfast:demo";
/// The demo's extent.
pub(super) const EXTENT: &str = "disk";
/// The demo's cluster.
pub(super) const CLUSTER: &str = "demo";

/// The three nodes, in the order of their ports.
pub(super) const NODES: [(&str, Role); 3] = [("a", Role::Data), ("b", Role::Data), ("w", Role::Witness)];

/// How long processes of an earlier run may take to let go of their ports.
const FREE_WITHIN: Duration = Duration::from_secs(1);

/// Directory, ports and size of a demo.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    base_port: u16,
    pub(super) size: ByteSize,
}

impl Layout {
    /// Checks the size; ports are looked at by [`Layout::check_ports`], just before they are used.
    pub(super) fn new(dir: PathBuf, base_port: u16, size: ByteSize) -> anyhow::Result<Self> {
        let whole = size.0.is_multiple_of(1 << 20);
        ensure!(
            whole && (EXTENT_BYTES_MIN..=EXTENT_BYTES_MAX).contains(&size.0),
            "--size {size}: a whole number of MiB, from {} to {}",
            ByteSize(EXTENT_BYTES_MIN),
            ByteSize(EXTENT_BYTES_MAX)
        );
        Ok(Self { dir, base_port, size })
    }

    fn address(&self, offset: usize) -> SocketAddr {
        // The command line leaves room for ten ports above the base.
        let port = self
            .base_port
            .saturating_add(u16::try_from(offset).unwrap_or(u16::MAX));
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// iSCSI portal of a data node: base port and the next one.
    pub(super) fn portal(&self, index: usize) -> SocketAddr {
        self.address(index)
    }

    /// Admin port: +2 to +4.
    pub(super) fn admin(&self, index: usize) -> SocketAddr {
        self.address(2 + index)
    }

    /// A node's directory.
    pub(super) fn node_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A node's configuration file.
    pub(super) fn config_path(&self, name: &str) -> PathBuf {
        self.node_dir(name).join("node.toml")
    }

    /// The document with the demo's addresses and process ids.
    pub(super) fn document_path(&self) -> PathBuf {
        self.dir.join("demo.json")
    }

    /// Configuration of a node: Raft on +5 to +7, replication on +8 and +9, heartbeats (UDP) on +2 to +4.
    pub(super) fn config(&self, index: usize) -> NodeConfig {
        let (name, role) = NODES[index];
        let data = role == Role::Data;
        NodeConfig {
            name: name.to_owned(),
            role,
            dir: self.node_dir(name),
            listen: Listen {
                raft: self.address(5 + index),
                heartbeat: self.address(2 + index),
                replication: data.then(|| self.address(8 + index)).into_iter().collect(),
                portals: if data {
                    vec![self.portal(index)]
                } else {
                    Vec::new()
                },
            },
            admin: AdminConfig {
                socket: None,
                tcp: Some(self.admin(index)),
                open_loopback: true,
                metrics: None,
            },
            replication: ReplicationConfig::default(),
            raft: RaftConfig::default(),
        }
    }

    /// Another program on one of the ports would be taken for a node. Those of a demo that was killed a moment ago are about to be free.
    pub(super) fn check_ports(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        for index in 0..NODES.len() {
            let listen = self.config(index).listen;
            let tcp = [listen.raft, self.admin(index)].into_iter();
            for address in tcp.chain(listen.replication).chain(listen.portals) {
                until_free(began, address, || TcpListener::bind(address).map(drop))?;
            }
            until_free(began, listen.heartbeat, || {
                UdpSocket::bind(listen.heartbeat).map(drop)
            })?;
        }
        Ok(())
    }

    /// Writes every node's configuration. A directory that was made for other ports is refused: members know each other by address.
    pub(super) fn write_configs(&self) -> anyhow::Result<()> {
        for (index, (name, _)) in NODES.iter().enumerate() {
            let path = self.config_path(name);
            let config = self.config(index);
            if path.exists() {
                let kept = NodeConfig::load(&path)?;
                ensure!(
                    kept.listen == config.listen,
                    "{} was made for other ports (a's portal was {}): give the same --base-port, or another --dir",
                    self.dir.display(),
                    first_portal(&self.config_path("a"))
                );
            }
            std::fs::create_dir_all(self.node_dir(name))?;
            std::fs::write(&path, toml::to_string(&config)?)?;
        }
        Ok(())
    }
}

fn until_free(
    began: Instant,
    address: SocketAddr,
    bind: impl Fn() -> std::io::Result<()>,
) -> anyhow::Result<()> {
    while let Err(error) = bind() {
        ensure!(
            began.elapsed() < FREE_WITHIN,
            "port {} of this machine cannot be used ({error}): give another --base-port",
            address.port()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn first_portal(path: &Path) -> String {
    let portal = NodeConfig::load(path)
        .ok()
        .and_then(|config| config.listen.portals.first().copied());
    portal.map_or_else(|| "unknown".to_owned(), |portal| portal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_from_the_base_and_never_meet() {
        let layout = Layout::new("/tmp/x".into(), 3260, ByteSize(1 << 30)).unwrap();
        assert_eq!(layout.portal(0).port(), 3260);
        assert_eq!(layout.portal(1).port(), 3261);
        let mut tcp = Vec::new();
        for index in 0..3 {
            let config = layout.config(index);
            tcp.extend(config.listen.portals.iter().map(SocketAddr::port));
            tcp.extend(config.listen.replication.iter().map(SocketAddr::port));
            tcp.extend([config.listen.raft.port(), layout.admin(index).port()]);
        }
        tcp.sort_unstable();
        assert_eq!(tcp, (3260..3270).collect::<Vec<u16>>());
    }

    #[test]
    fn written_configurations_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned(), 4000, ByteSize(1 << 30)).unwrap();
        layout.write_configs().unwrap();
        layout.write_configs().unwrap();
        assert_eq!(
            NodeConfig::load(&layout.config_path("b")).unwrap(),
            layout.config(1)
        );
        let other = Layout::new(dir.path().to_owned(), 5000, ByteSize(1 << 30)).unwrap();
        assert!(
            other
                .write_configs()
                .unwrap_err()
                .to_string()
                .contains("127.0.0.1:4000")
        );
    }

    #[test]
    fn a_port_in_use_is_told_before_anything_starts() {
        // Within the range of ten, whatever the port: it is the sixth, a's for Raft.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let layout = Layout::new("/tmp/x".into(), port - 5, ByteSize(1 << 30)).unwrap();
        let error = layout.check_ports().unwrap_err().to_string();
        assert!(error.contains("--base-port"), "{error}");
    }

    #[test]
    fn odd_sizes_are_refused() {
        for size in [0, 4096, (1 << 30) + 512, u64::MAX] {
            assert!(
                Layout::new("/tmp/x".into(), 3260, ByteSize(size)).is_err(),
                "{size}"
            );
        }
    }
}
