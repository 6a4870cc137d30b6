//! UNMAP, WRITE SAME and GET LBA STATUS (SBC-3, logical block provisioning).

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

/// GET LBA STATUS(16): one descriptor, from the starting LBA to the end of the unit or as far as its 32-bit count goes, with PROVISIONING
/// STATUS 0h, "mapped or has an unknown state". Which blocks have space is each replica's own affair and is not asked for; the
/// answer is true of every block, at any time and on every node.
pub(crate) fn get_lba_status(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let start = call.cdb.number(2, 8);
    // Unlike a range of no blocks, the starting LBA has to be there.
    let rest = call.view.blocks.checked_sub(start).filter(|rest| *rest > 0);
    let blocks = u32::try_from(rest.ok_or(Sense::LBA_OUT_OF_RANGE)?).unwrap_or(u32::MAX);
    let mut data = [0; 24];
    // PARAMETER DATA LENGTH: what follows it.
    data[3] = 20;
    data[8..16].copy_from_slice(&start.to_be_bytes());
    data[16..20].copy_from_slice(&blocks.to_be_bytes());
    Ok(Step::Done(Response::data(data.to_vec(), call.cdb.length(10, 4))))
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
