//! Core messages as they travel: into the generated types and back, without copying payloads. What comes off a wire is checked as
//! far as its shape goes; whether it fits the extent is the core's to check.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::replication as pb;
use holdfast_proto::replication::envelope::Message as Pb;
use holdfast_types::{
    BlockOp, BlockRange, CommandName, Epoch, ExtentId, InSyncVersion, Incarnation, InitiatorTag, Lba,
    LeaseGeneration, LogPos, Lsn, MappedRun, NexusTag, NodeId, OpOutcome, Origin, SessionInstance,
    UnitVersion,
};

use crate::core::api::{
    Base, Digest, Digests, EpochHistory, Fate, ForwardAnswer, LogSummary, Message, OpId, Record, RecordBody,
};
use crate::net::wire_statuses::{statuses_in, statuses_out};

/// Why bytes from a peer are no message of this protocol. Names the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of the peer has no sound {0}")]
pub struct WireError(pub(crate) &'static str);

/// Bytes that a message's payload takes; what else it has is small.
pub(crate) fn payload_len(message: &Message) -> usize {
    match message {
        Message::Replicate { record, .. } => record.body.payload_len(),
        Message::Forward { request, .. } => request.payload_len(),
        Message::HashReply { digests, .. } => digests.len() * size_of::<Digest>(),
        Message::Forwarded {
            answer: ForwardAnswer::Outcome(OpOutcome::Data(data)),
            ..
        }
        | Message::FateIs {
            fate: Fate::Ended(OpOutcome::Data(data)),
            ..
        }
        | Message::Fetched { data: Some(data), .. } => data.len(),
        _ => 0,
    }
}

/// A message for `extent`.
pub(crate) fn encode(extent: ExtentId, message: Message) -> pb::Envelope {
    let bits = extent.as_u128().to_be_bytes();
    let (high, low) = split(bits);
    pb::Envelope {
        extent_high: high,
        extent_low: low,
        message: Some(encode_message(message)),
    }
}

fn split(bits: [u8; 16]) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bits;
    (
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes(rest),
    )
}

/// The two halves of 128 bits, as messages carry them.
pub(crate) fn halves(bits: u128) -> (u64, u64) {
    split(bits.to_be_bytes())
}

/// 128 bits from their halves.
pub(crate) fn join(high: u64, low: u64) -> u128 {
    (u128::from(high) << 64) | u128::from(low)
}

fn encode_message(message: Message) -> Pb {
    match message {
        Message::Probe { epoch } => Pb::Probe(pb::Probe { epoch: epoch.0 }),
        Message::Summary { epoch, log } => Pb::Summary(pb::Summary {
            epoch: epoch.0,
            log: Some(summary_out(log)),
        }),
        Message::Adopt { epoch, after } => Pb::Adopt(pb::Adopt {
            epoch: epoch.0,
            after: Some(pos_out(after)),
        }),
        Message::Restart {
            epoch,
            version,
            from,
            history,
        } => Pb::Restart(pb::Restart {
            epoch: epoch.0,
            version: version.0,
            from: Some(pos_out(from)),
            history: Some(history_out(&history)),
        }),
        Message::Replicate { epoch, prev, record } => Pb::Replicate(pb::Replicate {
            epoch: epoch.0,
            prev: Some(pos_out(prev)),
            record: Some(record_out(record)),
        }),
        Message::Ack {
            epoch,
            durable,
            applied,
            received,
        } => Pb::Ack(pb::Ack {
            epoch: epoch.0,
            durable: durable.0,
            applied: applied.0,
            received: received.0,
        }),
        Message::Commit { epoch, commit } => Pb::Commit(pb::Commit {
            epoch: epoch.0,
            commit: commit.0,
        }),
        Message::Refused { newest } => Pb::Refused(pb::Refused { newest: newest.0 }),
        contents => encode_contents(contents),
    }
}

/// Questions about contents and epochs, and their answers.
fn encode_contents(message: Message) -> Pb {
    match message {
        Message::HashRequest { epoch, id, range, at } => Pb::HashRequest(pb::HashRequest {
            epoch: epoch.0,
            id,
            range: Some(range_out(range)),
            at: at.0,
        }),
        Message::HashReply { epoch, id, digests } => {
            let (digests, bad) = digests_out(&digests);
            let epoch = epoch.0;
            Pb::HashReply(pb::HashReply {
                epoch,
                id,
                digests,
                bad,
            })
        }
        Message::Fetch { epoch, id, range, at } => Pb::Fetch(pb::Fetch {
            epoch: epoch.0,
            id,
            range: Some(range_out(range)),
            at: at.0,
        }),
        Message::Fetched { epoch, id, data } => Pb::Fetched(pb::Fetched {
            epoch: epoch.0,
            id,
            data,
        }),
        Message::Confirm { epoch, round } => Pb::Confirm(pb::Confirm {
            epoch: epoch.0,
            round,
        }),
        Message::Confirmed { epoch, round } => Pb::Confirmed(pb::Confirmed {
            epoch: epoch.0,
            round,
        }),
        forwarding => encode_forwarding(forwarding),
    }
}

fn encode_forwarding(message: Message) -> Pb {
    match message {
        Message::Forward {
            op,
            epoch,
            name,
            generation,
            waited,
            origin,
            again,
            request,
        } => Pb::Forward(pb::Forward {
            op: op.0,
            epoch: epoch.0,
            name: Some(name_out(name)),
            generation: generation.0,
            waited_ns: u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX),
            again,
            nexus_high: halves(origin.nexus.0).0,
            nexus_low: halves(origin.nexus.0).1,
            admitted: origin.admitted.0,
            initiator_high: halves(origin.initiator.0).0,
            initiator_low: halves(origin.initiator.0).1,
            request: Some(op_out(request)),
        }),
        Message::Forwarded { op, epoch, answer } => Pb::Forwarded(pb::Forwarded {
            op: op.0,
            epoch: epoch.0,
            answer: Some(match answer {
                ForwardAnswer::Outcome(outcome) => pb::forwarded::Answer::Outcome(outcome_out(outcome)),
                ForwardAnswer::NotPrimary => pb::forwarded::Answer::NotPrimary(pb::Empty {}),
                ForwardAnswer::NotTaken => pb::forwarded::Answer::NotTaken(pb::Empty {}),
                ForwardAnswer::Ended => pb::forwarded::Answer::Ended(pb::Empty {}),
                ForwardAnswer::Refused => pb::forwarded::Answer::Refused(pb::Empty {}),
            }),
        }),
        Message::Fate { op, epoch, name } => Pb::Fate(pb::Fate {
            op: op.0,
            epoch: epoch.0,
            name: Some(name_out(name)),
        }),
        Message::FateIs { op, epoch, fate } => Pb::FateIs(pb::FateIs {
            op: op.0,
            epoch: epoch.0,
            fate: Some(match fate {
                Fate::Underway => pb::fate_is::Fate::Underway(pb::Empty {}),
                Fate::Ended(outcome) => pb::fate_is::Fate::Ended(outcome_out(outcome)),
                Fate::Barred => pb::fate_is::Fate::Barred(pb::Empty {}),
                Fate::NotPrimary => pb::fate_is::Fate::NotPrimary(pb::Empty {}),
            }),
        }),
        Message::Statuses { news } => Pb::Statuses(statuses_out(news)),
        _ => unreachable!("every other message is encoded by encode_message"),
    }
}

/// What a peer sent, and for which extent.
///
/// # Errors
/// [`WireError`] names the first field that is missing or out of its range.
pub(crate) fn decode(envelope: pb::Envelope) -> Result<(ExtentId, Message), WireError> {
    let extent = ExtentId::from_u128(join(envelope.extent_high, envelope.extent_low));
    let message = match envelope.message.ok_or(WireError("message"))? {
        Pb::Probe(m) => Message::Probe {
            epoch: Epoch(m.epoch),
        },
        Pb::Summary(m) => Message::Summary {
            epoch: Epoch(m.epoch),
            log: summary_in(m.log)?,
        },
        Pb::Adopt(m) => Message::Adopt {
            epoch: Epoch(m.epoch),
            after: pos_in(m.after)?,
        },
        Pb::Restart(m) => Message::Restart {
            epoch: Epoch(m.epoch),
            version: InSyncVersion(m.version),
            from: pos_in(m.from)?,
            history: history_in(m.history)?,
        },
        Pb::Replicate(m) => Message::Replicate {
            epoch: Epoch(m.epoch),
            prev: pos_in(m.prev)?,
            record: record_in(m.record)?,
        },
        Pb::Ack(m) => Message::Ack {
            epoch: Epoch(m.epoch),
            durable: Lsn(m.durable),
            applied: Lsn(m.applied),
            received: Lsn(m.received),
        },
        Pb::Commit(m) => Message::Commit {
            epoch: Epoch(m.epoch),
            commit: Lsn(m.commit),
        },
        Pb::Refused(m) => Message::Refused {
            newest: Epoch(m.newest),
        },
        Pb::Forward(m) => decode_forward(m)?,
        Pb::Forwarded(m) => Message::Forwarded {
            op: OpId(m.op),
            epoch: Epoch(m.epoch),
            answer: answer_in(m.answer)?,
        },
        Pb::Fate(m) => Message::Fate {
            op: OpId(m.op),
            epoch: Epoch(m.epoch),
            name: name_in(m.name)?,
        },
        Pb::FateIs(m) => Message::FateIs {
            op: OpId(m.op),
            epoch: Epoch(m.epoch),
            fate: fate_in(m.fate)?,
        },
        contents => decode_contents(contents)?,
    };
    Ok((extent, message))
}

/// Questions about contents, and their answers.
fn decode_contents(message: Pb) -> Result<Message, WireError> {
    Ok(match message {
        Pb::HashRequest(m) => Message::HashRequest {
            epoch: Epoch(m.epoch),
            id: m.id,
            range: range_in(m.range)?,
            at: Lsn(m.at),
        },
        Pb::HashReply(m) => Message::HashReply {
            epoch: Epoch(m.epoch),
            id: m.id,
            digests: digests_in(&m.digests, &m.bad)?,
        },
        Pb::Fetch(m) => Message::Fetch {
            epoch: Epoch(m.epoch),
            id: m.id,
            range: range_in(m.range)?,
            at: Lsn(m.at),
        },
        Pb::Fetched(m) => Message::Fetched {
            epoch: Epoch(m.epoch),
            id: m.id,
            data: m.data,
        },
        Pb::Confirm(m) => Message::Confirm {
            epoch: Epoch(m.epoch),
            round: m.round,
        },
        Pb::Confirmed(m) => Message::Confirmed {
            epoch: Epoch(m.epoch),
            round: m.round,
        },
        Pb::Statuses(m) => Message::Statuses {
            news: statuses_in(m)?,
        },
        _ => return Err(WireError("message")),
    })
}

fn decode_forward(m: pb::Forward) -> Result<Message, WireError> {
    Ok(Message::Forward {
        op: OpId(m.op),
        epoch: Epoch(m.epoch),
        name: name_in(m.name)?,
        generation: LeaseGeneration(m.generation),
        waited: Duration::from_nanos(m.waited_ns),
        again: m.again,
        origin: Origin {
            nexus: NexusTag(join(m.nexus_high, m.nexus_low)),
            admitted: UnitVersion(m.admitted),
            initiator: InitiatorTag(join(m.initiator_high, m.initiator_low)),
        },
        request: op_in(m.request)?,
    })
}

fn answer_in(answer: Option<pb::forwarded::Answer>) -> Result<ForwardAnswer, WireError> {
    Ok(match answer.ok_or(WireError("answer"))? {
        pb::forwarded::Answer::Outcome(outcome) => ForwardAnswer::Outcome(outcome_in(outcome)?),
        pb::forwarded::Answer::NotPrimary(_) => ForwardAnswer::NotPrimary,
        pb::forwarded::Answer::NotTaken(_) => ForwardAnswer::NotTaken,
        pb::forwarded::Answer::Ended(_) => ForwardAnswer::Ended,
        pb::forwarded::Answer::Refused(_) => ForwardAnswer::Refused,
    })
}

fn fate_in(fate: Option<pb::fate_is::Fate>) -> Result<Fate, WireError> {
    Ok(match fate.ok_or(WireError("fate"))? {
        pb::fate_is::Fate::Underway(_) => Fate::Underway,
        pb::fate_is::Fate::Ended(outcome) => Fate::Ended(outcome_in(outcome)?),
        pb::fate_is::Fate::Barred(_) => Fate::Barred,
        pb::fate_is::Fate::NotPrimary(_) => Fate::NotPrimary,
    })
}

pub(super) fn pos_out(pos: LogPos) -> pb::LogPos {
    pb::LogPos {
        epoch: pos.epoch.0,
        lsn: pos.lsn.0,
    }
}

/// An empty position is a message without fields, which is there but empty; one that is missing is refused.
pub(super) fn pos_in(pos: Option<pb::LogPos>) -> Result<LogPos, WireError> {
    pos.map(|pos| LogPos::new(Epoch(pos.epoch), Lsn(pos.lsn)))
        .ok_or(WireError("position"))
}

pub(super) fn range_out(range: BlockRange) -> pb::BlockRange {
    pb::BlockRange {
        lba: range.lba().0,
        blocks: range.blocks(),
    }
}

pub(super) fn range_in(range: Option<pb::BlockRange>) -> Result<BlockRange, WireError> {
    let range = range.ok_or(WireError("range"))?;
    BlockRange::new(Lba(range.lba), range.blocks).map_err(|_| WireError("range"))
}

fn digests_out(digests: &Digests) -> (Bytes, Vec<u32>) {
    let mut bytes = Vec::with_capacity(digests.len() * size_of::<Digest>());
    let mut bad = Vec::new();
    for (no, digest) in digests.iter().enumerate() {
        if digest.is_none() {
            bad.extend(u32::try_from(no).ok());
        }
        bytes.extend_from_slice(&digest.unwrap_or_default());
    }
    (bytes.into(), bad)
}

fn digests_in(bytes: &[u8], bad: &[u32]) -> Result<Digests, WireError> {
    let (some, rest) = bytes.as_chunks::<{ size_of::<Digest>() }>();
    if !rest.is_empty() {
        return Err(WireError("list of digests"));
    }
    let mut digests: Digests = some.iter().copied().map(Some).collect();
    for no in bad {
        let digest = usize::try_from(*no).ok().and_then(|no| digests.get_mut(no));
        *digest.ok_or(WireError("number of a piece"))? = None;
    }
    Ok(digests)
}

fn ranges_out(ranges: &[BlockRange]) -> pb::Zero {
    pb::Zero {
        ranges: ranges.iter().copied().map(range_out).collect(),
    }
}

fn ranges_in(zero: pb::Zero) -> Result<Vec<BlockRange>, WireError> {
    zero.ranges
        .into_iter()
        .map(|range| range_in(Some(range)))
        .collect()
}

pub(super) fn name_out(name: CommandName) -> pb::CommandName {
    pb::CommandName {
        node: name.session.node.0,
        incarnation: name.session.incarnation.0,
        serial: name.session.serial,
        cmd_sn: name.cmd_sn,
    }
}

pub(super) fn name_in(name: Option<pb::CommandName>) -> Result<CommandName, WireError> {
    let name = name.ok_or(WireError("command name"))?;
    Ok(CommandName {
        session: SessionInstance {
            node: NodeId(name.node),
            incarnation: Incarnation(name.incarnation),
            serial: name.serial,
        },
        cmd_sn: name.cmd_sn,
    })
}

fn history_out(history: &EpochHistory) -> pb::EpochHistory {
    pb::EpochHistory {
        ends: history.lasts().iter().copied().map(pos_out).collect(),
    }
}

fn history_in(history: Option<pb::EpochHistory>) -> Result<EpochHistory, WireError> {
    let ends = history.ok_or(WireError("history"))?.ends;
    let lasts = ends
        .into_iter()
        .map(|end| pos_in(Some(end)))
        .collect::<Result<_, _>>()?;
    EpochHistory::from_lasts(lasts).ok_or(WireError("history"))
}

fn summary_out(log: LogSummary) -> pb::LogSummary {
    pb::LogSummary {
        history: Some(history_out(&log.history)),
        committed: Some(pos_out(log.committed)),
        applied: Some(pos_out(log.applied)),
        unapplied: log.unapplied.iter().copied().map(range_out).collect(),
        base: log.base.map(|base| pb::Base {
            pos: Some(pos_out(base.pos)),
            version: base.version.0,
        }),
        damaged: log.damaged,
        fenced: log.fenced,
        stuck: log.stuck,
    }
}

fn summary_in(log: Option<pb::LogSummary>) -> Result<LogSummary, WireError> {
    let log = log.ok_or(WireError("log"))?;
    let base = log.base.map(|base| {
        pos_in(base.pos).map(|pos| Base {
            pos,
            version: InSyncVersion(base.version),
        })
    });
    Ok(LogSummary {
        history: history_in(log.history)?,
        committed: pos_in(log.committed)?,
        applied: pos_in(log.applied)?,
        unapplied: log
            .unapplied
            .into_iter()
            .map(|range| range_in(Some(range)))
            .collect::<Result<_, _>>()?,
        base: base.transpose()?,
        damaged: log.damaged,
        fenced: log.fenced,
        stuck: log.stuck,
    })
}

fn record_out(record: Record) -> pb::Record {
    use pb::record::Body;
    let body = match record.body {
        RecordBody::EpochStart => Body::EpochStart(pb::Empty {}),
        RecordBody::Write { range, data } => Body::Write(pb::Write {
            range: Some(range_out(range)),
            data,
        }),
        RecordBody::WriteSame { range, block } => Body::WriteSame(pb::WriteSame {
            range: Some(range_out(range)),
            block,
        }),
        RecordBody::Zero { ranges } => Body::Zero(ranges_out(&ranges)),
        RecordBody::Resync { ranges, data } => Body::Resync(pb::ResyncData {
            ranges: ranges.iter().copied().map(range_out).collect(),
            data,
        }),
    };
    pb::Record {
        pos: Some(pos_out(record.pos)),
        commit: record.commit.0,
        name: record.name.map(name_out),
        body: Some(body),
    }
}

fn record_in(record: Option<pb::Record>) -> Result<Record, WireError> {
    use pb::record::Body;
    let record = record.ok_or(WireError("record"))?;
    let body = match record.body.ok_or(WireError("record body"))? {
        Body::EpochStart(_) => RecordBody::EpochStart,
        Body::Write(write) => RecordBody::Write {
            range: range_in(write.range)?,
            data: write.data,
        },
        Body::WriteSame(same) => RecordBody::WriteSame {
            range: range_in(same.range)?,
            block: same.block,
        },
        Body::Zero(zero) => RecordBody::Zero {
            ranges: ranges_in(zero)?.into(),
        },
        Body::Resync(resync) => RecordBody::Resync {
            ranges: resync
                .ranges
                .into_iter()
                .map(|range| range_in(Some(range)))
                .collect::<Result<_, _>>()?,
            data: resync.data,
        },
    };
    Ok(Record {
        pos: pos_in(record.pos)?,
        commit: Lsn(record.commit),
        name: record.name.map(|name| name_in(Some(name))).transpose()?,
        body,
    })
}

fn op_out(op: BlockOp) -> pb::BlockOp {
    use pb::block_op::Op;
    let op = match op {
        BlockOp::Read { range } => Op::Read(range_out(range)),
        BlockOp::Write { range, data, fua } => Op::Write(pb::WriteOp {
            range: Some(range_out(range)),
            data,
            fua,
        }),
        BlockOp::WriteSame { range, block } => Op::WriteSame(pb::WriteSame {
            range: Some(range_out(range)),
            block,
        }),
        BlockOp::Zero { ranges } => Op::Zero(ranges_out(&ranges)),
        BlockOp::CompareAndWrite { range, expect, data } => Op::CompareAndWrite(pb::CompareAndWrite {
            range: Some(range_out(range)),
            expect,
            data,
        }),
        BlockOp::Verify { range, expect } => Op::Verify(pb::Verify {
            range: Some(range_out(range)),
            expect,
        }),
        BlockOp::OrWrite { range, data } => Op::OrWrite(pb::Write {
            range: Some(range_out(range)),
            data,
        }),
        BlockOp::Map { from, runs } => Op::Map(pb::Map {
            from: from.0,
            runs: u32::from(runs),
        }),
        BlockOp::Flush => Op::Flush(pb::Empty {}),
        BlockOp::Fence { version } => Op::Fence(version.0),
    };
    pb::BlockOp { op: Some(op) }
}

fn op_in(op: Option<pb::BlockOp>) -> Result<BlockOp, WireError> {
    use pb::block_op::Op;
    let op = op.and_then(|op| op.op).ok_or(WireError("operation"))?;
    Ok(match op {
        Op::Read(range) => BlockOp::Read {
            range: range_in(Some(range))?,
        },
        Op::Write(write) => BlockOp::Write {
            range: range_in(write.range)?,
            data: write.data,
            fua: write.fua,
        },
        Op::WriteSame(same) => BlockOp::WriteSame {
            range: range_in(same.range)?,
            block: same.block,
        },
        Op::Zero(zero) => BlockOp::Zero {
            ranges: ranges_in(zero)?,
        },
        Op::CompareAndWrite(caw) => BlockOp::CompareAndWrite {
            range: range_in(caw.range)?,
            expect: caw.expect,
            data: caw.data,
        },
        Op::Verify(verify) => BlockOp::Verify {
            range: range_in(verify.range)?,
            expect: verify.expect,
        },
        Op::OrWrite(write) => BlockOp::OrWrite {
            range: range_in(write.range)?,
            data: write.data,
        },
        Op::Map(map) => BlockOp::Map {
            from: Lba(map.from),
            runs: u16::try_from(map.runs).map_err(|_| WireError("number of runs"))?,
        },
        Op::Flush(_) => BlockOp::Flush,
        Op::Fence(version) => BlockOp::Fence {
            version: UnitVersion(version),
        },
    })
}

fn outcome_out(outcome: OpOutcome) -> pb::Outcome {
    use pb::outcome::Outcome;
    let outcome = match outcome {
        OpOutcome::Done => Outcome::Done(pb::Empty {}),
        OpOutcome::Data(data) => Outcome::Data(data),
        OpOutcome::Miscompare { offset } => Outcome::Miscompare(offset),
        OpOutcome::Unreadable { lba } => Outcome::Unreadable(lba.0),
        OpOutcome::Map(runs) => Outcome::Map(pb::MappedRuns {
            runs: runs
                .into_iter()
                .map(|run| pb::MappedRun {
                    range: Some(range_out(run.range)),
                    mapped: run.mapped,
                })
                .collect(),
        }),
        OpOutcome::NoSpace => Outcome::NoSpace(pb::Empty {}),
        OpOutcome::ReservationConflict => Outcome::ReservationConflict(pb::Empty {}),
        OpOutcome::Transitioning => Outcome::Transitioning(pb::Empty {}),
        OpOutcome::Standby => Outcome::Standby(pb::Empty {}),
        OpOutcome::Reset => Outcome::Reset(pb::Empty {}),
        OpOutcome::Aborted => Outcome::Aborted(pb::Empty {}),
    };
    pb::Outcome {
        outcome: Some(outcome),
    }
}

fn outcome_in(outcome: pb::Outcome) -> Result<OpOutcome, WireError> {
    use pb::outcome::Outcome;
    Ok(match outcome.outcome.ok_or(WireError("outcome"))? {
        Outcome::Done(_) => OpOutcome::Done,
        Outcome::Data(data) => OpOutcome::Data(data),
        Outcome::Miscompare(offset) => OpOutcome::Miscompare { offset },
        Outcome::Unreadable(lba) => OpOutcome::Unreadable { lba: Lba(lba) },
        Outcome::Map(map) => OpOutcome::Map(
            map.runs
                .into_iter()
                .map(|run| {
                    let range = range_in(run.range)?;
                    let mapped = run.mapped;
                    Ok(MappedRun { range, mapped })
                })
                .collect::<Result<_, _>>()?,
        ),
        Outcome::NoSpace(_) => OpOutcome::NoSpace,
        Outcome::ReservationConflict(_) => OpOutcome::ReservationConflict,
        Outcome::Transitioning(_) => OpOutcome::Transitioning,
        Outcome::Standby(_) => OpOutcome::Standby,
        Outcome::Reset(_) => OpOutcome::Reset,
        Outcome::Aborted(_) => OpOutcome::Aborted,
    })
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;
