//! How much travels when a replica that was away comes back, byte by byte as it is encoded (R2).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_types::{
    BlockRange, BlockSize, Epoch, ExtentId, InSyncVersion, Incarnation, Lba, LeaseGeneration, LogPos, Lsn,
    Mono, NodeId, Revision,
};
use prost::Message as _;

use super::wire::encode;
use crate::core::ExtentCore;
use crate::core::api::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const LINK: LinkId = LinkId(1);
const EXTENT: ExtentId = ExtentId::from_u128(1);
/// 64 MiB.
const BLOCKS: u64 = 131_072;
/// Blocks of a piece of 4 KiB.
const PIECE: u64 = 8;

const fn identity(node: NodeId) -> Identity {
    let incarnation = Incarnation(1);
    Identity { node, incarnation }
}

/// `a` alone in the in-sync set, and `b` coming back; disks and journals that answer at once.
struct Comeback {
    core: ExtentCore,
    ctx: Ctx,
    /// Pieces in which `b` still differs.
    differ: BTreeSet<u64>,
    /// What `b` has stored.
    durable: Lsn,
    sent: usize,
    received: usize,
    grows: bool,
}

impl Comeback {
    fn start(differ: BTreeSet<u64>) -> Self {
        let core = ExtentCore::new(identity(A), EXTENT, Config::default(), Recovered::default());
        let ctx = Ctx {
            now: Mono::ZERO + Duration::from_secs(100),
            lease_until: Some(Mono::ZERO + Duration::from_secs(100_000)),
            generation: LeaseGeneration(0),
            quorum: true,
        };
        let state = |node| NodeState {
            node,
            suspect: false,
            generation: LeaseGeneration(0),
        };
        let view = Arc::new(View {
            revision: Revision(1),
            epoch: Epoch(1),
            primary: Some(identity(A)),
            version: InSyncVersion(1),
            in_sync: vec![A],
            replicas: vec![A, B],
            blocks: BLOCKS,
            block_size: BlockSize::B512,
            nodes: vec![state(A), state(B)],
            retiring: Default::default(),
            cache: Default::default(),
            policy: Policy::default(),
            unit: Arc::default(),
        });
        let mut comeback = Self {
            core,
            ctx,
            differ,
            durable: Lsn(0),
            sent: 0,
            received: 0,
            grows: false,
        };
        comeback.run(Event::View(view));
        let peer = identity(B);
        comeback.run(Event::PeerUp { peer, link: LINK });
        comeback
    }

    /// Carries out everything that follows from an event.
    fn run(&mut self, first: Event) {
        let mut events = VecDeque::from([first]);
        while let Some(event) = events.pop_front() {
            let mut out = Vec::new();
            self.ctx.now = self.ctx.now + Duration::from_millis(1);
            self.core.handle(&self.ctx, event, &mut out);
            for command in out {
                events.extend(self.carry_out(command));
            }
        }
    }

    fn carry_out(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Append { seq, .. } => Some(Event::Appended { seq }),
            Command::Apply { io, .. } => Some(Event::Applied { io }),
            Command::Hash { io, range, .. } => {
                let digests = vec![Some([1; 16]); usize::try_from(range.blocks() / PIECE).unwrap()];
                Some(Event::Hashed { io, digests })
            }
            Command::Read { io, range } => {
                let data = Bytes::from(vec![7; usize::try_from(range.blocks() * 512).unwrap()]);
                Some(Event::ReadDone { io, data })
            }
            Command::Changed { io, .. } => {
                let ranges = vec![BlockRange::new(Lba(0), BLOCKS).unwrap()];
                Some(Event::Changed { io, ranges })
            }
            Command::Propose(Proposal {
                change: Change::Grow { node, .. },
                ..
            }) => {
                assert_eq!(node, B);
                self.grows = true;
                None
            }
            Command::Send { message, .. } => {
                self.sent += encode(EXTENT, message.clone()).encoded_len();
                let message = self.answer(message)?;
                self.received += encode(EXTENT, message.clone()).encoded_len();
                let (from, link) = (B, LINK);
                Some(Event::Message { from, link, message })
            }
            _ => None,
        }
    }

    fn answer(&mut self, message: Message) -> Option<Message> {
        match message {
            Message::Probe { epoch } => {
                let log = LogSummary {
                    history: EpochHistory::empty(),
                    committed: LogPos::EMPTY,
                    applied: LogPos::EMPTY,
                    unapplied: vec![],
                    base: None,
                    damaged: true,
                    fenced: false,
                    stuck: false,
                };
                Some(Message::Summary { epoch, log })
            }
            Message::Replicate { epoch, record, .. } => {
                if let RecordBody::Resync { ranges, data } = &record.body {
                    assert!(data.is_some(), "b is the one who needs it");
                    for range in ranges.iter() {
                        for piece in range.lba().0 / PIECE..range.end().0 / PIECE {
                            assert!(self.differ.remove(&piece), "piece {piece} was equal");
                        }
                    }
                }
                let (durable, applied) = (record.pos.lsn, record.commit);
                self.durable = durable;
                Some(Message::Ack {
                    epoch,
                    durable,
                    applied,
                    received: durable,
                })
            }
            Message::Commit { epoch, commit } => Some(Message::Ack {
                epoch,
                durable: self.durable,
                applied: commit,
                received: self.durable,
            }),
            Message::HashRequest { epoch, id, range, .. } => {
                let pieces = range.lba().0 / PIECE..range.end().0 / PIECE;
                let digest = |piece| Some([if self.differ.contains(&piece) { 2 } else { 1 }; 16]);
                let digests = pieces.map(digest).collect();
                Some(Message::HashReply { epoch, id, digests })
            }
            _ => None,
        }
    }
}

#[test]
fn r2_of_scattered_changes_little_more_than_the_changes_travels() {
    let pieces = BLOCKS / PIECE;
    // A tenth of all pieces, none beside another, 25 or 26 in each range that is compared at once.
    let differ: BTreeSet<u64> = (0..pieces).step_by(10).collect();
    let changed = differ.len() as u64;
    let mut comeback = Comeback::start(differ);
    for _ in 0..100_000 {
        if comeback.grows {
            break;
        }
        comeback.run(Event::Tick);
    }
    assert!(comeback.grows, "b never got as far as the barrier");
    assert_eq!(comeback.differ.len(), 0);
    let both = (comeback.sent + comeback.received) as u64;
    let whole = BLOCKS * 512;
    let percent = |bytes: u64| bytes as f64 * 100.0 / whole as f64;
    eprintln!(
        "{:.2} % of {} MiB changed in 4 KiB all over: {:.2} % travelled ({} bytes there, {} back)",
        percent(changed * 4096),
        whole >> 20,
        percent(both),
        comeback.sent,
        comeback.received
    );
    assert!(both > changed * 4096);
    assert!(both * 100 <= whole * 12, "{both} bytes of {whole}");
}
