//! The committed cluster state: late views, proposals, leases, failover.

use super::*;

impl World {
    pub(super) fn commit(&mut self, change: impl FnOnce(&mut View)) {
        let mut view = View::clone(self.views.last().unwrap());
        view.revision = view.revision.next();
        change(&mut view);
        self.log(|| format!("committed: {view:?}"));
        self.views.push(Arc::new(view));
        for n in 0..self.nodes.len() {
            let often = if self.plan.script == Script::Switchovers {
                30
            } else {
                3
            };
            let slow = !self.calm && self.rng.chance(often);
            let delay = self.rng.between(MS / 5, if slow { 500 * MS } else { 15 * MS });
            if slow {
                self.nodes[n].view_at = self.now + delay;
            }
            let run = self.nodes[n].incarnation;
            self.at(delay, Ev::View(n, run));
        }
    }

    pub(super) fn apply_view(&mut self, n: usize, run: u64) -> Result<(), String> {
        let node = &self.nodes[n];
        if node.incarnation != run || node.core.is_none() || node.isolated.max(node.view_at) > self.now {
            return Ok(());
        }
        if node.applied_view + 1 < self.views.len() {
            let jump = if self.rng.chance(30) {
                self.views.len() - 1
            } else {
                node.applied_view + 1
            };
            self.nodes[n].applied_view = jump;
            if jump + 1 < self.views.len() {
                let delay = self.rng.between(MS / 10, 5 * MS);
                self.at(delay, Ev::View(n, run));
            }
            let view = Arc::clone(&self.views[jump]);
            return self.feed(n, Event::View(view));
        }
        Ok(())
    }

    pub(super) fn commit_proposal(&mut self, proposal: Proposal) {
        let cur = View::clone(self.views.last().unwrap());
        let by = proposal.by;
        let named = cur.primary;
        let any_run = matches!(proposal.change, Change::Reopen | Change::HandOver);
        if cur.epoch != proposal.epoch
            || cur.version != proposal.version
            || named.is_none_or(|p| p.node != by.node || (!any_run && p != by))
        {
            return;
        }
        let suspect = cur.nodes.iter().any(|s| s.node == by.node && s.suspect);
        // A late shrink of a run that ended, whose disk was damaged since, would leave no whole member: two faults at once, outside of this
        // world.
        let by_index = usize::try_from(by.node.0 - 1).unwrap();
        if self.damaged == Some(by_index)
            && Self::recovered(&self.nodes[by_index].stable).damaged
            && matches!(proposal.change, Change::Shrink { .. })
        {
            return;
        }
        let member = |node: &NodeId| cur.in_sync.contains(node);
        match proposal.change {
            Change::Shrink { node } if member(&node) && node != by.node && !suspect => self.commit(|view| {
                view.in_sync.retain(|n| *n != node);
                view.version = view.version.next();
            }),
            Change::Grow { node, .. } if !member(&node) && !suspect => self.commit(|view| {
                view.in_sync.push(node);
                view.version = view.version.next();
            }),
            Change::GrowVoid | Change::CacheSettled | Change::Retire => {
                self.commit(|view| view.version = view.version.next())
            }
            Change::Switchover { to } if member(&to.node) => self.new_epoch(to),
            Change::Reopen if member(&by.node) => self.new_epoch(by),
            Change::HandOver => {
                if let Some(to) = self.successor(by.node) {
                    self.new_epoch(to);
                }
            }
            _ => {}
        }
    }

    pub(super) fn new_epoch(&mut self, to: Identity) {
        self.commit(|view| {
            view.epoch = view.epoch.next();
            view.version = view.version.next();
            view.primary = Some(to);
        });
    }

    pub(super) fn successor(&self, not: NodeId) -> Option<Identity> {
        let cur = self.views.last().unwrap();
        self.nodes
            .iter()
            .filter(|node| node.id != not && cur.in_sync.contains(&node.id))
            .filter(|node| node.core.is_some() && node.paused.is_none() && node.isolated <= self.now)
            .map(|node| Identity {
                node: node.id,
                incarnation: Incarnation(node.incarnation),
            })
            .next()
    }

    pub(super) fn primary_now(&self) -> usize {
        let primary = self.views.last().unwrap().primary.unwrap();
        usize::try_from(primary.node.0 - 1).unwrap()
    }

    /// Leases, suspicion, failover, reconnecting.
    pub(super) fn keeper(&mut self) -> Result<(), String> {
        let now = self.now;
        for n in 0..self.nodes.len() {
            if self.nodes[n].paused.is_some_and(|until| until <= now) {
                self.nodes[n].paused = None;
            }
            let node = &mut self.nodes[n];
            let heard = node.core.is_some() && node.paused.is_none() && node.isolated <= now;
            if heard {
                if now - node.heard > 120 * MS {
                    node.back_since = now;
                }
                node.heard = now;
            }
            let applied = node.applied_view;
            let silent = now - node.heard > SILENT;
            let back = now - node.back_since > 100 * MS;
            let caught_up = applied >= node.catch_up;
            let cur = Arc::clone(self.views.last().unwrap());
            let suspect = cur.nodes[n].suspect;
            if heard && !suspect && caught_up && applied >= self.marks[n] {
                self.nodes[n].lease = now + LEASE;
                self.promises[n] = now + LEASE;
                let run = self.nodes[n].incarnation;
                self.at(1, Ev::To(n, run, Event::Tick));
            } else if silent && !suspect {
                self.commit(|view| view.nodes[n].suspect = true);
                self.marks[n] = self.views.len() - 1;
            } else if suspect && heard && back && applied >= self.marks[n] {
                self.commit(|view| {
                    view.nodes[n].suspect = false;
                    view.nodes[n].generation = view.nodes[n].generation.next();
                });
                self.marks[n] = self.views.len() - 1;
            } else if suspect
                && self.promises[n] <= now
                && cur.primary.is_some_and(|p| p.node == self.nodes[n].id)
                && let Some(to) = self.successor(self.nodes[n].id)
            {
                self.new_epoch(to);
            }
        }
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                let long = |node: &Node| node.paused.is_some_and(|_| now - node.heard > SILENT);
                if self.links.contains_key(&(a, b)) {
                    if long(&self.nodes[a]) || long(&self.nodes[b]) {
                        self.cut(a, b);
                    }
                } else if !self.connecting.contains(&(a, b)) {
                    self.connecting.push((a, b));
                    let delay = self.rng.between(MS, 60 * MS);
                    self.at(delay, Ev::Connect(a, b));
                }
            }
        }
        for n in 0..self.nodes.len() {
            let run = self.nodes[n].incarnation;
            if self.nodes[n].isolated <= now {
                self.at(1, Ev::View(n, run));
            }
        }
        self.at(20 * MS, Ev::Keeper);
        Ok(())
    }
}
