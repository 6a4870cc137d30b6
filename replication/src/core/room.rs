//! Nearly full journals and disks, here and on peers (J3).
//!
//! Committed records must always find their space in the extent file. So each node says early when its disk is nearly full, while there
//! still is room for all that may be under way. Once every member of the in-sync set says so, the primary refuses what may need space: a
//! write to blocks that have none yet on its own disk. Everything else goes on. As long as one of them has space, the extent has: another
//! one that runs full keeps its records in the journal until there is space, and if that takes long, it leaves the set as a stuck one does
//! (I10), or hands over. Nothing is lost, nobody is fenced, and while the primary's own disk is full nobody is asked out for the same.

use std::sync::Arc;
use std::time::Duration;

use holdfast_types::{BlockOp, NodeId, OpOutcome};

use super::api::{Command, Ctx, IoToken, View};
use super::front::{OpKey, OpState};
use super::primary::Primary;
use super::{ExtentCore, Owner};

/// What a node's disk can still take in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// The journal is nearly full: new records wait until it is not (J3).
    pub crowded: bool,
    /// The disk is nearly full: a write that may need space there is refused ([`OpOutcome::NoSpace`]).
    pub low: bool,
    /// The disk is full: committed records wait for space.
    pub full: bool,
}

impl ExtentCore {
    pub(crate) fn room_of(&self, node: NodeId) -> Room {
        let known = self.rooms.iter().find(|(of, _)| *of == node);
        known.map(|(_, room)| *room).unwrap_or_default()
    }

    pub(crate) fn on_room(&mut self, ctx: &Ctx, node: NodeId, room: Room, out: &mut Vec<Command>) {
        let was = self.throttled();
        self.rooms.retain(|(of, _)| *of != node);
        if room != Room::default() {
            self.rooms.push((node, room));
        }
        self.pump |= was && !self.throttled();
        self.drive_resyncs(ctx, out);
    }

    /// Whether a journal that new records go to is nearly full.
    pub(crate) fn crowded(&self) -> bool {
        let streaming = |primary: &Primary| {
            let mut streaming = primary.followers.iter().filter(|f| f.streaming().is_some());
            streaming.any(|follower| self.room_of(follower.node).crowded)
        };
        !self.rooms.is_empty()
            && (self.room_of(self.me.node).crowded || self.role.primary().is_some_and(streaming))
    }

    /// Whether no member of the in-sync set has space to give.
    fn scarce(&self) -> bool {
        let low = |node: NodeId| {
            let room = self.room_of(node);
            room.low || room.full
        };
        let all_low = |view: &Arc<View>| view.in_sync.iter().all(|node| low(*node));
        !self.rooms.is_empty() && low(self.me.node) && self.view.as_ref().is_some_and(all_low)
    }

    /// How long a member may be stuck before it is asked out: for ever while this node's own disk is full, since the next one's is then
    /// likely to be full as well, and one of them must stay.
    pub(crate) fn patience(&self, view: &View) -> Duration {
        match self.room_of(self.me.node).full {
            true => Duration::MAX,
            false => view.policy.stuck_after,
        }
    }

    /// A write holds its range: it gets its lsn, unless it may need space that is not there.
    pub(crate) fn order_in_space(&mut self, ctx: &Ctx, key: OpKey, lock: u64, out: &mut Vec<Command>) {
        let thin = self.view.as_ref().is_some_and(|view| view.policy.thin);
        if thin
            && self.scarce()
            && let Some(op) = self.ops.get_mut(&key)
            && let BlockOp::Write { range, .. }
            | BlockOp::WriteSame { range, .. }
            | BlockOp::OrWrite { range, .. }
            | BlockOp::CompareAndWrite { range, .. } = &op.request
        {
            let (io, range) = (IoToken(lock), *range);
            op.state = OpState::Locked { lock, io: true };
            out.push(Command::Allocated { io, range });
            return;
        }
        self.order(ctx, key, lock, out);
    }

    pub(crate) fn on_allocated(&mut self, ctx: &Ctx, io: IoToken, whole: bool, out: &mut Vec<Command>) {
        let lock = io.0;
        let Some(Owner::Op(key)) = self.table.owner(lock) else {
            if self.table.owner(lock) == Some(Owner::Dead) {
                self.table.remove(lock);
            }
            return;
        };
        if whole {
            return self.order(ctx, key, lock, out);
        }
        self.table.remove(lock);
        self.finish(key, OpOutcome::NoSpace, out);
    }
}
