//! The node's flight recorder: what happened here, in plain words, in memory and in files of bounded size, so that it is there when
//! somebody asks in the morning.
//!
//! Whoever has something to tell emits a tracing event of the target [`EVENTS`](holdfast_types::EVENTS), with the field `what` ([`Kind`])
//! and, where it is about one, `extent` and `node`. Those are events; every other line of the log is recorded beside them, for support.

mod event;
mod recorder;
mod story;
mod why;

pub(crate) use event::{Event, EventsDocument, Kind};
pub(crate) use recorder::{Ear, Recorder};
pub(crate) use story::{Story, follow};
pub(crate) use why::why;
