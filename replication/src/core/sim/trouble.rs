//! Crashes, pauses, cuts: drawn, or by a script.

use super::disk::ROTTEN;
use super::*;

impl World {
    pub(super) fn start(&mut self, n: usize) {
        if !self.calm && self.now > 500 * MS && self.rng.chance(8) {
            self.damage(n);
        }
        let commits = self.views.len() - 1;
        let calm = self.calm;
        let behind = if calm { 0 } else { self.rng.below(4) };
        let node = &mut self.nodes[n];
        node.incarnation += 1;
        let me = Identity {
            node: node.id,
            incarnation: Incarnation(node.incarnation),
        };
        let config = Config {
            hold_limit: Duration::from_millis(1000),
            keep_bytes: self.plan.keep_bytes,
            resync_range_bytes: 2048,
            resync_piece_bytes: 1024,
            resync_in_flight: 2,
            resync_busy_bytes: 1024,
            unreadable_retry: Duration::from_millis(100),
            scrub_rate: 1 << 20,
            switchover_limit: Duration::from_millis(500),
            absent_after: Duration::from_millis(400),
            fetch_after: Duration::from_millis(200),
            fate_limit: Duration::from_millis(200),
            ..Config::default()
        };
        let recovered = Self::recovered(&node.stable);
        let doubtful: Vec<BlockRange> = recovered
            .tail
            .iter()
            .flat_map(|record| record.body.ranges().to_vec())
            .collect();
        let core = ExtentCore::new(me, extent_id(), config, recovered);
        node.touched.clear();
        node.core = Some(core);
        node.failed = false;
        node.lease = 0;
        node.heard = self.now;
        node.wake = u64::MAX;
        node.catch_up = commits;
        // The applied state may be older than before the restart.
        node.applied_view = node
            .applied_view
            .saturating_sub(usize::try_from(behind).unwrap_or(0));
        let run = node.incarnation;
        let view = Arc::clone(&self.views[self.nodes[n].applied_view]);
        self.touch(n, &doubtful);
        self.log(|| format!("start {n} in run {run}"));
        self.at(1, Ev::To(n, run, Event::View(view)));
        self.at(2, Ev::View(n, run));
        self.at(50 * MS, Ev::Checkpoint(n));
    }

    pub(super) fn crash(&mut self, n: usize, power: bool) {
        self.log(|| format!("crash {n}, power {power}"));
        let others: Vec<usize> = (0..self.nodes.len()).filter(|m| *m != n).collect();
        for m in others {
            self.cut(n, m);
        }
        let kept = self.rng.below(self.nodes[n].pending.len() as u64 + 1);
        let node = &mut self.nodes[n];
        let Some(core) = node.core.take() else { return };
        let marked = core.base().is_some();
        node.incarnation += 1;
        node.paused = None;
        (node.hung, node.room) = (0, Room::default());
        node.lease = 0;
        node.flushing = None;
        node.io.clear();
        // Part of what was not flushed may be on the disk all the same.
        for _ in 0..kept {
            if let Some((_, entry)) = node.pending.pop_front() {
                node.stable.extend(entry);
            }
        }
        node.pending.clear();
        if power {
            node.extent = node.extent_stable.clone();
        }
        let id = node.id;
        for client in &mut self.clients {
            if self.nodes[client.node].id == id
                && let Some(op) = client.open.take()
            {
                self.history.lost(op);
            }
        }
        let resyncing = self.plan.script == Script::CrashInResync && marked;
        let most = if self.rng.one_in(3) { 3000 } else { 300 };
        let after = self.rng.between(5, if resyncing { 20 } else { most });
        self.at(after * MS, Ev::Restart(n));
    }

    /// Bits of a block flip on one disk, while another member of the set has the block.
    fn rot(&mut self, n: usize) {
        let block = usize::try_from(self.rng.below(BLOCKS)).unwrap();
        let view = Arc::clone(self.views.last().unwrap());
        let holds = |node: &Node| {
            let whole = node.extent[block] != ROTTEN && node.extent_stable[block] != ROTTEN;
            whole && view.in_sync.contains(&node.id) && node.core.is_some()
        };
        if (0..self.nodes.len()).any(|m| m != n && holds(&self.nodes[m])) {
            self.log(|| format!("block {block} of {n} rots"));
            self.nodes[n].extent[block] = ROTTEN;
            self.nodes[n].extent_stable[block] = ROTTEN;
            *self.notes.entry("rotten").or_default() += 1;
        }
    }

    /// The steps of a script that time alone brings.
    pub(super) fn script(&mut self, turn: u64) {
        if self.calm {
            return;
        }
        let all = 0..self.nodes.len();
        let p = self.primary_now();
        match self.plan.script {
            Script::Switchovers => {
                let m = (p + 1) % self.nodes.len();
                let to = self.nodes[m].id;
                let run = self.nodes[p].incarnation;
                self.at(1, Ev::To(p, run, Event::Switchover { to }));
                self.at(400 * MS, Ev::Script(turn + 1));
            }
            Script::Isolated => {
                let time = self.rng.between(1000, 2500) * MS;
                self.nodes[p].isolated = self.now + time;
                for m in all {
                    self.part(p, m, time);
                }
                self.at(3500 * MS, Ev::Script(0));
            }
            Script::Pair => {
                let time = self.rng.between(1500, 2500) * MS;
                if let Some(next) = self.successor(self.nodes[p].id) {
                    let q = usize::try_from(next.node.0 - 1).unwrap();
                    for m in all.filter(|m| *m != q) {
                        self.nodes[m].isolated = self.now + time;
                        self.part(q, m, time);
                    }
                }
                self.at(3500 * MS, Ev::Script(0));
            }
            Script::OldPrimaryReturns if turn == 0 => {
                let time = 2500 * MS;
                self.nodes[p].isolated = self.now + time;
                if let Some(next) = self.successor(self.nodes[p].id) {
                    let q = usize::try_from(next.node.0 - 1).unwrap();
                    self.part(p, q, time);
                    let death = self.rng.between(1000, 2000) * MS;
                    self.at(death, Ev::Crash(q));
                }
                for turn in 1..40 {
                    self.at(turn * 60 * MS, Ev::Script(turn * 100 + p as u64));
                }
            }
            Script::OldPrimaryReturns => {
                let p = usize::try_from(turn % 100).unwrap();
                for m in all {
                    self.cut(p, m);
                }
            }
            _ => {}
        }
    }

    pub(super) fn script_note(&mut self, n: usize, note: &Note) {
        if self.calm {
            return;
        }
        match (self.plan.script, note) {
            (Script::CutAtGrowth, Note::Growing { node }) => {
                let m = usize::try_from(node.0 - 1).unwrap();
                self.part(n, m, 2000 * MS);
                self.at(1, Ev::Isolate(n, 2000 * MS));
                let death = self.rng.between(10, 600) * MS;
                self.at(death, Ev::Crash(n));
            }
            (Script::PowerAfterGrowth, Note::Grown { .. }) if self.rng.chance(50) => {
                let death = self.rng.between(1, 100) * MS;
                // Nothing after it: another resync would hide what is wrong.
                self.plan.script = Script::Done;
                for m in 0..self.nodes.len() {
                    self.at(death, Ev::Crash(m));
                }
            }
            (
                Script::Switchovers,
                Note::Role {
                    role: RoleName::HandedBack,
                    ..
                },
            ) => {
                // After the limit for the commit of a switchover, before the entry that is late.
                let time = self.rng.between(400, 650) * MS;
                self.at(time, Ev::Part(n, 1500 * MS));
                self.at(time, Ev::Isolate(n, 1500 * MS));
            }
            (Script::CrashInResync, Note::ResyncStarted { node, ranges }) if *ranges > 2 => {
                let m = usize::try_from(node.0 - 1).unwrap();
                let death = self.rng.between(1, 200) * MS;
                self.at(death, Ev::Crash(m));
            }
            _ => {}
        }
    }

    pub(super) fn fault(&mut self, more: bool) -> Result<(), String> {
        if self.calm || self.plan.script == Script::Done {
            return Ok(());
        }
        if more {
            let again = self.rng.between(20, if self.plan.guided { 1500 } else { 500 }) * MS;
            self.at(again, Ev::Fault(true));
        }
        let n = usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap();
        let m = usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap();
        self.fault_at(n, m)
    }

    /// The disk of a node hangs, while messages go on; where the Raft log is on the same one, so does what it hears of the cluster.
    fn hang(&mut self, n: usize) {
        let time = self.rng.between(100, 3000) * MS;
        self.log(|| format!("the disk of {n} hangs for {} ms", time / MS));
        self.nodes[n].hung = self.now + time;
        if self.rng.chance(50) {
            self.nodes[n].view_at = self.now + time;
        }
        *self.notes.entry("hung").or_default() += 1;
    }

    /// A disk, or a journal, that is nearly full for a while, or full.
    fn fill_up(&mut self, n: usize) {
        let (low, crowded) = (self.rng.chance(70), self.rng.chance(40));
        let full = low && self.rng.chance(40);
        let all = self.rng.chance(50);
        for n in (0..self.nodes.len()).filter(|m| all || *m == n) {
            self.set_room(n, Room { crowded, low, full });
            let time = self.rng.between(20, 2500) * MS;
            self.at(time, Ev::Roomy(n));
        }
    }

    /// The node's core hears of it, and those that it is linked with.
    pub(super) fn set_room(&mut self, n: usize, room: Room) {
        if self.nodes[n].room == room || self.nodes[n].core.is_none() {
            return;
        }
        self.log(|| format!("room of {n}: {room:?}"));
        self.nodes[n].room = room;
        for m in 0..self.nodes.len() {
            let linked = m == n || self.links.contains_key(&key(n, m));
            if linked && self.nodes[m].core.is_some() {
                let node = self.nodes[n].id;
                let run = self.nodes[m].incarnation;
                self.at(2 * MS, Ev::To(m, run, Event::Room { node, room }));
            }
        }
    }

    fn fault_at(&mut self, n: usize, m: usize) -> Result<(), String> {
        let up = self.nodes[n].core.is_some() && self.nodes[n].paused.is_none();
        match self.rng.below(100) {
            0..18 if up => {
                let power = self.rng.chance(50);
                self.crash(n, power);
            }
            18..22 => {
                for n in 0..self.nodes.len() {
                    self.crash(n, true);
                }
            }
            22..36 if up => {
                let time = self.rng.between(20, if self.rng.one_in(2) { 2000 } else { 200 });
                self.log(|| format!("pause {n} for {time} ms"));
                self.nodes[n].paused = Some(self.now + time * MS);
            }
            36..60 if n != m => {
                let time = self.rng.between(0, 700);
                self.blocked.insert(key(n, m), self.now + time * MS);
                self.cut(n, m);
            }
            60..64 if up => self.hang(n),
            64..67 if up => self.fill_up(n),
            60..70 => {
                let time = self.rng.between(20, 1500);
                self.log(|| format!("isolate {n} for {time} ms"));
                self.nodes[n].isolated = self.now + time * MS;
                if self.rng.chance(50) && n != m {
                    self.blocked.insert(key(n, m), self.now + time * MS);
                    self.cut(n, m);
                }
            }
            70..85 => {
                let to = self.nodes[m].id;
                for node in 0..self.nodes.len() {
                    self.at(
                        1,
                        Ev::To(node, self.nodes[node].incarnation, Event::Switchover { to }),
                    );
                }
            }
            85..87 if up => {
                self.nodes[n].failed = true;
                let reason = FenceReason::Extent;
                self.feed(n, Event::Failed { reason })?;
            }
            87..89 => {
                let run = self.nodes[n].incarnation;
                self.at(1, Ev::To(n, run, Event::Scrub));
            }
            89..92 => self.rot(n),
            92..95 => {
                let all: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].failed).collect();
                for n in all {
                    self.crash(n, false);
                }
            }
            _ if up => {
                let scope = AbortScope::All;
                self.feed(n, Event::Abort { scope })?;
            }
            _ => {}
        }
        Ok(())
    }
}
