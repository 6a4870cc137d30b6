//! Who asks, as the connection has proven it.

use holdfast_trust::{AdminRole, Known, Peer};
use std::fmt;
use tonic::Extensions;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Who may open the socket: root, and the group of its directory. The system tells the user's number.
    Socket(Option<u32>),
    /// Who has a certificate.
    Certificate {
        /// What it lets its owner do.
        role: AdminRole,
        /// Whom it names.
        name: String,
    },
    /// Who has an API token, whatever the connection.
    Token {
        /// What it lets its owner do.
        role: AdminRole,
        /// How it is called.
        name: String,
    },
    /// A user of this machine, where the configuration opens a loopback port to all of them.
    Loopback,
}

impl Caller {
    /// Whose connection it is; `None` where that says nothing.
    pub(crate) fn of(connection: &Extensions) -> Option<Self> {
        if let Some(socket) = connection.get::<UdsConnectInfo>() {
            return Some(Self::Socket(socket.peer_cred.map(|who| who.uid())));
        }
        if let Some(known) = connection.get::<Known>() {
            return match &*known.peer {
                Peer::Admin { role, name } => Some(Self::Certificate {
                    role: *role,
                    name: name.clone(),
                }),
                Peer::Node(_) | Peer::Joiner(_) => None,
            };
        }
        connection.get::<TcpConnectInfo>().map(|_| Self::Loopback)
    }

    /// From where a connection comes, for the audit log.
    pub(crate) fn place(connection: &Extensions) -> String {
        let tcp = connection
            .get::<TcpConnectInfo>()
            .and_then(TcpConnectInfo::remote_addr);
        let from = connection.get::<Known>().map(|known| known.from).or(tcp);
        match from {
            Some(address) => address.to_string(),
            None if connection.get::<UdsConnectInfo>().is_some() => "socket".to_owned(),
            None => String::new(),
        }
    }

    /// What he may do.
    pub(crate) const fn role(&self) -> AdminRole {
        match self {
            Self::Socket(_) | Self::Loopback => AdminRole::Admin,
            Self::Certificate { role, .. } | Self::Token { role, .. } => *role,
        }
    }
}

/// For refusals and logs.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(Some(uid)) => write!(f, "user {uid} on the socket"),
            Self::Socket(None) => f.write_str("a user on the socket"),
            Self::Certificate {
                role: AdminRole::None,
                name,
            } => write!(
                f,
                "'{name}', whose certificate has no role and who shows no API token,"
            ),
            Self::Certificate { role, name } => write!(f, "{role} '{name}'"),
            Self::Token { role, name } => write!(f, "{role} '{name}' (API token)"),
            Self::Loopback => f.write_str("a user of this machine"),
        }
    }
}
