//! The handshake of a link.

use holdfast_proto::replication as pb;
use holdfast_types::{Incarnation, NodeId, REPLICATION_LINKS_MAX};

use super::wire::{halves, join};
use crate::core::api::{Identity, LinkId};

/// Version of the link protocol. Both ends must have the same.
pub const PROTOCOL: u32 = 4;

/// What both ends of a link say first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The cluster, in its present incarnation: a takeover gives it a new id, and peers of the older one are refused.
    pub cluster: u128,
    /// Who speaks.
    pub from: Identity,
    /// Who is meant.
    pub to: NodeId,
    /// The link: chosen by who dials, repeated by who answers.
    pub link: LinkId,
    /// The connection.
    pub lane: LaneHello,
}

/// What a hello says of the connection that it is sent over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneHello {
    /// Pairs of addresses that the link may run over; with at most one the link has one lane and ends with it.
    pub paths: usize,
    /// Which of them this is, from 0.
    pub path: usize,
    /// Its number, as those of links.
    pub lane: u64,
    /// It joins the link of that number, which there is.
    pub joins: bool,
}

/// Why a peer's hello is refused. Sent to it and logged on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It did not say hello first.
    #[error("no hello came first")]
    Missing,
    /// Another release.
    #[error(
        "it speaks version {theirs} of the link protocol, this node {PROTOCOL}: run the same release on both"
    )]
    Protocol {
        /// Its version.
        theirs: u32,
    },
    /// Another cluster, or an earlier incarnation of this one.
    #[error("it belongs to another cluster, or to this one before a takeover")]
    Cluster,
    /// The address leads to another node.
    #[error("it means node {meant}, this is node {this}: check the configured addresses")]
    NotMe {
        /// Who was meant.
        meant: NodeId,
        /// Who is here.
        this: NodeId,
    },
    /// No member, or not who was dialled.
    #[error("node {0} has no business on this link")]
    Stranger(NodeId),
    /// The connection's certificate names somebody else.
    #[error("its certificate does not name node {0} of this cluster")]
    Certificate(NodeId),
    /// The number was used before.
    #[error("link {0} is not newer than the one there is")]
    Stale(u64),
    /// No pair of addresses that there can be.
    #[error("it runs over pair {0} of {1} pairs of addresses: a link has up to {REPLICATION_LINKS_MAX}")]
    Path(usize, usize),
    /// A lane wants to join a link that is no more.
    #[error("link {0} is no more")]
    Gone(u64),
}

impl Hello {
    /// As it travels.
    pub(crate) fn encode(&self) -> pb::Hello {
        let (cluster_high, cluster_low) = halves(self.cluster);
        pb::Hello {
            protocol: PROTOCOL,
            cluster_high,
            cluster_low,
            node: self.from.node.0,
            incarnation: self.from.incarnation.0,
            to: self.to.0,
            link: self.link.0,
            // At most four.
            paths: u32::try_from(self.lane.paths).unwrap_or(u32::MAX),
            path: u32::try_from(self.lane.path).unwrap_or(u32::MAX),
            lane: self.lane.lane,
            joins: self.lane.joins,
        }
    }

    /// Takes a peer's hello, if it is for `me` in `cluster`.
    ///
    /// # Errors
    /// [`Refusal`] names what does not fit.
    pub(crate) fn decode(frame: Option<pb::Frame>, cluster: u128, me: NodeId) -> Result<Self, Refusal> {
        let Some(pb::frame::Kind::Hello(hello)) = frame.and_then(|frame| frame.kind) else {
            return Err(Refusal::Missing);
        };
        if hello.protocol != PROTOCOL {
            return Err(Refusal::Protocol {
                theirs: hello.protocol,
            });
        }
        if join(hello.cluster_high, hello.cluster_low) != cluster {
            return Err(Refusal::Cluster);
        }
        if hello.to != me.0 {
            return Err(Refusal::NotMe {
                meant: NodeId(hello.to),
                this: me,
            });
        }
        if hello.node == me.0 {
            return Err(Refusal::Stranger(me));
        }
        Ok(Self {
            cluster,
            from: Identity {
                node: NodeId(hello.node),
                incarnation: Incarnation(hello.incarnation),
            },
            to: me,
            link: LinkId(hello.link),
            lane: LaneHello::decode(&hello)?,
        })
    }
}

impl LaneHello {
    fn decode(hello: &pb::Hello) -> Result<Self, Refusal> {
        let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let lane = Self {
            paths: number(hello.paths),
            path: number(hello.path),
            lane: hello.lane,
            joins: hello.joins,
        };
        if lane.paths > REPLICATION_LINKS_MAX
            || lane.path >= lane.paths.max(1)
            || (lane.joins && lane.paths < 2)
        {
            return Err(Refusal::Path(lane.path, lane.paths));
        }
        Ok(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster: 7 << 64 | 9,
            from: Identity {
                node: NodeId(1),
                incarnation: Incarnation(u64::MAX),
            },
            to: NodeId(2),
            link: LinkId(3),
            lane: LaneHello {
                paths: 2,
                path: 1,
                lane: 8,
                joins: true,
            },
        }
    }

    fn frame(hello: pb::Hello) -> Option<pb::Frame> {
        Some(pb::Frame {
            kind: Some(pb::frame::Kind::Hello(hello)),
        })
    }

    #[test]
    fn a_fitting_hello_is_taken() {
        let taken = Hello::decode(frame(hello().encode()), hello().cluster, NodeId(2));
        assert_eq!(taken, Ok(hello()));
    }

    #[test]
    fn others_are_refused_by_name() {
        let decode = |hello: pb::Hello| Hello::decode(frame(hello), 7 << 64 | 9, NodeId(2));
        let good = hello().encode();
        let newer = pb::Hello {
            protocol: PROTOCOL + 1,
            ..good
        };
        assert_eq!(decode(newer), Err(Refusal::Protocol { theirs: PROTOCOL + 1 }));
        assert_eq!(
            decode(pb::Hello {
                cluster_low: 8,
                ..good
            }),
            Err(Refusal::Cluster)
        );
        let other = Refusal::NotMe {
            meant: NodeId(3),
            this: NodeId(2),
        };
        assert_eq!(decode(pb::Hello { to: 3, ..good }), Err(other));
        assert_eq!(
            decode(pb::Hello { node: 2, ..good }),
            Err(Refusal::Stranger(NodeId(2)))
        );
        assert_eq!(Hello::decode(None, 0, NodeId(2)), Err(Refusal::Missing));
        // A fifth pair of addresses, one that there is not, and a second connection where there is one pair.
        for (paths, path, joins) in [(5, 0, false), (2, 2, false), (0, 1, false), (1, 0, true)] {
            let lane = pb::Hello {
                paths,
                path,
                joins,
                ..good
            };
            assert!(matches!(decode(lane), Err(Refusal::Path(..))), "{lane:?}");
        }
    }

    /// A release that knows of one connection says nothing of it.
    #[test]
    fn a_hello_of_old_has_one_lane() {
        let old = pb::Hello {
            paths: 0,
            path: 0,
            lane: 0,
            joins: false,
            ..hello().encode()
        };
        let taken = Hello::decode(frame(old), hello().cluster, NodeId(2)).unwrap();
        assert_eq!(taken.lane, LaneHello::default());
    }
}
