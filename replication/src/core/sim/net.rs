//! Links between the simulated nodes.

use super::*;

impl World {
    pub(super) fn send(&mut self, from: usize, to: NodeId, link: LinkId, message: Message) {
        let to = usize::try_from(to.0 - 1).unwrap();
        let delay = self
            .rng
            .between(MS / 20, if self.rng.one_in(64) { 40 * MS } else { MS });
        let now = self.now;
        let Some(state) = self
            .links
            .get_mut(&key(from, to))
            .filter(|state| state.id == link)
        else {
            return;
        };
        let dir = usize::from(from > to);
        let at = (now + delay).max(state.last[dir] + 1);
        state.last[dir] = at;
        let index = state.sent[dir];
        state.sent[dir] += 1;
        self.at(
            at - now,
            Ev::Msg {
                to,
                from,
                link,
                index,
                message,
            },
        );
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        self.connecting.retain(|pair| *pair != key(a, b));
        let up = |node: &Node| node.core.is_some() && node.paused.is_none();
        let blocked = self
            .blocked
            .get(&key(a, b))
            .is_some_and(|until| *until > self.now);
        if blocked || self.links.contains_key(&key(a, b)) || !up(&self.nodes[a]) || !up(&self.nodes[b]) {
            return;
        }
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let (lo, hi) = key(a, b);
        let delays = [self.rng.between(1, 5 * MS), self.rng.between(1, 5 * MS)];
        // Index 0: towards the higher node.
        let last = [self.now + delays[1], self.now + delays[0]];
        let sent = [0, 0];
        self.links.insert((lo, hi), LinkState { id, last, sent });
        for (me, other, delay) in [(lo, hi, delays[0]), (hi, lo, delays[1])] {
            let peer = Identity {
                node: self.nodes[other].id,
                incarnation: Incarnation(self.nodes[other].incarnation),
            };
            let run = self.nodes[me].incarnation;
            self.at(delay, Ev::To(me, run, Event::PeerUp { peer, link: id }));
            let (node, room) = (self.nodes[other].id, self.nodes[other].room);
            self.at(delay + 1, Ev::To(me, run, Event::Room { node, room }));
        }
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        let Some(state) = self.links.remove(&key(a, b)) else {
            return;
        };
        let (lo, hi) = key(a, b);
        self.log(|| format!("link {lo}-{hi} is cut"));
        for (me, other, dir) in [(hi, lo, 0), (lo, hi, 1)] {
            // Some of what is under way still arrives.
            let back = self.rng.below(12);
            self.cuts
                .insert((state.id, me), state.sent[dir].saturating_sub(back));
            let run = self.nodes[me].incarnation;
            let node = self.nodes[other].id;
            let link = state.id;
            let delay = self
                .rng
                .between(0, 20 * MS)
                .max(state.last[dir].saturating_sub(self.now) * (back % 2));
            self.at(delay, Ev::To(me, run, Event::PeerDown { node, link }));
        }
    }

    pub(super) fn part(&mut self, a: usize, b: usize, time: u64) {
        if a != b {
            self.blocked.insert(key(a, b), self.now + time);
            self.cut(a, b);
        }
    }
}
