//! Whom a certificate names, as a DNS name in it (the subject alternative name).

use std::fmt;

use holdfast_types::NodeId;

use crate::{AdminRole, check_admin_name};

/// RFC 6762 and ICANN leave `.internal` to whoever uses it inside: no such name is ever looked up.
const DOMAIN: &str = ".holdfast.internal";

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// A node of a cluster.
    Node {
        /// The cluster's id.
        cluster: u128,
        /// The node.
        node: NodeId,
    },
    /// Any node of a cluster: what who administers it expects.
    Member {
        /// The cluster's id.
        cluster: u128,
    },
    /// Somebody who administers a cluster.
    Admin {
        /// The cluster's id.
        cluster: u128,
        /// What he may do.
        role: AdminRole,
        /// How he is called: [`check_admin_name`].
        name: String,
    },
    /// Whoever has a token, on both sides.
    Token {
        /// The token's id: letters and digits.
        id: String,
    },
}

impl Name {
    /// As it stands in a certificate.
    pub fn dns(&self) -> String {
        match self {
            Self::Node { cluster, node } => format!("node-{}.{cluster:032x}{DOMAIN}", node.0),
            Self::Member { cluster } => format!("member.{cluster:032x}{DOMAIN}"),
            Self::Admin { cluster, role, name } => format!("{role}-{name}.{cluster:032x}{DOMAIN}"),
            Self::Token { id } => format!("join-{id}{DOMAIN}"),
        }
    }

    /// Reads what [`Self::dns`] wrote, and nothing else.
    pub fn parse(dns: &str) -> Option<Self> {
        let head = dns.strip_suffix(DOMAIN)?;
        let name = match head.split_once('.') {
            Some((first, cluster)) => {
                let cluster = u128::from_str_radix(cluster, 16).ok()?;
                match first {
                    "member" => Self::Member { cluster },
                    other => match other.split_once('-')? {
                        ("node", number) => Self::Node {
                            cluster,
                            node: NodeId(number.parse().ok()?),
                        },
                        (role, name) => Self::Admin {
                            cluster,
                            role: role.parse().ok()?,
                            name: check_admin_name(name).ok().map(|()| name.to_owned())?,
                        },
                    },
                }
            }
            None => Self::Token {
                id: head.strip_prefix("join-")?.to_owned(),
            },
        };
        (name.dns() == dns).then_some(name)
    }
}

/// For people.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { cluster, node } => write!(f, "node {node} of cluster {cluster:032x}"),
            Self::Member { cluster } => write!(f, "a member of cluster {cluster:032x}"),
            Self::Admin { cluster, role, name } => write!(f, "{role} '{name}' of cluster {cluster:032x}"),
            Self::Token { id } => write!(f, "whoever has token {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_nothing_else_does() {
        let (cluster, node) = (u128::MAX - 7, NodeId(u64::MAX));
        for name in [
            Name::Node { cluster, node },
            Name::Node {
                cluster: 1,
                node: NodeId(1),
            },
            Name::Member { cluster },
            Name::Admin {
                cluster,
                role: AdminRole::Operator,
                name: "jane-doe".into(),
            },
            Name::Admin {
                cluster,
                role: AdminRole::Viewer,
                name: "n".repeat(crate::ADMIN_NAME_MAX),
            },
            Name::Token {
                id: "00ff00ff00ff00ff".into(),
            },
        ] {
            let dns = name.dns();
            assert!(dns.split('.').all(|label| label.len() <= 63), "{dns}");
            assert_eq!(Name::parse(&dns), Some(name));
        }
        let good = Name::Node {
            cluster: 1,
            node: NodeId(1),
        }
        .dns();
        for bad in [
            String::new(),
            good.replace("node-1", "node-01"),
            good.replace("node-1", "node-+1"),
            good.replacen(".0", ".", 1),
            good.replace("internal", "example"),
            format!("x.{good}"),
            good.replace("node-1", "admin"),
            good.replace("node-1", "root-jane"),
            good.replace("node-1", "viewer--jane"),
        ] {
            assert_eq!(Name::parse(&bad), None, "{bad}");
        }
    }
}
