//! UNMAP and WRITE SAME (SBC-3, logical block provisioning).

use bytes::Bytes;
use holdfast_types::{BlockOp, BlockRange, UNMAP_BLOCKS_MAX, UNMAP_DESCRIPTORS_MAX, WRITE_SAME_BYTES_MAX};

use super::{DataUse, within};
use crate::cdb::Cdb;
use crate::table::Call;
use crate::{Finish, LuView, NexusLu, Response, Sense, Step, Storage};

/// UNMAP. Anchored blocks are not offered (ANC_SUP=0).
pub(crate) fn unmap(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    if call.cdb.bit(1, 0) {
        return Err(Sense::cdb_bit(1, 0));
    }
    match call.cdb.number(7, 2) {
        0 => Ok(Step::Done(Response::good())),
        length if length < 8 => Err(Sense::PARAMETER_LIST_LENGTH),
        length => Ok(call.need(length, DataUse::Unmap)),
    }
}

/// The parameter list: a header of 8 bytes, then descriptors of 16 (SBC-3). All of it is checked before anything is done (I12).
pub(crate) fn unmap_data(view: &LuView<'_>, data: &Bytes) -> Result<Step, Sense> {
    let header = Cdb(data);
    let descriptors = header.length(2, 2);
    let list = data.get(8..8 + descriptors).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    // A last descriptor that is incomplete is ignored, as the standard wants.
    let count = list.len() / 16;
    if count > UNMAP_DESCRIPTORS_MAX as usize {
        return Err(Sense::parameter_byte(2));
    }
    let mut ranges = Vec::with_capacity(count);
    let mut total = 0;
    for (index, descriptor) in list.chunks_exact(16).enumerate() {
        let fields = Cdb(descriptor);
        let range = within(view, fields.number(0, 8), fields.number(8, 4))?;
        total += range.blocks();
        if total > u64::from(UNMAP_BLOCKS_MAX) {
            return Err(Sense::parameter_byte(
                u16::try_from(8 + index * 16 + 8).unwrap_or(u16::MAX),
            ));
        }
        if !range.is_empty() {
            ranges.push(range);
        }
    }
    if ranges.is_empty() {
        return Ok(Step::Done(Response::good()));
    }
    Ok(Storage::step(BlockOp::Zero { ranges }, Finish::Status))
}

/// WRITE SAME(10), (16). A length of 0 goes to the end of the unit (WSNZ=0). LBDATA and PBDATA are obsolete, ANCHOR is not offered,
/// NDOB is a bit of the 16-byte CDB only.
pub(crate) fn write_same(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let sixteen = call.cdb.opcode() == 0x93;
    if call.cdb.protect() != 0 {
        return Err(Sense::cdb_bit(1, 7));
    }
    for bit in [4, 2, 1] {
        if call.cdb.bit(1, bit) {
            return Err(Sense::cdb_bit(1, bit));
        }
    }
    let no_data = sixteen && call.cdb.bit(1, 0);
    let (lba, length, length_field) = call.cdb.lba_and_blocks();
    let start = call.within(lba, length)?;
    let blocks = if length == 0 {
        call.view.blocks - lba
    } else {
        start.blocks()
    };
    let range = call.within(lba, blocks)?;
    if range.byte_len(call.view.block_size) > u64::from(WRITE_SAME_BYTES_MAX) {
        return Err(Sense::cdb_byte(length_field));
    }
    if no_data {
        return Ok(zero(range));
    }
    let wanted = u64::from(call.view.block_size.bytes());
    Ok(call.need_exactly(wanted, DataUse::WriteSame { range }))
}

/// The block has come. Zeros become [`BlockOp::Zero`] whether UNMAP was set or not: the blocks read the same either way (LBPRZ),
/// and what is freed is the disk's affair (W7). Any other block is written, also with UNMAP, which only allows to unmap, never to
/// change what is read.
pub(crate) fn write_same_data(range: BlockRange, block: Bytes) -> Step {
    if block.iter().all(|byte| *byte == 0) {
        return zero(range);
    }
    if range.is_empty() {
        return Step::Done(Response::good());
    }
    Storage::step(BlockOp::WriteSame { range, block }, Finish::Status)
}

fn zero(range: BlockRange) -> Step {
    if range.is_empty() {
        return Step::Done(Response::good());
    }
    let ranges = vec![range];
    Storage::step(BlockOp::Zero { ranges }, Finish::Status)
}

#[cfg(test)]
#[path = "provision_test.rs"]
mod tests;
