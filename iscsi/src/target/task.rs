//! A SCSI task and the data that moves for it (RFC 7143, 4.2.5, 11.7 and 11.8).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use holdfast_types::Mono;

use super::link::Link;
use super::window::Window;
use super::{Answer, TaskError};
use crate::negotiate::Parameters;
use crate::out::Payload;
use crate::pdu::{
    DataIn, DataOut, Direction, NO_TAG, R2t, Residual, ScsiResponse, ScsiStatus, ServiceResponse,
};

/// Longest sense data in bytes that is sent (SPC-5 knows no longer one).
const SENSE_MAX: usize = 252;

/// A task that waits for its answer.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) itt: u32,
    pub(super) lun: u64,
    pub(super) immediate: bool,
    pub(super) received: Mono,
    direction: Direction,
    expected: u32,
    inbound: Inbound,
    /// Data-In and R2T PDUs sent: ExpDataSN, and the next R2TSN.
    sent: u32,
}

/// Data on its way from the initiator. All of it comes in order (DataPDUInOrder and DataSequenceInOrder are Yes).
#[derive(Debug, Default)]
struct Inbound {
    /// What came before the owner asked, or all of it in one piece: slices of the receive buffer.
    early: Payload,
    /// What came later, with `early` copied in front. Allocated once, for as much as the owner has asked for.
    buffer: BytesMut,
    /// How much the owner has asked for.
    wanted: Option<u32>,
    /// Handed to the owner.
    delivered: bool,
    /// How much has come, also beyond what is wanted.
    next: u32,
    /// Unsolicited Data-Out: up to where it may go, and the DataSN of its next PDU. `None` once it is over.
    unsolicited: Option<(u32, u32)>,
    /// R2Ts that are not satisfied, oldest first.
    bursts: VecDeque<Burst>,
    /// Up to where R2Ts were sent.
    solicited: u32,
}

#[derive(Debug)]
struct Burst {
    ttt: u32,
    next: u32,
    end: u32,
    data_sn: u32,
}

/// What a new task is made from.
#[derive(Debug, Clone)]
pub(super) struct NewTask {
    pub(super) itt: u32,
    pub(super) lun: u64,
    pub(super) immediate: bool,
    pub(super) received: Mono,
    pub(super) direction: Direction,
    pub(super) expected: u32,
    /// The F bit: no unsolicited Data-Out follows.
    pub(super) last: bool,
    pub(super) data: Bytes,
}

/// What is wrong with a command or its data, for people.
pub(super) type Problem = &'static str;

/// A Data-Out that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadData {
    /// One before it was lost: its DataSN is not the next one. The task is to be ended, the connection lives (RFC 7143, 7.9).
    Lost,
    /// The protocol does not allow it: the connection ends.
    Wrong(Problem),
}

impl Task {
    /// Judges the command's data and flags against what was negotiated.
    pub(super) fn new(new: NewTask, parameters: &Parameters) -> Result<Self, Problem> {
        let writes = new.direction.writes();
        let len = u32::try_from(new.data.len()).unwrap_or(u32::MAX);
        let first_burst = parameters.first_burst_length.min(new.expected);
        if len > 0 && !writes {
            return Err("data with a command that does not write");
        }
        if len > 0 && !parameters.immediate_data {
            return Err("immediate data although ImmediateData=No");
        }
        if len > first_burst {
            return Err("immediate data beyond FirstBurstLength or the expected length");
        }
        let unsolicited = writes && !new.last && len < first_burst;
        if unsolicited && parameters.initial_r2t {
            return Err("unsolicited data announced although InitialR2T=Yes");
        }
        Ok(Self {
            itt: new.itt,
            lun: new.lun,
            immediate: new.immediate,
            received: new.received,
            direction: new.direction,
            expected: new.expected,
            inbound: Inbound {
                early: new.data.into(),
                next: len,
                unsolicited: unsolicited.then_some((first_burst, 0)),
                ..Inbound::default()
            },
            sent: 0,
        })
    }

    /// The owner asks for data. What came already may be enough.
    pub(super) fn request(&mut self, length: u32) -> Result<Option<Bytes>, TaskError> {
        if !self.direction.writes() || self.inbound.wanted.is_some() {
            return Err(TaskError::NotNow);
        }
        if length > self.expected {
            return Err(TaskError::TooMuch {
                wanted: length,
                expected: self.expected,
            });
        }
        self.inbound.wanted = Some(length);
        self.inbound
            .early
            .truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(self.inbound.complete())
    }

    /// Sends as many R2Ts as may be out (RFC 7143, 11.8 and 13.17).
    pub(super) fn solicit(
        &mut self,
        link: &mut Link,
        window: &Window,
        parameters: &Parameters,
        ttt: &mut u32,
    ) {
        let inbound = &mut self.inbound;
        let Some(wanted) = inbound.wanted else { return };
        if inbound.delivered || inbound.unsolicited.is_some() {
            return;
        }
        let open_max = usize::try_from(parameters.max_outstanding_r2t).unwrap_or(usize::MAX);
        inbound.solicited = inbound.solicited.max(inbound.next);
        while inbound.bursts.len() < open_max && inbound.solicited < wanted {
            let offset = inbound.solicited;
            let length = (wanted - offset).min(parameters.max_burst_length);
            *ttt = next_ttt(*ttt);
            let r2t = R2t {
                lun: self.lun,
                itt: self.itt,
                ttt: *ttt,
                numbers: link.peek(window),
                r2t_sn: self.sent,
                offset,
                length,
            };
            link.send(r2t.emit(), Payload::default());
            self.sent += 1;
            inbound.solicited = offset + length;
            inbound.bursts.push_back(Burst {
                ttt: *ttt,
                next: offset,
                end: offset + length,
                data_sn: 0,
            });
        }
    }

    /// Takes a Data-Out in. Gives the data if that completes it.
    pub(super) fn data_out(&mut self, pdu: &DataOut, data: Bytes) -> Result<Option<Bytes>, BadData> {
        if self.inbound.delivered {
            // Unsolicited data beyond what the owner wanted: of no use to anybody.
            return Ok(None);
        }
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if pdu.ttt == NO_TAG {
            self.inbound.unsolicited(pdu, len)?;
        } else {
            self.inbound.solicited(pdu, len)?;
        }
        self.inbound.next += len;
        self.inbound.keep(data);
        Ok(self.inbound.complete())
    }

    /// Sends data and status. The window has to have ended the task before.
    pub(super) fn answer(
        mut self,
        answer: Answer,
        link: &mut Link,
        window: &Window,
        parameters: &Parameters,
    ) {
        let mut data = answer.data;
        let moved = answer.moved.unwrap_or_else(|| self.moved_by_default(data.len()));
        let limit = match self.direction {
            Direction::Read => usize::try_from(self.expected).unwrap_or(usize::MAX),
            _ => 0,
        };
        data.truncate(limit);
        let residual = Residual::of(self.expected, moved);
        let status = answer.status;
        // Phase collapse: GOOD rides on the last Data-In (RFC 7143, 11.7.3).
        let collapse = status == ScsiStatus::GOOD && answer.sense.is_empty() && !data.is_empty();
        self.data_in(
            data,
            collapse.then_some((status, residual)),
            link,
            window,
            parameters,
        );
        if collapse {
            return;
        }
        let response = ScsiResponse {
            read_residual: Residual::None,
            residual,
            response: ServiceResponse::COMPLETED,
            status,
            itt: self.itt,
            snack_tag: 0,
            numbers: link.take(window),
            exp_data_sn: self.sent,
        };
        link.send(response.emit(), sense_segment(&answer.sense));
    }

    fn moved_by_default(&self, data_len: usize) -> u64 {
        match self.direction {
            Direction::None => 0,
            Direction::Read => u64::try_from(data_len).unwrap_or(u64::MAX),
            Direction::Write | Direction::Both => u64::from(self.inbound.wanted.unwrap_or(self.inbound.next)),
        }
    }

    /// Splits data by the initiator's MaxRecvDataSegmentLength into PDUs and by MaxBurstLength into sequences.
    fn data_in(
        &mut self,
        mut data: Payload,
        status: Option<(ScsiStatus, Residual)>,
        link: &mut Link,
        window: &Window,
        parameters: &Parameters,
    ) {
        // All but the last PDU of a sequence should be whole words (RFC 7143, 11.7.6).
        let segment_max = parameters.send_max & !3;
        let (mut offset, mut burst_left) = (0, parameters.max_burst_length);
        while !data.is_empty() {
            let len = segment_max.min(burst_left);
            let segment = data.split_to(usize::try_from(len).unwrap_or(usize::MAX));
            let len = u32::try_from(segment.len()).unwrap_or(len);
            burst_left -= len;
            let at_end = data.is_empty();
            let status = status.filter(|_| at_end);
            let pdu = DataIn {
                last: at_end || burst_left == 0,
                acknowledge: false,
                status,
                lun: 0,
                itt: self.itt,
                ttt: NO_TAG,
                numbers: if status.is_some() {
                    link.take(window)
                } else {
                    link.peek(window)
                },
                data_sn: self.sent,
                offset,
            };
            link.send(pdu.emit(), segment);
            self.sent += 1;
            offset += len;
            if burst_left == 0 {
                burst_left = parameters.max_burst_length;
            }
        }
    }
}

impl Inbound {
    fn unsolicited(&mut self, pdu: &DataOut, len: u32) -> Result<(), BadData> {
        let Some((limit, data_sn)) = self.unsolicited else {
            // The sequence is over by length; a last PDU may still say so.
            return if len == 0 {
                Ok(())
            } else {
                Err(BadData::Wrong("unsolicited data that was not announced"))
            };
        };
        if pdu.data_sn != data_sn {
            return Err(BadData::Lost);
        }
        if pdu.offset != self.next {
            return Err(BadData::Wrong("data out of order"));
        }
        if len > limit - self.next {
            return Err(BadData::Wrong(
                "unsolicited data beyond FirstBurstLength or the expected length",
            ));
        }
        let over = pdu.last || self.next + len == limit;
        self.unsolicited = (!over).then_some((limit, data_sn.wrapping_add(1)));
        Ok(())
    }

    fn solicited(&mut self, pdu: &DataOut, len: u32) -> Result<(), BadData> {
        let burst = self
            .bursts
            .front_mut()
            .filter(|burst| burst.ttt == pdu.ttt)
            .ok_or(BadData::Wrong("data for no Ready To Transfer that is due"))?;
        if pdu.data_sn != burst.data_sn {
            return Err(BadData::Lost);
        }
        if pdu.offset != burst.next {
            return Err(BadData::Wrong("data out of order"));
        }
        if len > burst.end - burst.next {
            return Err(BadData::Wrong("more data than was asked for"));
        }
        burst.next += len;
        burst.data_sn = burst.data_sn.wrapping_add(1);
        if burst.next == burst.end {
            self.bursts.pop_front();
        } else if pdu.last {
            return Err(BadData::Wrong("less data than was asked for"));
        }
        Ok(())
    }

    /// Keeps what is wanted. Before the owner has asked, the bound is FirstBurstLength.
    fn keep(&mut self, mut data: Bytes) {
        let Some(wanted) = self.wanted else {
            self.early.push(data);
            return;
        };
        if self.delivered || data.is_empty() {
            return;
        }
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        data.truncate(wanted - self.early.len() - self.buffer.len());
        if self.buffer.is_empty() && self.early.is_empty() && data.len() == wanted {
            // All in one PDU: no copy.
            self.early.push(data);
            return;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(wanted);
            let early = std::mem::take(&mut self.early);
            early
                .pieces()
                .for_each(|piece| self.buffer.extend_from_slice(piece));
        }
        self.buffer.extend_from_slice(&data);
    }

    /// The data, the first time that all that is wanted is there.
    fn complete(&mut self) -> Option<Bytes> {
        let wanted = usize::try_from(self.wanted?).unwrap_or(usize::MAX);
        if self.delivered || self.early.len() + self.buffer.len() < wanted {
            return None;
        }
        self.delivered = true;
        if self.buffer.is_empty() {
            Some(std::mem::take(&mut self.early).into_bytes())
        } else {
            Some(std::mem::take(&mut self.buffer).freeze())
        }
    }
}

/// The tag after this one, leaving out the one that means none.
pub(super) const fn next_ttt(ttt: u32) -> u32 {
    let next = ttt.wrapping_add(1);
    if next == NO_TAG { 0 } else { next }
}

/// Sense data behind its length (RFC 7143, 11.4.7).
fn sense_segment(sense: &Bytes) -> Payload {
    let mut payload = Payload::default();
    let sense = sense.slice(..sense.len().min(SENSE_MAX));
    if let Ok(len @ 1..) = u16::try_from(sense.len()) {
        payload.push(Bytes::copy_from_slice(&len.to_be_bytes()));
        payload.push(sense);
    }
    payload
}
