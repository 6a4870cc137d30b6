//! The commands, by what they are about.

pub(crate) mod block;
pub(crate) mod copy;
pub(crate) mod identify;
pub(crate) mod inquiry;
pub(crate) mod log;
pub(crate) mod mode;
pub(crate) mod provision;
pub(crate) mod report;
pub(crate) mod reserve;
pub(crate) mod sanitize;
pub(crate) mod supported;
pub(crate) mod timestamp;
pub(crate) mod vpd;

use bytes::Bytes;
use holdfast_types::BlockRange;

use crate::reservation::IdentifyingType;
use crate::table::Call;
use crate::{Finish, LuView, Pending, Response, Sense, Step};

/// What data from the initiator is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DataUse {
    /// WRITE, WRITE AND VERIFY; `finish` knows of blocks that were not announced.
    Write {
        range: BlockRange,
        fua: bool,
        finish: Finish,
    },
    /// ORWRITE.
    OrWrite { range: BlockRange },
    /// VERIFY with BYTCHK: what the blocks must equal, all of it or one block for each.
    Verify { range: BlockRange },
    /// WRITE SAME.
    WriteSame { range: BlockRange, unmap: bool },
    /// COMPARE AND WRITE: first what must be there, then what to put.
    CompareAndWrite { range: BlockRange },
    /// UNMAP's parameter list.
    Unmap,
    /// EXTENDED COPY's parameter list.
    Copy { lists: copy::Lists },
    /// MODE SELECT's parameter list.
    ModeSelect { ten: bool, save: bool },
    /// SET IDENTIFYING INFORMATION's parameter list.
    Identify { kind: IdentifyingType },
    /// SET TIMESTAMP's parameter list.
    Timestamp,
    /// SANITIZE's parameter list: OVERWRITE, with IMMED and AUSE.
    Overwrite {
        immediate: bool,
        unrestricted_exit: bool,
    },
    /// PERSISTENT RESERVE OUT's parameter list.
    PersistentOut { action: u8, scope_and_type: u8 },
}

impl DataUse {
    const fn range(&self) -> Option<BlockRange> {
        match self {
            Self::Write { range, .. }
            | Self::Verify { range }
            | Self::WriteSame { range, .. }
            | Self::OrWrite { range }
            | Self::CompareAndWrite { range } => Some(*range),
            Self::Unmap
            | Self::Copy { .. }
            | Self::ModeSelect { .. }
            | Self::Identify { .. }
            | Self::Timestamp
            | Self::Overwrite { .. }
            | Self::PersistentOut { .. } => None,
        }
    }
}

/// Goes on with a command whose data has come.
pub(crate) fn use_data(purpose: DataUse, view: &LuView<'_>, data: Bytes) -> Result<Step, Sense> {
    // The data may have taken its time, and the view is a newer one.
    if purpose.range().is_some_and(|range| range.end().0 > view.blocks) {
        return Err(Sense::LBA_OUT_OF_RANGE);
    }
    match purpose {
        DataUse::Write { range, fua, finish } => Ok(block::write_data(range, fua, finish, data)),
        DataUse::OrWrite { range } => Ok(block::or_write_data(range, data)),
        DataUse::Verify { range } => Ok(block::verify_data(range, data)),
        DataUse::WriteSame { range, unmap } => Ok(provision::write_same_data(range, unmap, data)),
        DataUse::CompareAndWrite { range } => Ok(block::compare_and_write_data(range, &data)),
        DataUse::Unmap => provision::unmap_data(view, &data),
        DataUse::Copy { lists } => copy::copy_data(view, lists, &data),
        DataUse::ModeSelect { ten, save } => mode::select_data(view, (ten, save), &data),
        DataUse::Identify { kind } => identify::set_data(view, kind, &data),
        DataUse::Timestamp => timestamp::set_data(view, &data),
        DataUse::Overwrite {
            immediate,
            unrestricted_exit,
        } => sanitize::overwrite_data(view, (immediate, unrestricted_exit), &data),
        DataUse::PersistentOut {
            action,
            scope_and_type,
        } => reserve::persistent_out_data(action, scope_and_type, &data),
    }
}

impl Call<'_> {
    /// Asks for `wanted` bytes. An initiator that announced fewer than its CDB needs gets 05/0E/03 and nothing is written: what
    /// its CDB and its transport say contradict each other, and a write that is silently cut short helps nobody. One that
    /// announced more has the rest counted as residual.
    pub(crate) fn need(&self, wanted: u64, purpose: DataUse) -> Step {
        match u32::try_from(wanted) {
            Ok(bytes) if bytes <= self.data_out => Step::NeedData {
                bytes,
                then: Pending { bytes, purpose },
            },
            _ => Step::Done(Response {
                data_out_wanted: wanted,
                ..Response::check(Sense::INVALID_FIELD_IN_INFORMATION_UNIT)
            }),
        }
    }

    /// As [`Self::need`], for commands whose meaning hangs on the exact amount: more than wanted is refused too.
    pub(crate) fn need_exactly(&self, wanted: u64, purpose: DataUse) -> Step {
        if u64::from(self.data_out) > wanted {
            return Step::check(Sense::INVALID_FIELD_IN_INFORMATION_UNIT);
        }
        self.need(wanted, purpose)
    }

    /// The range that the CDB names, at most `limit` bytes of it, within the unit.
    pub(crate) fn range(&self, limit: u32) -> Result<BlockRange, Sense> {
        let (lba, blocks, length_field) = self.cdb.lba_and_blocks();
        if blocks > u64::from(limit >> self.view.block_size.shift()) {
            return Err(Sense::cdb_byte(length_field));
        }
        self.within(lba, blocks)
    }

    /// A range within the unit, else 05/21/00. An empty range may start right behind the last block, not farther.
    pub(crate) fn within(&self, lba: u64, blocks: u64) -> Result<BlockRange, Sense> {
        within(self.view, lba, blocks)
    }
}

/// A range within the unit, else 05/21/00.
pub(crate) fn within(view: &LuView<'_>, lba: u64, blocks: u64) -> Result<BlockRange, Sense> {
    BlockRange::new(holdfast_types::Lba(lba), blocks)
        .ok()
        .filter(|range| range.end().0 <= view.blocks)
        .ok_or(Sense::LBA_OUT_OF_RANGE)
}
