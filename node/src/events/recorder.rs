//! Takes tracing events in.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use holdfast_raft::model::ClusterState;
use holdfast_types::{EVENTS, UnixMillis};
use tracing::field::{Field, Visit};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::Context;

use super::event::Level;
use super::{Event, EventsDocument, Kind};
use crate::line_files::LineFiles;

/// Events that are kept in memory.
const EVENTS_MAX: usize = 10_000;
/// Other lines of the log that are.
const LINES_MAX: usize = 5_000;
/// Events that wait for the disk; more are kept in memory alone.
const WAITING_MAX: usize = 4096;
/// Files of them, the one that is written included.
const FILES: usize = 4;
/// Longest text, in bytes; the rest is cut off.
const TEXT_MAX: usize = 2048;

/// The flight recorder of a process.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    inner: Mutex<Inner>,
    not_filed: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Event>,
    lines: VecDeque<Event>,
    file: Option<SyncSender<Event>>,
    names: Names,
}

/// What people call what has a number or an id.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    nodes: BTreeMap<String, String>,
    extents: BTreeMap<String, String>,
}

fn push(into: &mut VecDeque<Event>, event: Event, most: usize) {
    if into.len() >= most {
        into.pop_front();
    }
    into.push_back(event);
}

impl Recorder {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on events go to files in `dir`, too; those of earlier runs come before what was recorded so far.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn file_in(&self, dir: &Path) -> std::io::Result<()> {
        let files = LineFiles::new(dir, "events", FILES);
        let earlier: Vec<Event> = files.read(EVENTS_MAX + LINES_MAX);
        let (sender, receiver) = sync_channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("events".into())
            .spawn(move || write(files, &receiver))?;
        let mut inner = self.inner();
        let mut new = Vec::from(std::mem::take(&mut inner.events));
        new.extend(std::mem::take(&mut inner.lines));
        new.sort_by_key(|event| event.at_ms);
        for event in earlier {
            inner.keep(event);
        }
        inner.file = Some(sender);
        for event in new {
            self.take(&mut inner, event);
        }
        Ok(())
    }

    fn take(&self, inner: &mut Inner, event: Event) {
        let filed = inner
            .file
            .as_ref()
            .is_none_or(|file| file.try_send(event.clone()).is_ok());
        if !filed {
            self.not_filed.fetch_add(1, Ordering::Relaxed);
        }
        inner.keep(event);
    }

    /// From now on nodes and extents are called as that state does. Those that are gone keep their last names.
    pub(crate) fn learn(&self, state: &ClusterState) {
        let nodes = state
            .nodes
            .iter()
            .map(|(id, node)| (id.to_string(), node.name.clone()));
        let extents = state
            .extents
            .iter()
            .map(|(id, extent)| (id.to_string(), extent.name.clone()));
        let (nodes, extents) = (nodes.collect::<Vec<_>>(), extents.collect::<Vec<_>>());
        let mut inner = self.inner();
        inner.names.nodes.extend(nodes);
        inner.names.extents.extend(extents);
    }

    /// The newest `last` events, and with `all` the other lines of the log, too; oldest first.
    pub(crate) fn document(&self, recorded_by: &str, last: usize, all: bool) -> EventsDocument {
        let mut events: Vec<Event> = {
            let inner = self.inner();
            let lines = inner.lines.iter().filter(|_| all);
            inner.events.iter().chain(lines).cloned().collect()
        };
        events.sort_by_key(|event| event.at_ms);
        let events = events.split_off(events.len().saturating_sub(last));
        EventsDocument {
            recorded_by: recorded_by.to_owned(),
            not_filed: self.not_filed.load(Ordering::Relaxed),
            events,
        }
    }
}

impl Inner {
    fn keep(&mut self, event: Event) {
        match event.what {
            Kind::Log => push(&mut self.lines, event, LINES_MAX),
            _ => push(&mut self.events, event, EVENTS_MAX),
        }
    }

    fn event(&self, metadata: &Metadata<'_>, fields: Fields, at_ms: u64) -> Event {
        let name = |names: &BTreeMap<String, String>, id: String| names.get(&id).cloned().unwrap_or(id);
        let node = fields.node.map(|id| (name(&self.names.nodes, id.clone()), id));
        let mut text = fields.message;
        if let Some((name, id)) = &node {
            text = text.replace(&format!("node {id}"), name);
        }
        text.push_str(&fields.others);
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        Event {
            at_ms,
            level: match *metadata.level() {
                tracing::Level::ERROR => Level::Error,
                tracing::Level::WARN => Level::Warning,
                _ => Level::Info,
            },
            what: match metadata.target() == EVENTS {
                true => fields.what,
                false => Kind::Log,
            },
            extent: fields.extent.map(|id| name(&self.names.extents, id)),
            node: node.map(|(name, _)| name),
            text,
        }
    }
}

/// Writes what comes, until nobody sends any more: in a thread of its own, so that no disk that hangs holds up who has something to tell.
/// Nothing is flushed: what a power cut takes is in the log of the system. What cannot be written is dropped: it is in memory.
fn write(mut files: LineFiles, events: &Receiver<Event>) {
    while let Ok(first) = events.recv() {
        let batch: Vec<Event> = std::iter::once(first).chain(events.try_iter()).collect();
        // Telling it would be an event.
        let _ = files.append(&batch);
    }
}

/// What a tracing event says.
struct Fields {
    message: String,
    others: String,
    what: Kind,
    extent: Option<String>,
    node: Option<String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "what" => self.what = Kind::named(value),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "extent" => self.extent = Some(format!("{value:?}")),
            "node" | "peer" => self.node = Some(format!("{value:?}")),
            name => {
                // A string always takes what is written to it.
                let _ = write!(self.others, " {name}={value:?}");
            }
        }
    }
}

/// The recorder as a layer of the subscriber.
pub(crate) struct Ear(pub(crate) Arc<Recorder>);

impl<S: Subscriber> tracing_subscriber::Layer<S> for Ear {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields {
            message: String::new(),
            others: String::new(),
            what: Kind::Log,
            extent: None,
            node: None,
        };
        event.record(&mut fields);
        let mut inner = self.0.inner();
        let event = inner.event(event.metadata(), fields, UnixMillis::from(SystemTime::now()).0);
        self.0.take(&mut inner, event);
    }
}

#[cfg(test)]
#[path = "recorder_test.rs"]
mod tests;
