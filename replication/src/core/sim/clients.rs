//! Initiators.

use super::*;

impl World {
    pub(super) fn client(&mut self, c: usize) -> Result<(), String> {
        let again = self.rng.between(1, 30) * MS;
        self.at(again, Ev::Client(c));
        if self.quiet_from > 0 || self.clients[c].open.is_some() {
            return Ok(());
        }
        if self.rng.chance(10) {
            let count = self.nodes.len() as u64;
            self.clients[c].node = usize::try_from(self.rng.below(count)).unwrap();
            self.clients[c].incarnation = 0;
        }
        let n = self.clients[c].node;
        let node = &mut self.nodes[n];
        if node.core.is_none() || node.paused.is_some() {
            return Ok(());
        }
        let client = &mut self.clients[c];
        if client.incarnation != node.incarnation {
            client.incarnation = node.incarnation;
            node.sessions += 1;
            client.session = node.sessions;
            client.sn = 0;
        }
        client.sn += 1;
        let name = CommandName {
            session: SessionInstance {
                node: node.id,
                incarnation: Incarnation(node.incarnation),
                serial: client.session,
            },
            cmd_sn: client.sn,
        };
        let (op, call) = self.draw(c);
        let id = self.next_op;
        self.next_op += 1;
        self.clients[c].open = Some(id);
        self.history.start(id, c, self.now, call);
        let request = Request {
            name,
            received: Mono::from_nanos(self.now),
            generation: self.ctx(n).generation,
            origin: Default::default(),
            op,
        };
        self.feed(
            n,
            Event::Submit {
                op: OpId(id),
                request,
            },
        )
    }

    pub(super) fn draw(&mut self, c: usize) -> (BlockOp, Call) {
        let lba = if self.rng.chance(70) {
            self.rng.below(12)
        } else {
            self.rng.below(BLOCKS)
        };
        let blocks = self.rng.between(1, 3).min(BLOCKS - lba);
        let range = BlockRange::new(Lba(lba), blocks).unwrap();
        let one = BlockRange::new(Lba(lba), 1).unwrap();
        let value = self.next_value;
        self.next_value += 1;
        match self.rng.below(100) {
            0..35 => {
                let data = fill(value, blocks);
                let fua = false;
                (BlockOp::Write { range, data, fua }, Call::Write { range, value })
            }
            35..45 => {
                let block = fill(value, 1);
                (BlockOp::WriteSame { range, block }, Call::Write { range, value })
            }
            45..52 => {
                let lba = PLAIN + lba % (BLOCKS - PLAIN);
                let one = BlockRange::new(Lba(lba), 1).unwrap();
                let ranges = vec![one, BlockRange::new(Lba(BLOCKS - 1), 1).unwrap()];
                (BlockOp::Zero { ranges }, Call::Other)
            }
            52..65 => {
                let old = self.clients[c].known[usize::try_from(lba).unwrap()];
                let (expect, data) = (fill(old, 1), fill(value, 1));
                let range = one;
                (
                    BlockOp::CompareAndWrite { range, expect, data },
                    Call::Swap { range, old, value },
                )
            }
            65..69 => (BlockOp::Flush, Call::Other),
            69 => (
                BlockOp::Map {
                    from: Lba(lba),
                    runs: 64,
                },
                Call::Other,
            ),
            _ => (BlockOp::Read { range }, Call::Read { range }),
        }
    }

    pub(super) fn completed(&mut self, n: usize, op: u64, outcome: OpOutcome) -> Result<(), String> {
        let Some(c) = self.clients.iter().position(|client| client.open == Some(op)) else {
            return Err(format!("op {op} on node {n} is answered twice: {outcome:?}"));
        };
        self.clients[c].open = None;
        let crash = self.plan.script == Script::CrashAtDone && outcome == OpOutcome::Done;
        if crash && !self.calm && self.rng.chance(1) {
            self.at(1, Ev::Crash(n));
        }
        let read = match &outcome {
            OpOutcome::Data(data) => values(data),
            _ => vec![],
        };
        if let Some(Call::Read { range }) = self.history.call(op)
            && !read.is_empty()
        {
            self.clients[c].known[span(range)].copy_from_slice(&read);
        }
        let kind = match &outcome {
            OpOutcome::Done => "done",
            OpOutcome::Data(_) => "read",
            OpOutcome::Map(_) => "map",
            OpOutcome::Miscompare { .. } => "miscompare",
            OpOutcome::Transitioning => "transitioning",
            OpOutcome::Standby => "standby",
            OpOutcome::Reset => "reset",
            OpOutcome::Aborted => "aborted",
            OpOutcome::Unreadable { .. } => "unreadable",
            OpOutcome::NoSpace => "no space",
            OpOutcome::ReservationConflict => return Err("a conflict without a reservation".into()),
        };
        *self.notes.entry(kind).or_default() += 1;
        self.history.end(op, self.now, &outcome, read);
        Ok(())
    }
}
