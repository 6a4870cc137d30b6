//! Which connections there are, and how others reach them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use holdfast_iscsi::pdu::LoginStatus;
use holdfast_iscsi::session::{Admission, LoginRequested, SessionSerial, SessionTable};
use holdfast_iscsi::target::TmfId;
use holdfast_replication::core::api::OpId;
use holdfast_types::{EVENTS, ExtentId, Nexus, OpOutcome};
use tokio::sync::mpsc;

use super::shares::Shares;
use super::units::UnitAnswer;
use crate::metrics::Traffic;
use crate::status::SessionStatus;

/// Connections that have not logged in, at most. Each may cost its login text (16 KiB) and a read buffer.
const HALF_OPEN_MAX: usize = 1024;

/// What a connection is told by the rest of the node.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A storage operation ended.
    Completed(OpId, OpOutcome),
    /// The cluster has answered about a unit.
    Unit(OpId, UnitAnswer),
    /// LOGICAL UNIT RESET or CLEAR TASK SET on another connection: abort this one's tasks on the unit, then drop the token.
    EndUnit {
        /// The unit's extent.
        extent: ExtentId,
        /// Which of the two.
        function: UnitFunction,
        /// Dropped when no task of the unit is left here.
        token: Arc<ResetToken>,
    },
    /// Every other connection has dropped its tasks for this function.
    OthersReset(TmfId),
    /// End at once, without another answer: the initiator is to try again elsewhere (I8, L7), or has logged in anew.
    Reset(&'static str),
    /// The initiator is asked to log out within so many seconds (Asynchronous Message, event 1); it is served on until then.
    AskLogout(u16),
    /// End in order: what was answered goes out first, and that this is the end (event 3).
    Close,
}

/// A function that ends everybody's tasks on a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnitFunction {
    /// CLEAR TASK SET: who lost tasks by it hears 06/2F/00 (SAM-5, 7.4).
    ClearTaskSet,
    /// LOGICAL UNIT RESET: everybody hears 06/29/03 (SAM-5, 7.7).
    Reset,
}

/// Tells a connection when every other one has dropped its tasks: when the last copy of this is gone.
#[derive(Debug)]
pub(crate) struct ResetToken {
    asked_by: mpsc::UnboundedSender<Inbound>,
    id: TmfId,
}

impl Drop for ResetToken {
    fn drop(&mut self) {
        // A connection that is gone waits for nothing.
        let _ = self.asked_by.send(Inbound::OthersReset(self.id));
    }
}

struct Connection {
    inbound: mpsc::UnboundedSender<Inbound>,
    session: Option<(SessionSerial, SessionStatus)>,
    /// Of a normal session.
    nexus: Option<Nexus>,
    /// The connection is over, its session waits for storage.
    ending: bool,
}

/// A node's connections. The queue towards a connection is bounded by what the connection itself has open.
#[derive(Default)]
pub(crate) struct Registry {
    connections: RwLock<HashMap<u32, Connection>>,
    sessions: Mutex<SessionTable>,
    /// Connections that have not logged in, oldest first (by number).
    half_open: Mutex<BTreeSet<u32>>,
    shares: Arc<Shares>,
    traffic: Arc<Traffic>,
    last: AtomicU32,
    /// The node stops: whoever logs in is to go elsewhere, where it may.
    stopping: AtomicBool,
}

/// A connection's own number: the upper half of its operations' ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId(u32);

impl ConnectionId {
    /// The id of this connection's `serial`th operation. Serials wrap after 2^32 operations; none is open that long.
    pub(crate) const fn op(self, serial: u32) -> OpId {
        OpId((self.0 as u64) << 32 | serial as u64)
    }
}

impl Registry {
    /// What sessions have in storage.
    pub(crate) fn shares(&self) -> Arc<Shares> {
        Arc::clone(&self.shares)
    }

    /// What their commands cost, for the metrics.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    fn half_open(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.half_open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that has not logged in yet is one more of those; where there are too many the oldest goes, so that who logs in at
    /// once finds room however many do not.
    fn opened(&self, id: u32, connections: &HashMap<u32, Connection>) {
        let mut half_open = self.half_open();
        half_open.insert(id);
        while half_open.len() > HALF_OPEN_MAX
            && let Some(oldest) = half_open.pop_first()
        {
            if let Some(connection) = connections.get(&oldest) {
                let _ = connection
                    .inbound
                    .send(Inbound::Reset("too many connections have not logged in"));
            }
        }
    }

    /// A new connection, and its queue.
    pub(crate) fn connect(&self) -> (ConnectionId, mpsc::UnboundedReceiver<Inbound>) {
        let (inbound, receiver) = mpsc::unbounded_channel();
        let mut connections = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        loop {
            let id = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            // Only after a wrap can a number be taken.
            if let std::collections::hash_map::Entry::Vacant(entry) = connections.entry(id) {
                entry.insert(Connection {
                    inbound,
                    session: None,
                    nexus: None,
                    ending: false,
                });
                self.opened(id, &connections);
                return (ConnectionId(id), receiver);
            }
        }
    }

    /// The connection is gone; its session is there until [`Self::disconnect`].
    pub(crate) fn end(&self, id: ConnectionId) {
        let mut connections = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = connections.get_mut(&id.0) {
            connection.ending = true;
        }
        self.half_open().remove(&id.0);
    }

    /// The connection is gone, and its session with it.
    pub(crate) fn disconnect(&self, id: ConnectionId, why: &str) {
        let gone = self
            .connections
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id.0);
        if let Some((session, status)) = gone.and_then(|connection| connection.session) {
            if status.target.is_some() {
                tracing::info!(
                    target: EVENTS,
                    what = "session",
                    "session {} of {} is over: {why}",
                    session.0,
                    status.initiator
                );
            }
            self.sessions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .end(session);
        }
    }

    /// Whether a session of that nexus is here, and does not end.
    pub(super) fn is_here(&self, nexus: &Nexus) -> bool {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        let mut alive = connections.values().filter(|connection| !connection.ending);
        alive.any(|connection| connection.nexus.as_ref() == Some(nexus))
    }

    /// Admits a login of a connection, where its target has `most` sessions at most; `status` describes the session to people.
    pub(crate) fn log_in(
        &self,
        id: ConnectionId,
        (login, nexus): (&LoginRequested, Option<&Nexus>),
        most: Option<u32>,
        mut status: SessionStatus,
    ) -> Admission {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let admission = if sessions.is_full_for(login, most) {
            Admission::Refuse(LoginStatus::TOO_MANY_CONNECTIONS)
        } else {
            sessions.begin(login)
        };
        drop(sessions);
        if let Admission::New { session, .. } | Admission::Reinstate { session, .. } = admission
            && let Some(connection) = self
                .connections
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .get_mut(&id.0)
        {
            self.half_open().remove(&id.0);
            status.id = session.0;
            if let Some(target) = &status.target {
                tracing::info!(
                    target: EVENTS,
                    what = "session",
                    "{} has logged in to {target} at {} from {}, session {}",
                    status.initiator,
                    status.portal,
                    status.peer,
                    session.0
                );
            }
            connection.session = Some((session, status));
            connection.nexus = nexus.cloned();
        }
        admission
    }

    /// Ends the connection of a session that is reinstated. False if it is gone already.
    pub(crate) fn reset_session(&self, old: SessionSerial) -> bool {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        let found = connections.values().find(|connection| {
            connection
                .session
                .as_ref()
                .is_some_and(|(serial, _)| *serial == old)
        });
        found.is_some_and(|connection| {
            connection
                .inbound
                .send(Inbound::Reset("the session is reinstated"))
                .is_ok()
        })
    }

    /// Ends a session in order: what was answered goes out first. False where there is none of that number.
    pub(crate) fn close_session(&self, serial: u64) -> bool {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        let mut known = connections.values().filter(|connection| !connection.ending);
        let found = known.find(|connection| {
            connection
                .session
                .as_ref()
                .is_some_and(|(known, _)| known.0 == serial)
        });
        found.is_some_and(|connection| connection.inbound.send(Inbound::Close).is_ok())
    }

    /// Whether a session is still there.
    pub(crate) fn has_session(&self, serial: SessionSerial) -> bool {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        connections.values().any(|connection| {
            connection
                .session
                .as_ref()
                .is_some_and(|(known, _)| *known == serial)
        })
    }

    /// Ends every connection at once.
    pub(crate) fn reset_all(&self, why: &'static str) {
        self.tell_all(|| Inbound::Reset(why));
    }

    /// Asks every initiator to log out within so many seconds, since the node stops.
    pub(crate) fn ask_logout(&self, seconds: u16) {
        self.stopping.store(true, Ordering::Relaxed);
        self.tell_all(|| Inbound::AskLogout(seconds));
    }

    /// Whether initiators were asked to log out since the node stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends every connection in order.
    pub(crate) fn close_all(&self) {
        self.tell_all(|| Inbound::Close);
    }

    /// Ends every connection to a target in order (TARGET COLD RESET).
    pub(crate) fn close_target(&self, target: &str) {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        let of_target = connections.values().filter(|connection| {
            let status = connection.session.as_ref().map(|(_, status)| status);
            status.is_some_and(|status| status.target.as_deref() == Some(target))
        });
        for connection in of_target {
            let _ = connection.inbound.send(Inbound::Close);
        }
    }

    /// LOGICAL UNIT RESET or CLEAR TASK SET, asked of `from`: every other connection drops its tasks on the unit; then `from` hears
    /// [`Inbound::OthersReset`].
    pub(crate) fn end_unit(&self, from: ConnectionId, extent: ExtentId, function: UnitFunction, id: TmfId) {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        let Some(asking) = connections.get(&from.0) else {
            return;
        };
        let token = Arc::new(ResetToken {
            asked_by: asking.inbound.clone(),
            id,
        });
        for (_, connection) in connections.iter().filter(|(id, _)| **id != from.0) {
            let _ = connection.inbound.send(Inbound::EndUnit {
                extent,
                function,
                token: Arc::clone(&token),
            });
        }
    }

    fn tell_all(&self, message: impl Fn() -> Inbound) {
        for connection in self
            .connections
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            // A connection that is ending hears nothing any more, and need not.
            let _ = connection.inbound.send(message());
        }
    }

    /// An operation ended. Its connection may be gone: then nobody waits for it.
    pub(crate) fn complete(&self, op: OpId, outcome: OpOutcome) {
        let id = u32::try_from(op.0 >> 32).unwrap_or(0);
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = connections.get(&id) {
            let _ = connection.inbound.send(Inbound::Completed(op, outcome));
        }
    }

    /// The cluster's answer about a unit. Its connection may be gone.
    pub(crate) fn unit_done(&self, op: OpId, answer: UnitAnswer) {
        let id = u32::try_from(op.0 >> 32).unwrap_or(0);
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = connections.get(&id) {
            let _ = connection.inbound.send(Inbound::Unit(op, answer));
        }
    }

    /// The sessions, for people.
    pub(crate) fn sessions(&self) -> Vec<SessionStatus> {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        connections
            .values()
            .filter(|connection| !connection.ending)
            .filter_map(|connection| connection.session.as_ref().map(|(_, status)| status.clone()))
            .collect()
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.connections
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}
