//! UNMAP, WRITE SAME and GET LBA STATUS (SBC-3, logical block provisioning).

use bytes::Bytes;
use holdfast_types::{
    BlockOp, BlockRange, BlockSize, Lba, MAP_RUNS_MAX, MappedRun, PHYSICAL_BYTES, UNMAP_BLOCKS_MAX,
    UNMAP_DESCRIPTORS_MAX, WRITE_SAME_BYTES_MAX,
};

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
    let unmap = call.cdb.bit(1, 3);
    Ok(call.need_exactly(wanted, DataUse::WriteSame { range, unmap }))
}

/// The block has come. With UNMAP the blocks are deallocated whatever the block is (SBC-4, table of ANCHOR and UNMAP) and read as zeros
/// from then on (LBPRZ, W7). Without it, zeros become [`BlockOp::Zero`] all the same: they read the same, and what is freed is the
/// disk's affair.
pub(crate) fn write_same_data(range: BlockRange, unmap: bool, block: Bytes) -> Step {
    if unmap || block.iter().all(|byte| *byte == 0) {
        return zero(range);
    }
    if range.is_empty() {
        return Step::Done(Response::good());
    }
    Storage::step(BlockOp::WriteSame { range, block }, Finish::Status)
}

/// Bytes before the first LBA status descriptor, and of each of them.
const STATUS_HEADER: u64 = 8;
const STATUS_DESCRIPTOR: u64 = 16;

/// GET LBA STATUS(16) (SBC-3, 5.6), a read (W3): from the primary's extent file. Space is given and taken in physical blocks, so the answer
/// starts with the first whole one; the last, where a start within it leaves no whole one, is told from its middle.
pub(crate) fn get_lba_status(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let start = call.cdb.number(2, 8);
    if start >= call.view.blocks {
        return Err(Sense::LBA_OUT_OF_RANGE);
    }
    let aligned = start.next_multiple_of(u64::from(physical_blocks(call.view.block_size)));
    let from = Lba(if aligned < call.view.blocks {
        aligned
    } else {
        start
    });
    let allocation = call.cdb.number(10, 4);
    let wanted = allocation
        .saturating_sub(STATUS_HEADER)
        .div_ceil(STATUS_DESCRIPTOR);
    let runs = u16::try_from(wanted).unwrap_or(u16::MAX).clamp(1, MAP_RUNS_MAX);
    let allocation = u32::try_from(allocation).unwrap_or(u32::MAX);
    Ok(Storage::step(
        BlockOp::Map { from, runs },
        Finish::Map { allocation },
    ))
}

/// Logical blocks of a physical one, in which space is given and taken.
const fn physical_blocks(size: BlockSize) -> u32 {
    PHYSICAL_BYTES >> size.shift()
}

/// The parameter data: PROVISIONING STATUS 0h mapped, 1h deallocated. A run that is longer than a descriptor's 32-bit count takes several.
pub(crate) fn lba_status(runs: &[MappedRun], allocation: u32) -> Response {
    let mut data = vec![0; 8];
    for run in runs {
        let (mut lba, end) = (run.range.lba().0, run.range.end().0);
        while lba < end {
            let blocks = u32::try_from(end - lba).unwrap_or(u32::MAX);
            data.extend_from_slice(&lba.to_be_bytes());
            data.extend_from_slice(&blocks.to_be_bytes());
            data.extend_from_slice(&[u8::from(!run.mapped), 0, 0, 0]);
            lba += u64::from(blocks);
        }
    }
    // PARAMETER DATA LENGTH: what follows it.
    let length = u32::try_from(data.len() - 4).unwrap_or(u32::MAX);
    data[..4].copy_from_slice(&length.to_be_bytes());
    Response::data(data, usize::try_from(allocation).unwrap_or(usize::MAX))
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
