//! Initiators: each has a path to every data node, one command at a time, and a timer after which it gives a path up and sends the same
//! data again on another one.

use std::collections::BTreeMap;

use holdfast_drill::checker::{CallId, Outcome};
use holdfast_types::{BlockOp, BlockRange, Lba, OpOutcome};

use super::disk::{bytes, values};
use super::front::FrontEvent;
use super::plan::{BLOCKS, RANGE};
use super::units::{Ask, Identity};
use super::{Ev, MS, Node, Res, Scenario, World, glue, place};

#[derive(Debug)]
pub(super) enum ClientEvent {
    /// The next command, if none is open.
    Next(usize),
    Refused {
        client: usize,
        attempt: u64,
    },
    LoggedIn {
        client: usize,
        attempt: u64,
        node: Node,
        run: u64,
        connection: u64,
    },
    Answer {
        client: usize,
        attempt: u64,
        word: Word,
    },
    /// What became of a wish about reservations.
    Reserved {
        client: usize,
        attempt: u64,
        outcome: Outcome,
    },
    /// The connection is gone; nobody says what became of its commands.
    Lost {
        client: usize,
        node: Node,
        connection: u64,
    },
    /// The path timer of an attempt.
    Timer {
        client: usize,
        attempt: u64,
    },
    /// Tries the next path.
    Again {
        client: usize,
        attempt: u64,
    },
}

/// What a node says of a command.
#[derive(Debug)]
pub(super) enum Word {
    Answer(OpOutcome),
    /// A reset that promises that it takes no effect any more, if it has not.
    NeverLater,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    node: Node,
    run: u64,
    connection: u64,
}

#[derive(Debug)]
struct Open {
    /// Unless it neither reads nor writes.
    call: Option<CallId>,
    from: u64,
    ask: Ask,
}

#[derive(Debug)]
pub(super) struct Client {
    identity: Identity,
    extent: usize,
    path: Node,
    /// Fixed by a scenario.
    pinned: bool,
    line: Option<Line>,
    attempt: u64,
    /// The login under way replaces a session under which the open command was sent.
    replacing: bool,
    open: Option<Open>,
    known: BTreeMap<u64, u64>,
}

impl Client {
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl World {
    pub(super) fn make_clients(&mut self) {
        let data = self.data_nodes();
        for client in 0..self.plan.clients {
            self.clients.push(Client {
                identity: Identity::of(client),
                extent: client % self.plan.extents.len(),
                path: data[client % data.len()],
                pinned: false,
                line: None,
                attempt: 0,
                replacing: false,
                open: None,
                known: BTreeMap::new(),
            });
            let first = 700 * MS + self.rng.below(100 * MS);
            self.after(first, Ev::Client(ClientEvent::Next(client)));
        }
    }

    /// Every second initiator uses that path, and stays with it.
    pub(super) fn pin_clients(&mut self, node: Node) {
        for client in self.clients.iter_mut().step_by(2) {
            client.pinned = true;
            client.path = node;
            if client.open.is_none() {
                client.line = None;
            }
        }
    }

    pub(super) fn unpin(&mut self, client: usize) {
        self.clients[client].pinned = false;
    }

    pub(super) fn open_commands(&self) -> usize {
        self.clients.iter().filter(|client| client.open.is_some()).count()
    }

    fn next_after(&mut self, client: usize) {
        let think = self.rng.between(MS / 2, self.plan.think);
        self.after(think, Ev::Client(ClientEvent::Next(client)));
    }

    pub(super) fn on_client(&mut self, event: ClientEvent) -> Res {
        match event {
            ClientEvent::Next(client) => self.next_command(client),
            ClientEvent::Refused { client, attempt } => {
                // A session that cannot be replaced is given up when the path timer has run out.
                if self.is_current(client, attempt) && !self.clients[client].replacing {
                    self.other_path(client);
                    let wait = self.rng.between(20, 300) * MS;
                    self.after(wait, Ev::Client(ClientEvent::Again { client, attempt }));
                }
            }
            ClientEvent::Again { client, attempt } => {
                if self.is_current(client, attempt) {
                    self.dispatch(client, None);
                }
            }
            ClientEvent::LoggedIn {
                client,
                attempt,
                node,
                run,
                connection,
            } => {
                let line = Line {
                    node,
                    run,
                    connection,
                };
                if self.is_current(client, attempt) {
                    self.clients[client].line = Some(line);
                    if std::mem::take(&mut self.clients[client].replacing) {
                        // Nothing of the old session takes effect any more.
                        self.send_again_on(client, false);
                    } else {
                        self.send_command(client);
                    }
                } else {
                    self.hang_up(line);
                }
            }
            ClientEvent::Answer {
                client,
                attempt,
                word,
            } => self.answered(client, attempt, word),
            ClientEvent::Reserved {
                client,
                attempt,
                outcome,
            } => self.reserved(client, attempt, outcome),
            ClientEvent::Lost {
                client,
                node,
                connection,
            } => self.lost(client, node, connection),
            ClientEvent::Timer { client, attempt } => {
                if self.is_current(client, attempt) {
                    self.give_up(client);
                }
            }
        }
        Ok(())
    }

    fn is_current(&self, client: usize, attempt: u64) -> bool {
        let found = &self.clients[client];
        found.attempt == attempt && found.open.is_some()
    }

    fn other_path(&mut self, client: usize) {
        let mut paths = self.data_nodes();
        let extent = glue::extent_id(self.clients[client].extent);
        if self.rng.chance(70)
            && let Some(found) = self.agreed.head.extents.get(&extent)
            && !found.in_sync.is_empty()
        {
            // As port-group states tell: active/optimized and active/non-optimized before standby.
            paths = found.in_sync.iter().map(|node| place(*node)).collect();
        }
        if !self.clients[client].pinned || self.rng.chance(30) {
            self.clients[client].path = self.rng.pick(&paths);
        }
        self.clients[client].line = None;
    }

    fn next_command(&mut self, client: usize) {
        if self.quiet || self.clients[client].open.is_some() {
            return;
        }
        if self.script.quiet_until > self.now {
            let wait = self.script.quiet_until - self.now;
            return self.after(wait, Ev::Client(ClientEvent::Next(client)));
        }
        if self.rng.chance(4) && !self.clients[client].pinned {
            if let Some(line) = self.clients[client].line.take() {
                self.hang_up(line);
            }
            self.other_path(client);
        }
        let extent = self.clients[client].extent;
        let ask = match self.draw_wish(client, extent) {
            Some(wish) => Ask::Reserve(wish),
            None => Ask::Block(self.draw(client)),
        };
        self.begin(client, ask, None);
    }

    /// `before`: it is sent again.
    fn begin(&mut self, client: usize, ask: Ask, before: Option<CallId>) {
        let extent = self.clients[client].extent;
        let from = self.now;
        let history = &mut self.histories[extent];
        let call = match (&ask, before) {
            (Ask::Reserve(wish), _) => Some(history.reserve(client, from, &wish.what)),
            (Ask::Block(_), Some(before)) => Some(history.invoke_again(before, from)),
            (Ask::Block(op), None) => history.invoke(client, from, op),
        };
        self.clients[client].open = Some(Open { call, from, ask });
        self.dispatch(client, None);
    }

    /// Sends the open command: on the connection there is, or over a new one.
    fn dispatch(&mut self, client: usize, replaces: Option<Line>) {
        if self.clients[client].line.is_some() {
            return self.send_command(client);
        }
        let attempt = self.new_attempt(client);
        let path = replaces.map_or(self.clients[client].path, |line| line.node);
        let run = replaces.map_or(self.hosts[path].run, |line| line.run);
        let delay = self.rng.between(MS / 20, MS);
        let event = FrontEvent::Login {
            client,
            attempt,
            replaces: replaces.map(|line| line.connection),
        };
        self.after(delay, Ev::Front(path, run, event));
    }

    /// Numbers an attempt, and winds up its path timer.
    fn new_attempt(&mut self, client: usize) -> u64 {
        let found = &mut self.clients[client];
        found.attempt += 1;
        let attempt = found.attempt;
        let timer = self.plan.path_timer;
        self.after(timer, Ev::Client(ClientEvent::Timer { client, attempt }));
        attempt
    }

    fn send_command(&mut self, client: usize) {
        self.new_attempt(client);
        let found = &self.clients[client];
        let (Some(line), Some(open)) = (found.line, &found.open) else {
            return;
        };
        let event = FrontEvent::Command {
            connection: line.connection,
            attempt: found.attempt,
            extent: found.extent,
            ask: open.ask.clone(),
        };
        let delay = self.rng.between(MS / 20, MS / 2);
        self.after(delay, Ev::Front(line.node, line.run, event));
        if !self.calm && self.rng.one_in(150) {
            let later = delay + self.rng.below(30 * MS);
            let connection = line.connection;
            self.after(
                later,
                Ev::Front(line.node, line.run, FrontEvent::Abort { connection }),
            );
        }
    }

    fn hang_up(&mut self, line: Line) {
        let connection = line.connection;
        let delay = self.rng.between(MS / 20, MS / 2);
        self.after(
            delay,
            Ev::Front(line.node, line.run, FrontEvent::Close { connection }),
        );
    }

    fn answered(&mut self, client: usize, attempt: u64, word: Word) {
        if !self.is_current(client, attempt) {
            return;
        }
        let outcome = match word {
            Word::NeverLater => {
                self.clients[client].line = None;
                self.count("reset");
                return self.send_again(client);
            }
            Word::Answer(outcome) => outcome,
        };
        let extent = self.clients[client].extent;
        let Some(open) = self.clients[client].open.take() else {
            return;
        };
        if let (OpOutcome::Data(data), Ask::Block(BlockOp::Read { range })) = (&outcome, &open.ask) {
            let blocks = range.lba().0..range.end().0;
            self.clients[client].known.extend(blocks.zip(values(data)));
        }
        self.count(match outcome {
            OpOutcome::Data(_) => "read",
            OpOutcome::Map(_) => "map",
            OpOutcome::Done => "done",
            OpOutcome::Miscompare { .. } => "miscompare",
            OpOutcome::Transitioning => "transitioning",
            OpOutcome::Standby => "standby",
            OpOutcome::NoSpace => "no space",
            OpOutcome::ReservationConflict => "conflict",
            OpOutcome::Unreadable { .. } => "unreadable",
            OpOutcome::Aborted => "aborted",
            OpOutcome::Reset => "reset",
        });
        if let Some(call) = open.call {
            self.histories[extent].answered(call, open.from, self.now, &outcome);
        }
        if let Ask::Block(op) = &open.ask {
            self.answered_cached(extent, open.call, open.from, op, &outcome);
        }
        if outcome == OpOutcome::Standby {
            // What every host does: this path is not for reads and writes now, another one is.
            if let Some(line) = self.clients[client].line.take() {
                self.hang_up(line);
            }
            self.other_path(client);
        }
        self.next_after(client);
    }

    fn reserved(&mut self, client: usize, attempt: u64, outcome: Outcome) {
        if !self.is_current(client, attempt) {
            return;
        }
        let extent = self.clients[client].extent;
        if let Some(open) = self.clients[client].open.take()
            && let Some(call) = open.call
        {
            self.count(match outcome {
                Outcome::Done => "reserved",
                Outcome::Conflict => "reserving conflicts",
                _ => "reservations read or refused",
            });
            self.histories[extent].reserved(call, self.now, outcome);
        }
        self.next_after(client);
    }

    /// The command may have taken effect until now, and never later: the same data is sent again, on whatever path.
    fn send_again(&mut self, client: usize) {
        self.send_again_on(client, true);
    }

    fn send_again_on(&mut self, client: usize, other_path: bool) {
        let extent = self.clients[client].extent;
        let Some(open) = self.clients[client].open.take() else {
            return;
        };
        let reserves = matches!(open.ask, Ask::Reserve(_));
        if let Some(call) = open.call {
            if reserves {
                // What was proposed may be committed yet.
                self.histories[extent].lost(call, self.now);
                self.reserving[extent].lost += 1;
            } else {
                self.histories[extent].given_up(call, self.now);
            }
        }
        self.clients[client].attempt += 1;
        self.clients[client].replacing = false;
        if other_path {
            self.other_path(client);
        }
        if self.quiet || reserves || self.rng.chance(15) {
            return self.next_after(client);
        }
        self.begin(client, open.ask, open.call);
    }

    /// A connection went down under a command. Its fate is open: either the session is replaced on the same node, which answers only when
    /// nothing of it is left, or the path timer has to run out.
    fn lost(&mut self, client: usize, node: Node, connection: u64) {
        let Some(line) = self.clients[client]
            .line
            .filter(|line| line.node == node && line.connection == connection)
        else {
            return;
        };
        self.clients[client].line = None;
        if self.clients[client].open.is_none() {
            return;
        }
        self.count("connection lost");
        let same_run = self.hosts[node].run == line.run && self.hosts[node].process.is_some();
        if same_run && self.rng.chance(60) {
            self.clients[client].replacing = true;
            self.dispatch(client, Some(line));
        } else {
            self.new_attempt(client);
        }
    }

    /// The path timer ran out.
    fn give_up(&mut self, client: usize) {
        self.count("path given up");
        if let Some(line) = self.clients[client].line.take() {
            self.hang_up(line);
        }
        self.send_again(client);
    }

    fn draw(&mut self, client: usize) -> BlockOp {
        // Few blocks in few ranges, so that initiators meet; sometimes any range.
        let range_no = if self.rng.chance(85) {
            self.rng.below(3)
        } else {
            self.rng.below(BLOCKS / RANGE)
        };
        let lba = range_no * RANGE + self.rng.below(4);
        let blocks = self.rng.between(1, 3);
        let span = |blocks| BlockRange::new(Lba(lba), blocks).expect("within the extent");
        let value = self.next_value;
        self.next_value += 1;
        if self.clients[client].pinned && self.rng.chance(90) {
            // One that writes over a path that leads nowhere sees nothing more.
            return BlockOp::Read { range: span(blocks) };
        }
        if self.plan.scenario.is_cached() && self.rng.chance(60) {
            // What goes on while no disk does.
            let flush = self.plan.scenario == Scenario::FlushedAndLost && self.rng.chance(30);
            return if flush {
                BlockOp::Flush
            } else {
                BlockOp::Write {
                    range: span(blocks),
                    data: bytes((0..blocks).map(|_| value)),
                    fua: false,
                }
            };
        }
        match self.rng.below(100) {
            0..34 => BlockOp::Write {
                range: span(blocks),
                data: bytes((0..blocks).map(|_| value)),
                fua: self.rng.chance(10),
            },
            34..42 => BlockOp::WriteSame {
                range: span(blocks),
                block: bytes([value]),
            },
            42..49 => BlockOp::Zero {
                ranges: vec![span(blocks)],
            },
            49..60 => {
                let old = self.clients[client].known.get(&lba).copied().unwrap_or(0);
                BlockOp::CompareAndWrite {
                    range: span(1),
                    expect: bytes([old]),
                    data: bytes([value]),
                }
            }
            60..63 => BlockOp::Flush,
            _ => BlockOp::Read { range: span(blocks) },
        }
    }

    /// What initiators saw of an extent, with what a replica holds in the end.
    pub(super) fn judge(&mut self, extent: usize, node: Node) -> Res {
        let blocks = &self.hosts[node].disk.replicas[extent].blocks;
        let undecided = self.histories[extent]
            .check(blocks, self.now)
            .map_err(|what| format!("x{extent}, {what}"))?;
        if undecided > 0 {
            self.count("blocks not decided");
        }
        Ok(())
    }
}
