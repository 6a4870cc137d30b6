//! What one node finds when it looks at itself and at its ways to the others, and how the node that is asked collects it from all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use holdfast_raft::consensus::{Control, Inspected, MeetError, Met, MetMember, Newcomer};
use holdfast_raft::lease::driver::Lease;
use holdfast_raft::lease::probe::Nonce;
use holdfast_raft::model::{Node, NodeAddresses};
use holdfast_types::NodeId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::disk::{self, DiskLook};
use super::echo::Echo;
use super::way::{self, Probed};
use crate::config::NodeConfig;
use crate::front::Registry;

/// A disk that was looked at is not looked at again for so long: checks that come one after the other do not add up.
const DISK_AGAIN: Duration = Duration::from_secs(5);
/// How often the clock of another node is asked for; the fastest answer tells most.
const MEETINGS: u32 = 3;

/// What the nodes talk about over an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Network {
    Raft,
    Heartbeat,
    Replication,
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Raft => "raft",
            Self::Heartbeat => "heartbeat",
            Self::Replication => "replication",
        })
    }
}

/// The way from the node that looked to an address of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Way {
    pub(super) to: String,
    pub(super) network: Network,
    /// Which of several links: 0 for the first, or the only one.
    #[serde(default)]
    pub(super) link: usize,
    pub(super) address: SocketAddr,
    /// Why nobody is reached there.
    pub(super) unreached: Option<String>,
    /// What probes have shown; `None` also where the other end could not be asked to answer any.
    pub(super) probed: Option<Probed>,
    /// Why probes have no answer, though the address is reached.
    pub(super) unprobed: Option<String>,
}

impl Way {
    /// The network, as people call it.
    pub(super) fn label(&self) -> String {
        match self.link {
            0 => self.network.to_string(),
            link => format!("{} link {}", self.network, link + 1),
        }
    }
}

/// Another node's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClockLook {
    pub(super) of: String,
    /// How far it is ahead of the clock of the node that looked.
    pub(super) ahead_us: i64,
    /// How far that may be off, either way.
    pub(super) within_us: u64,
}

/// A host's session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Login {
    pub(super) initiator: String,
    pub(super) target: String,
}

/// All that a node found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct NodeLook {
    pub(super) version: String,
    #[serde(default)]
    pub(super) disk: Option<DiskLook>,
    #[serde(default)]
    pub(super) ways: Vec<Way>,
    #[serde(default)]
    pub(super) clocks: Vec<ClockLook>,
    #[serde(default)]
    pub(super) logins: Vec<Login>,
}

/// Whether a node could be asked.
pub(super) type Looked = Result<NodeLook, MeetError>;

/// Where this node's own ends of its ways are.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    pub(super) heartbeat: IpAddr,
    pub(super) replication: Vec<SocketAddr>,
}

impl Ends {
    pub(super) fn of(config: &NodeConfig) -> Self {
        Self {
            heartbeat: config.listen.heartbeat.ip(),
            replication: config.listen.replication.clone(),
        }
    }
}

/// Looks, on behalf of whoever asks.
pub(crate) struct Looker {
    me: NodeId,
    dir: PathBuf,
    ends: Ends,
    control: Control,
    lease: Lease,
    registry: Arc<Registry>,
    echo: Echo,
    /// One look at the disk at a time.
    disk: tokio::sync::Mutex<Option<(Instant, DiskLook)>>,
}

impl Looker {
    /// Of this node; from now on other members are answered, too.
    pub(crate) fn start(
        config: &NodeConfig,
        me: NodeId,
        control: &Control,
        lease: &Lease,
        registry: Arc<Registry>,
    ) -> Arc<Self> {
        let ends = Ends::of(config);
        let looker = Arc::new(Self {
            me,
            dir: config.dir.clone(),
            echo: Echo::new(ends.replication.clone()),
            ends,
            control: control.clone(),
            lease: lease.clone(),
            registry,
            disk: tokio::sync::Mutex::default(),
        });
        control.set_inspected(Arc::new(Door(Arc::downgrade(&looker))));
        looker
    }

    /// What each member found, by name.
    pub(crate) async fn everywhere(&self) -> BTreeMap<String, Looked> {
        let state = self.control.state();
        let looks = state.nodes.iter().map(|(id, node)| async {
            let looked = if *id == self.me {
                Ok(self.look().await)
            } else {
                self.ask(*id).await
            };
            (node.name.clone(), looked)
        });
        join_all(looks).await.into_iter().collect()
    }

    async fn ask(&self, node: NodeId) -> Looked {
        let json = self.control.look(node).await?;
        serde_json::from_slice(&json)
            .map_err(|error| MeetError::Failed(format!("its answer cannot be read: {error}")))
    }

    /// Looks at this node and its ways.
    pub(super) async fn look(&self) -> NodeLook {
        let state = self.control.state();
        let others = state.nodes.iter().filter(|(id, _)| **id != self.me);
        let ways = join_all(others.map(|(id, node)| self.ways_to(*id, node)));
        let (disk, ways) = tokio::join!(self.look_at_disk(), ways);
        let mut look = NodeLook {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            disk,
            logins: self.logins(),
            ..NodeLook::default()
        };
        for (ways, clock) in ways {
            look.ways.extend(ways);
            look.clocks.extend(clock);
        }
        look
    }

    async fn look_at_disk(&self) -> Option<DiskLook> {
        let mut last = self.disk.lock().await;
        if let Some((at, look)) = &*last
            && at.elapsed() < DISK_AGAIN
        {
            return Some(look.clone());
        }
        let dir = self.dir.clone();
        let look = tokio::task::spawn_blocking(move || disk::look(&dir)).await;
        match look {
            Ok(Ok(look)) => {
                *last = Some((Instant::now(), look.clone()));
                Some(look)
            }
            Ok(Err(error)) => {
                tracing::warn!("{error:#}");
                None
            }
            Err(_) => None,
        }
    }

    fn logins(&self) -> Vec<Login> {
        let sessions = self.registry.sessions().into_iter();
        let login = |initiator, target: Option<String>| target.map(|target| Login { initiator, target });
        sessions
            .filter_map(|session| login(session.initiator, session.target))
            .collect()
    }

    /// Looks at the ways to one that is to join.
    async fn look_back(&self, newcomer: &Newcomer) -> Vec<Way> {
        let Newcomer {
            name,
            addresses,
            nonce,
        } = newcomer;
        let mut ways = ways(&self.ends, name, addresses, &Ok(*nonce)).await;
        // Of a member, the answer over Raft shows that; here a connection does.
        if let Some(raft) = ways.iter_mut().find(|way| way.network == Network::Raft)
            && let Err(error) = way::connect(any_of(addresses.raft), addresses.raft).await
        {
            raft.unreached = Some(error.to_string());
        }
        ways
    }

    async fn ways_to(&self, id: NodeId, node: &Node) -> (Vec<Way>, Option<ClockLook>) {
        let mut met = self.control.meet(id).await;
        for _ in 1..MEETINGS {
            if let Ok(before) = &met
                && let Ok(again) = self.control.meet(id).await
                && again.took < before.took
            {
                met = Ok(again);
            }
        }
        let clock = met.as_ref().ok().map(|met| clock(&node.name, met));
        let ways = ways(&self.ends, &node.name, &node.addresses, &met.map(|met| met.nonce)).await;
        (ways, clock)
    }
}

/// What an answer says of the other clock.
pub(super) fn clock(of: &str, met: &Met) -> ClockLook {
    ClockLook {
        of: of.to_owned(),
        ahead_us: met.ahead_us,
        within_us: u64::try_from(met.took.as_micros() / 2).unwrap_or(u64::MAX),
    }
}

/// Whatever address of this machine the kernel takes towards that one.
fn any_of(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Measures the ways from this node to each address of another one, which answers probes with that number.
pub(super) async fn ways(
    ends: &Ends,
    name: &str,
    addresses: &NodeAddresses,
    nonce: &Result<Nonce, MeetError>,
) -> Vec<Way> {
    let way = |network, address| Way {
        to: name.to_owned(),
        network,
        link: 0,
        address,
        unreached: None,
        probed: None,
        unprobed: None,
    };
    let mut raft = way(Network::Raft, addresses.raft);
    let nonce = match nonce {
        Ok(nonce) => Some(*nonce),
        Err(MeetError::Earlier) => None,
        Err(MeetError::Failed(why)) => {
            raft.unreached = Some(why.clone());
            None
        }
    };
    let heartbeat = async {
        let mut way = way(Network::Heartbeat, addresses.heartbeat);
        if let Some(nonce) = nonce {
            match way::probe(ends.heartbeat, addresses.heartbeat, &nonce).await {
                Ok(probed) => way.probed = Some(probed),
                Err(error) => way.unreached = Some(error.to_string()),
            }
        }
        way
    };
    let links = addresses.replication_links();
    let pairs = links.iter().enumerate().filter_map(|(link, to)| {
        // The k-th address of one node goes with the k-th of the other, where both have as many.
        let local = ends.replication.get(link).or(ends.replication.last())?;
        Some((link, local.ip(), *to))
    });
    let replication = pairs.map(|(link, local, to)| async move {
        let mut way = Way {
            link,
            ..way(Network::Replication, to)
        };
        if let Err(error) = way::connect(local, to).await {
            way.unreached = Some(error.to_string());
            return way;
        }
        if let Some(nonce) = nonce {
            match way::probe(local, to, &nonce).await {
                Ok(probed) => way.probed = Some(probed),
                Err(error) => way.unprobed = Some(error.to_string()),
            }
        }
        way
    });
    let (heartbeat, replication) = tokio::join!(heartbeat, join_all(replication));
    [raft, heartbeat].into_iter().chain(replication).collect()
}

/// Where members' questions come in. It does not keep the looker, which has the control plane, alive.
struct Door(Weak<Looker>);

/// Numbers and texts, which always are a document.
fn json(found: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(found).unwrap_or_default()
}

impl Door {
    /// What the looker has to say; nothing while the node stops.
    fn with<F>(&self, ask: impl FnOnce(Arc<Looker>) -> F) -> BoxFuture<'static, Vec<u8>>
    where
        F: Future<Output = Vec<u8>> + Send + 'static,
    {
        match self.0.upgrade() {
            Some(looker) => ask(looker).boxed(),
            None => futures::future::ready(Vec::new()).boxed(),
        }
    }
}

impl Inspected for Door {
    fn answer(&self, nonce: Nonce) {
        if let Some(looker) = self.0.upgrade() {
            looker.lease.answer_probes(nonce);
            looker.echo.answer(nonce);
        }
    }

    fn members(&self) -> Vec<MetMember> {
        let Some(looker) = self.0.upgrade() else {
            return Vec::new();
        };
        let (state, view) = (looker.control.state(), looker.lease.view());
        let heard = |id: &NodeId| *id == looker.me || view.peers.get(id).is_some_and(|peer| peer.is_heard());
        let member = |(id, node): (&NodeId, &Node)| MetMember {
            name: node.name.clone(),
            role: node.role,
            addresses: node.addresses.clone(),
            heard: heard(id),
        };
        state.nodes.iter().map(member).collect()
    }

    fn look(&self) -> BoxFuture<'static, Vec<u8>> {
        self.with(|looker| async move { json(&looker.look().await) })
    }

    fn look_back(&self, newcomer: Newcomer) -> BoxFuture<'static, Vec<u8>> {
        self.with(|looker| async move { json(&looker.look_back(&newcomer).await) })
    }
}
