//! What lies between nodes: datagrams that get lost, doubled and overtaken, messages of Raft on connections of their own, and the links of
//! the data plane, which keep order and break.

use std::collections::{BTreeMap, VecDeque};

use holdfast_raft::lease::Datagram;
use holdfast_replication::core::api::{Event, Identity, LinkId, Message, Room};
use holdfast_types::Incarnation;

use super::raft::Rpc;
use super::{Ev, MS, Node, Res, World, node_id};

/// A link that is up. Index 0 of a pair is the way towards the higher node.
#[derive(Debug)]
struct Link {
    id: LinkId,
    /// When the newest message arrives.
    last: [u64; 2],
    /// Sent and not delivered yet.
    under_way: [VecDeque<(usize, Message)>; 2],
}

/// The state of the network.
#[derive(Debug)]
pub(super) struct Net {
    /// Nothing gets from one to the other before this.
    cut: Vec<Vec<u64>>,
    /// Percent of datagrams that are lost.
    pub(super) loss: Vec<Vec<u64>>,
    /// Longest extra delay of messages.
    pub(super) slow: Vec<Vec<u64>>,
    /// The data plane's link between the two, lower node first, is not dialed before this, whatever else gets through.
    unlinked: Vec<Vec<u64>>,
    links: BTreeMap<(Node, Node), Link>,
    next: u64,
}

impl Net {
    pub(super) fn new(count: usize) -> Self {
        let table = || vec![vec![0; count]; count];
        Self {
            cut: table(),
            loss: table(),
            slow: table(),
            unlinked: table(),
            links: BTreeMap::new(),
            next: 1,
        }
    }

    pub(super) fn is_cut(&self, from: Node, to: Node, now: u64) -> bool {
        self.cut[from][to] > now
    }

    pub(super) fn heal(&mut self) {
        let count = self.cut.len();
        let links = std::mem::take(&mut self.links);
        let next = self.next;
        *self = Self::new(count);
        (self.links, self.next) = (links, next);
    }
}

fn pair(a: Node, b: Node) -> (Node, Node) {
    (a.min(b), a.max(b))
}

impl World {
    fn delay(&mut self, from: Node, to: Node) -> u64 {
        if self.plan.brisk {
            return self.rng.between(MS / 200, MS / 50);
        }
        let usual = if self.rng.one_in(64) && !self.calm {
            40 * MS
        } else {
            MS
        };
        let slow = self.net.slow[from][to];
        let extra = if slow > 0 { self.rng.below(slow) } else { 0 };
        self.rng.between(MS / 20, usual) + extra
    }

    pub(super) fn send_datagram(&mut self, from: Node, to: Node, datagram: Datagram) {
        let lost = self.rng.chance(self.net.loss[from][to]);
        if self.net.is_cut(from, to, self.now) || lost {
            return;
        }
        if !self.calm && self.rng.one_in(50) {
            let later = self.delay(from, to) + self.rng.below(100 * MS);
            let datagram = datagram.clone();
            self.after(later, Ev::Datagram { to, datagram });
        }
        let delay = self.delay(from, to);
        self.after(delay, Ev::Datagram { to, datagram });
    }

    pub(super) fn send_rpc(&mut self, from: Node, to: Node, rpc: Rpc) {
        if self.net.is_cut(from, to, self.now) {
            return;
        }
        let delay = if from == to {
            MS / 100
        } else {
            self.delay(from, to)
        };
        let cluster = self.hosts[from].cluster;
        let rpc = Ev::Rpc {
            to,
            from,
            cluster,
            rpc,
        };
        self.after(delay, rpc);
    }

    /// Cuts one way for a while. Links feel it too: at once, or when they have been silent for too long.
    pub(super) fn cut(&mut self, from: Node, to: Node, time: u64) {
        if from == to {
            return;
        }
        let until = self.now + time;
        self.net.cut[from][to] = self.net.cut[from][to].max(until);
        self.say(|| format!("cut: {from} -> {to} for {} ms", time / MS));
        if self.net.links.contains_key(&pair(from, to)) {
            let (a, b) = pair(from, to);
            if self.rng.chance(50) {
                self.break_link(a, b);
            } else {
                let patience = self.rng.between(1000, 1500) * MS;
                let id = self.net.links[&(a, b)].id;
                self.after(patience, Ev::LinkCheck(a, b, id));
            }
        }
    }

    pub(super) fn cut_both(&mut self, a: Node, b: Node, time: u64) {
        self.cut(a, b, time);
        self.cut(b, a, time);
    }

    /// A link over which nothing came for so long is down.
    pub(super) fn link_check(&mut self, a: Node, b: Node, id: LinkId) {
        let silent = self.net.is_cut(a, b, self.now)
            || self.net.is_cut(b, a, self.now)
            || self.hosts[a].is_paused(self.now)
            || self.hosts[b].is_paused(self.now);
        if silent && self.net.links.get(&(a, b)).is_some_and(|link| link.id == id) {
            self.break_link(a, b);
        }
    }

    pub(super) fn links_of(&self, node: Node) -> Vec<(Node, Node, LinkId)> {
        self.net
            .links
            .iter()
            .filter(|((a, b), _)| *a == node || *b == node)
            .map(|((a, b), link)| (*a, *b, link.id))
            .collect()
    }

    pub(super) fn send(&mut self, from: Node, to: Node, id: LinkId, extent: usize, message: Message) {
        let way = usize::from(from > to);
        let mut delay = self.delay(from, to);
        let now = self.now;
        if self.net.is_cut(from, to, now) {
            // It is sent again until the link is given up.
            delay += self.net.cut[from][to] - now;
        }
        let Some(link) = self
            .net
            .links
            .get_mut(&pair(from, to))
            .filter(|link| link.id == id)
        else {
            return;
        };
        let at = (now + delay).max(link.last[way] + 1);
        link.last[way] = at;
        link.under_way[way].push_back((extent, message));
        self.after(at - now, Ev::Arrive { from, to, link: id });
    }

    pub(super) fn arrive(&mut self, from: Node, to: Node, id: LinkId) -> Res {
        let way = usize::from(from > to);
        let next = match self.net.links.get_mut(&pair(from, to)) {
            Some(link) if link.id == id => link.under_way[way].pop_front(),
            _ => None,
        };
        let Some((extent, message)) = next else {
            return Ok(());
        };
        let (from, link) = (node_id(from), id);
        self.feed(to, extent, Event::Message { from, link, message })
    }

    pub(super) fn dial(&mut self, a: Node, b: Node) {
        let (now, hosts) = (self.now, &self.hosts);
        let up = |node: Node| hosts[node].process.is_some() && !hosts[node].is_paused(now);
        let up = [up(a), up(b)] == [true, true];
        let apart = self.net.unlinked[a][b] > now;
        let blocked = apart || self.net.is_cut(a, b, now) || self.net.is_cut(b, a, now);
        if self.net.links.contains_key(&(a, b)) {
            return;
        }
        let refused = hosts[a].cluster != hosts[b].cluster;
        if refused && !blocked && up {
            self.count("refused after a takeover");
        }
        if refused || blocked || !up {
            let again = self.rng.between(50, 250) * MS;
            return self.after(again, Ev::Dial(a, b));
        }
        let id = LinkId(self.net.next);
        self.net.next += 1;
        let delays = [self.rng.between(1, 5 * MS), self.rng.between(1, 5 * MS)];
        let link = Link {
            id,
            last: [now + delays[1], now + delays[0]],
            under_way: [VecDeque::new(), VecDeque::new()],
        };
        self.net.links.insert((a, b), link);
        self.say(|| format!("link {a}-{b} is up"));
        for (node, other, delay) in [(a, b, delays[0]), (b, a, delays[1])] {
            let peer = Identity {
                node: node_id(other),
                incarnation: Incarnation(self.hosts[other].run),
            };
            let run = self.hosts[node].run;
            let event = Event::PeerUp { peer, link: id };
            self.after(delay, Ev::All { node, run, event });
            let room = self.hosts[other].disk.room;
            if room != Room::default() {
                let event = Event::Room {
                    node: node_id(other),
                    room,
                };
                self.after(delay + 1, Ev::All { node, run, event });
            }
        }
    }

    /// A node's disk fills, or is emptied: its cores hear of it, and those that are linked with it.
    pub(super) fn set_room(&mut self, node: Node, room: Room) {
        if self.hosts[node].disk.room == room {
            return;
        }
        self.say(|| format!("n{node} has {room:?}"));
        self.hosts[node].disk.room = room;
        for to in 0..self.hosts.len() {
            if to == node || self.net.links.contains_key(&pair(node, to)) {
                let run = self.hosts[to].run;
                let event = Event::Room {
                    node: node_id(node),
                    room,
                };
                self.after(2 * MS, Ev::All { node: to, run, event });
            }
        }
    }

    /// A link breaks. Some of what is under way may still arrive before a side hears of it.
    pub(super) fn break_link(&mut self, a: Node, b: Node) {
        self.end_link(a, b, false);
    }

    /// The data plane's link breaks and does not come back for a while; heartbeats and Raft get through.
    pub(super) fn unlink(&mut self, a: Node, b: Node, time: u64) {
        let (a, b) = pair(a, b);
        self.net.unlinked[a][b] = self.net.unlinked[a][b].max(self.now + time);
        self.say(|| format!("no link {a}-{b} for {} ms", time / MS));
        self.break_link(a, b);
    }

    /// An abortive close: nothing that is under way arrives.
    pub(super) fn reset_link(&mut self, a: Node, b: Node, id: LinkId) {
        let (a, b) = pair(a, b);
        if self.net.links.get(&(a, b)).is_some_and(|link| link.id == id) {
            self.end_link(a, b, true);
        }
    }

    fn end_link(&mut self, a: Node, b: Node, abort: bool) {
        let (a, b) = pair(a, b);
        let Some(mut link) = self.net.links.remove(&(a, b)) else {
            return;
        };
        self.say(|| format!("link {a}-{b} is down"));
        for (way, from, to) in [(0, a, b), (1, b, a)] {
            let run = self.hosts[to].run;
            let messages = std::mem::take(&mut link.under_way[way]);
            let most = if abort { 0 } else { messages.len() as u64 };
            let arriving = self.rng.below(most + 1);
            let mut at = 0;
            for (extent, message) in messages.into_iter().take(super::rng::at(arriving)) {
                at += self.rng.below(MS / 2);
                let event = Event::Message {
                    from: node_id(from),
                    link: link.id,
                    message,
                };
                self.after(
                    at,
                    Ev::Core {
                        node: to,
                        run,
                        extent,
                        event,
                    },
                );
            }
            let event = Event::PeerDown {
                node: node_id(from),
                link: link.id,
            };
            let delay = at + self.rng.below(20 * MS) + 1;
            self.after(delay, Ev::All { node: to, run, event });
        }
        let again = self.rng.between(50, 250) * MS;
        self.after(again, Ev::Dial(a, b));
    }
}
