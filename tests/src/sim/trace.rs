//! Events and commands in a line that a person can read: contents as values, not as bytes.

use std::fmt::Write;

use holdfast_replication::core::api::{Command, Event, Message, Record, RecordBody};
use holdfast_types::{BlockOp, BlockRange};

use super::disk::values;

fn range(range: &BlockRange) -> String {
    format!("{}+{}", range.lba().0, range.blocks())
}

fn contents(data: &[u8]) -> String {
    let all: Vec<u64> = values(data).collect();
    if all.len() > 8 {
        let some: Vec<u64> = all.iter().copied().filter(|value| *value != 0).take(8).collect();
        return format!("{} blocks, {some:?}", all.len());
    }
    format!("{all:?}")
}

fn record(record: &Record) -> String {
    let body = match &record.body {
        RecordBody::EpochStart => "epoch start".to_owned(),
        RecordBody::Write { range: at, data } => format!("write {} {}", range(at), contents(data)),
        RecordBody::WriteSame { range: at, block } => format!("same {} {}", range(at), contents(block)),
        RecordBody::Zero { ranges } => format!("zero {:?}", ranges.iter().map(range).collect::<Vec<_>>()),
        RecordBody::Resync { ranges, data } => format!(
            "resync {:?} {}",
            ranges.iter().map(range).collect::<Vec<_>>(),
            data.as_ref()
                .map_or_else(|| "elsewhere".to_owned(), |data| contents(data))
        ),
    };
    format!("[{} commit {}] {body}", record.pos, record.commit)
}

fn op(op: &BlockOp) -> String {
    match op {
        BlockOp::Read { range: at } => format!("READ {}", range(at)),
        BlockOp::Write { range: at, data, .. } => format!("WRITE {} {}", range(at), contents(data)),
        BlockOp::WriteSame { range: at, block } => format!("WRITE SAME {} {}", range(at), contents(block)),
        BlockOp::Zero { ranges } => format!("UNMAP {:?}", ranges.iter().map(range).collect::<Vec<_>>()),
        BlockOp::CompareAndWrite {
            range: at,
            expect,
            data,
        } => format!(
            "COMPARE AND WRITE {} {} -> {}",
            range(at),
            contents(expect),
            contents(data)
        ),
        BlockOp::Verify { range: at, .. } => format!("VERIFY {}", range(at)),
        BlockOp::Flush => "SYNCHRONIZE CACHE".to_owned(),
        other => format!("{other:?}"),
    }
}

fn message(message: &Message) -> String {
    match message {
        Message::Replicate {
            epoch,
            prev,
            record: sent,
        } => format!("Replicate in epoch {epoch} behind {prev}: {}", record(sent)),
        Message::Forward {
            op: id,
            epoch,
            name,
            again,
            request,
            ..
        } => format!(
            "Forward {} in epoch {epoch}, {name:?}, again {again}: {}",
            id.0,
            op(request)
        ),
        other => clip(format!("{other:?}")),
    }
}

/// What is long is not for people.
fn clip(text: String) -> String {
    if text.len() <= 400 {
        return text;
    }
    let mut short: String = text.chars().take(400).collect();
    let _ = write!(short, "... ({} bytes)", text.len());
    short
}

pub(super) fn event(event: &Event) -> String {
    match event {
        Event::Message {
            from,
            link,
            message: sent,
        } => format!("from {from} over {}: {}", link.0, message(sent)),
        Event::ReadDone { io, data } => format!("read {}: {}", io.0, contents(data)),
        Event::Submit { op: id, request } => {
            format!("submit {} {:?}: {}", id.0, request.name, op(&request.op))
        }
        Event::View(view) => format!(
            "view {}: epoch {} of {:?}, version {}, in sync {:?}",
            view.revision, view.epoch, view.primary, view.version, view.in_sync
        ),
        other => clip(format!("{other:?}")),
    }
}

pub(super) fn command(command: &Command) -> String {
    match command {
        Command::Append { seq, record: made } => format!("append {}: {}", seq.0, record(made)),
        Command::Apply { io, record: made } => format!("apply {}: {}", io.0, record(made)),
        Command::Send {
            to,
            link,
            message: sent,
        } => format!("to {to} over {}: {}", link.0, message(sent)),
        Command::Complete { op: id, outcome } => match outcome {
            holdfast_types::OpOutcome::Data(data) => format!("complete {}: {}", id.0, contents(data)),
            outcome => format!("complete {}: {outcome:?}", id.0),
        },
        other => clip(format!("{other:?}")),
    }
}
