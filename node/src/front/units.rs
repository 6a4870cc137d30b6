//! Commands about a unit's committed state: what a connection asks of the cluster, and the answer.

use std::collections::HashSet;
use std::sync::Arc;

use holdfast_alua::CommandClass;
use holdfast_replication::core::api::OpId;
use holdfast_scsi::reservation::{PersistentIn, Sanitize, UnitChange, UnitOutcome};
use holdfast_scsi::{CommandInfo, LuView, Response, Sense, UnitRequest, command_of};
use holdfast_types::{ExtentId, HOLD_LIMIT, Lun, Mono, Nexus};
use tokio::sync::mpsc;

use super::Front;
use super::registry::Inbound;
use super::session::{MustReset, Session};
use super::state::FrontState;
use super::tasks::Stage;
use holdfast_iscsi::target::{Command, TaskId};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UnitWant {
    /// A change of the unit's state, GOOD only after its primary has applied it (P2).
    Change(UnitChange),
    /// A change that is GOOD only after every node that lives has applied it as well (I13).
    ChangeEverywhere(UnitChange),
    /// A state that holds all that was committed before.
    Confirmed,
    /// What is applied here is applied at every node that lives.
    KnownEverywhere,
}

/// A question to the cluster about a unit.
#[derive(Debug, Clone)]
pub(crate) struct UnitJob {
    /// To answer with, through [`super::Registry::unit_done`]; `None` where nobody waits, and it is tried until the cluster has decided.
    pub(crate) op: Option<OpId>,
    /// Which unit.
    pub(crate) extent: ExtentId,
    /// Who asks.
    pub(crate) by: Nexus,
    /// When whoever waits may wait no longer (I11).
    pub(crate) deadline: Mono,
    /// What for.
    pub(crate) want: UnitWant,
}

/// The answer to a [`UnitJob`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnitAnswer {
    /// What became of a change.
    Outcome(UnitOutcome),
    /// It is so: what was asked for was no change.
    Confirmed,
    /// No quorum or no primary in time: it cannot be told whether the change took effect. The connection is reset (I8).
    Unknown,
}

impl Front {
    /// Whether a command would meet a reservation of SPC-2 whose holder's session has ended here: the commit that releases it is under way,
    /// and to the initiator, whose connection ended before this command came, it is over. So the command waits, for the hold limit at most.
    pub(super) fn is_releasing(&self, view: &LuView<'_>, command: &Command, now: Mono) -> bool {
        let Some(holder) = &view.unit.legacy else {
            return false;
        };
        let concerns = |command: CommandInfo| command.class != CommandClass::Identify;
        holder.node == self.node
            && holder.nexus != *view.nexus
            && command_of(command.cdb.as_bytes()).is_some_and(concerns)
            && now.since(command.received) < HOLD_LIMIT
            && !self.registry.is_here(&holder.nexus)
    }
}

/// Where questions about units go.
pub(crate) trait Units: Send + Sync {
    /// Answers in its own time, once.
    fn ask(&self, job: UnitJob);
}

/// A command that waits for the cluster's word.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) lun: Lun,
    pub(super) then: AfterWord,
}

/// What comes after the cluster's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterWord {
    /// The answer.
    Answer,
    /// That of PERSISTENT RESERVE IN: which report, and its allocation length.
    Report(PersistentIn, usize),
    /// The end of the SANITIZE that was begun.
    Sanitized,
    /// GOOD, once every node knows that the SANITIZE has ended.
    Swept,
}

impl Session {
    /// Hands a command about the unit's state to the cluster.
    pub(super) fn ask_cluster(
        &mut self,
        task: TaskId,
        (lun, extent): (Lun, ExtentId),
        received: Mono,
        request: UnitRequest,
    ) {
        let Some(by) = self.nexus() else { return };
        let (want, then) = match request {
            UnitRequest::Change(change) => {
                // What others hear of it, they hear before it is answered, whatever node they are at.
                let everywhere = matches!(
                    change,
                    UnitChange::Persistent(_)
                        | UnitChange::Mode(_)
                        | UnitChange::SaveMode(_)
                        | UnitChange::Identify { .. }
                        | UnitChange::SetClock { .. }
                        | UnitChange::SanitizeExit
                );
                let want = if everywhere {
                    UnitWant::ChangeEverywhere(change)
                } else {
                    UnitWant::Change(change)
                };
                (want, AfterWord::Answer)
            }
            UnitRequest::Sanitize { order, immediate } => {
                let change = UnitChange::Sanitize(order);
                let then = if immediate {
                    AfterWord::Answer
                } else {
                    AfterWord::Sanitized
                };
                (UnitWant::ChangeEverywhere(change), then)
            }
            UnitRequest::Report { action, allocation } => {
                (UnitWant::Confirmed, AfterWord::Report(action, allocation))
            }
        };
        let op = self.new_op();
        let waiting = Waiting { lun, then };
        self.tasks.put(task, Stage::Unit { op, extent, waiting });
        self.front.units.ask(UnitJob {
            op: Some(op),
            extent,
            by,
            deadline: received + HOLD_LIMIT,
            want,
        });
    }

    /// The cluster has answered.
    pub(super) fn cluster_answered(
        &mut self,
        op: OpId,
        answer: UnitAnswer,
        now: Mono,
    ) -> Result<(), MustReset> {
        // While a reset of this session's own still waits: what came after it is held, and is not to go with it.
        self.newest_state();
        // Whatever the answer is, there is no other: a session whose task waited for one more would never end (F2).
        let task = self.tasks.take_unit(op);
        if answer == UnitAnswer::Unknown {
            return Err(MustReset("the cluster could not be asked in time"));
        }
        let answered = task.is_some();
        if let Some((task, waiting)) = task {
            let response = match (answer, waiting.then) {
                (UnitAnswer::Outcome(UnitOutcome::Good), AfterWord::Sanitized) => {
                    let lun = waiting.lun;
                    self.tasks.put(task, Stage::Sanitizing { lun });
                    let over = self.tmfs.op_ended(op, answered);
                    self.answer_functions(over);
                    return self.start_held(now);
                }
                (UnitAnswer::Outcome(outcome), _) => outcome.response(),
                (_, AfterWord::Swept) => Response::good(),
                (_, AfterWord::Report(action, allocation)) => {
                    let Some(by) = self.nexus() else { return Ok(()) };
                    let state = Arc::clone(&self.front.state.borrow());
                    match state.view(&by, self.group().as_ref(), waiting.lun) {
                        Some(view) => action.answer(view.unit, allocation),
                        // It was taken away meanwhile.
                        None => return Err(MustReset("a unit is gone")),
                    }
                }
                _ => return Err(MustReset("an answer that does not belong to the command")),
            };
            self.respond(task, response);
        }
        let over = self.tmfs.op_ended(op, answered);
        self.answer_functions(over);
        self.start_held(now)
    }

    /// Answers SANITIZE commands whose medium has been gone through. For them there is no hold limit.
    pub(super) fn answer_sanitized(&mut self, state: &FrontState) {
        let waiting = self.tasks.sanitizing();
        if waiting.is_empty() {
            return;
        }
        let (Some(by), group) = (self.nexus(), self.group()) else {
            return;
        };
        for (task, lun) in waiting {
            let unit = state.view(&by, group.as_ref(), lun);
            let unit = unit.map(|view| (view.extent, &view.unit.sanitize));
            let response = match unit {
                Some((_, Sanitize::Running(_))) => continue,
                Some((extent, Sanitize::Idle)) => {
                    // Whoever sends the next command to another node is not to find it shut.
                    self.tasks.take(task);
                    let op = self.new_op();
                    let then = AfterWord::Swept;
                    let waiting = Waiting { lun, then };
                    self.tasks.put(task, Stage::Unit { op, extent, waiting });
                    self.front.units.ask(UnitJob {
                        op: Some(op),
                        extent,
                        by: by.clone(),
                        deadline: self.front.now() + HOLD_LIMIT,
                        want: UnitWant::KnownEverywhere,
                    });
                    continue;
                }
                Some((_, Sanitize::Failed { .. })) => Response::check(Sense::SANITIZE_FAILED),
                // It was taken away meanwhile.
                None => Response::check(Sense::LOGICAL_UNIT_NOT_SUPPORTED),
            };
            self.tasks.take(task);
            self.respond(task, response);
        }
    }

    /// Whether its nexus holds a RESERVE of SPC-2.
    pub(super) fn holds_reservation(&self) -> bool {
        let state = self.front.state.borrow();
        self.nexus().is_some_and(|by| !state.reserved_by(&by).is_empty())
    }

    /// After a logout, before it is answered: has the cluster release what SPC-2 let the nexus hold, at every node.
    pub(super) async fn release(&mut self, inbound: &mut mpsc::UnboundedReceiver<Inbound>) {
        let Some(by) = self.nexus() else { return };
        let extents = self.front.state.borrow().reserved_by(&by);
        let mut asked = HashSet::new();
        for extent in extents {
            let op = self.new_op();
            asked.insert(op);
            self.front.units.ask(UnitJob {
                op: Some(op),
                extent,
                by: by.clone(),
                deadline: self.front.now() + HOLD_LIMIT,
                want: UnitWant::ChangeEverywhere(UnitChange::NexusLost),
            });
        }
        while !asked.is_empty() {
            match inbound.recv().await {
                Some(Inbound::Unit(op, _)) if asked.remove(&op) => {}
                Some(message) => self.inbound_at_end(message),
                None => return,
            }
        }
    }

    /// The session is over: what SPC-2 let its nexus hold ends with it.
    pub(super) fn nexus_lost(&self) {
        let Some(by) = self.nexus() else { return };
        let state = Arc::clone(&self.front.state.borrow());
        for extent in state.reserved_by(&by) {
            self.front.units.ask(UnitJob {
                op: None,
                extent,
                by: by.clone(),
                deadline: self.front.now(),
                want: UnitWant::Change(UnitChange::NexusLost),
            });
        }
    }
}
