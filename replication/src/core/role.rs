//! What a node is for an extent, and the one function that changes it.

use std::collections::VecDeque;
use std::sync::Arc;

use holdfast_types::{BlockRange, Epoch, Lsn, Mono, NodeId};

use super::ExtentCore;
use super::api::{Command, Ctx, Identity, LinkId, Note, RoleName, View};
use super::primary::Primary;
use super::rejoin::{Named, Own, Standing, Stands, decide_standing};

/// A primary's hold on a replica, as the replica sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) node: NodeId,
    pub(crate) link: LinkId,
    pub(crate) epoch: Epoch,
}

/// A range to hash, or to read, for the primary once enough is applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HashWait {
    pub(crate) id: u64,
    pub(crate) range: BlockRange,
    pub(crate) at: Lsn,
    /// The contents are wanted, not their hash.
    pub(crate) contents: bool,
}

/// State of a replica.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    /// Who asked for the log last.
    pub(crate) probed: Option<Session>,
    /// Whose records are taken.
    pub(crate) following: Option<Session>,
    pub(crate) hashes: VecDeque<HashWait>,
    /// Records of a resync whose primary waits until they are applied here.
    pub(crate) awaited: VecDeque<Lsn>,
}

/// What this node is for the extent.
#[derive(Debug)]
pub(crate) enum Role {
    /// No view yet, or not a replica.
    Idle,
    Replica(Replica),
    /// Named, but not in this run (E1), or with a log that cannot serve (J1, R1).
    Closed,
    /// The log's tail is not settled (E5).
    Settling(Box<Primary>),
    Serving(Box<Primary>),
    /// Takes nothing new, to hand back (E6). Nothing is proposed yet.
    Draining {
        primary: Box<Primary>,
        to: NodeId,
        since: Mono,
    },
    /// Handed back: serves again only in a new epoch (E6).
    HandedBack {
        primary: Box<Primary>,
        to: Identity,
        since: Mono,
    },
    /// J2.
    Fenced,
}

impl Role {
    pub(crate) fn primary(&self) -> Option<&Primary> {
        match self {
            Self::Settling(primary)
            | Self::Serving(primary)
            | Self::Draining { primary, .. }
            | Self::HandedBack { primary, .. } => Some(primary),
            Self::Idle | Self::Replica(_) | Self::Closed | Self::Fenced => None,
        }
    }

    pub(crate) fn primary_mut(&mut self) -> Option<&mut Primary> {
        match self {
            Self::Settling(primary)
            | Self::Serving(primary)
            | Self::Draining { primary, .. }
            | Self::HandedBack { primary, .. } => Some(primary),
            Self::Idle | Self::Replica(_) | Self::Closed | Self::Fenced => None,
        }
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        match self {
            Self::Replica(replica) => Some(replica),
            _ => None,
        }
    }

    pub(crate) fn replica_mut(&mut self) -> Option<&mut Replica> {
        match self {
            Self::Replica(replica) => Some(replica),
            _ => None,
        }
    }

    pub(crate) const fn name(&self) -> RoleName {
        match self {
            Self::Idle => RoleName::Idle,
            Self::Replica(_) => RoleName::Replica,
            Self::Closed => RoleName::Closed,
            Self::Settling(_) => RoleName::Settling,
            Self::Serving(_) => RoleName::Primary,
            Self::Draining { .. } => RoleName::Draining,
            Self::HandedBack { .. } => RoleName::HandedBack,
            Self::Fenced => RoleName::Fenced,
        }
    }
}

/// What the committed state, and what this replica knows of itself, make of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Idle,
    Replica,
    Closed,
    Primary(Epoch),
    Fenced,
}

impl ExtentCore {
    pub(crate) fn on_view(&mut self, ctx: &Ctx, view: Arc<View>, out: &mut Vec<Command>) {
        let old = self.view.take();
        if let Some(old) = old
            .as_ref()
            .filter(|old| old.revision > view.revision || old.epoch > view.epoch)
        {
            self.view = Some(Arc::clone(old));
            return;
        }
        self.view = Some(Arc::clone(&view));
        self.seen = self.seen.max(view.epoch);
        if let Some(base) = self.base
            && view.in_sync.contains(&self.me.node)
            && view.version > base.version
        {
            // R1: the barrier is committed.
            self.base = None;
            let seq = self.next_seq(Lsn(0));
            out.push(Command::ClearBase { seq });
        }
        let changed = old.as_ref().is_none_or(|old| **old != *view);
        self.enter_role(ctx, out);
        if changed {
            self.members_changed(ctx, old.as_deref(), &view, out);
            self.pump = true;
            self.front_view_changed(old.as_deref(), &view);
        }
    }

    /// What this node is, by the table, and why.
    fn target(&self, view: &View) -> (Target, &'static str) {
        let own = if self.fenced.is_some() {
            Own::Failed
        } else if self.damaged {
            Own::Damaged
        } else if self.base.is_some() {
            Own::Unfinished
        } else {
            Own::Whole
        };
        let named = match view.primary {
            Some(primary) if primary == self.me => {
                if self.role.primary().is_some_and(|now| now.epoch == view.epoch) {
                    Named::Serving
                } else if self.log.end().epoch >= view.epoch {
                    Named::Left
                } else {
                    Named::ThisRun
                }
            }
            Some(primary) if primary.node == self.me.node => Named::EarlierRun,
            _ => Named::NotThis,
        };
        let (stands, why) = decide_standing(Standing {
            own,
            replica: view.replicas.contains(&self.me.node) || view.in_sync.contains(&self.me.node),
            behind: view.epoch < self.seen,
            named,
        });
        let target = match stands {
            Stands::Outside => Target::Idle,
            Stands::Replica => Target::Replica,
            Stands::Closed => Target::Closed,
            Stands::Primary => Target::Primary(view.epoch),
            Stands::Fenced => Target::Fenced,
        };
        (target, why)
    }

    /// The one place where a node's role changes, but for the steps that a primary takes by itself ([`ExtentCore::move_primary`]).
    ///
    /// ```text
    /// Idle, Replica, Closed -> Settling       a new epoch names this run, and the log is whole (E1)
    /// Settling -> Serving                     the tail is settled (E5)              move_primary
    /// Serving -> Draining -> HandedBack       planned switchover (E6)               on_switchover, move_primary
    /// Draining -> Serving                     given up; nothing was proposed        move_primary
    /// Settling, Serving, Draining, HandedBack -> Replica, Closed, Idle     a newer epoch
    /// any primary -> Settling                 a newer epoch that names this run again
    /// any -> Fenced                           journal or extent failed (J2); final
    /// ```
    pub(crate) fn enter_role(&mut self, ctx: &Ctx, out: &mut Vec<Command>) {
        let Some(view) = self.view.clone() else {
            if self.fenced.is_some() {
                self.role = Role::Fenced;
            }
            return;
        };
        let (target, why) = self.target(&view);
        match (target, &mut self.role) {
            (Target::Idle, Role::Idle) | (Target::Closed, Role::Closed) | (Target::Fenced, Role::Fenced) => {
                return;
            }
            (Target::Replica, Role::Replica(replica)) => {
                let newest = self.seen;
                if replica.following.is_some_and(|session| session.epoch < newest) {
                    *replica = Replica::default();
                }
                return;
            }
            (Target::Primary(epoch), role) if role.primary().is_some_and(|now| now.epoch == epoch) => {
                return;
            }
            _ => {}
        }
        if self.role.primary().is_some() {
            self.leave_primary(out);
        }
        self.role = match target {
            Target::Idle => Role::Idle,
            Target::Replica => Role::Replica(Replica::default()),
            Target::Closed => Role::Closed,
            Target::Fenced => Role::Fenced,
            Target::Primary(epoch) => {
                Role::Settling(Box::new(Primary::new(epoch, self.log.end().lsn.next())))
            }
        };
        out.push(Command::Note(Note::Standing { why }));
        out.push(Command::Note(Note::Role {
            role: self.role.name(),
            epoch: view.epoch,
        }));
        if matches!(target, Target::Primary(_)) {
            self.forget_rounds();
            self.begin_epoch(ctx, out);
        }
        self.pump = true;
    }
}
