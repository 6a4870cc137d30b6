//! A node's front: connections of initiators, the lease generation they belong to, and what becomes of commands when one ends.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_raft::lease::LeaseReading;
use holdfast_replication::core::api::{AbortScope, Event, OpId, Request, StatusNews};
use holdfast_types::{
    CommandName, Incarnation, InitiatorTag, LeaseGeneration, OpOutcome, Origin, SessionInstance,
};

use super::clients::{ClientEvent, Word};
use super::units::Ask;
use super::{Ev, MS, Node, Res, World, glue, node_id};

/// What an initiator sends, and its own number for it.
#[derive(Debug, Clone)]
pub(super) enum FrontEvent {
    /// Log in; `replaces`: an earlier connection to the same run, whose commands must have ended first (F2).
    Login {
        client: usize,
        attempt: u64,
        replaces: Option<u64>,
    },
    Command {
        connection: u64,
        attempt: u64,
        extent: usize,
        ask: Ask,
    },
    /// A change of the extent's reservations is proposed again, if it is not decided.
    ChangeAgain { extent: usize },
    /// A fence that had no answer is asked for again.
    FenceAgain { op: u64 },
    /// ABORT TASK for the connection's command.
    Abort { connection: u64 },
    /// The initiator has closed it.
    Close { connection: u64 },
}

#[derive(Debug)]
struct Connection {
    client: usize,
    session: SessionInstance,
    generation: LeaseGeneration,
    sn: u64,
    ops: BTreeSet<u64>,
    /// The initiator hears nothing more from it.
    closed: bool,
    /// A login that waits for its commands to end.
    waiter: Option<(usize, u64)>,
}

#[derive(Debug)]
struct OpenOp {
    connection: u64,
    attempt: u64,
    extent: usize,
}

/// The front of one run.
#[derive(Debug, Default)]
pub(super) struct Front {
    next: u64,
    connections: BTreeMap<u64, Connection>,
    ops: BTreeMap<u64, OpenOp>,
}

impl World {
    fn tell(&mut self, event: ClientEvent) {
        let delay = self.rng.between(MS / 20, MS / 2);
        self.after(delay, Ev::Client(event));
    }

    pub(super) fn on_front(&mut self, node: Node, run: u64, event: FrontEvent) -> Res {
        let current = self.hosts[node].run == run && self.hosts[node].process.is_some();
        match event {
            FrontEvent::Login {
                client,
                attempt,
                replaces,
            } => {
                // Whichever run listens now.
                if self.hosts[node].process.is_none() {
                    self.tell(ClientEvent::Refused { client, attempt });
                    return Ok(());
                }
                self.login(node, client, attempt, replaces.filter(|_| current))
            }
            FrontEvent::Command {
                connection,
                attempt,
                extent,
                ask,
            } if current => self.submit(node, connection, attempt, extent, ask),
            FrontEvent::ChangeAgain { extent } if current => self.propose_change(node, extent),
            FrontEvent::FenceAgain { op } if current => self.fence_again(node, op),
            FrontEvent::Abort { connection } if current => {
                let Some(process) = self.hosts[node].process.as_ref() else {
                    return Ok(());
                };
                let Some(found) = process.front.connections.get(&connection) else {
                    return Ok(());
                };
                let ops: Vec<(u64, usize)> = found
                    .ops
                    .iter()
                    .filter_map(|op| Some((*op, process.front.ops.get(op)?.extent)))
                    .collect();
                for (op, extent) in ops {
                    let scope = AbortScope::Op(OpId(op));
                    self.feed(node, extent, Event::Abort { scope })?;
                }
                Ok(())
            }
            FrontEvent::Close { connection } if current => self.close(node, connection),
            _ => Ok(()),
        }
    }

    fn login(&mut self, node: Node, client: usize, attempt: u64, replaces: Option<u64>) -> Res {
        let now = self.local(node);
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        if !process.cell.holds(now) {
            // I8: without a quorum the port refuses TCP.
            self.tell(ClientEvent::Refused { client, attempt });
            return Ok(());
        }
        if let Some(old) = replaces
            && let Some(found) = process.front.connections.get_mut(&old)
            && !found.ops.is_empty()
        {
            found.waiter = Some((client, attempt));
            return self.close(node, old);
        }
        let generation = process.cell.generation();
        process.front.next += 1;
        let connection = process.front.next;
        let session = SessionInstance {
            node: node_id(node),
            incarnation: Incarnation(self.hosts[node].run),
            serial: connection,
        };
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        process.front.connections.insert(
            connection,
            Connection {
                client,
                session,
                generation,
                sn: 0,
                ops: BTreeSet::new(),
                closed: false,
                waiter: None,
            },
        );
        let run = self.hosts[node].run;
        self.tell(ClientEvent::LoggedIn {
            client,
            attempt,
            node,
            run,
            connection,
        });
        Ok(())
    }

    fn submit(&mut self, node: Node, connection: u64, attempt: u64, extent: usize, ask: Ask) -> Res {
        let now = self.local(node);
        let id = self.next_op;
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let paused = process.cell.read(now) == LeaseReading::Paused;
        let generation = process.cell.generation();
        let Some(found) = process.front.connections.get_mut(&connection) else {
            return Ok(());
        };
        if found.closed {
            return Ok(());
        }
        if paused || generation != found.generation {
            // L7: unread.
            return self.lose(node, connection);
        }
        found.sn += 1;
        let client = found.client;
        let op = match ask {
            Ask::Block(op) => op,
            Ask::Reserve(wish) => return self.submit_wish(node, (client, attempt), extent, wish),
        };
        found.ops.insert(id);
        let admitted = process.state.extents.get(&glue::extent_id(extent));
        let request = Request {
            name: CommandName {
                session: found.session,
                cmd_sn: found.sn,
            },
            received: now,
            generation,
            origin: Origin {
                nexus: self.clients[client].identity().tag,
                admitted: admitted.map(|found| found.unit.version).unwrap_or_default(),
                initiator: InitiatorTag(client as u128 + 1),
            },
            op,
        };
        process.front.ops.insert(
            id,
            OpenOp {
                connection,
                attempt,
                extent,
            },
        );
        self.next_op += 1;
        let op = OpId(id);
        self.feed(node, extent, Event::Submit { op, request })
    }

    /// The node resets a connection: its initiator hears of it, what is open is aborted.
    fn lose(&mut self, node: Node, connection: u64) -> Res {
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        if let Some(found) = process.front.connections.get_mut(&connection)
            && !found.closed
        {
            let client = found.client;
            self.tell(ClientEvent::Lost {
                client,
                node,
                connection,
            });
        }
        self.close(node, connection)
    }

    fn close(&mut self, node: Node, connection: u64) -> Res {
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let Some(found) = process.front.connections.get_mut(&connection) else {
            return Ok(());
        };
        found.closed = true;
        let session = found.session;
        let extents: BTreeSet<usize> = found
            .ops
            .iter()
            .filter_map(|op| process.front.ops.get(op))
            .map(|op| op.extent)
            .collect();
        if extents.is_empty() {
            process.front.connections.remove(&connection);
            return self.session_ended(node, session);
        }
        for extent in extents {
            let scope = AbortScope::Session(session);
            self.feed(node, extent, Event::Abort { scope })?;
        }
        Ok(())
    }

    /// L7. Told through events of their own: the heartbeat thread waits for nobody.
    pub(super) fn reset_connections(&mut self, node: Node) {
        let Some(process) = self.hosts[node].process.as_ref() else {
            return;
        };
        let open: Vec<(u64, usize)> = process
            .front
            .connections
            .iter()
            .filter(|(_, found)| !found.closed)
            .map(|(connection, found)| (*connection, found.client))
            .collect();
        let run = self.hosts[node].run;
        for (connection, client) in open {
            if let Some(process) = self.hosts[node].process.as_mut()
                && let Some(found) = process.front.connections.get_mut(&connection)
            {
                found.closed = true;
            }
            self.tell(ClientEvent::Lost {
                client,
                node,
                connection,
            });
            self.after(MS / 100, Ev::Front(node, run, FrontEvent::Close { connection }));
        }
    }

    /// All initiators of the node hear that it is gone.
    pub(super) fn front_dies(&mut self, node: Node) {
        let Some(process) = self.hosts[node].process.as_ref() else {
            return;
        };
        let open: Vec<(u64, usize)> = process
            .front
            .connections
            .iter()
            .map(|(connection, found)| (*connection, found.client))
            .collect();
        for (connection, client) in open {
            self.tell(ClientEvent::Lost {
                client,
                node,
                connection,
            });
        }
    }

    /// W6: nothing of the session is in storage any more.
    fn session_ended(&mut self, node: Node, session: SessionInstance) -> Res {
        let news = vec![StatusNews::Ended(session)];
        self.feed_all(node, &Event::Statuses { news })
    }

    /// The one answer to a command.
    pub(super) fn completed(&mut self, node: Node, op: u64, outcome: OpOutcome) -> Res {
        if self.fenced(node, op, &outcome) {
            return Ok(());
        }
        let Some(process) = self.hosts[node].process.as_mut() else {
            return Ok(());
        };
        let Some(open) = process.front.ops.remove(&op) else {
            return Err(format!("n{node} answers command {op} twice: {outcome:?}"));
        };
        let connection = open.connection;
        let Some(found) = process.front.connections.get_mut(&connection) else {
            return Ok(());
        };
        found.ops.remove(&op);
        let client = found.client;
        let done = found.ops.is_empty();
        let session = found.session;
        if found.closed {
            let waiter = found.waiter.take();
            if done {
                process.front.connections.remove(&connection);
                self.session_ended(node, session)?;
                if let Some((client, attempt)) = waiter {
                    return self.login(node, client, attempt, None);
                }
            } else if let Some(process) = self.hosts[node].process.as_mut()
                && let Some(found) = process.front.connections.get_mut(&connection)
            {
                found.waiter = waiter;
            }
            return Ok(());
        }
        let wrote = outcome == OpOutcome::Done;
        let word = match outcome {
            OpOutcome::Reset => {
                found.closed = true;
                if done {
                    process.front.connections.remove(&connection);
                }
                Word::NeverLater
            }
            outcome => Word::Answer(outcome),
        };
        let attempt = open.attempt;
        self.tell(ClientEvent::Answer {
            client,
            attempt,
            word,
        });
        if wrote {
            self.script_done(node);
        }
        Ok(())
    }
}
