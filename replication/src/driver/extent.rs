//! One extent on this node: its core, its file, its place in the journal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use holdfast_types::{ExtentId, NodeId};

use super::io::Job;
use super::status::Progress;
use crate::core::ExtentCore;
use crate::core::api::{Command, FenceReason, JournalSeq, LinkId, Message, View};
use crate::store::{Entry, ExtentFile, LastScrub, Place};

/// An extent that this node knows.
#[derive(Debug)]
pub(super) struct Extent {
    pub(super) id: ExtentId,
    slot: Mutex<Slot>,
    /// Missing where this node holds no replica and only forwards.
    pub(super) file: OnceLock<Arc<ExtentFile>>,
    pub(super) place: Arc<Place>,
    /// When the timer looks at it next, in nanoseconds; `u64::MAX` for never.
    pub(super) armed: AtomicU64,
    /// When its replicas were compared last; `None` while that was not looked up.
    pub(super) scrubbed: Mutex<Option<LastScrub>>,
    /// Somebody asked for that, since the present scrub began.
    pub(super) scrub_wanted: AtomicBool,
    /// The present scrub is one that somebody asked for: it begins again where it is cut short.
    pub(super) scrub_owed: AtomicBool,
    /// Its core was told of a failure (J2).
    pub(super) failed: AtomicBool,
}

/// What the extent's lock protects.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) core: ExtentCore,
    /// The newest view that the core was given.
    pub(super) view: Option<Arc<View>>,
    /// Counts how often its log started anew: a checkpoint begun before is void.
    pub(super) restarts: u64,
    /// Journal entries that wait until the extent is flushed, a restart of the log first; `None` while nothing waits.
    pub(super) gate: Option<VecDeque<(JournalSeq, Entry)>>,
    /// Why it answers nothing any more.
    pub(super) fenced: Option<FenceReason>,
    pub(super) progress: Progress,
    pub(super) scratch: Scratch,
}

/// Buffers that are used again for every event.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) commands: Vec<Command>,
    pub(super) sends: Vec<(NodeId, LinkId, Message)>,
    pub(super) applies: Vec<Job>,
}

impl Extent {
    pub(super) fn new(
        id: ExtentId,
        core: ExtentCore,
        file: Option<Arc<ExtentFile>>,
        place: Arc<Place>,
    ) -> Self {
        let slot = Slot {
            core,
            view: None,
            restarts: 0,
            gate: None,
            fenced: None,
            progress: Progress::default(),
            scratch: Scratch::default(),
        };
        Self {
            id,
            slot: Mutex::new(slot),
            file: file.map_or_else(OnceLock::new, OnceLock::from),
            place,
            armed: AtomicU64::new(u64::MAX),
            scrubbed: Mutex::new(None),
            scrub_wanted: AtomicBool::new(false),
            scrub_owed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Slot> {
        // The core does not panic; if it ever did, going on from half a step would be worse than stopping here.
        self.slot
            .lock()
            .unwrap_or_else(|_| super::fatal::end("a step of an extent"))
    }
}

/// What comes back from the journal with an entry that is stable.
#[derive(Debug, Clone)]
pub(super) enum Tag {
    /// A core's journal command.
    Core {
        extent: Arc<Extent>,
        seq: JournalSeq,
        /// A resync's mark is stable now and says what the mark of damage said (R1).
        heals: bool,
    },
    /// Somebody waits for it.
    Told(std::sync::mpsc::Sender<()>),
}
