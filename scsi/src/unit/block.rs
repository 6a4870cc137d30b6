//! READ, WRITE, VERIFY and their like (SBC-3).

use bytes::Bytes;
use holdfast_types::{ATOMIC_BYTES_MAX, BlockOp, BlockRange, TRANSFER_BYTES_MAX};

use super::DataUse;
use crate::cdb::Cdb;
use crate::table::Call;
use crate::{Finish, NexusLu, Response, Sense, Step, Storage};

/// Protection information is not supported (PROTECT=0), so a CDB that asks for it is refused. The six-byte CDBs have none.
fn no_protection(call: &Call<'_>) -> Result<(), Sense> {
    if call.cdb.opcode() >> 5 != 0 && call.cdb.protect() != 0 {
        return Err(Sense::cdb_bit(1, 7));
    }
    Ok(())
}

/// READ(6), (10), (12), (16). DPO is a hint; FUA is met by itself: what is read is either stable or, under write-back, as new as
/// FUA wants.
pub(crate) fn read(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    no_protection(call)?;
    let range = call.range(TRANSFER_BYTES_MAX)?;
    if range.is_empty() {
        return Ok(Step::Done(Response::good()));
    }
    Ok(Storage::step(BlockOp::Read { range }, Finish::DataIn))
}

/// WRITE(6), (10), (12), (16).
pub(crate) fn write(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    no_protection(call)?;
    let fua = call.cdb.opcode() >> 5 != 0 && call.cdb.bit(1, 3);
    write_range(call, fua)
}

/// WRITE AND VERIFY(10), (12), (16): a write that is stable before it is answered. The verification is that of the journal, whose
/// records carry a checksum over header and payload, on every member of the in-sync set (I1); BYTCHK=1 compares what was just
/// written with itself.
pub(crate) fn write_and_verify(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    no_protection(call)?;
    if call.cdb.bit(1, 2) {
        return Err(Sense::cdb_bit(1, 2));
    }
    write_range(call, true)
}

/// Where the transport announced fewer blocks than the CDB names, those are written and the rest is counted as overflow (RFC 7143,
/// 11.4.5.2): the initiator said itself how much it sends, and learns how much of its command that was. Part of a block is no
/// block: then nothing is written, and 05/0E/03 says why.
fn write_range(call: &Call<'_>, fua: bool) -> Result<Step, Sense> {
    let range = call.range(TRANSFER_BYTES_MAX)?;
    if range.is_empty() {
        return Ok(Step::Done(Response::good()));
    }
    let wanted = range.byte_len(call.view.block_size);
    let announced = u64::from(call.data_out);
    let whole = announced >> call.view.block_size.shift();
    if announced >= wanted || whole << call.view.block_size.shift() != announced {
        let finish = Finish::Status;
        return Ok(call.need(wanted, DataUse::Write { range, fua, finish }));
    }
    if whole == 0 {
        return Ok(Step::Done(Response {
            data_out_wanted: wanted,
            ..Response::good()
        }));
    }
    let range = call.within(range.lba().0, whole)?;
    let finish = Finish::StatusOf { wanted };
    Ok(call.need(announced, DataUse::Write { range, fua, finish }))
}

pub(crate) const fn write_data(range: BlockRange, fua: bool, finish: Finish, data: Bytes) -> Step {
    Storage::step(BlockOp::Write { range, data, fua }, finish)
}

/// WRITE ATOMIC(16) (SBC-4, 5.41): any write is one record of the log, so either all of it is there after a power cut or a failover,
/// or none. Only the length is limited, to what VPD page B0 says; alignment and granularity are those of a block. There are no
/// atomic boundaries (MAXIMUM ATOMIC BOUNDARY SIZE=0).
pub(crate) fn write_atomic(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    no_protection(call)?;
    if call.cdb.number(10, 2) != 0 {
        return Err(Sense::cdb_byte(10));
    }
    let range = call.within(call.cdb.number(2, 8), call.cdb.number(12, 2))?;
    if range.is_empty() {
        return Ok(Step::Done(Response::good()));
    }
    let wanted = range.byte_len(call.view.block_size);
    if wanted > u64::from(ATOMIC_BYTES_MAX) {
        return Err(Sense::cdb_byte(12));
    }
    let (fua, finish) = (call.cdb.bit(1, 3), Finish::Status);
    Ok(call.need(wanted, DataUse::Write { range, fua, finish }))
}

/// ORWRITE(16) (SBC-3, 5.13): what is there and what comes, or'ed, in one step. Less data than the CDB names is refused.
pub(crate) fn or_write(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    no_protection(call)?;
    let range = call.range(TRANSFER_BYTES_MAX)?;
    if range.is_empty() {
        return Ok(Step::Done(Response::good()));
    }
    let wanted = range.byte_len(call.view.block_size);
    Ok(call.need(wanted, DataUse::OrWrite { range }))
}

pub(crate) const fn or_write_data(range: BlockRange, data: Bytes) -> Step {
    Storage::step(BlockOp::OrWrite { range, data }, Finish::Status)
}

/// VERIFY(10), (12), (16) with BYTCHK 00b (read only), 01b (compare all) and 11b (compare every block with the one sent).
pub(crate) fn verify(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    no_protection(call)?;
    let byte_check = call.cdb.byte(1) >> 1 & 3;
    if byte_check == 2 {
        return Err(Sense::cdb_bit(1, 2));
    }
    let range = call.range(TRANSFER_BYTES_MAX)?;
    if range.is_empty() {
        return Ok(Step::Done(Response::good()));
    }
    let size = call.view.block_size;
    Ok(match byte_check {
        0 => Storage::step(BlockOp::Verify { range, expect: None }, Finish::Compare),
        1 => call.need(range.byte_len(size), DataUse::Verify { range }),
        _ => call.need(u64::from(size.bytes()), DataUse::Verify { range }),
    })
}

/// With BYTCHK=3 the data is one block, and stays one: a short command does not make a node hold as much as it compares.
pub(crate) const fn verify_data(range: BlockRange, data: Bytes) -> Step {
    let expect = Some(data);
    Storage::step(BlockOp::Verify { range, expect }, Finish::Compare)
}

/// Blocks that a VERIFY reads, whatever is sent for it; `None` for all other commands.
pub fn verified_blocks(cdb: &[u8]) -> Option<u64> {
    let cdb = Cdb(cdb);
    matches!(cdb.opcode(), 0x2f | 0x8f | 0xaf).then(|| cdb.lba_and_blocks().1)
}

/// COMPARE AND WRITE (SBC-3): up to 255 blocks, first what must be there, then what to put. The announced length must be
/// exactly both.
pub(crate) fn compare_and_write(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    no_protection(call)?;
    let range = call.within(call.cdb.number(2, 8), u64::from(call.cdb.byte(13)))?;
    if range.is_empty() {
        // A length that did not fit into its byte, as 256, comes as 0 with data behind it: saying GOOD would claim a comparison.
        if call.data_out > 0 {
            return Err(Sense::cdb_byte(13));
        }
        return Ok(Step::Done(Response::good()));
    }
    let wanted = 2 * range.byte_len(call.view.block_size);
    Ok(call.need_exactly(wanted, DataUse::CompareAndWrite { range }))
}

pub(crate) fn compare_and_write_data(range: BlockRange, data: &Bytes) -> Step {
    let half = data.len() / 2;
    let op = BlockOp::CompareAndWrite {
        range,
        expect: data.slice(..half),
        data: data.slice(half..),
    };
    Storage::step(op, Finish::Compare)
}

/// PRE-FETCH(10), (16): a hint that is checked and not acted on. GOOD says that the blocks are not known to fit into the cache
/// (SBC-3).
pub(crate) fn pre_fetch(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let (lba, blocks, _) = call.cdb.lba_and_blocks();
    call.within(lba, blocks)?;
    Ok(Step::Done(Response::good()))
}

/// SYNCHRONIZE CACHE(10), (16): everything that was answered becomes stable, whatever range is named. IMMED does not answer earlier: an
/// answer before the data is stable would tell nothing.
pub(crate) fn synchronize_cache(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let (lba, blocks, _) = call.cdb.lba_and_blocks();
    call.within(lba, blocks)?;
    Ok(Storage::step(BlockOp::Flush, Finish::Status))
}

#[cfg(test)]
#[path = "block_test.rs"]
mod tests;
