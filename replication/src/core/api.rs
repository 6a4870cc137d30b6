//! The border of the replication core: what it is told ([`Event`]), what it asks for ([`Command`]), what it says to the same extent on
//! other nodes ([`Message`]), and the log records that carry an extent's contents ([`Record`]).
//!
//! The core does no I/O. Whoever drives it keeps these promises, and nothing else is assumed:
//! - one call of `handle` at a time, and the commands of a call are queued in order before the next call starts (each kind of queue is
//!   FIFO: journal, link to a peer, extent file);
//! - [`Event::Appended`] names a journal command only when it and every earlier one of this extent is stable (J2: an error is
//!   [`Event::Failed`] instead, and final);
//! - messages of a link arrive in the order they were sent, each at most once, after [`Event::PeerUp`] of that link on the receiving side
//!   and never from a link that has been replaced; a link that lost a message is down;
//! - every view is a committed state of the cluster, as this node applied it, and revisions never go down within one run.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_types::{
    BlockOp, BlockRange, BlockSize, CommandName, Epoch, InSyncVersion, Incarnation, Lba, LeaseGeneration,
    LogPos, Lsn, MappedRun, Mono, NodeId, OpOutcome, Origin, Revision, SessionInstance, UnitRule,
};

pub use super::answer::{Fate, ForwardAnswer};
pub use super::config::{Cache, Config, Policy};
pub use super::log::EpochHistory;
pub use super::rejoin::Verdict;
pub use super::replay::{StatusNews, Unconfirmed};
pub use super::report::{Checks, Note, ReplicaStatus, ResyncStatus, RoleName, ScrubOutcome, Status};
pub use super::room::Room;

/// Who this core is: a node, and one run of its process. A core is made once per run of the process (E1: a second one under the same
/// incarnation could give a position twice).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub incarnation: Incarnation,
}

/// What holds at the moment of an event, besides the event itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ctx {
    /// The time. Never goes back between two calls.
    pub now: Mono,
    /// Until when this node holds the quorum lease (L2); `None` if it holds none.
    pub lease_until: Option<Mono>,
    /// The lease generation of this node, as far as it has applied the cluster's state (L1, L7).
    pub generation: LeaseGeneration,
    /// Whether this node sees a quorum of voters: decides how a command ends that was held too long (I8).
    pub quorum: bool,
}

impl Ctx {
    /// Whether the lease is held now (W3); whether the view is as new as the lease is for the core to see.
    pub fn leased(&self) -> bool {
        self.lease_until.is_some_and(|until| self.now < until)
    }
}

/// What a replica found on its own disk at start, for [`super::ExtentCore::new`]. The default is a new replica: an empty log, and an extent
/// file that is all zeros.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Everything up to and including this position has been applied to the extent file (J3: the checkpoint). After a gap that a resync
    /// skipped, a position behind the gap.
    pub applied: LogPos,
    /// Every stable record behind `applied`, consecutive, in order.
    pub tail: Vec<Record>,
    /// The last position of every epoch that is known, up to `applied`. The end of the tail is worked out from the records.
    pub history: EpochHistory,
    /// Highest commit position found: in the checkpoint or in a record ([`Record::commit`]).
    pub commit: Lsn,
    /// Newest epoch of which there is any trace. It need not be stable by itself (E4).
    pub seen: Epoch,
    /// An unfinished resync's mark ([`Command::Restart`] without a later [`Command::ClearBase`]).
    pub base: Option<Base>,
    /// The journal or the extent is damaged (J1): the replica counts as out of the in-sync set, whatever the committed set says.
    pub damaged: bool,
}

/// The mark of a replica in resync (R1): complete only up to here, whatever its log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Complete up to and including this position.
    pub pos: LogPos,
    /// Version of the in-sync set that the resync started from, in which this node was missing. Membership in a *later* version ends the
    /// mark.
    pub version: InSyncVersion,
}

/// One entry of an extent's replication log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position. Never given twice (I2).
    pub pos: LogPos,
    /// Commit position that its maker knew when it made the record.
    pub commit: Lsn,
    /// Name of the command that it carries out (F1). `None` for records that no initiator asked for.
    pub name: Option<CommandName>,
    /// What it does.
    pub body: RecordBody,
}

/// What a record does to the extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordBody {
    /// Nothing. The first record of an epoch: once it is committed, so is all before it (E5).
    EpochStart,
    /// Puts blocks. Also what a COMPARE AND WRITE becomes that found what it expected.
    Write {
        /// Where.
        range: BlockRange,
        /// The range's bytes.
        data: Bytes,
    },
    /// Puts the same block everywhere in the range.
    WriteSame {
        /// Where.
        range: BlockRange,
        /// One block.
        block: Bytes,
    },
    /// Zeros (W7).
    Zero {
        /// Where; may touch or overlap.
        ranges: Arc<[BlockRange]>,
    },
    /// Contents as of this position, for one replica: one in resync (R2), or one whose blocks were bad (I10). Every other replica has them
    /// and logs a marker.
    Resync {
        /// Where. They do not overlap.
        ranges: Arc<[BlockRange]>,
        /// The ranges' bytes, one after the other, for the replica that needs them, `None` for others: then nothing changes.
        data: Option<Bytes>,
    },
}

impl RecordBody {
    /// The ranges whose contents it may change.
    pub fn ranges(&self) -> &[BlockRange] {
        match self {
            Self::EpochStart | Self::Resync { data: None, .. } => &[],
            Self::Write { range, .. } | Self::WriteSame { range, .. } => std::slice::from_ref(range),
            Self::Zero { ranges } | Self::Resync { ranges, .. } => ranges,
        }
    }

    /// Bytes of payload.
    pub fn payload_len(&self) -> usize {
        match self {
            Self::EpochStart | Self::Zero { .. } | Self::Resync { data: None, .. } => 0,
            Self::Write { data, .. } | Self::Resync { data: Some(data), .. } => data.len(),
            Self::WriteSame { block, .. } => block.len(),
        }
    }

    /// Whether ranges lie within an extent of `blocks` blocks and payloads have the length they ask for: what a record off a wire must
    /// pass.
    pub fn check(&self, blocks: u64, size: BlockSize) -> bool {
        let fits = |range: &BlockRange| range.end().0 <= blocks;
        match self {
            Self::EpochStart => true,
            Self::Write { range, data } => fits(range) && data.len() as u64 == range.byte_len(size),
            Self::WriteSame { range, block } => fits(range) && block.len() as u64 == u64::from(size.bytes()),
            Self::Zero { ranges } => ranges.iter().all(fits),
            Self::Resync { ranges, data } => {
                let bytes = || ranges.iter().map(|range| range.byte_len(size)).sum::<u64>();
                ranges.iter().all(fits) && data.as_ref().is_none_or(|data| data.len() as u64 == bytes())
            }
        }
    }
}

/// Committed state of the extent, as this node has applied it. May skip revisions; the same one may come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Of the cluster's state.
    pub revision: Revision,
    /// The newest epoch.
    pub epoch: Epoch,
    /// That epoch's primary: node and run (E1). `None`: committed as without primary.
    pub primary: Option<Identity>,
    /// Version of the in-sync set (E2).
    pub version: InSyncVersion,
    /// Who holds every acknowledged write. Includes the primary.
    pub in_sync: Vec<NodeId>,
    /// Who is meant to hold the extent.
    pub replicas: Vec<NodeId>,
    /// Those of them that are to go.
    pub retiring: Retiring,
    /// Size in blocks.
    pub blocks: u64,
    /// Block size.
    pub block_size: BlockSize,
    /// What reservations and resets of the unit mean for commands (P1, I13).
    pub unit: Arc<UnitRule>,
    /// Liveness state of the nodes that matter here (at least `replicas` and who forwards).
    pub nodes: Vec<NodeState>,
    /// Write-back.
    pub cache: Cache,
    /// What was chosen for the extent, or for all of them.
    pub policy: Policy,
}

impl View {
    /// Whether a suspicion stands against `node` (L3).
    pub fn is_suspect(&self, node: NodeId) -> bool {
        self.nodes.iter().any(|state| state.node == node && state.suspect)
    }
}

/// Replicas that are to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retiring {
    /// Whose. A primary hands over to one of them only where no other member will do.
    pub nodes: Vec<NodeId>,
    /// Whether they may go now as far as the committed state tells: the primary says the rest ([`Change::Retire`]).
    pub may_go: bool,
}

/// A node's liveness state, as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeState {
    /// Which.
    pub node: NodeId,
    /// Under suspicion (L3).
    pub suspect: bool,
    /// Its lease generation (L4): forwards under an older one are refused (F1).
    pub generation: LeaseGeneration,
}

/// One connection between two nodes, from its handshake to its end. Both sides call it by the same number, which is never used again
/// between the same two runs ("channel number" of F1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A command's handle between the front and this core: chosen by who submits, not used again while the command is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Ties [`Command::Read`], [`Command::Hash`] and [`Command::Apply`] to the events that answer them. Not used again within a run.
/// Each command is answered by exactly one event, however late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoToken(pub u64);

/// Numbers the journal commands of an extent within a run, from 1, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct JournalSeq(pub u64);

/// The first half of a BLAKE3 hash over the contents of a piece of a range; a hole is zeros (W7).
pub type Digest = [u8; 16];

/// The hash of some contents.
pub fn digest(contents: &[u8]) -> Digest {
    let mut digest = Digest::default();
    let len = digest.len();
    digest.copy_from_slice(&blake3::hash(contents).as_bytes()[..len]);
    digest
}

/// The digests of a range, piece by piece ([`Config::resync_piece_bytes`], the last one may be shorter). `None` for a piece whose blocks
/// cannot be read or are not what was written: it equals nothing (I10).
pub type Digests = Vec<Option<Digest>>;

/// A command as the front hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its name across nodes (F1).
    pub name: CommandName,
    /// When it was received, as early as can be told (W1: time in the socket's receive buffer counts).
    pub received: Mono,
    /// Lease generation of this node that its connection belongs to (L7).
    pub generation: LeaseGeneration,
    /// Whose it is (P1).
    pub origin: Origin,
    /// What it asks for. Checked against the extent's size already.
    pub op: BlockOp,
}

/// Which open commands of this node to abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortScope {
    /// ABORT TASK.
    Op(OpId),
    /// ABORT TASK SET, session reinstatement, loss of the session.
    Session(SessionInstance),
    /// LOGICAL UNIT RESET, as far as this node took the commands.
    All,
}

/// What makes no progress although work waits for it (I10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StuckPart {
    /// Writes and flushes of the journal.
    Journal,
    /// Reads and writes of the extent.
    Extent,
}

/// Why a replica answers nothing any more (J2). Final for this run; the driver marks the disk, so that the next run starts as
/// [`Recovered::damaged`] and is resynced: what a failed flush dropped cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FenceReason {
    /// A write or flush of the journal failed.
    Journal,
    /// A write or flush of the extent failed.
    Extent,
}

/// What the core is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time has passed ([`super::ExtentCore::deadline`]), or [`Ctx`] changed (a lease came or went).
    Tick,
    /// Committed state.
    View(Arc<View>),
    /// A link to another node is up. One that was up before is down with it.
    PeerUp {
        /// The other node, and its run.
        peer: Identity,
        /// The link.
        link: LinkId,
    },
    /// A link is down: reset, or silent for too long.
    PeerDown {
        /// The other node.
        node: NodeId,
        /// The link; one that is not the newest is ignored.
        link: LinkId,
    },
    /// From the same extent on another node.
    Message {
        /// Sender.
        from: NodeId,
        /// The link it came over.
        link: LinkId,
        /// What it says. Nothing in it is trusted.
        message: Message,
    },
    /// All journal commands up to this one are stable.
    Appended {
        /// The newest stable one.
        seq: JournalSeq,
    },
    /// [`Command::Apply`] is done: reads see it. Not necessarily stable in the extent (the journal has it).
    Applied {
        /// Of the command.
        io: IoToken,
    },
    /// [`Command::Read`] is done.
    ReadDone {
        /// Of the command.
        io: IoToken,
        /// The range's bytes.
        data: Bytes,
    },
    /// [`Command::Read`] found blocks that cannot be read, or are not what was written (I10). Not final.
    ReadFailed {
        /// Of the command.
        io: IoToken,
        /// Which: within the range asked for, and not empty.
        bad: BlockRange,
    },
    /// [`Command::Map`] is done.
    Mapped {
        /// Of the command.
        io: IoToken,
        /// Runs from the block asked for on, one behind the other; not empty.
        runs: Vec<MappedRun>,
    },
    /// [`Command::Allocated`] is done.
    Allocated {
        /// Of the command.
        io: IoToken,
        /// Every block of the range has its space.
        whole: bool,
    },
    /// A node's disk can take in more, or less, than before: this one's or that of a node with a link, until that link is down. At first
    /// all have room.
    Room {
        /// Whose.
        node: NodeId,
        /// How much.
        room: Room,
    },
    /// [`Command::Confirm`] is done: when it was given, no newer epoch was committed, as far as this core was told.
    Confirmed {
        /// Of the command.
        round: u64,
    },
    /// [`Command::Hash`] is done.
    Hashed {
        /// Of the command.
        io: IoToken,
        /// Of the range's contents.
        digests: Digests,
    },
    /// [`Command::Changed`] is done.
    Changed {
        /// Of the command.
        io: IoToken,
        /// What may have changed; may say more than did.
        ranges: Vec<BlockRange>,
    },
    /// Journal or extent failed (J2).
    Failed {
        /// What.
        reason: FenceReason,
    },
    /// A command from an initiator of this node. Answered by exactly one [`Command::Complete`].
    Submit {
        /// Its handle.
        op: OpId,
        /// The command.
        request: Request,
    },
    /// Task management. Each command concerned is still answered by its one [`Command::Complete`], not necessarily as aborted (F2).
    Abort {
        /// Which.
        scope: AbortScope,
    },
    /// What this node's front knows of statuses of COMPARE AND WRITEs (W6).
    Statuses {
        /// Of its own sessions.
        news: Vec<StatusNews>,
    },
    /// Every in-sync replica is to be compared with this primary. Ignored where this is none; a repetition goes on with what was cut short.
    Scrub,
    /// An operator or a policy wants another primary (E6). Ignored where it makes no sense.
    Switchover {
        /// Who: an in-sync replica with a link.
        to: NodeId,
    },
}

/// What the core asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Journal: append the record.
    Append {
        /// Its number.
        seq: JournalSeq,
        /// The record.
        record: Record,
    },
    /// Journal: drop every record behind this position. Takes effect in journal order: stable before any later append is (E5).
    Truncate {
        /// Its number.
        seq: JournalSeq,
        /// The last position that stays.
        after: LogPos,
    },
    /// Journal: the log starts anew behind `from`; what was in it before goes (R1). Complete only up to `base`. Before this is written,
    /// every [`Command::Apply`] given earlier is finished and the extent file is flushed: what the old log would have brought back after a
    /// power cut is what ranges are then found equal by.
    Restart {
        /// Its number.
        seq: JournalSeq,
        /// What to tell after a restart until [`Command::ClearBase`].
        base: Base,
        /// The position that the next record follows.
        from: LogPos,
        /// History of the log that `from` is in, `from` included.
        history: EpochHistory,
    },
    /// Journal: the resync is over by commit: the mark goes.
    ClearBase {
        /// Its number.
        seq: JournalSeq,
    },
    /// Extent: carry out the record. Any number may be under way at a time: those never overlap, nor do reads and hashes under way.
    Apply {
        /// To answer with.
        io: IoToken,
        /// The record. Always one with something to do.
        record: Record,
    },
    /// Extent: read.
    Read {
        /// To answer with.
        io: IoToken,
        /// What.
        range: BlockRange,
    },
    /// Extent: tell which blocks have space. Each block as it is at some moment until the answer: nothing waits for it.
    Map {
        /// To answer with.
        io: IoToken,
        /// The first block.
        from: Lba,
        /// At most so many runs.
        runs: u16,
    },
    /// Extent: hash, piece by piece.
    Hash {
        /// To answer with.
        io: IoToken,
        /// What.
        range: BlockRange,
        /// The range is under comparison with a primary that this replica is made equal to: it counts as changed from now on, since what
        /// happened to it meanwhile is not known here (R2).
        renew: bool,
    },
    /// Extent: tell which ranges may have changed behind a position (R2). Answered after everything that was applied before is counted.
    Changed {
        /// To answer with.
        io: IoToken,
        /// The position.
        since: Lsn,
    },
    /// Extent: say whether the whole range has its space on the disk.
    Allocated {
        /// To answer with.
        io: IoToken,
        /// What.
        range: BlockRange,
    },
    /// Cluster: get a commit position that a majority confirms from now on (a Raft read index), and give this core what was committed up
    /// to there; then [`Event::Confirmed`]. May fail or get lost: asked again while it is wanted (W4).
    Confirm {
        /// To answer with.
        round: u64,
    },
    /// Link: send. Dropped if that link is not up any more.
    Send {
        /// To whom.
        to: NodeId,
        /// Over which link.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// Link: end it at once, so that nothing that was sent and has not arrived ever arrives (an abortive close). [`Event::PeerDown`]
    /// follows.
    ResetLink {
        /// The other node.
        node: NodeId,
        /// Which.
        link: LinkId,
    },
    /// Cluster: propose a change. May get lost; repeated while it is wanted.
    Propose(Proposal),
    /// Front: the one answer to a submitted command.
    Complete {
        /// Its handle.
        op: OpId,
        /// How it ended.
        outcome: OpOutcome,
    },
    /// For people: something happened.
    Note(Note),
}

/// A change of an extent's committed state, with its preconditions (E2): it takes effect only if `epoch` and `version` are those of the
/// state when it is applied, and it raises the version. A cluster state that knows a node's newest run does well to refuse proposals of
/// older ones: they are not wrong, but a late shrink by a primary that died since can leave a set without a living member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The epoch it starts from.
    pub epoch: Epoch,
    /// The version of the in-sync set it starts from.
    pub version: InSyncVersion,
    /// Who proposes: must be the primary of the epoch, by node; for all but [`Change::Reopen`] and [`Change::HandOver`] also by
    /// incarnation.
    pub by: Identity,
    /// What.
    pub change: Change,
}

/// What is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// The node leaves the in-sync set. Refused for the primary itself and while the proposer is suspect (E2).
    Shrink {
        /// Who.
        node: NodeId,
    },
    /// The node joins the in-sync set (I6, E3). Refused while the proposer is suspect (E2).
    Grow {
        /// Who.
        node: NodeId,
        /// In the run that it was made equal in (W5).
        run: Incarnation,
    },
    /// Nothing but a new version: a growth (E3) or a leaving (F4) from the same version can never be committed any more.
    GrowVoid,
    /// Everything that this primary answered is stable on every member, and it answers nothing early any more (W5).
    CacheSettled,
    /// The replicas that are to go ([`View::retiring`]) are replicas no more: this primary has what they have, and its disk has shown in
    /// this run that it works (I5).
    Retire,
    /// A new epoch for `to`, which must be in the in-sync set (E6).
    Switchover {
        /// The next primary: node and run.
        to: Identity,
    },
    /// A new epoch for the proposer, in its present run (E1), which must be in the in-sync set. Makes a switchover void (E6).
    Reopen,
    /// A new epoch for any other member of the in-sync set: the proposer's replica is fenced or damaged (J1, J2). Without any, the extent
    /// stays as it is, unserved.
    HandOver,
}

/// A replica's word about its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// Last position of each epoch; the newest is the end of the log.
    pub history: EpochHistory,
    /// Up to where it knows its records as committed: no primary's log may lack these (I7).
    pub committed: LogPos,
    /// Up to where its extent is complete, unless there is a mark.
    pub applied: LogPos,
    /// What its records behind that touch: an earlier run may have applied them, and the primary's log may lack them (R2).
    pub unapplied: Vec<BlockRange>,
    /// The mark of an unfinished resync (R1).
    pub base: Option<Base>,
    /// Damaged (J1): nothing of it counts until a resync repaired it.
    pub damaged: bool,
    /// Fenced (J2): it will follow nobody in this run.
    pub fenced: bool,
    /// Stuck (I10): it takes nothing until its disk moves again.
    pub stuck: bool,
}

/// What the same extent's cores say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Primary to replica, once per link and epoch: tell your log.
    Probe {
        /// The primary's epoch.
        epoch: Epoch,
    },
    /// Replica to primary: the answer.
    Summary {
        /// The epoch asked under.
        epoch: Epoch,
        /// Its log.
        log: LogSummary,
    },
    /// Primary to replica: drop what is behind this position (E5), then follow.
    Adopt {
        /// The primary's epoch.
        epoch: Epoch,
        /// Last common position.
        after: LogPos,
    },
    /// Primary to replica: start anew behind a gap (R1), then follow.
    Restart {
        /// The primary's epoch.
        epoch: Epoch,
        /// Version of the in-sync set, in which the replica is missing.
        version: InSyncVersion,
        /// The position that the next record follows.
        from: LogPos,
        /// The primary's history up to `from`.
        history: EpochHistory,
    },
    /// Primary to replica: the next record. They come one by one, without gaps.
    Replicate {
        /// The primary's epoch (the record's own may be older: a tail that is settled).
        epoch: Epoch,
        /// Position of the record before.
        prev: LogPos,
        /// The record.
        record: Record,
    },
    /// Replica to primary: stable up to here.
    Ack {
        /// The epoch followed.
        epoch: Epoch,
        /// Stable in the journal.
        durable: Lsn,
        /// Applied to the extent.
        applied: Lsn,
        /// In memory, and on the way into the journal (W5).
        received: Lsn,
    },
    /// Primary to replica: committed up to here.
    Commit {
        /// The primary's epoch.
        epoch: Epoch,
        /// The position.
        commit: Lsn,
    },
    /// Replica to a primary of an older epoch, or one that it does not follow (E4).
    Refused {
        /// The newest epoch it has seen.
        newest: Epoch,
    },
    /// Primary to replica in resync: hash this range, once everything up to `at` is applied.
    HashRequest {
        /// The primary's epoch.
        epoch: Epoch,
        /// To answer with.
        id: u64,
        /// What.
        range: BlockRange,
        /// Applied at least up to here.
        at: Lsn,
    },
    /// Replica to primary: the answer.
    HashReply {
        /// The epoch asked under.
        epoch: Epoch,
        /// Of the request.
        id: u64,
        /// Over contents.
        digests: Digests,
    },
    /// Primary to in-sync replica: give this range's contents, once everything up to `at` is applied (I10).
    Fetch {
        /// The primary's epoch.
        epoch: Epoch,
        /// To answer with.
        id: u64,
        /// What.
        range: BlockRange,
        /// Applied at least up to here.
        at: Lsn,
    },
    /// Replica to primary: the answer.
    Fetched {
        /// The epoch asked under.
        epoch: Epoch,
        /// Of the request.
        id: u64,
        /// The range's bytes; `None`: they cannot be read there either.
        data: Option<Bytes>,
    },
    /// Primary to in-sync replica: do you still follow this epoch (W4)?
    Confirm {
        /// The primary's epoch.
        epoch: Epoch,
        /// To answer with.
        round: u64,
    },
    /// Replica to primary: it did when it was asked.
    Confirmed {
        /// The epoch asked under.
        epoch: Epoch,
        /// Of the request.
        round: u64,
    },
    /// Any node to the primary: carry this out (F1).
    Forward {
        /// The sender's handle, to answer with.
        op: OpId,
        /// The epoch whose primary is meant. Another one refuses.
        epoch: Epoch,
        /// The command's name.
        name: CommandName,
        /// The sender's lease generation that the command belongs to.
        generation: LeaseGeneration,
        /// How long it has waited already (W1).
        waited: std::time::Duration,
        /// Whose it is (P1).
        origin: Origin,
        /// It may have been sent before, to this or another primary: look whether it was carried out.
        again: bool,
        /// What.
        request: BlockOp,
    },
    /// Primary to forwarder.
    Forwarded {
        /// The forwarder's handle.
        op: OpId,
        /// The epoch that it was forwarded under: an answer to an earlier try must not end a later one.
        epoch: Epoch,
        /// Answer, or why not.
        answer: ForwardAnswer,
    },
    /// Forwarder to primary: what became of it? If it has no lsn, it never gets one (F2).
    Fate {
        /// The forwarder's handle.
        op: OpId,
        /// The epoch whose primary is meant.
        epoch: Epoch,
        /// The command's name.
        name: CommandName,
    },
    /// Primary to forwarder.
    FateIs {
        /// The forwarder's handle.
        op: OpId,
        /// The epoch asked under.
        epoch: Epoch,
        /// What became of it.
        fate: Fate,
    },
    /// Primary to replica, and any node to the primary: which COMPARE AND WRITEs may be sent again (W6).
    Statuses {
        /// In order.
        news: Vec<StatusNews>,
    },
}
