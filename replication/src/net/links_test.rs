//! The order in which cores hear of links and messages.

use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_types::{Epoch, Incarnation};

use super::*;

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Up(u64, u64),
    Down(u64),
    Got(u64, usize),
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Heard>>>);

impl Log {
    fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl LinkEvents for Log {
    fn link_up(&self, peer: Identity, link: LinkId) {
        self.0.lock().unwrap().push(Heard::Up(peer.incarnation.0, link.0));
    }

    fn link_down(&self, _: NodeId, link: LinkId) {
        self.0.lock().unwrap().push(Heard::Down(link.0));
    }

    fn receive(&self, _: NodeId, link: LinkId, messages: Vec<(ExtentId, Message)>) {
        self.0.lock().unwrap().push(Heard::Got(link.0, messages.len()));
    }
}

#[derive(Debug, Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl Carrier for Counted {
    fn send(&self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn abort(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn identity(node: u64, run: u64) -> Identity {
    Identity {
        node: NodeId(node),
        incarnation: Incarnation(run),
    }
}

fn links() -> (Links, Log) {
    let log = Log::default();
    let links = Links::new(identity(1, 1), 7, Box::new(log.clone()));
    links.set_peers(&[NodeId(1), NodeId(2)]);
    (links, log)
}

fn hello(run: u64, link: u64) -> Hello {
    Hello {
        cluster: 7,
        from: identity(2, run),
        to: NodeId(1),
        link: LinkId(link),
        lane: LaneHello {
            lane: link,
            ..LaneHello::default()
        },
    }
}

fn probe() -> (ExtentId, Message) {
    (ExtentId::from_u128(1), Message::Probe { epoch: Epoch(1) })
}

/// A batch of so many messages.
fn batch(number: u64, messages: usize) -> Received {
    Received {
        first: number,
        ends: vec![messages],
        messages: (0..messages).map(|_| probe()).collect(),
        ..Received::default()
    }
}

#[test]
fn f1_messages_of_a_replaced_link_reach_nobody() {
    let (links, log) = links();
    let carrier = Counted::default();
    let (first, one) = links.up(&hello(5, 1), Box::new(carrier.clone())).unwrap();
    assert_eq!(links.receive(&first, &one, batch(1, 1)), Taken::Fine);
    let (second, two) = links.up(&hello(5, 2), Box::new(Counted::default())).unwrap();
    assert!(first.ended());
    assert!(carrier.0.load(Ordering::SeqCst) > 0);
    assert_eq!(links.receive(&first, &one, batch(2, 1)), Taken::Ended);
    // The end of the older connection, noticed late, is not the end of the newer one.
    links.down(&first);
    assert_eq!(links.receive(&second, &two, batch(1, 2)), Taken::Fine);
    let heard = vec![
        Heard::Up(5, 1),
        Heard::Got(1, 1),
        Heard::Down(1),
        Heard::Up(5, 2),
        Heard::Got(2, 2),
    ];
    assert_eq!(log.take(), heard);
    links.send(NodeId(2), LinkId(1), [probe()]);
    assert_eq!(second.outbox().bytes(), 0);
    links.send(NodeId(2), LinkId(2), [probe()]);
    assert!(second.outbox().bytes() > 0);
}

/// Two lanes: what came over one is not taken again over the other, and a gap takes nothing.
#[test]
fn f1_a_batch_counts_once_whichever_lane_it_comes_over() {
    let (links, log) = links();
    let over = |lane: u64, path, joins| Hello {
        lane: LaneHello {
            paths: 2,
            path,
            lane,
            joins,
        },
        ..hello(5, 1)
    };
    let (link, one) = links
        .up(&over(1, 0, false), Box::new(Counted::default()))
        .unwrap();
    let (same, two) = links
        .join(&over(2, 1, true), Box::new(Counted::default()))
        .unwrap();
    assert!(Arc::ptr_eq(&link, &same));
    assert_eq!(links.receive(&link, &one, batch(1, 3)), Taken::Fine);
    // The other lane does not count before the peer says so.
    assert_eq!(links.receive(&link, &two, batch(2, 4)), Taken::Fine);
    links.beat(&link, &two, 1, 0);
    let again = Received {
        first: 1,
        ends: vec![3, 7],
        messages: (0..7).map(|_| probe()).collect(),
        ..Received::default()
    };
    assert_eq!(links.receive(&link, &two, again), Taken::Fine);
    // What is left in the older connection, and what the peer skips.
    assert_eq!(links.receive(&link, &one, batch(3, 1)), Taken::Fine);
    assert_eq!(links.receive(&link, &two, batch(4, 1)), Taken::Missing(3));
    assert_eq!(links.receive(&link, &two, batch(u64::MAX, 1)), Taken::Missing(3));
    assert_eq!(log.take(), [Heard::Up(5, 1), Heard::Got(1, 3), Heard::Got(1, 4)]);
    // A lane of a link that is no more, or older than the one there is.
    let late = links.join(&over(2, 1, true), Box::new(Counted::default()));
    assert_eq!(late.unwrap_err(), Refusal::Gone(1));
    links.down(&link);
    let late = links.join(&over(3, 1, true), Box::new(Counted::default()));
    assert_eq!(late.unwrap_err(), Refusal::Gone(1));
}

#[test]
fn another_run_of_the_peer_replaces_the_link_whatever_its_number() {
    let (links, log) = links();
    links.up(&hello(5, 9), Box::new(Counted::default())).unwrap();
    assert_eq!(
        links.up(&hello(5, 9), Box::new(Counted::default())).unwrap_err(),
        Refusal::Stale(9)
    );
    links.up(&hello(6, 1), Box::new(Counted::default())).unwrap();
    assert_eq!(log.take(), [Heard::Up(5, 9), Heard::Down(9), Heard::Up(6, 1)]);
}

#[test]
fn a_reset_link_hands_on_nothing_and_goes_down_once() {
    let (links, log) = links();
    let (link, lane) = links.up(&hello(5, 1), Box::new(Counted::default())).unwrap();
    links.send(NodeId(2), LinkId(1), [probe()]);
    links.reset(NodeId(2), LinkId(1));
    assert_eq!(link.outbox().bytes(), 0);
    assert_eq!(links.receive(&link, &lane, batch(1, 1)), Taken::Ended);
    links.down(&link);
    links.down(&link);
    assert_eq!(log.take(), [Heard::Up(5, 1), Heard::Down(1)]);
}

#[test]
fn strangers_are_refused_and_removed_peers_lose_their_link() {
    let (links, log) = links();
    let stranger = Hello {
        from: identity(3, 1),
        ..hello(1, 1)
    };
    assert_eq!(
        links.up(&stranger, Box::new(Counted::default())).unwrap_err(),
        Refusal::Stranger(NodeId(3))
    );
    let (link, lane) = links.up(&hello(5, 1), Box::new(Counted::default())).unwrap();
    links.set_peers(&[NodeId(1), NodeId(3)]);
    assert!(link.ended());
    assert_eq!(links.receive(&link, &lane, batch(1, 1)), Taken::Ended);
    assert_eq!(log.take(), [Heard::Up(5, 1), Heard::Down(1)]);
}
