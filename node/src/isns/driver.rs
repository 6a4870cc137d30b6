//! Tells the servers, as long as this is the node that does. Nothing waits for a server: each has a task of its own, which tries again by
//! itself.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_iscsi::isns::{Condition, HEADER_BYTES, Objects, Registration, body_length};
use holdfast_raft::consensus::Control;
use holdfast_raft::lease::LeaseCell;
use holdfast_raft::lease::driver::Clock;
use holdfast_types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{entity, has_successor, objects, speaker};
use crate::status::Seen;

/// Between two looks at the lease.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// For a connection, a message and its answer.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(5);
/// What the end of the process waits for servers at most.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// Where nothing is to be done until something changes.
const FOR_LONG: Duration = Duration::from_secs(3600);

/// How it is with each server that this node speaks to.
type Conditions = Arc<Mutex<BTreeMap<SocketAddr, Condition>>>;

/// What it takes.
pub(crate) struct Parts {
    pub(crate) me: NodeId,
    pub(crate) control: Control,
    pub(crate) lease: Arc<LeaseCell>,
    pub(crate) clock: Clock,
}

/// This node's part in it.
pub(crate) struct Isns {
    conditions: Conditions,
    stopping: watch::Sender<bool>,
    task: Mutex<JoinSet<()>>,
}

impl Isns {
    pub(crate) fn start(parts: Parts) -> Self {
        let conditions = Conditions::default();
        let (stopping, told) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(follow(parts, Arc::clone(&conditions), told));
        Self {
            conditions,
            stopping,
            task: Mutex::new(task),
        }
    }

    /// The process ends. Whoever speaks for the cluster next takes over what is registered; the last node takes it out.
    pub(crate) async fn stop(&self) {
        self.stopping.send_replace(true);
        let mut task = std::mem::take(&mut *self.task.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = timeout(LEAVE_WITHIN, task.join_next()).await;
    }

    /// For the status.
    pub(crate) fn describe(&self, seen: &mut Seen) {
        seen.isns
            .clone_from(&self.conditions.lock().unwrap_or_else(PoisonError::into_inner));
        for (server, condition) in &seen.isns {
            if let Condition::Failing(why) = condition {
                seen.alarms.push(format!(
                    "iSNS server {server} may not know the targets of this cluster: {why}. It is tried again; 'holdfast isns delete \
                     {server}' ends that"
                ));
            }
        }
    }
}

/// What a server is to know. Its task ends when this is gone.
type Wanted = watch::Sender<Option<Arc<Objects>>>;

async fn follow(parts: Parts, conditions: Conditions, mut stopping: watch::Receiver<bool>) {
    let mut servers: BTreeMap<SocketAddr, Wanted> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut states = parts.control.watch();
    let nothing = Arc::new(Objects::default());
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let mine = speaker(&state) == Some(parts.me) && parts.lease.holds((parts.clock)());
        let wanted = (mine && !state.isns.is_empty()).then(|| Arc::new(objects(&state)));
        for server in &state.isns {
            let Some(entity) = entity(&state) else { continue };
            let start = || {
                let (sender, receiver) = watch::channel(None);
                let clock = Arc::clone(&parts.clock);
                tasks.spawn(tell(*server, entity, receiver, clock, Arc::clone(&conditions)));
                sender
            };
            let sender = servers.entry(*server).or_insert_with(start);
            sender.send_if_modified(|old| {
                let changed = *old != wanted;
                old.clone_from(&wanted);
                changed
            });
        }
        // One that is no longer told is told so, by whoever told it.
        servers.retain(|server, sender| {
            let stays = state.isns.contains(server);
            if !stays && mine {
                sender.send_replace(Some(Arc::clone(&nothing)));
            }
            stays
        });
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            told = stopping.changed() => {
                if mine && !has_successor(&state, parts.me) && told.is_ok() {
                    servers.values().for_each(|sender| drop(sender.send_replace(Some(Arc::clone(&nothing)))));
                }
                break;
            }
            () = sleep(LOOK_EVERY) => {}
        }
        while tasks.try_join_next().is_some() {}
    }
    drop(servers);
    while tasks.join_next().await.is_some() {}
}

/// Keeps one server told, until nobody says any more what it is to know.
async fn tell(
    server: SocketAddr,
    entity: String,
    mut wanted: watch::Receiver<Option<Arc<Objects>>>,
    clock: Clock,
    conditions: Conditions,
) {
    let mut registration = Registration::new(entity);
    let mut last = false;
    loop {
        let newest = wanted.borrow_and_update().clone();
        registration.want(newest);
        if let Some(message) = registration.poll(clock()) {
            match timeout(EXCHANGE_WITHIN, exchange(server, &message)).await {
                Ok(Ok(answer)) => registration.answered(&answer, clock()),
                Ok(Err(error)) => registration.unreachable(&error.to_string(), clock()),
                Err(_) => registration.unreachable("it does not answer in time", clock()),
            }
            if let Condition::Failing(why) = registration.condition() {
                tracing::warn!(%server, why, "an iSNS server is not told");
            }
            continue;
        }
        let speaks = wanted.borrow().is_some();
        note(&conditions, server, speaks.then(|| registration.condition()));
        if last {
            break;
        }
        let wait = registration.deadline().map_or(FOR_LONG, |due| due.since(clock()));
        tokio::select! {
            changed = wanted.changed() => last = changed.is_err(),
            () = sleep(wait) => {}
        }
    }
    note(&conditions, server, None);
}

fn note(conditions: &Conditions, server: SocketAddr, condition: Option<Condition>) {
    let mut conditions = conditions.lock().unwrap_or_else(PoisonError::into_inner);
    match condition {
        Some(condition) => drop(conditions.insert(server, condition)),
        None => drop(conditions.remove(&server)),
    }
}

/// Sends a message over a connection of its own; the first PDU of the answer, which is at most 64 KiB long.
async fn exchange(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(message).await?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let length = body_length(&header).map_err(io::Error::other)?;
    let mut answer = header.to_vec();
    answer.resize(HEADER_BYTES + length, 0);
    stream.read_exact(&mut answer[HEADER_BYTES..]).await?;
    Ok(answer)
}
