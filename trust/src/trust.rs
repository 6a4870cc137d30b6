//! What this process takes and shows at present, and the two ends of a handshake.

use std::sync::{Arc, PoisonError, RwLock};

use holdfast_types::NodeId;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};
use zeroize::Zeroizing;

use crate::config::{self, Credentials, Port};
use crate::{
    AdminRole, Authority, Generations, HandshakeError, IssueError, Key, MacKeys, Name, check_admin_name,
};

/// A connection that was dialled.
pub type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;
/// A connection that was taken.
pub type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

/// Longest refusal that is read, in bytes.
const REFUSAL_MAX: usize = 1024;

/// Who is at the other end of a connection, proven by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A node, with the names of its certificate: of one cluster, and of what this was before takeovers.
    Node(Vec<Name>),
    /// Somebody who administers.
    Admin {
        /// What he may do.
        role: AdminRole,
        /// How he is called.
        name: String,
    },
    /// Whoever has this token.
    Joiner(String),
}

impl Peer {
    /// Whether it is that node of that cluster.
    pub fn is_node(&self, cluster: u128, node: NodeId) -> bool {
        matches!(self, Self::Node(names) if names.contains(&Name::Node { cluster, node }))
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(names) => {
                let node = names.iter().find(|name| matches!(name, Name::Node { .. }));
                match node {
                    Some(name) => write!(f, "{name}"),
                    None => f.write_str("nobody"),
                }
            }
            Self::Admin { role, name } => write!(f, "{role} '{name}'"),
            Self::Joiner(id) => write!(f, "a node with token {id}"),
        }
    }
}

/// The certificates and keys of a node that belongs to a cluster. Shared by all its ports; renewed in place, which touches no connection
/// that there is.
#[derive(Debug)]
pub struct Trust {
    me: NodeId,
    now: RwLock<Arc<Now>>,
}

#[derive(Debug)]
struct Now {
    key: Key,
    clusters: Vec<u128>,
    generations: Generations,
    authority: Authority,
    clients: [Arc<ClientConfig>; 2],
    servers: [Arc<ServerConfig>; 3],
    macs: Arc<MacKeys>,
}

impl Now {
    fn new(me: NodeId, clusters: &[u128], key: &Key, generations: &Generations) -> Result<Self, IssueError> {
        let authority = Authority::of_cluster(key, &generations.present)?;
        let also = generations
            .also
            .iter()
            .map(|generation| Authority::of_cluster(key, generation))
            .collect::<Result<Vec<_>, _>>()?;
        let names: Vec<Name> = clusters
            .iter()
            .flat_map(|&cluster| [Name::Node { cluster, node: me }, Name::Member { cluster }])
            .collect();
        let leaf = authority.issue(&names, &format!("Holdfast node {me}"))?;
        let roots = || std::iter::once(&authority).chain(&also);
        let client = |port| config::client(port, roots(), &leaf);
        let server = |port| config::server(port, roots(), &leaf);
        let clients = [client(Port::Raft)?, client(Port::Link)?];
        let servers = [server(Port::Raft)?, server(Port::Link)?, server(Port::Admin)?];
        let others = generations.also.iter().map(|other| key.of_heartbeats(other));
        let macs = MacKeys::new(key.of_heartbeats(&generations.present), others);
        Ok(Self {
            key: key.clone(),
            clusters: clusters.to_vec(),
            generations: generations.clone(),
            clients,
            servers,
            macs: Arc::new(macs),
            authority,
        })
    }

    fn client(&self, port: Port) -> Option<Arc<ClientConfig>> {
        match port {
            Port::Raft => Some(Arc::clone(&self.clients[0])),
            Port::Link => Some(Arc::clone(&self.clients[1])),
            Port::Admin => None,
        }
    }

    fn server(&self, port: Port) -> Arc<ServerConfig> {
        let [raft, link, admin] = &self.servers;
        Arc::clone(match port {
            Port::Raft => raft,
            Port::Link => link,
            Port::Admin => admin,
        })
    }
}

impl Trust {
    /// Of node `me` in the cluster `clusters[0]`, which had the other ids before takeovers.
    ///
    /// # Errors
    /// [`IssueError`]: no certificate could be made.
    pub fn new(
        me: NodeId,
        clusters: &[u128],
        key: &Key,
        generations: &Generations,
    ) -> Result<Arc<Self>, IssueError> {
        Ok(Arc::new(Self {
            me,
            now: RwLock::new(Arc::new(Now::new(me, clusters, key, generations)?)),
        }))
    }

    fn now(&self) -> Arc<Now> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on handshakes go by this; connections that there are stay as they are. The same again costs nothing.
    ///
    /// # Errors
    /// [`IssueError`]; everything is then as it was.
    pub fn renew(&self, clusters: &[u128], key: &Key, generations: &Generations) -> Result<(), IssueError> {
        let now = self.now();
        let same =
            now.clusters == clusters && now.generations == *generations && now.key.expose() == key.expose();
        if !same {
            let next = Now::new(self.me, clusters, key, generations)?;
            *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        }
        Ok(())
    }

    /// The cluster key, for a node that joins.
    pub fn key(&self) -> Key {
        self.now().key.clone()
    }

    /// The generations that count here at present.
    pub fn generations(&self) -> Generations {
        self.now().generations.clone()
    }

    /// What heartbeats are authenticated with.
    pub fn macs(&self) -> Arc<MacKeys> {
        Arc::clone(&self.now().macs)
    }

    /// A certificate with which somebody may use the cluster's admin ports as `role` until the next rotation, with its key, as a PEM file.
    ///
    /// # Errors
    /// [`IssueError`]: also where the name is none ([`check_admin_name`]).
    pub fn issue_admin(&self, role: AdminRole, name: &str) -> Result<Zeroizing<String>, IssueError> {
        check_admin_name(name).map_err(IssueError)?;
        let now = self.now();
        let cluster = now.clusters.first().copied().unwrap_or_default();
        let whom = Name::Admin {
            cluster,
            role,
            name: name.to_owned(),
        };
        let leaf = now.authority.issue(&[whom], &format!("Holdfast {role} {name}"))?;
        Ok(now.authority.bundle(&leaf))
    }

    /// Proves to node `to` who this is, and has it prove who it is. The caller bounds the time.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect(
        &self,
        port: Port,
        to: NodeId,
        stream: TcpStream,
    ) -> Result<ClientStream, HandshakeError> {
        let now = self.now();
        let cluster = now.clusters.first().copied().unwrap_or_default();
        let config = now
            .client(port)
            .ok_or_else(|| IssueError("nodes do not dial admin ports".into()))?;
        connect(config, &Name::Node { cluster, node: to }, stream, true).await
    }

    /// The other end of [`Trust::connect`]: whoever is none of ours gets nothing.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept(
        &self,
        port: Port,
        stream: TcpStream,
    ) -> Result<(ServerStream, Peer), HandshakeError> {
        self.accept_with(port, stream, &|_| None).await
    }

    /// The same, and of [`ask_with_token`], where `token` knows the keys of tokens by their ids.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept_with(
        &self,
        port: Port,
        stream: TcpStream,
        token: &(dyn Fn(&str) -> Option<Key> + Send + Sync),
    ) -> Result<(ServerStream, Peer), HandshakeError> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let meant = start.client_hello().server_name().and_then(Name::parse);
        let now = self.now();
        let config = match meant {
            Some(Name::Token { id }) if port == Port::Raft => token_config(&id, token(&id))?,
            _ => now.server(port),
        };
        let mut stream = start.into_stream(config).await?;
        let names = {
            let session = stream.get_ref().1;
            let shown = session.peer_certificates().and_then(|chain| chain.first());
            shown.map(config::names_in).unwrap_or_default()
        };
        let agreed = port.is_agreed(stream.get_ref().1.alpn_protocol());
        let peer = now.judge(port, names).and_then(|peer| {
            let other = || HandshakeError::Tls(rustls::Error::NoApplicationProtocol);
            agreed.then_some(peer).ok_or_else(other)
        });
        // Who administers is answered by its protocol alone.
        if port != Port::Admin {
            let word = peer.as_ref().err().map(|error| now.refusal(self.me, error));
            say(&mut stream, word.as_deref().unwrap_or_default()).await?;
        }
        Ok((stream, peer?))
    }
}

fn token_config(id: &str, key: Option<Key>) -> Result<Arc<ServerConfig>, HandshakeError> {
    let Some(key) = key else {
        return Err(HandshakeError::Refused(format!("token {id} is not known here")));
    };
    let authority = Authority::of_token(&key)?;
    let leaf = authority.issue(&[Name::Token { id: id.to_owned() }], "Holdfast token")?;
    Ok(config::server(Port::Raft, [&authority], &leaf)?)
}

impl Now {
    /// Whether whoever has these names belongs at this port.
    fn judge(&self, port: Port, names: Vec<Name>) -> Result<Peer, HandshakeError> {
        let ours = |cluster: &u128| self.clusters.contains(cluster);
        let current = self.clusters.first().copied().unwrap_or_default();
        match port {
            Port::Admin => {
                let known = names.iter().find_map(|name| match name {
                    Name::Admin { cluster, role, name } if *cluster == current => Some((*role, name.clone())),
                    _ => None,
                });
                match known {
                    Some((role, name)) => Ok(Peer::Admin { role, name }),
                    None => Err(HandshakeError::name("an administrator", names)),
                }
            }
            Port::Raft | Port::Link => {
                if let (Port::Raft, [Name::Token { id }]) = (port, &names[..]) {
                    return Ok(Peer::Joiner(id.clone()));
                }
                let node = |name: &Name| matches!(name, Name::Node { cluster, .. } if ours(cluster));
                if names.iter().any(node) {
                    return Ok(Peer::Node(names));
                }
                Err(HandshakeError::name("a node of this cluster", names))
            }
        }
    }

    fn refusal(&self, me: NodeId, error: &HandshakeError) -> String {
        let cluster = self.clusters.first().copied().unwrap_or_default();
        format!("this is node {me} of cluster {cluster:032x}, and of you it says: {error}")
    }
}

/// Dials a member with a token alone, for the call with which a node joins. `key` is the token's key.
///
/// # Errors
/// [`HandshakeError`].
pub async fn ask_with_token(id: &str, key: &Key, stream: TcpStream) -> Result<ClientStream, HandshakeError> {
    let authority = Authority::of_token(key)?;
    let name = Name::Token { id: id.to_owned() };
    let leaf = authority.issue(std::slice::from_ref(&name), "Holdfast token")?;
    let config = config::client(Port::Raft, [&authority], &leaf)?;
    connect(config, &name, stream, true).await
}

impl Credentials {
    /// Dials an admin port.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect(&self, stream: TcpStream) -> Result<ClientStream, HandshakeError> {
        let name = Name::Member {
            cluster: self.cluster,
        };
        connect(Arc::clone(&self.config), &name, stream, false).await
    }
}

/// With `hears`, the other end says whether it takes this one: in TLS 1.3 a handshake ends here before it has.
async fn connect(
    config: Arc<ClientConfig>,
    name: &Name,
    stream: TcpStream,
    hears: bool,
) -> Result<ClientStream, HandshakeError> {
    let server = ServerName::try_from(name.dns()).map_err(|error| IssueError::of(&error))?;
    let mut stream = TlsConnector::from(config).connect(server, stream).await?;
    if hears {
        hear(&mut stream).await?;
    }
    Ok(stream)
}

/// A word of the side that listens: its length in 16 bits, big endian, then the text. No text: come in.
async fn say(stream: &mut ServerStream, word: &str) -> Result<(), HandshakeError> {
    let cut = word.floor_char_boundary(REFUSAL_MAX);
    let length = u16::try_from(cut).unwrap_or_default();
    let bytes = [&length.to_be_bytes(), &word.as_bytes()[..cut]].concat();
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(())
}

async fn hear(stream: &mut ClientStream) -> Result<(), HandshakeError> {
    let length = usize::from(stream.read_u16().await?);
    if length == 0 {
        return Ok(());
    }
    if length > REFUSAL_MAX {
        return Err(HandshakeError::NotTls);
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await?;
    Err(HandshakeError::Refused(
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

#[cfg(test)]
#[path = "trust_test.rs"]
mod tests;
