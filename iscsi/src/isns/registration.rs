//! What one server has been told, and what it is to be told next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_types::{IscsiName, Mono, TpgId};

use super::message::{Answer, Function, Message};

/// The registration period that is asked for, in seconds: a server forgets a cluster that is gone for good after this long.
const PERIOD: u32 = 300;
/// Everything is told again after this part of the period: a server that was started anew without its database learns it by then, and two
/// tries may fail before anything is forgotten.
const TELL_AGAIN: u32 = 3;
/// Targets go into one message until it has this many bytes. The answer repeats all of it, and about four times as long.
const BATCH_BYTES: usize = 12 << 10;
/// Waits between tries that fail: from this, twice as long each time, to that.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Characters of a reason that are kept for people.
const REASON_MAX: usize = 200;

/// What a server is to know: every target is there behind every portal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Objects {
    /// Portals and their groups.
    pub portals: BTreeMap<SocketAddr, TpgId>,
    /// The targets.
    pub targets: BTreeSet<IscsiName>,
}

impl Objects {
    /// Whether there is nothing that anybody could log in to, so that nothing is registered.
    fn is_nothing(&self) -> bool {
        self.portals.is_empty() || self.targets.is_empty()
    }
}

/// How a registration is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is nothing to tell, and nothing was told.
    Idle,
    /// The server has not answered yet.
    Pending,
    /// The server knows what it is to know.
    Registered,
    /// The last try failed; why.
    Failing(String),
}

/// What the server knows, as far as this run has told it.
#[derive(Debug)]
struct Told {
    /// Where a message was lost, or its answer: all that it may know.
    objects: Arc<Objects>,
    /// Whether it knows nothing else. If not, everything is replaced.
    alone: bool,
    /// The target in whose name messages are sent (RFC 4171, 5.6.1): one that is registered.
    source: IscsiName,
    again_at: Mono,
}

/// Messages under way to one server, all of which together make it know `goal`.
#[derive(Debug)]
struct Plan {
    goal: Arc<Objects>,
    source: IscsiName,
    messages: VecDeque<Message>,
}

/// The client's side towards one server. The owner sends what [`Self::poll`] gives, each over a connection of its own, and says what came
/// of it with [`Self::answered`] or [`Self::unreachable`].
#[derive(Debug)]
pub struct Registration {
    entity: String,
    wanted: Option<Arc<Objects>>,
    told: Option<Told>,
    plan: Option<Plan>,
    in_flight: Option<(Function, u16)>,
    transaction: u16,
    period: u32,
    /// The wait after the next failure.
    retry: Duration,
    not_before: Mono,
    failure: Option<String>,
}

impl Registration {
    /// For the Network Entity of this name, 4 to 255 bytes long. Nothing is wanted yet.
    pub const fn new(entity: String) -> Self {
        Self {
            entity,
            wanted: None,
            told: None,
            plan: None,
            in_flight: None,
            transaction: 0,
            period: PERIOD,
            retry: RETRY.0,
            not_before: Mono::ZERO,
            failure: None,
        }
    }

    /// What the server is to know from now on. `None`: somebody else tells it, so what it knows later on is not known here.
    pub fn want(&mut self, objects: Option<Arc<Objects>>) {
        if objects.is_none() {
            *self = Self {
                transaction: self.transaction,
                ..Self::new(std::mem::take(&mut self.entity))
            };
        }
        self.wanted = objects;
    }

    /// The next message, if there is one to be sent now. Until its end is told there is no other one.
    pub fn poll(&mut self, now: Mono) -> Option<Vec<u8>> {
        if self.in_flight.is_some() || now < self.not_before {
            return None;
        }
        if self.plan.is_none() {
            self.plan = self.make_plan(now);
        }
        let message = self.plan.as_mut()?.messages.pop_front()?;
        self.transaction = self.transaction.wrapping_add(1);
        let function = message.function();
        let Some(bytes) = message.emit(self.transaction) else {
            self.fail("there are more portals than a message can hold".to_owned(), now);
            return None;
        };
        self.in_flight = Some((function, self.transaction));
        Some(bytes)
    }

    /// When [`Self::poll`] may have something; `None` while a message is under way, or nothing is to be told.
    pub fn deadline(&self) -> Option<Mono> {
        let wanted = self.wanted.as_ref().filter(|_| self.in_flight.is_none())?;
        let due = match &self.told {
            _ if self.plan.is_some() => Mono::ZERO,
            None if wanted.is_nothing() => return None,
            Some(told) if told.objects == *wanted => told.again_at,
            _ => Mono::ZERO,
        };
        Some(due.max(self.not_before))
    }

    /// The server answered: a PDU, header and all.
    pub fn answered(&mut self, bytes: &[u8], now: Mono) {
        let Some((function, transaction)) = self.in_flight.take() else {
            return;
        };
        let answer = match Answer::parse(bytes) {
            Ok(answer) if answer.is_to(function, transaction) => answer,
            Ok(_) => return self.fail("it answers something else than was asked".to_owned(), now),
            Err(error) => return self.fail(error.to_string(), now),
        };
        if answer.status != 0 {
            if self.plan.take_if(|plan| plan.goal.is_nothing()).is_some() {
                // It does not know us (any more), or forgets us in time.
                (self.told, self.failure) = (None, None);
                return;
            }
            let meaning = Answer::meaning(answer.status);
            self.fail(format!("it refuses: {meaning} (status {})", answer.status), now);
            // Whatever it knows, it is not what was thought: everything anew.
            if let Some(told) = &mut self.told {
                told.alone = false;
            }
            return;
        }
        if let Some(period) = answer.period.filter(|period| *period > 0) {
            self.period = period.min(PERIOD);
        }
        if let Some(plan) = self.plan.take_if(|plan| plan.messages.is_empty()) {
            let again_at = now + Duration::from_secs(self.period.into()) / TELL_AGAIN;
            self.told = (!plan.goal.is_nothing()).then_some(Told {
                objects: plan.goal,
                alone: true,
                source: plan.source,
                again_at,
            });
            self.failure = None;
            self.retry = RETRY.0;
        }
    }

    /// The message did not get through, or was not answered: the server may have taken it, or not.
    pub fn unreachable(&mut self, why: &str, now: Mono) {
        if self.in_flight.take().is_some() {
            self.fail(why.chars().take(REASON_MAX).collect(), now);
        }
    }

    /// How it is.
    pub fn condition(&self) -> Condition {
        match (&self.failure, &self.told, &self.wanted) {
            (Some(why), _, Some(_)) => Condition::Failing(why.clone()),
            (_, Some(told), Some(wanted)) if told.objects == *wanted => Condition::Registered,
            (_, None, Some(wanted)) if wanted.is_nothing() => Condition::Idle,
            (_, _, None) => Condition::Idle,
            _ => Condition::Pending,
        }
    }

    fn fail(&mut self, why: String, now: Mono) {
        if let Some(plan) = self.plan.take() {
            let known = self.told.take();
            let mut objects = Objects::clone(&plan.goal);
            if let Some(known) = &known {
                objects.portals.extend(&known.objects.portals);
                objects.targets.extend(known.objects.targets.iter().cloned());
            }
            self.told = Some(Told {
                objects: Arc::new(objects),
                alone: known.as_ref().is_some_and(|known| known.alone),
                source: known.map_or(plan.source, |known| known.source),
                again_at: now,
            });
        }
        self.failure = Some(why);
        self.not_before = now + self.retry;
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    fn make_plan(&self, now: Mono) -> Option<Plan> {
        let wanted = self.wanted.as_ref()?;
        let (source, messages) = match &self.told {
            Some(told) if wanted.is_nothing() => {
                let mut message = Message::deregister(&told.source);
                message.put_entity(&self.entity);
                (&told.source, [message].into())
            }
            None | Some(Told { alone: false, .. }) => {
                let source = wanted.targets.first().filter(|_| !wanted.is_nothing())?;
                // Of what an earlier run has told nothing is left.
                (source, self.register(source, wanted, true))
            }
            Some(told) if told.objects == *wanted => {
                let due = now >= told.again_at;
                (
                    &told.source,
                    due.then(|| self.register(&told.source, wanted, false))?,
                )
            }
            Some(told) => {
                // What comes is told before what goes, and what goes in the name of what stays.
                let mut messages = self.register(&told.source, wanted, false);
                let stays = wanted.targets.get(&told.source).or(wanted.targets.first())?;
                messages.extend(gone(stays, &told.objects, wanted));
                (stays, messages)
            }
        };
        Some(Plan {
            goal: Arc::clone(wanted),
            source: source.clone(),
            messages,
        })
    }

    /// All of it, in as many messages as it takes.
    fn register(&self, source: &IscsiName, objects: &Objects, replace: bool) -> VecDeque<Message> {
        let mut message = Message::register(source, &self.entity, replace);
        message.put_entity_facts(PERIOD);
        objects
            .portals
            .keys()
            .for_each(|portal| message.put_portal(*portal));
        let mut messages = VecDeque::new();
        for target in &objects.targets {
            if message.len() >= BATCH_BYTES {
                let next = Message::register(source, &self.entity, false);
                messages.push_back(std::mem::replace(&mut message, next));
            }
            message.put_target(target, objects.portals.iter());
        }
        messages.push_back(message);
        messages
    }
}

/// What takes everything out of the server that is in `old` and not in `new`.
fn gone(source: &IscsiName, old: &Objects, new: &Objects) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    let mut put = |put: &dyn Fn(&mut Message)| match messages.last_mut() {
        Some(message) if message.len() < BATCH_BYTES => put(message),
        _ => {
            let mut message = Message::deregister(source);
            put(&mut message);
            messages.push(message);
        }
    };
    for name in old.targets.difference(&new.targets) {
        put(&|message| message.put_name(name));
    }
    for portal in old.portals.keys() {
        if !new.portals.contains_key(portal) {
            put(&|message| message.put_portal(*portal));
        }
    }
    messages
}
