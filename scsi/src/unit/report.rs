//! Questions about the unit that need no storage: readiness, sense, capacity, LUNs, port groups.

use holdfast_alua::rtpg;
use holdfast_types::{BlockSize, Lun};

use crate::cdb::Cdb;
use crate::table::Call;
use crate::{NexusLu, REPORT_LUNS_UNIT, Response, Sense, Step};

/// TEST UNIT READY (SPC-4): a unit whose group admits the command is ready.
pub(crate) fn test_unit_ready(_: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    Ok(Step::Done(Response::good()))
}

/// REQUEST SENSE (SPC-4): GOOD, with a pending unit attention as data; that one has been told then. Else how far a SANITIZE is.
pub(crate) fn request_sense(call: &Call<'_>, nexus: &mut NexusLu) -> Result<Step, Sense> {
    let view = call.view;
    let sanitizing = view
        .unit
        .sanitize
        .running()
        .map(|running| Sense::sanitizing(running.progress(view.blocks)));
    let attention = nexus.take().map(|attention| attention.sense());
    let sense = attention.or(sanitizing).unwrap_or(Sense::NONE);
    Ok(Step::Done(sense_data(call.cdb, &sense)))
}

/// Sense as data, in the format that DESC asks for.
pub(crate) fn sense_data(cdb: Cdb<'_>, sense: &Sense) -> Response {
    let data = if cdb.bit(1, 0) {
        sense.descriptor()
    } else {
        sense.fixed()
    };
    Response::data(data, cdb.length(4, 1))
}

/// START STOP UNIT (SBC-3). The unit is shared and always on: starting it, or making it active, finds it so. Stopping it
/// for everybody, other power conditions and ejecting a fixed disk are refused.
pub(crate) fn start_stop_unit(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let condition = call.cdb.byte(4) >> 4;
    match condition {
        0 if call.cdb.bit(4, 1) => Err(Sense::cdb_bit(4, 1)),
        0 if !call.cdb.bit(4, 0) => Err(Sense::cdb_bit(4, 0)),
        0 => Ok(Step::Done(Response::good())),
        1 if call.cdb.byte(3) & 0x0f == 0 => Ok(Step::Done(Response::good())),
        1 => Err(Sense::cdb_bit(3, 3)),
        _ => Err(Sense::cdb_bit(4, 7)),
    }
}

/// PREVENT ALLOW MEDIUM REMOVAL (SBC-3). The medium of a fixed disk cannot be removed, so both wishes are granted already.
pub(crate) fn prevent_allow(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    if call.cdb.bit(4, 1) {
        return Err(Sense::cdb_bit(4, 1));
    }
    Ok(Step::Done(Response::good()))
}

/// READ CAPACITY(10) (SBC-3): FFFFFFFFh tells the initiator to ask with the 16-byte CDB.
pub(crate) fn read_capacity_10(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let last = u32::try_from(call.view.blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    let data = [last.to_be_bytes(), call.view.block_size.bytes().to_be_bytes()].concat();
    Ok(Step::Done(Response::data(data, 8)))
}

/// READ CAPACITY(16) (SBC-3).
pub(crate) fn read_capacity_16(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let mut data = [0; 32];
    data[..8].copy_from_slice(&call.view.blocks.saturating_sub(1).to_be_bytes());
    data[8..12].copy_from_slice(&call.view.block_size.bytes().to_be_bytes());
    // LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT: storage works in 4096 bytes.
    data[13] = match call.view.block_size {
        BlockSize::B512 => 3,
        BlockSize::B4096 => 0,
    };
    // LBPME=1, LBPRZ=1 (W7); lowest aligned block 0.
    data[14] = 0xc0;
    Ok(Step::Done(Response::data(data.to_vec(), call.cdb.length(10, 4))))
}

/// READ DEFECT DATA(10) (SBC-3): empty lists, in the format that is asked for, since there is no medium whose defects an initiator could
/// know of.
pub(crate) fn read_defect_data_10(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let data = [0, call.cdb.byte(2) & 0x1f, 0, 0];
    Ok(Step::Done(Response::data(data.to_vec(), call.cdb.length(7, 2))))
}

/// READ DEFECT DATA(12): the same behind a longer header.
pub(crate) fn read_defect_data_12(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let data = [0, call.cdb.byte(1) & 0x1f, 0, 0, 0, 0, 0, 0];
    Ok(Step::Done(Response::data(data.to_vec(), call.cdb.length(6, 4))))
}

/// REPORT LUNS (SPC-4). What it says is no news any more, so 06/3F/0E is dropped.
pub(crate) fn report_luns(call: &Call<'_>, nexus: &mut NexusLu) -> Result<Step, Sense> {
    let response = lun_list(call.cdb, call.view.luns)?;
    if call.cdb.byte(2) != 0x01 {
        nexus.luns_reported(call.view.counters);
    }
    Ok(Step::Done(response))
}

/// The list that SELECT REPORT names: the units, the well-known one, or both.
pub(crate) fn lun_list(cdb: Cdb<'_>, luns: &[Lun]) -> Result<Response, Sense> {
    let (luns, well_known) = match cdb.byte(2) {
        0x00 => (luns, None),
        0x01 => (&[][..], Some(REPORT_LUNS_UNIT)),
        0x02 => (luns, Some(REPORT_LUNS_UNIT)),
        _ => return Err(Sense::cdb_byte(2)),
    };
    let fields = luns.iter().map(|lun| lun.to_field()).chain(well_known);
    let mut data = vec![0; 8];
    data.extend(fields.flat_map(u64::to_be_bytes));
    let length = u32::try_from(data.len() - 8).unwrap_or(u32::MAX);
    data[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Response::data(data, cdb.length(6, 4)))
}

/// REPORT TARGET PORT GROUPS (SPC-4), from committed state, in every access state.
pub(crate) fn report_target_port_groups(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let format = rtpg::Format::from_field(call.cdb.protect()).ok_or(Sense::cdb_bit(1, 7))?;
    let data = rtpg::encode(call.view.groups, call.view.secondary, format);
    Ok(Step::Done(Response::data(data, call.cdb.length(6, 4))))
}

#[cfg(test)]
#[path = "report_test.rs"]
mod tests;
