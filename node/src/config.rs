//! The node's configuration file: only what a node must know before it joins. Everything else is cluster state.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use holdfast_types::REPLICATION_LINKS_MAX;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Votes, and holds replicas and portals.
    Data,
    /// Votes and keeps the cluster state; holds no extents.
    Witness,
}

/// `node.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeConfig {
    /// Name of this node: letters, digits, `-` and `.`; unique in the cluster.
    pub(crate) name: String,
    /// Data node or witness.
    pub(crate) role: Role,
    /// Where everything that this node stores lives.
    pub(crate) dir: PathBuf,
    /// Addresses that this node listens on, and that its peers reach it by.
    pub(crate) listen: Listen,
    /// The admin service.
    #[serde(default)]
    pub(crate) admin: AdminConfig,
    /// Links to other data nodes.
    #[serde(default, skip_serializing_if = "ReplicationConfig::is_default")]
    pub(crate) replication: ReplicationConfig,
    /// The log of the cluster state.
    #[serde(default, skip_serializing_if = "RaftConfig::is_default")]
    pub(crate) raft: RaftConfig,
}

/// Listen addresses. Peers use the same ones, so wildcards are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listen {
    /// Raft, TCP.
    pub(crate) raft: SocketAddr,
    /// Heartbeats, UDP.
    pub(crate) heartbeat: SocketAddr,
    /// Replication and forwarding, TCP: one address, or up to four in order of preference. Data nodes only.
    #[serde(
        default,
        deserialize_with = "one_or_many",
        serialize_with = "as_one_or_many",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) replication: Vec<SocketAddr>,
    /// iSCSI portals. Data nodes only.
    #[serde(default)]
    pub(crate) portals: Vec<SocketAddr>,
}

/// A list, or one address without brackets.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "listen.replication: ADDRESS:PORT in quotes, or a list of such"
)]
enum OneOrMany {
    One(SocketAddr),
    Many(Vec<SocketAddr>),
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(address) => vec![address],
        OneOrMany::Many(addresses) => addresses,
    })
}

/// As one had to be written before there could be several.
fn as_one_or_many<S: serde::Serializer>(addresses: &[SocketAddr], serializer: S) -> Result<S::Ok, S::Error> {
    match addresses {
        [address] => address.serialize(serializer),
        addresses => addresses.serialize(serializer),
    }
}

/// How `holdfast` commands reach this node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminConfig {
    /// Unix socket; default `admin.sock` in the node's directory.
    pub(crate) socket: Option<PathBuf>,
    /// TCP address. Whoever comes there needs an administrator's certificate (`holdfast cluster certificate`).
    pub(crate) tcp: Option<SocketAddr>,
    /// `tcp` is a loopback address, plain, and every user of this machine may administer the cluster through it. For demos and tests.
    #[serde(default)]
    pub(crate) open_loopback: bool,
    /// Address on which a monitoring system may read `/metrics`, and do nothing else. Off by default. Whoever reaches it sees the names of
    /// extents, nodes and initiators.
    pub(crate) metrics: Option<SocketAddr>,
}

/// Links to other data nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplicationConfig {
    /// Links are encrypted, and both ends prove who they are. Off only for measurements, and for wires that nobody else reaches; then on
    /// all data nodes.
    pub(crate) tls: bool,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self { tls: true }
    }
}

impl ReplicationConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The log of the cluster state on this node's disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RaftConfig {
    /// A snapshot is taken after that many entries, [`SNAPSHOT_AFTER`]; about twice as many stay in the log. Default: 2,000.
    pub(crate) snapshot_after: Option<u64>,
}

/// Fewer entries cost a snapshot too often; with more the log grows without need, and a start takes long.
const SNAPSHOT_AFTER: RangeInclusive<u64> = 16..=100_000;

impl RaftConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl NodeConfig {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let config: Self = toml::from_str(&text)
            .with_context(|| format!("{} is not a node configuration", path.display()))?;
        config
            .check()
            .with_context(|| format!("{} cannot be used", path.display()))?;
        Ok(config)
    }

    /// Where the admin socket is.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.admin
            .socket
            .clone()
            .unwrap_or_else(|| self.dir.join("admin.sock"))
    }

    fn check(&self) -> anyhow::Result<()> {
        check_node_name(&self.name)?;
        let listen = &self.listen;
        let mut all = vec![("raft", listen.raft), ("heartbeat", listen.heartbeat)];
        all.extend(listen.replication.iter().map(|address| ("replication", *address)));
        all.extend(listen.portals.iter().map(|address| ("portals", *address)));
        for (field, address) in all {
            ensure!(
                !address.ip().is_unspecified() && address.port() != 0,
                "listen.{field} = {address}: peers and initiators are told this address, so it names one interface and one port"
            );
        }
        match self.role {
            Role::Data => {
                check_replication(&listen.replication)?;
                ensure!(
                    !listen.portals.is_empty(),
                    "a data node needs at least one address in listen.portals"
                );
            }
            Role::Witness => {
                ensure!(
                    listen.replication.is_empty(),
                    "a witness holds no data: leave listen.replication out"
                );
                ensure!(
                    listen.portals.is_empty(),
                    "a witness has no portals: leave listen.portals out"
                );
            }
        }
        if let Some(entries) = self.raft.snapshot_after {
            ensure!(
                SNAPSHOT_AFTER.contains(&entries),
                "raft.snapshot_after = {entries}: from {} to {} entries",
                SNAPSHOT_AFTER.start(),
                SNAPSHOT_AFTER.end()
            );
        }
        ensure!(
            self.admin.metrics.is_none_or(|address| address.port() != 0),
            "admin.metrics needs a port"
        );
        if self.admin.open_loopback {
            ensure!(
                self.admin.tcp.is_none_or(|tcp| tcp.ip().is_loopback()),
                "admin.open_loopback: without certificates the admin service listens on loopback only"
            );
        }
        ensure!(
            self.admin
                .tcp
                .is_none_or(|tcp| !tcp.ip().is_unspecified() && tcp.port() != 0),
            "admin.tcp names one interface and one port: other nodes are told this address"
        );
        Ok(())
    }
}

/// A data node's addresses for replication.
pub(crate) fn check_replication(addresses: &[SocketAddr]) -> anyhow::Result<()> {
    ensure!(!addresses.is_empty(), "a data node needs listen.replication");
    ensure!(
        addresses.len() <= REPLICATION_LINKS_MAX,
        "listen.replication has {} addresses: from 1 to {REPLICATION_LINKS_MAX}",
        addresses.len()
    );
    for (at, address) in addresses.iter().enumerate() {
        ensure!(
            !addresses[..at].iter().any(|other| other.ip() == address.ip()),
            "listen.replication names {} twice: each of its addresses is that of another interface",
            address.ip()
        );
    }
    Ok(())
}

/// A node's name: 1 to 63 letters, digits, `-` and `.`, first and last a letter or digit.
pub(crate) fn check_node_name(name: &str) -> anyhow::Result<()> {
    let edges = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    let inner = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    if name.len() > 63 || !edges || !inner {
        bail!(
            "'{name}' is not a node name: 1 to 63 letters, digits, '-' and '.', first and last a letter or digit"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = r#"
        name = "a"
        role = "data"
        dir = "/tmp/a"
        [listen]
        raft = "127.0.0.1:1"
        heartbeat = "127.0.0.1:1"
        replication = "127.0.0.1:2"
        portals = ["127.0.0.1:3"]
    "#;

    fn check(text: &str) -> Result<(), String> {
        let config: NodeConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_data_node_is_read() {
        assert_eq!(check(DATA), Ok(()));
        let several = "replication = [\"127.0.0.1:2\", \"127.0.0.2:2\"]";
        let several = DATA.replace("replication = \"127.0.0.1:2\"", several);
        assert_eq!(check(&several), Ok(()));
        for more in [
            "[raft]\nsnapshot_after = 16",
            "[replication]\ntls = false",
            "[admin]\ntcp = \"10.0.0.1:4\"",
        ] {
            assert_eq!(check(&format!("{DATA}\n{more}")), Ok(()));
        }
    }

    #[test]
    fn one_replication_address_is_written_as_it_always_was() {
        let config: NodeConfig = toml::from_str(DATA).unwrap();
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("replication = \"127.0.0.1:2\""), "{text}");
        let mut several = config;
        several.listen.replication.push(([127, 0, 0, 2], 2).into());
        let text = toml::to_string(&several).unwrap();
        assert_eq!(toml::from_str::<NodeConfig>(&text).unwrap(), several);
    }

    #[test]
    fn the_installed_example_is_accepted() {
        assert_eq!(check(include_str!("../../deploy/node.toml")), Ok(()));
    }

    #[test]
    fn wrong_input_names_the_field() {
        let replication = |addresses: &str| DATA.replace("\"127.0.0.1:2\"", addresses);
        let cases = [
            (DATA.replace("\"a\"", "\"-a\""), "-a"),
            (DATA.replace("127.0.0.1:2", "0.0.0.0:2"), "listen.replication"),
            (
                DATA.replace("replication = \"127.0.0.1:2\"", ""),
                "listen.replication",
            ),
            (replication("[]"), "listen.replication"),
            (
                replication("[\"127.0.0.1:2\", \"127.0.0.1:3\"]"),
                "127.0.0.1 twice",
            ),
            (replication("[\"127.0.0.1:2\", \"[::]:2\"]"), "listen.replication"),
            (
                replication(
                    "[\"127.0.0.1:2\", \"127.0.0.2:2\", \"127.0.0.3:2\", \"127.0.0.4:2\", \"127.0.0.5:2\"]",
                ),
                "from 1 to 4",
            ),
            (replication("7401"), "a list of such"),
            (DATA.replace("[\"127.0.0.1:3\"]", "[]"), "listen.portals"),
            (DATA.replace("\"data\"", "\"witness\""), "listen.replication"),
            (DATA.replace("dir =", "dri ="), "dri"),
            (format!("{DATA}\n[admin]\ntcp = \"0.0.0.0:4\""), "admin.tcp"),
            (format!("{DATA}\n[replication]\ntsl = true"), "tsl"),
            (
                format!("{DATA}\n[admin]\ntcp = \"10.0.0.1:4\"\nopen_loopback = true"),
                "loopback only",
            ),
            (
                format!("{DATA}\n[raft]\nsnapshot_after = 15"),
                "from 16 to 100000",
            ),
            (
                format!("{DATA}\n[raft]\nsnapshot_after = 100001"),
                "raft.snapshot_after",
            ),
            (format!("{DATA}\n[raft]\nsnapshots = 20"), "snapshots"),
        ];
        for (text, word) in cases {
            let error = check(&text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
