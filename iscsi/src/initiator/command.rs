//! The commands of an initiator: data out on request, data in put together.

use bytes::{Bytes, BytesMut};

use super::{InitiatorError, ScsiRequest, ScsiResult};
use crate::negotiate::Parameters;
use crate::out::Payload;
use crate::pdu::{
    Bhs, DataIn, DataOut, Direction, Extra, NO_TAG, Numbers, R2t, Residual, ScsiCommand, ScsiResponse,
    ScsiStatus, ServiceResponse,
};
use crate::serial::Sn;

/// Most bytes that are allocated ahead for a read; more grow as they come.
const AHEAD_MAX: usize = 1 << 20;

/// A command that was sent.
#[derive(Debug)]
pub(super) struct Pending {
    lun: u64,
    pub(super) cmd_sn: Sn,
    expected: u32,
    /// Data of a write, whole.
    outbound: Payload,
    inbound: BytesMut,
}

/// A PDU to be sent: header, AHS, data.
pub(super) type Pdu = (Bhs, Vec<u8>, Payload);

impl Pending {
    /// The command's own PDU, and unsolicited data where both sides want it.
    pub(super) fn start(
        request: ScsiRequest,
        itt: u32,
        numbers: Numbers,
        parameters: &Parameters,
        unsolicited: bool,
    ) -> (Self, Vec<Pdu>) {
        let extra = Extra {
            cdb_tail: request.cdb.as_bytes()[16..].to_vec(),
            read_length: None,
        };
        let mut pending = Self {
            lun: request.lun,
            cmd_sn: numbers.cmd_sn,
            expected: request.expected_length,
            outbound: request.data,
            inbound: BytesMut::new(),
        };
        let writes = request.direction.writes();
        let first_burst = len32(&pending.outbound)
            .min(parameters.first_burst_length)
            .min(request.expected_length);
        let immediate = if writes && parameters.immediate_data {
            first_burst.min(parameters.send_max)
        } else {
            0
        };
        let more = writes && unsolicited && !parameters.initial_r2t && immediate < first_burst;
        let command = ScsiCommand {
            immediate: request.immediate,
            last: !more,
            direction: request.direction,
            attribute: request.attribute,
            lun: request.lun,
            itt,
            expected_length: request.expected_length,
            numbers,
            cdb: request.cdb.head(),
        };
        let mut pdus = vec![(command.emit(), extra.emit(), pending.slice(0, immediate))];
        if more {
            pending.data_out(
                itt,
                NO_TAG,
                immediate,
                first_burst,
                parameters,
                numbers,
                &mut pdus,
            );
        }
        if request.direction == Direction::Read {
            let ahead = usize::try_from(request.expected_length).unwrap_or(usize::MAX);
            pending.inbound.reserve(ahead.min(AHEAD_MAX));
        }
        (pending, pdus)
    }

    fn slice(&self, from: u32, to: u32) -> Payload {
        let mut data = self.outbound.clone();
        drop(data.split_to(size(from)));
        data.split_to(size(to - from))
    }

    #[allow(clippy::too_many_arguments)]
    fn data_out(
        &self,
        itt: u32,
        ttt: u32,
        from: u32,
        to: u32,
        parameters: &Parameters,
        numbers: Numbers,
        pdus: &mut Vec<Pdu>,
    ) {
        let (mut offset, mut data_sn) = (from, 0);
        while offset < to {
            let len = (to - offset).min(parameters.send_max & !3);
            let pdu = DataOut {
                last: offset + len == to,
                lun: self.lun,
                itt,
                ttt,
                exp_stat_sn: numbers.exp_stat_sn,
                data_sn,
                offset,
            };
            pdus.push((pdu.emit(), Vec::new(), self.slice(offset, offset + len)));
            offset += len;
            data_sn += 1;
        }
    }

    /// The data that the target asks for.
    pub(super) fn r2t(
        &self,
        pdu: &R2t,
        parameters: &Parameters,
        numbers: Numbers,
    ) -> Result<Vec<Pdu>, InitiatorError> {
        let end = pdu
            .offset
            .checked_add(pdu.length)
            .filter(|end| pdu.length > 0 && *end <= self.expected && *end <= len32(&self.outbound))
            .ok_or(InitiatorError::Protocol("R2T beyond the command's data"))?;
        let mut pdus = Vec::new();
        self.data_out(pdu.itt, pdu.ttt, pdu.offset, end, parameters, numbers, &mut pdus);
        Ok(pdus)
    }

    /// Takes data in; with status the command is over.
    pub(super) fn data_in(&mut self, pdu: &DataIn, data: &[u8]) -> Result<(), InitiatorError> {
        if size(pdu.offset) != self.inbound.len() {
            return Err(InitiatorError::Protocol("Data-In out of order"));
        }
        if self.inbound.len() + data.len() > size(self.expected) {
            return Err(InitiatorError::Protocol("more Data-In than expected"));
        }
        self.inbound.extend_from_slice(data);
        Ok(())
    }

    pub(super) fn collapsed(self, status: ScsiStatus, residual: Residual) -> ScsiResult {
        ScsiResult {
            response: ServiceResponse::COMPLETED,
            status,
            sense: Bytes::new(),
            data: self.inbound.freeze(),
            residual,
        }
    }

    pub(super) fn finish(self, pdu: &ScsiResponse, segment: &Bytes) -> Result<ScsiResult, InitiatorError> {
        let sense = match segment.first_chunk::<2>() {
            None => Bytes::new(),
            Some(len) => {
                let len = usize::from(u16::from_be_bytes(*len));
                if segment.len() < 2 + len {
                    return Err(InitiatorError::Protocol("sense longer than its segment"));
                }
                segment.slice(2..2 + len)
            }
        };
        Ok(ScsiResult {
            response: pdu.response,
            status: pdu.status,
            sense,
            data: self.inbound.freeze(),
            residual: pdu.residual,
        })
    }
}

fn size(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn len32(data: &Payload) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}
