//! Registrations with a server in memory that keeps entities as RFC 4171 wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_types::{Mono, TpgId};

use super::{Condition, Objects, Registration};
use crate::pair::Random;

const ENTITY: &str = "cluster";

fn seconds(seconds: u64) -> Mono {
    Mono::ZERO + Duration::from_secs(seconds)
}

fn objects(portals: &[u8], targets: &[&str]) -> Option<Arc<Objects>> {
    let portal = |node: &u8| (([192, 0, 2, *node], 3260).into(), TpgId((*node).into()));
    let name = |name: &&str| format!("iqn.2026-11.example:{name}").parse().unwrap();
    Some(Arc::new(Objects {
        portals: portals.iter().map(portal).collect(),
        targets: targets.iter().map(name).collect(),
    }))
}

/// What a server keeps: portals, names, and the group of each pair.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Entity {
    portals: BTreeSet<Vec<u8>>,
    names: BTreeSet<Vec<u8>>,
    groups: BTreeMap<(Vec<u8>, Vec<u8>), u32>,
}

impl Entity {
    fn of(objects: &Objects) -> Self {
        let mut entity = Self::default();
        let text = |name: &str| {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize((bytes.len() / 4 + 1) * 4, 0);
            bytes
        };
        for (portal, group) in &objects.portals {
            let std::net::IpAddr::V4(address) = portal.ip() else {
                panic!("{portal}");
            };
            let mut key = address.to_ipv6_mapped().octets().to_vec();
            key.extend(u32::from(portal.port()).to_be_bytes());
            entity.portals.insert(key.clone());
            for name in &objects.targets {
                let name = text(name.as_str());
                entity.groups.insert((name, key.clone()), group.value().into());
            }
        }
        entity.names = objects.targets.iter().map(|name| text(name.as_str())).collect();
        entity
    }

    /// Pairs whose portal or name is gone say nothing.
    fn prune(&mut self) {
        let (portals, names) = (&self.portals, &self.names);
        self.groups
            .retain(|(name, portal), _| names.contains(name) && portals.contains(portal));
    }
}

#[derive(Debug, Default)]
struct Server {
    entity: Option<Entity>,
    messages: usize,
    refused: usize,
    period: u32,
    status: u32,
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn attributes(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (tag, length) = (number(bytes), number(&bytes[4..]) as usize);
        found.push((tag, bytes[8..8 + length].to_vec()));
        bytes = &bytes[8 + length..];
    }
    found
}

impl Server {
    fn take(&mut self, request: &[u8]) -> Vec<u8> {
        self.messages += 1;
        let [function, flags] = [2, 6].map(|at| u16::from_be_bytes([request[at], request[at + 1]]));
        let all = attributes(&request[12..]);
        let delimiter = all.iter().position(|(tag, _)| *tag == 0).unwrap();
        let (head, tail) = (&all[..delimiter], &all[delimiter + 1..]);
        assert_eq!(head[0].0, 32, "every message says from whom it is");
        let source = &head[0].1;
        let known = self
            .entity
            .as_ref()
            .is_none_or(|entity| entity.names.contains(source));
        let replace = flags & 0x1000 != 0;
        let status = if known || replace { self.status } else { 8 };
        match function {
            _ if status != 0 => self.refused += 1,
            1 => self.register(replace, tail),
            4 => self.deregister(tail),
            other => panic!("function {other}"),
        }
        let mut answer = Vec::new();
        for field in [1, 0x8000 | function, 16, 0x4c00] {
            answer.extend(u16::to_be_bytes(field));
        }
        answer.extend_from_slice(&request[8..12]);
        answer.extend(status.to_be_bytes());
        for field in [6, 4, self.period] {
            answer.extend(u32::to_be_bytes(field));
        }
        answer
    }

    fn register(&mut self, replace: bool, attributes: &[(u32, Vec<u8>)]) {
        if replace {
            self.entity = None;
        }
        let entity = self.entity.get_or_insert_default();
        let (mut name, mut group) = (Vec::new(), 0);
        for (at, (tag, value)) in attributes.iter().enumerate() {
            let portal = || [value.clone(), attributes[at + 1].1.clone()].concat();
            match tag {
                16 => drop(entity.portals.insert(portal())),
                32 => {
                    name.clone_from(value);
                    entity.names.insert(name.clone());
                }
                51 => group = number(value),
                49 => drop(entity.groups.insert((name.clone(), portal()), group)),
                _ => {}
            }
        }
    }

    fn deregister(&mut self, attributes: &[(u32, Vec<u8>)]) {
        let Some(entity) = &mut self.entity else { return };
        for (at, (tag, value)) in attributes.iter().enumerate() {
            match tag {
                1 => return self.entity = None,
                16 => {
                    let portal = [value.clone(), attributes[at + 1].1.clone()].concat();
                    entity.portals.remove(&portal);
                }
                32 => drop(entity.names.remove(value)),
                _ => {}
            }
        }
        entity.prune();
    }

    /// Whether it knows exactly that.
    fn knows(&self, objects: Option<&Objects>) -> bool {
        self.entity.as_ref() == objects.map(Entity::of).as_ref()
    }
}

/// Sends until nothing is left to be sent; how many messages.
fn settle(registration: &mut Registration, server: &mut Server, now: Mono) -> usize {
    let before = server.messages;
    while let Some(message) = registration.poll(now) {
        assert_eq!(registration.poll(now), None, "one at a time");
        registration.answered(&server.take(&message), now);
    }
    server.messages - before
}

#[test]
fn what_is_wanted_is_told_and_what_changes_too() {
    let (mut registration, mut server) = (Registration::new(ENTITY.to_owned()), Server::default());
    assert_eq!(registration.deadline(), None);
    assert_eq!(registration.condition(), Condition::Idle);
    // What an earlier run has left is replaced.
    server.entity = Some(Entity::of(&objects(&[9], &["old"]).unwrap()));
    let mut now = Mono::ZERO;
    for (portals, targets, messages) in [
        (&[1, 2][..], &["a", "b"][..], 1),
        (&[1, 2], &["a", "b", "c"], 2),
        (&[2], &["a", "b", "c"], 2),
        // The name that messages were sent in goes, too.
        (&[1, 2], &["b", "c"], 2),
        (&[1, 2], &["d"], 2),
    ] {
        let wanted = objects(portals, targets);
        registration.want(wanted.clone());
        assert_eq!(registration.condition(), Condition::Pending);
        assert_eq!(registration.deadline(), Some(Mono::ZERO));
        let sent = settle(&mut registration, &mut server, now);
        assert!(sent <= messages, "{sent} messages");
        assert_eq!(registration.condition(), Condition::Registered);
        assert!(server.knows(wanted.as_deref()), "{server:?}");
        assert!(registration.deadline() > Some(now));
        now = now + Duration::from_millis(1);
    }
    registration.want(objects(&[1], &[]));
    assert_eq!(settle(&mut registration, &mut server, now), 1);
    assert_eq!(registration.condition(), Condition::Idle);
    assert!(server.knows(None));
    assert_eq!(registration.deadline(), None);
    assert_eq!(server.refused, 0);
}

/// The period that the server grants is kept, so that nothing is forgotten.
#[test]
fn everything_is_told_again_before_the_period_is_over() {
    let (mut registration, mut server) = (Registration::new(ENTITY.to_owned()), Server::default());
    registration.want(objects(&[1], &["a"]));
    settle(&mut registration, &mut server, Mono::ZERO);
    assert_eq!(registration.deadline(), Some(seconds(100)));
    assert_eq!(settle(&mut registration, &mut server, seconds(99)), 0);
    // It was started anew without its database, and grants less.
    (server.entity, server.period) = (None, 30);
    assert_eq!(settle(&mut registration, &mut server, seconds(100)), 1);
    assert!(server.knows(objects(&[1], &["a"]).as_deref()));
    assert_eq!(registration.deadline(), Some(seconds(110)));
}

#[test]
fn a_server_that_does_not_answer_is_tried_again_ever_less_often() {
    let (mut registration, mut server) = (Registration::new(ENTITY.to_owned()), Server::default());
    registration.want(objects(&[1], &["a"]));
    let mut now = Mono::ZERO;
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert!(registration.poll(now).is_some());
        registration.unreachable("nobody there", now);
        assert_eq!(
            registration.condition(),
            Condition::Failing("nobody there".to_owned())
        );
        let next = registration.deadline().unwrap();
        assert_eq!(registration.poll(now), None);
        waits.push(next.since(now).as_secs());
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(settle(&mut registration, &mut server, now), 1);
    assert_eq!(registration.condition(), Condition::Registered);
    // Once told, it is not replaced because it did not answer for a while.
    registration.want(objects(&[1, 2], &["a"]));
    registration.poll(now).unwrap();
    registration.unreachable("nobody there", now);
    assert_eq!(registration.deadline(), Some(now + Duration::from_secs(1)));
    let message = registration.poll(now + Duration::from_secs(1)).unwrap();
    assert_eq!(message[6] & 0x10, 0, "the replace flag");
}

#[test]
fn a_server_that_refuses_is_told_all_of_it_anew() {
    let (mut registration, mut server) = (Registration::new(ENTITY.to_owned()), Server::default());
    registration.want(objects(&[1], &["a"]));
    settle(&mut registration, &mut server, Mono::ZERO);
    server.status = 8;
    registration.want(objects(&[1], &["a", "b"]));
    settle(&mut registration, &mut server, Mono::ZERO);
    let Condition::Failing(why) = registration.condition() else {
        panic!("{:?}", registration.condition());
    };
    assert!(why.contains("source unauthorized (status 8)"), "{why}");
    server.status = 0;
    let message = registration.poll(seconds(1)).unwrap();
    assert_eq!(message[6] & 0x10, 0x10, "the replace flag");
    // An answer to something else is none.
    let mut answer = server.take(&message);
    answer[9] ^= 1;
    registration.answered(&answer, seconds(1));
    assert!(matches!(registration.condition(), Condition::Failing(_)));
    settle(&mut registration, &mut server, seconds(10));
    assert_eq!(registration.condition(), Condition::Registered);
    assert!(server.knows(objects(&[1], &["a", "b"]).as_deref()));
}

#[test]
fn many_targets_take_several_messages_each_of_which_fits() {
    let (mut registration, mut server) = (Registration::new(ENTITY.to_owned()), Server::default());
    let names: Vec<String> = (0..1024).map(|number| format!("disk-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    registration.want(objects(&[1, 2], &names));
    let mut longest = 0;
    while let Some(message) = registration.poll(Mono::ZERO) {
        longest = longest.max(message.len());
        registration.answered(&server.take(&message), Mono::ZERO);
    }
    assert!(longest < 14 << 10 && server.messages > 10, "{longest}");
    assert!(server.knows(objects(&[1, 2], &names).as_deref()));
    registration.want(objects(&[1, 2], &["disk-0"]));
    settle(&mut registration, &mut server, Mono::ZERO);
    assert!(server.knows(objects(&[1, 2], &["disk-0"]).as_deref()));
    // More portals than anybody has: said, and nothing else.
    let mut many = Objects::clone(&objects(&[], &["a"]).unwrap());
    let portals = (1..3000).map(|port| (([192, 0, 2, 1], port).into(), TpgId(1)));
    many.portals.extend(portals);
    registration.want(Some(Arc::new(many)));
    assert_eq!(registration.poll(Mono::ZERO), None);
    assert!(matches!(registration.condition(), Condition::Failing(_)));
    registration.want(objects(&[1, 2], &["a"]));
    settle(&mut registration, &mut server, seconds(1));
    assert!(server.knows(objects(&[1, 2], &["a"]).as_deref()));
}

/// What the server may have taken before its answer was lost is taken out again when it is not wanted any more.
#[test]
fn an_answer_that_is_lost_leaves_nothing_behind() {
    for first in [objects(&[1], &["a"]), objects(&[], &[])] {
        let (mut registration, mut server) = (Registration::new(ENTITY.to_owned()), Server::default());
        registration.want(first.clone());
        settle(&mut registration, &mut server, Mono::ZERO);
        registration.want(objects(&[1, 2], &["a", "b"]));
        server.take(&registration.poll(Mono::ZERO).unwrap());
        registration.unreachable("the answer is lost", Mono::ZERO);
        registration.want(first.clone());
        settle(&mut registration, &mut server, seconds(1));
        let first = first.filter(|first| !first.targets.is_empty());
        assert!(server.knows(first.as_deref()), "{server:?}");
    }
}

/// Changes, lost messages, lost answers, refusals and other registrars in any order: once all is quiet the server knows what is wanted.
#[test]
fn whatever_happens_the_server_ends_up_with_what_is_wanted() {
    let mut random = Random::new(0x1595);
    for _ in 0..400 {
        let (mut registration, mut server) = (Registration::new(ENTITY.to_owned()), Server::default());
        let mut now = Mono::ZERO;
        let mut wanted = None;
        for _ in 0..40 {
            match random.below(8) {
                0 => registration.want(None),
                1..4 => {
                    let portals = &[&[][..], &[1], &[2], &[1, 2]][random.below(4)];
                    let targets = &[&[][..], &["a"], &["b"], &["a", "b"], &["b", "c"]][random.below(5)];
                    wanted = objects(portals, targets);
                    registration.want(wanted.clone());
                }
                4 => now = now + Duration::from_secs(1 << random.below(8)),
                _ => {}
            }
            server.status = if random.below(6) == 0 { 3 } else { 0 };
            let Some(message) = registration.poll(now) else {
                continue;
            };
            match random.below(5) {
                0 => registration.unreachable("lost", now),
                1 => {
                    server.take(&message);
                    registration.unreachable("the answer is lost", now);
                }
                _ => registration.answered(&server.take(&message), now),
            }
        }
        server.status = 0;
        // Whoever tells it at last has not told it before, as after a restart: what is nothing then stays as it is.
        let last = wanted.unwrap_or_else(|| objects(&[1], &["a"]).unwrap());
        registration.want(Some(Arc::clone(&last)));
        for _ in 0..3 {
            now = now + Duration::from_secs(1000);
            settle(&mut registration, &mut server, now);
        }
        match registration.condition() {
            Condition::Registered => assert!(server.knows(Some(&last)), "{server:?} {last:?}"),
            Condition::Idle => assert!(last.portals.is_empty() || last.targets.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}
