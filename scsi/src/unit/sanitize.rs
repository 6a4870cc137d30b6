//! SANITIZE (SBC-4, 5.36). OVERWRITE and BLOCK ERASE; CRYPTO ERASE is not offered, since no key is kept that could be destroyed.

use bytes::Bytes;

use super::DataUse;
use crate::cdb::Cdb;
use crate::reservation::{PASSES_MAX, Sanitize, SanitizeMethod, SanitizeOrder, UnitChange};
use crate::step::UnitRequest;
use crate::table::{Call, Command};
use crate::{LuView, NexusLu, Sense, Step};

/// Bytes of OVERWRITE's parameter list before its pattern.
const HEADER: u64 = 4;

/// What nearly every command hears while a SANITIZE is under way, or after one that failed (SBC-4, 4.11.2 and 4.11.4).
pub(crate) fn stands_in_the_way(view: &LuView<'_>, command: &Command) -> Option<Sense> {
    if command.during_sanitize {
        return None;
    }
    match &view.unit.sanitize {
        Sanitize::Idle => None,
        Sanitize::Running(running) => Some(Sense::sanitizing(running.progress(view.blocks))),
        Sanitize::Failed { .. } if command.opcode == 0x48 => None,
        Sanitize::Failed { .. } => Some(Sense::SANITIZE_FAILED),
    }
}

/// The fields that all service actions share: ZNR is for zones, of which there are none; bytes 2 to 6 are reserved.
fn checked(call: &Call<'_>) -> Result<u64, Sense> {
    if call.cdb.bit(1, 6) {
        return Err(Sense::cdb_bit(1, 6));
    }
    if let Some(byte) = (2..7).find(|at| call.cdb.byte(usize::from(*at)) != 0) {
        return Err(Sense::cdb_byte(byte));
    }
    Ok(call.cdb.number(7, 2))
}

fn no_list(call: &Call<'_>) -> Result<(), Sense> {
    match checked(call)? {
        0 => Ok(()),
        _ => Err(Sense::cdb_byte(7)),
    }
}

/// IMMED and AUSE.
fn flags(cdb: Cdb<'_>) -> (bool, bool) {
    (cdb.bit(1, 7), cdb.bit(1, 5))
}

const fn begin(method: SanitizeMethod, (immediate, unrestricted_exit): (bool, bool)) -> Step {
    let order = SanitizeOrder {
        method,
        unrestricted_exit,
    };
    Step::Unit(UnitRequest::Sanitize { order, immediate })
}

/// OVERWRITE: four bytes and a pattern of up to a block.
pub(crate) fn overwrite(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let length = checked(call)?;
    if !(HEADER + 1..=HEADER + u64::from(call.view.block_size.bytes())).contains(&length) {
        return Err(Sense::cdb_byte(7));
    }
    let (immediate, unrestricted_exit) = flags(call.cdb);
    Ok(call.need(
        length,
        DataUse::Overwrite {
            immediate,
            unrestricted_exit,
        },
    ))
}

/// OVERWRITE's parameter list: INVERT, TEST and OVERWRITE COUNT, a reserved byte, the pattern's length, the pattern.
pub(crate) fn overwrite_data(view: &LuView<'_>, flags: (bool, bool), data: &Bytes) -> Result<Step, Sense> {
    let fields = Cdb(data);
    let count = fields.byte(0) & PASSES_MAX;
    if fields.byte(0) & 0x60 != 0 || count == 0 {
        // TEST is vendor specific, and there are no such tests.
        return Err(Sense::parameter_byte(0));
    }
    let length = fields.length(2, 2);
    if length == 0 || length > view.block_size.bytes() as usize || data.len() != 4 + length {
        return Err(Sense::parameter_byte(2));
    }
    let method = SanitizeMethod::Overwrite {
        pattern: data[4..].to_vec(),
        count,
        invert: fields.bit(0, 7),
    };
    Ok(begin(method, flags))
}

/// BLOCK ERASE.
pub(crate) fn block_erase(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    no_list(call)?;
    Ok(begin(SanitizeMethod::BlockErase, flags(call.cdb)))
}

/// EXIT FAILURE MODE: after one that failed, if that one allowed it (AUSE); GOOD where none did.
pub(crate) fn exit_failure_mode(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    no_list(call)?;
    match call.view.unit.sanitize {
        Sanitize::Failed {
            unrestricted_exit: false,
        } => Err(Sense::cdb_bit(1, 4)),
        _ => Ok(Step::Unit(UnitRequest::Change(UnitChange::SanitizeExit))),
    }
}

#[cfg(test)]
#[path = "sanitize_test.rs"]
mod tests;
