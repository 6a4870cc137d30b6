//! The two datagrams: heartbeat and acknowledgement.
//!
//! Layout (version 2), all numbers big-endian: `H F`, version, kind, cluster (u64), from, to, incarnation, then what the kind has, then a
//! keyed hash (BLAKE3, 32 bytes) over everything before it, which only members can make. A datagram that is anything else is refused as a
//! whole. Nothing in it is secret.

use holdfast_trust::{MAC_LEN, MacKeys};
use holdfast_types::{Incarnation, LeaseGeneration, NODES_MAX, NodeId, Revision, SuspicionId};

/// No datagram is longer, in bytes: it fits any path without fragments.
pub const DATAGRAM_MAX: usize = 512;

const VERSION: u8 = 2;
const KIND_HEARTBEAT: u8 = 1;
const KIND_ACK: u8 = 2;

/// How long ago the sender of a heartbeat heard somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hearing {
    /// Whom.
    pub node: NodeId,
    /// Milliseconds since anything came from there; `u16::MAX` for that long or never.
    pub heard_ms: u16,
    /// Milliseconds since an acknowledgement came from there, which shows both ways to work; `u16::MAX` for that long or never.
    pub both_ms: u16,
}

/// A voter's word that its promises to a suspect have run out (L3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunOut {
    /// The suspect.
    pub node: NodeId,
    /// The suspicion that the voter has applied.
    pub suspicion: SuspicionId,
}

/// What every voter sends to every other one all the time (L1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// [`crate::model::ClusterId::short`].
    pub cluster: u64,
    /// The sender.
    pub from: NodeId,
    /// Whom it is for.
    pub to: NodeId,
    /// The sender's run.
    pub incarnation: Incarnation,
    /// Counts the sender's heartbeats of this run; the acknowledgement names it, and the sender knows when it sent which.
    pub seq: u64,
    /// The sender's own lease generation, as it has applied it.
    pub generation: LeaseGeneration,
    /// The lease time L that the sender counts with, in milliseconds.
    pub lease_ms: u32,
    /// What the sender has applied.
    pub revision: Revision,
    /// The newest voter set that the sender knows (L8).
    pub voter_set: u64,
    /// The sender's Raft term.
    pub term: u64,
    /// Who leads, as far as the sender knows.
    pub leader: Option<NodeId>,
    /// Whom the sender hears. At most [`NODES_MAX`].
    pub hears: Vec<Hearing>,
    /// Promises that have run out. At most [`NODES_MAX`].
    pub run_out: Vec<RunOut>,
}

/// The immediate answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// [`crate::model::ClusterId::short`].
    pub cluster: u64,
    /// The voter that answers.
    pub from: NodeId,
    /// Who sent the heartbeat.
    pub to: NodeId,
    /// The voter's run.
    pub incarnation: Incarnation,
    /// The run that sent the heartbeat.
    pub of_incarnation: Incarnation,
    /// Which heartbeat.
    pub of_seq: u64,
    /// Whether it is a promise (L2). Without, it only says that the voter is there.
    pub promise: bool,
    /// The sender's lease generation as the voter has applied it.
    pub generation: LeaseGeneration,
    /// The newest voter set that the voter knows (L8).
    pub voter_set: u64,
}

/// Either of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// See [`Heartbeat`].
    Heartbeat(Heartbeat),
    /// See [`Ack`].
    Ack(Ack),
}

/// Why some bytes are no datagram of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Too short, too long, or the lists do not fill it.
    #[error("the length does not fit the contents")]
    Length,
    /// Other magic bytes.
    #[error("not a heartbeat datagram")]
    Magic,
    /// A version that is not spoken here.
    #[error("heartbeat version {0} is not spoken here")]
    Version(u8),
    /// Unknown kind, flag or list length.
    #[error("a field has a value that is not allowed")]
    Field,
    /// Damaged on the way, or not from a member.
    #[error("no member has signed it so")]
    Mac,
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Length)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_be_bytes)
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, WireError>) -> Result<Vec<T>, WireError> {
        let count = usize::from(self.u8()?);
        if count > NODES_MAX {
            return Err(WireError::Field);
        }
        (0..count).map(|_| item(self)).collect()
    }
}

impl Datagram {
    /// Who sent it, and whom it is for.
    pub const fn parties(&self) -> (NodeId, NodeId) {
        match self {
            Self::Heartbeat(heartbeat) => (heartbeat.from, heartbeat.to),
            Self::Ack(ack) => (ack.from, ack.to),
        }
    }

    /// Who sent it, as it says.
    pub const fn from(&self) -> NodeId {
        match self {
            Self::Heartbeat(heartbeat) => heartbeat.from,
            Self::Ack(ack) => ack.from,
        }
    }

    /// The bytes, at most [`DATAGRAM_MAX`]. Lists are cut at [`NODES_MAX`].
    pub fn encode(&self, keys: &MacKeys) -> Vec<u8> {
        let mut out = Vec::with_capacity(DATAGRAM_MAX);
        match self {
            Self::Heartbeat(heartbeat) => put_heartbeat(&mut out, heartbeat),
            Self::Ack(ack) => put_ack(&mut out, ack),
        }
        let mac = keys.sign(&out);
        out.extend(mac);
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`WireError`]; the datagram is then to be dropped.
    pub fn decode(bytes: &[u8], keys: &MacKeys) -> Result<Self, WireError> {
        if bytes.len() > DATAGRAM_MAX {
            return Err(WireError::Length);
        }
        let (body, mac) = bytes.split_last_chunk::<MAC_LEN>().ok_or(WireError::Length)?;
        let mut reader = Reader(body);
        let [m0, m1, version, kind] = reader.take()?;
        if [m0, m1] != *b"HF" {
            return Err(WireError::Magic);
        }
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        if !keys.verify(body, mac) {
            return Err(WireError::Mac);
        }
        let datagram = match kind {
            KIND_HEARTBEAT => Self::Heartbeat(get_heartbeat(&mut reader)?),
            KIND_ACK => Self::Ack(get_ack(&mut reader)?),
            _ => return Err(WireError::Field),
        };
        if reader.0.is_empty() {
            Ok(datagram)
        } else {
            Err(WireError::Length)
        }
    }
}

fn put_heads(out: &mut Vec<u8>, kind: u8, heads: [u64; 4]) {
    out.extend(*b"HF");
    out.extend([VERSION, kind]);
    put(out, &heads);
}

fn put(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend(number.to_be_bytes());
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) -> usize {
    let cut = count.min(NODES_MAX);
    out.push(u8::try_from(cut).expect("NODES_MAX fits a byte"));
    cut
}

fn put_heartbeat(out: &mut Vec<u8>, h: &Heartbeat) {
    put_heads(
        out,
        KIND_HEARTBEAT,
        [h.cluster, h.from.0, h.to.0, h.incarnation.0],
    );
    put(out, &[h.seq, h.generation.0]);
    out.extend(h.lease_ms.to_be_bytes());
    put(
        out,
        &[h.revision.0, h.voter_set, h.term, h.leader.map_or(0, |n| n.0)],
    );
    let count = put_count(out, h.hears.len());
    for hearing in &h.hears[..count] {
        put(out, &[hearing.node.0]);
        out.extend(hearing.heard_ms.to_be_bytes());
        out.extend(hearing.both_ms.to_be_bytes());
    }
    let count = put_count(out, h.run_out.len());
    for report in &h.run_out[..count] {
        put(out, &[report.node.0, report.suspicion.0]);
    }
}

fn get_heartbeat(r: &mut Reader<'_>) -> Result<Heartbeat, WireError> {
    Ok(Heartbeat {
        cluster: r.u64()?,
        from: NodeId(r.u64()?),
        to: NodeId(r.u64()?),
        incarnation: Incarnation(r.u64()?),
        seq: r.u64()?,
        generation: LeaseGeneration(r.u64()?),
        lease_ms: r.u32()?,
        revision: Revision(r.u64()?),
        voter_set: r.u64()?,
        term: r.u64()?,
        // Node ids are never 0.
        leader: Some(NodeId(r.u64()?)).filter(|node| node.0 != 0),
        hears: r.list(|r| {
            Ok(Hearing {
                node: NodeId(r.u64()?),
                heard_ms: r.u16()?,
                both_ms: r.u16()?,
            })
        })?,
        run_out: r.list(|r| {
            Ok(RunOut {
                node: NodeId(r.u64()?),
                suspicion: SuspicionId(r.u64()?),
            })
        })?,
    })
}

fn put_ack(out: &mut Vec<u8>, a: &Ack) {
    put_heads(out, KIND_ACK, [a.cluster, a.from.0, a.to.0, a.incarnation.0]);
    put(out, &[a.of_incarnation.0, a.of_seq]);
    out.push(u8::from(a.promise));
    put(out, &[a.generation.0, a.voter_set]);
}

fn get_ack(r: &mut Reader<'_>) -> Result<Ack, WireError> {
    Ok(Ack {
        cluster: r.u64()?,
        from: NodeId(r.u64()?),
        to: NodeId(r.u64()?),
        incarnation: Incarnation(r.u64()?),
        of_incarnation: Incarnation(r.u64()?),
        of_seq: r.u64()?,
        promise: match r.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::Field),
        },
        generation: LeaseGeneration(r.u64()?),
        voter_set: r.u64()?,
    })
}
