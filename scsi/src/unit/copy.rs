//! EXTENDED COPY and RECEIVE COPY RESULTS (SPC-4, 5.16, 6.4, 6.18): block to block, between units that the initiator sees.

use bytes::Bytes;
use holdfast_types::{BlockRange, COPY_BYTES_MAX, Lba, Naa};

use super::DataUse;
use crate::cdb::Cdb;
use crate::copy::{COPY_ABORTED, CopyId, CopyJob, CopyResult, CopySegment};
use crate::sense::{SenseKey, asc};
use crate::table::Call;
use crate::view::Unit;
use crate::{LuView, NexusLu, Response, Sense, Status, Step};

/// Most target (CSCD) descriptors of a parameter list.
const TARGETS_MAX: u16 = 16;
/// Most segment descriptors of a parameter list.
const SEGMENTS_MAX: u16 = 64;
/// Most bytes of both descriptor lists together.
const LIST_BYTES_MAX: u32 = 4096;
/// Target descriptor: identification descriptor.
const IDENTIFICATION: u8 = 0xe4;
const TARGET_BYTES: usize = 32;
/// Segment descriptor: block to block.
const BLOCK_TO_BLOCK: u8 = 0x02;
const SEGMENT_BYTES: usize = 28;

const UNREACHABLE: Sense = Sense::new(SenseKey::CopyAborted, asc::UNREACHABLE_COPY_TARGET);
const TOO_MANY_TARGETS: Sense = Sense::new(SenseKey::IllegalRequest, asc::TOO_MANY_TARGET_DESCRIPTORS);
const TOO_MANY_SEGMENTS: Sense = Sense::new(SenseKey::IllegalRequest, asc::TOO_MANY_SEGMENT_DESCRIPTORS);
const TARGET_TYPE: Sense = Sense::new(SenseKey::IllegalRequest, asc::UNSUPPORTED_TARGET_DESCRIPTOR);
const SEGMENT_TYPE: Sense = Sense::new(SenseKey::IllegalRequest, asc::UNSUPPORTED_SEGMENT_DESCRIPTOR);
const INLINE_DATA: Sense = Sense::new(SenseKey::IllegalRequest, asc::INLINE_DATA_LENGTH);

/// EXTENDED COPY(LID1): list identifiers of one byte.
pub(crate) fn extended_copy_1(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    extended_copy(call, Lists::Short)
}

/// EXTENDED COPY(LID4): of four.
pub(crate) fn extended_copy_4(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    extended_copy(call, Lists::Long)
}

/// Which of the two parameter list headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lists {
    Short,
    Long,
}

impl Lists {
    const fn header(self) -> usize {
        match self {
            Self::Short => 16,
            Self::Long => 48,
        }
    }
}

fn extended_copy(call: &Call<'_>, lists: Lists) -> Result<Step, Sense> {
    match call.cdb.number(10, 4) {
        0 => Ok(Step::Done(Response::good())),
        length if length < lists.header() as u64 => Err(Sense::PARAMETER_LIST_LENGTH),
        length if length > u64::from(LIST_BYTES_MAX) * 2 => Err(Sense::PARAMETER_LIST_LENGTH),
        length => Ok(call.need(length, DataUse::Copy { lists })),
    }
}

/// What a parameter list's header says.
struct Header {
    id: Option<CopyId>,
    targets: usize,
    segments: usize,
}

/// Reads the header. LIST ID USAGE 10b and 11b: nobody will ask for the result.
fn header(lists: Lists, data: Cdb<'_>) -> Result<Header, Sense> {
    let (id, targets, segments, inline) = match lists {
        Lists::Short => (
            data.number(0, 1),
            data.length(2, 2),
            data.length(8, 4),
            data.number(12, 4),
        ),
        Lists::Long => {
            // PARAMETER LIST FORMAT 01h, with a header CSCD descriptor of 32 bytes; G_SENSE and IMMED are not offered.
            if data.byte(0) != 1 {
                return Err(Sense::parameter_byte(0));
            }
            if data.length(2, 2) != 0x20 {
                return Err(Sense::parameter_byte(2));
            }
            if data.byte(15) & 3 != 0 {
                return Err(Sense::parameter_byte(15));
            }
            if data.byte(16) != 0xff {
                return Err(Sense::parameter_byte(16));
            }
            (
                data.number(20, 4),
                data.length(42, 2),
                data.length(44, 2),
                data.number(46, 2),
            )
        }
    };
    if inline != 0 {
        return Err(INLINE_DATA);
    }
    let kept = data.byte(1) >> 3 & 3 < 2;
    let id = kept.then(|| CopyId(u32::try_from(id).unwrap_or(u32::MAX)));
    Ok(Header {
        id,
        targets,
        segments,
    })
}

/// The parameter list. All of it is checked before anything is copied (I12).
pub(crate) fn copy_data(view: &LuView<'_>, lists: Lists, data: &Bytes) -> Result<Step, Sense> {
    let Header {
        id,
        targets,
        segments,
    } = header(lists, Cdb(data))?;
    let start = lists.header();
    let total = targets.saturating_add(segments);
    if total > LIST_BYTES_MAX as usize || data.len() < start + total {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    if targets > usize::from(TARGETS_MAX) * TARGET_BYTES {
        return Err(TOO_MANY_TARGETS);
    }
    let (target_list, segment_list) = data[start..start + total].split_at(targets);
    if segment_list.len() > usize::from(SEGMENTS_MAX) * SEGMENT_BYTES {
        return Err(TOO_MANY_SEGMENTS);
    }
    let units = target_list
        .chunks(TARGET_BYTES)
        .map(|descriptor| target(view, Cdb(descriptor)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut plan = Vec::new();
    let mut bytes = 0;
    for (index, descriptor) in segment_list.chunks(SEGMENT_BYTES).enumerate() {
        let segment = segment(&units, descriptor)?;
        bytes += segment.from.byte_len(segment.block_size);
        if bytes > u64::from(COPY_BYTES_MAX) {
            let at = start + targets + index * SEGMENT_BYTES + 10;
            return Err(Sense::parameter_byte(u16::try_from(at).unwrap_or(u16::MAX)));
        }
        plan.push(segment);
    }
    Ok(Step::Copy(CopyJob::new(id, plan)))
}

/// The unit that a target descriptor names, by its NAA name, among those that the initiator sees; `None` where it sees none of that name,
/// which matters only to a segment that uses it. LU ID TYPE is ignored (SPC-4).
fn target<'a>(view: &LuView<'a>, descriptor: Cdb<'_>) -> Result<Option<&'a Unit>, Sense> {
    if descriptor.byte(0) != IDENTIFICATION {
        return Err(TARGET_TYPE);
    }
    if descriptor.0.len() < TARGET_BYTES {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    // A binary NAA designator of the unit itself.
    let named = descriptor.byte(4) & 0x0f == 1 && descriptor.byte(5) & 0x3f == 3 && descriptor.byte(7) == 16;
    let name = descriptor.0.get(8..24).unwrap_or(&[]);
    let unit = view
        .units
        .iter()
        .find(|unit| named && Naa::of(unit.extent).bytes() == name);
    let block = descriptor.number(29, 3);
    match unit {
        Some(unit) if block != 0 && block != u64::from(unit.block_size.bytes()) => Err(COPY_ABORTED),
        unit => Ok(unit),
    }
}

/// A segment, within both units. Blocks of different sizes are not copied.
fn segment(units: &[Option<&Unit>], descriptor: &[u8]) -> Result<CopySegment, Sense> {
    let fields = Cdb(descriptor);
    if fields.byte(0) != BLOCK_TO_BLOCK {
        return Err(SEGMENT_TYPE);
    }
    if descriptor.len() < SEGMENT_BYTES || fields.length(2, 2) != SEGMENT_BYTES - 4 {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let unit = |at| {
        units
            .get(fields.length(at, 2))
            .copied()
            .flatten()
            .ok_or(UNREACHABLE)
    };
    let (source, destination) = (unit(4)?, unit(6)?);
    if destination.write_protected {
        return Err(Sense::WRITE_PROTECTED);
    }
    let blocks = fields.number(10, 2);
    let within = |unit: &Unit, lba: u64| {
        BlockRange::new(Lba(lba), blocks)
            .ok()
            .filter(|range| range.end().0 <= unit.blocks)
            .ok_or(COPY_ABORTED)
    };
    let from = within(source, fields.number(12, 8))?;
    let to = within(destination, fields.number(20, 8))?.lba();
    if source.block_size != destination.block_size {
        return Err(COPY_ABORTED);
    }
    Ok(CopySegment {
        source: source.extent,
        from,
        destination: destination.extent,
        to,
        block_size: source.block_size,
    })
}

/// RECEIVE COPY RESULTS: COPY STATUS(LID1), 12 bytes.
pub(crate) fn copy_status_1(call: &Call<'_>, nexus: &mut NexusLu) -> Result<Step, Sense> {
    let found = nexus
        .copy(CopyId(u32::from(call.cdb.byte(2))))
        .ok_or(Sense::cdb_byte(2))?;
    let kib = u32::try_from(found.bytes >> 10).unwrap_or(u32::MAX);
    let mut data = vec![0, 0, 0, 8, status_code(&found)];
    data.extend_from_slice(&found.segments.to_be_bytes());
    // TRANSFER COUNT UNITS: KiB.
    data.push(1);
    data.extend_from_slice(&kib.to_be_bytes());
    Ok(Step::Done(Response::data(data, call.cdb.length(10, 4))))
}

/// RECEIVE COPY STATUS(LID4), 32 bytes, without sense data.
pub(crate) fn copy_status_4(call: &Call<'_>, nexus: &mut NexusLu) -> Result<Step, Sense> {
    let id = u32::try_from(call.cdb.number(2, 4)).unwrap_or(u32::MAX);
    let found = nexus.copy(CopyId(id)).ok_or(Sense::cdb_byte(2))?;
    let mut data = vec![0; 32];
    data[3] = 28;
    // RESPONSE TO SERVICE ACTION: of EXTENDED COPY(LID4).
    data[4] = 0x01;
    data[5] = status_code(&found);
    data[12] = found.status.map_or(0, Status::code);
    data[15] = 1;
    data[16..24].copy_from_slice(&(found.bytes >> 10).to_be_bytes());
    data[24..26].copy_from_slice(&found.segments.to_be_bytes());
    Ok(Step::Done(Response::data(data, call.cdb.length(10, 4))))
}

/// COPY COMMAND STATUS: in progress, completed without errors, with errors.
const fn status_code(result: &CopyResult) -> u8 {
    match result.status {
        None => 0,
        Some(Status::Good) => 1,
        Some(_) => 2,
    }
}

/// RECEIVE COPY RESULTS: OPERATING PARAMETERS.
pub(crate) fn operating_parameters(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let mut data = vec![0; 44];
    // SNLID=1: list identifiers need not be used.
    data[4] = 1;
    data[8..10].copy_from_slice(&TARGETS_MAX.to_be_bytes());
    data[10..12].copy_from_slice(&SEGMENTS_MAX.to_be_bytes());
    data[12..16].copy_from_slice(&LIST_BYTES_MAX.to_be_bytes());
    data[16..20].copy_from_slice(&COPY_BYTES_MAX.to_be_bytes());
    // No inline or held data, no stream devices. TOTAL CONCURRENT COPIES and MAXIMUM CONCURRENT COPIES: as many as commands.
    data[34..36].copy_from_slice(&256_u16.to_be_bytes());
    data[36] = 255;
    // DATA SEGMENT GRANULARITY: a block.
    data[37] = u8::try_from(call.view.block_size.shift()).unwrap_or(9);
    let codes = [BLOCK_TO_BLOCK, IDENTIFICATION];
    data[43] = u8::try_from(codes.len()).unwrap_or(u8::MAX);
    data.extend_from_slice(&codes);
    let length = u32::try_from(data.len() - 4).unwrap_or(u32::MAX);
    data[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Step::Done(Response::data(data, call.cdb.length(10, 4))))
}

/// Third-party Copy VPD page, 8Fh (SPC-4, 7.8.17): descriptors of a type, a length and a body, padded to four bytes.
pub(crate) fn third_party_page() -> Vec<u8> {
    let mut page = Vec::new();
    // Supported commands: EXTENDED COPY 00h, 01h; RECEIVE COPY RESULTS 00h, 03h, 05h.
    third_party(
        &mut page,
        0x0001,
        &[9, 0x83, 2, 0x00, 0x01, 0x84, 3, 0x00, 0x03, 0x05],
    );
    let mut limits = vec![0; 8];
    limits.extend_from_slice(&TARGETS_MAX.to_be_bytes());
    limits.extend_from_slice(&SEGMENTS_MAX.to_be_bytes());
    limits.extend_from_slice(&LIST_BYTES_MAX.to_be_bytes());
    limits.extend_from_slice(&[0; 12]);
    // Parameter data.
    third_party(&mut page, 0x0004, &limits);
    // Supported descriptors.
    third_party(&mut page, 0x0008, &[2, BLOCK_TO_BLOCK, IDENTIFICATION]);
    // Supported CSCD descriptor ids: none beyond those of the list.
    third_party(&mut page, 0x000c, &[0, 0]);
    // General copy operations: TOTAL and MAXIMUM CONCURRENT COPIES, MAXIMUM SEGMENT LENGTH, granularity of a block of 512.
    let mut general = Vec::new();
    general.extend_from_slice(&256_u32.to_be_bytes());
    general.extend_from_slice(&256_u32.to_be_bytes());
    general.extend_from_slice(&COPY_BYTES_MAX.to_be_bytes());
    general.push(9);
    general.extend_from_slice(&[0; 19]);
    third_party(&mut page, 0x8001, &general);
    page
}

fn third_party(page: &mut Vec<u8>, kind: u16, body: &[u8]) {
    let length = body.len().next_multiple_of(4);
    page.extend_from_slice(&kind.to_be_bytes());
    page.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    page.extend_from_slice(body);
    page.resize(page.len() + length - body.len(), 0);
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod tests;
