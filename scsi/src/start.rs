//! From a CDB to its first step.

use holdfast_alua::{Admission, Refusal, admit};

use crate::cdb::Cdb;
use crate::sense::{AdditionalSense, SenseKey};
use crate::table::{Call, find};
use crate::unit::sanitize;
use crate::{LuView, NexusLu, Response, Sense, Step};

/// Starts a command. `data_out` is what the initiator announced to send: the expected data transfer length of a write, else 0.
///
/// In this order: is there such a command; is a unit attention pending; does the port group's state let it through; is the CDB well
/// formed; is the medium being sanitized; is the unit write protected; then the command itself. Nothing is changed before
/// [`Step::Storage`] but what `nexus` remembers.
pub fn start(cdb: &[u8], view: &LuView<'_>, nexus: &mut NexusLu, data_out: u32) -> Step {
    nexus.observe(view.counters);
    let call = Call {
        cdb: Cdb(cdb),
        view,
        data_out,
    };
    let Some(command) = find(call.cdb).filter(|_| !cdb.is_empty()) else {
        // A service action of these that is not there is a wrong field of a command that is (SBC-4, 5.36; SPC-4, 6.15 and 6.16).
        return Step::check(match call.cdb.opcode() {
            0x48 | 0x5e | 0x5f => Sense::cdb_bit(1, 4),
            _ => Sense::INVALID_OPERATION_CODE,
        });
    };
    if !command.passes_attention
        && let Some(attention) = nexus.take()
    {
        return Step::check(attention.sense());
    }
    match admit(command.class, view.state()) {
        Admission::Admit => {}
        Admission::Refuse(Refusal::Transition) => return Step::Hold,
        Admission::Refuse(refusal) => {
            let (code, qualifier) = refusal.asc_ascq();
            return Step::check(Sense::new(SenseKey::NotReady, AdditionalSense(code, qualifier)));
        }
    }
    if cdb.len() < command.usage.len() {
        return Step::check(Sense::cdb_byte(u16::try_from(cdb.len()).unwrap_or(u16::MAX)));
    }
    // NACA: NORMACA is 0 in the INQUIRY data (SAM-5, CONTROL byte). The control byte is the last one.
    let control = command.usage.len() - 1;
    if call.cdb.bit(control, 2) {
        return Step::check(Sense::cdb_bit(u16::try_from(control).unwrap_or(u16::MAX), 2));
    }
    if let Some(sense) = sanitize::stands_in_the_way(view, command) {
        return Step::check(sense);
    }
    if command.writes && view.write_protected {
        return Step::check(Sense::WRITE_PROTECTED);
    }
    let step = (command.run)(&call, nexus).unwrap_or_else(Step::check);
    // P1: what reaches the medium is judged by the primary, not here.
    if matches!(&step, Step::Done(response) if response.sense.is_none())
        && view.unit.refuses(command.conflict_of(call.cdb), view.nexus)
    {
        return Step::Done(Response::reservation_conflict());
    }
    step
}

#[cfg(test)]
#[path = "start_test.rs"]
mod tests;
