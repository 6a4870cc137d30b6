//! What can be done to a cluster, in the terms of its machines.

use std::fmt;

use serde::Serialize;

/// A machine of the ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The first data node.
    A,
    /// The second one.
    B,
    /// The witness.
    W,
    /// Where the initiators are.
    Host,
}

impl Place {
    /// Those that run a node.
    pub const NODES: [Self; 3] = [Self::A, Self::B, Self::W];

    /// Its name: of the node, and of the machine.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::W => "w",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// In which direction nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// In both.
    Both,
    /// What the first one sends is lost.
    Out,
    /// What the first one would hear is lost.
    In,
}

impl Way {
    const fn words(self) -> &'static str {
        match self {
            Self::Both => "both ways",
            Self::Out => "outwards",
            Self::In => "inwards",
        }
    }
}

/// A failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// One link is cut.
    Cut {
        /// One end, which `way` is told of.
        at: Place,
        /// The other end.
        from: Place,
        /// Which way.
        way: Way,
    },
    /// All links of a machine are cut, or with `way` half of each.
    Isolate {
        /// Whose.
        at: Place,
        /// Which way.
        way: Way,
    },
    /// A node's links to the other nodes are cut, or with `way` half of each; initiators go on reaching it.
    Sever {
        /// Whose.
        at: Place,
        /// Which way.
        way: Way,
    },
    /// A machine hears no more than so much.
    Slow {
        /// Which.
        at: Place,
        /// Bytes a second.
        rate: u64,
    },
    /// `kill -9` of a node, which is started again in the end.
    Kill {
        /// Which.
        at: Place,
    },
    /// A node's process is stopped (SIGSTOP), and goes on in the end: its clocks have jumped then.
    Freeze {
        /// Which.
        at: Place,
    },
    /// Every write to a node's data disk hangs.
    HangDisk {
        /// Whose.
        at: Place,
    },
    /// A node's data disk has no room.
    FillDisk {
        /// Whose.
        at: Place,
    },
    /// An administrator moves the extent to that node; it may be refused.
    Switchover {
        /// Where to.
        to: Place,
    },
}

impl Fault {
    /// What kind it is, for counts.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Cut { way: Way::Both, .. } => "link cut",
            Self::Cut { .. } => "link cut one way",
            Self::Isolate { way: Way::Both, .. } => "machine cut off",
            Self::Isolate { .. } => "machine cut off one way",
            Self::Sever { way: Way::Both, .. } => "node cut off from nodes",
            Self::Sever { .. } => "node cut off from nodes one way",
            Self::Slow { .. } => "slow network",
            Self::Kill { .. } => "kill -9",
            Self::Freeze { .. } => "freeze",
            Self::HangDisk { .. } => "disk that hangs",
            Self::FillDisk { .. } => "full disk",
            Self::Switchover { .. } => "switchover",
        }
    }

    /// Links that nothing passes while it lasts: from where, to where.
    pub fn cuts(self) -> Vec<(Place, Place)> {
        let link = |at: Place, other: Place, way: Way| match way {
            Way::Both => vec![(at, other), (other, at)],
            Way::Out => vec![(at, other)],
            Way::In => vec![(other, at)],
        };
        let links = |at: Place, others: &[Place], way: Way| -> Vec<_> {
            let others = others.iter().filter(|other| **other != at);
            others.flat_map(|other| link(at, *other, way)).collect()
        };
        match self {
            Self::Cut { at, from, way } => link(at, from, way),
            Self::Isolate { at, way } => links(at, &[Place::A, Place::B, Place::W, Place::Host], way),
            Self::Sever { at, way } => links(at, &Place::NODES, way),
            _ => Vec::new(),
        }
    }

    /// What two faults at the same time must not both be about.
    pub(super) fn subject(self) -> Subject {
        match self {
            Self::Cut { at, from, .. } => Subject::Link(at.min(from), at.max(from)),
            Self::Isolate { at, .. } | Self::Sever { at, .. } => Subject::Machine(at),
            Self::Slow { at, .. } => Subject::Speed(at),
            // A process whose disk hangs can be neither killed nor started.
            Self::Kill { at } | Self::Freeze { at } | Self::HangDisk { at } | Self::FillDisk { at } => {
                Subject::Node(at)
            }
            Self::Switchover { .. } => Subject::Administrator,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Link(Place, Place),
    Machine(Place),
    Speed(Place),
    Node(Place),
    Administrator,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut {
                at,
                from,
                way: Way::Both,
            } => write!(f, "{at} and {from} cut off from each other"),
            Self::Cut {
                at,
                from,
                way: Way::Out,
            } => write!(f, "nothing passes from {at} to {from}"),
            Self::Cut {
                at,
                from,
                way: Way::In,
            } => write!(f, "nothing passes from {from} to {at}"),
            Self::Isolate { at, way } => write!(f, "{at} cut off from all, {}", way.words()),
            Self::Sever { at, way } => write!(f, "{at} cut off from the other nodes, {}", way.words()),
            Self::Slow { at, rate } => write!(f, "{at} hears {} KiB/s at most", rate / 1024),
            Self::Kill { at } => write!(f, "kill -9 of {at}"),
            Self::Freeze { at } => write!(f, "freeze of {at}"),
            Self::HangDisk { at } => write!(f, "the disk of {at} hangs"),
            Self::FillDisk { at } => write!(f, "the disk of {at} is full"),
            Self::Switchover { to } => write!(f, "switchover to {to}"),
        }
    }
}
