//! MODE SENSE and MODE SELECT (SPC-4 for commands, headers and the control page; SBC-3 for block descriptors and the caching page).
//!
//! What can be changed is SWP of the control page. It acts on the unit through every node (I13), by a commit, and outlives failovers and
//! restarts; a reset puts back what was saved (SP=1). Otherwise MODE SELECT is accepted exactly where it changes nothing. What else the
//! pages say is the cluster's, so it is as good as saved.

use bytes::Bytes;

use super::DataUse;
use crate::cdb::Cdb;
use crate::reservation::{ModeValues, UnitChange};
use crate::table::Call;
use crate::{LuView, NexusLu, Response, Sense, Step, UnitRequest};

/// Page codes in ascending order, as "all pages" gives them.
const PAGES: [u8; 3] = [CACHING, CONTROL, INFORMATIONAL_EXCEPTIONS];
const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const INFORMATIONAL_EXCEPTIONS: u8 = 0x1c;
const ALL_PAGES: u8 = 0x3f;
/// Where SWP is in the control page.
const SWP_BYTE: usize = 4;
const SWP_BIT: u8 = 3;

/// PS: the page can be saved.
const PS: u8 = 0x80;

/// A page with its header and `modes` in it; `None` where there is no such page.
fn page(code: u8, view: &LuView<'_>, modes: ModeValues) -> Option<Vec<u8>> {
    let mut page = match code {
        CACHING => vec![0; 20],
        CONTROL | INFORMATIONAL_EXCEPTIONS => vec![0; 12],
        _ => return None,
    };
    page[0] = PS | code;
    page[1] = u8::try_from(page.len() - 2).unwrap_or(u8::MAX);
    match code {
        // WCE (I1).
        CACHING => page[2] = u8::from(view.write_back) << 2,
        // TST=000b, one task set; D_SENSE=0. QUEUE ALGORITHM MODIFIER=1: commands may be reordered; QERR=00b. TAS=0.
        CONTROL => {
            page[3] = 0x10;
            page[SWP_BYTE] = u8::from(modes.software_write_protect) << SWP_BIT;
        }
        // DEXCPT=1: no informational exceptions are reported.
        _ => page[2] = 0x08,
    }
    Some(page)
}

/// What a MODE SENSE asks for.
struct Wanted {
    ten: bool,
    descriptor: Option<LbaBytes>,
    allocation: usize,
}

/// Width of the number of blocks in a block descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LbaBytes {
    Four,
    Eight,
}

pub(crate) fn sense_6(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    sense(
        call,
        &Wanted {
            ten: false,
            descriptor: (!call.cdb.bit(1, 3)).then_some(LbaBytes::Four),
            allocation: call.cdb.length(4, 1),
        },
    )
}

pub(crate) fn sense_10(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    // LLBAA: long block descriptors are welcome.
    let width = if call.cdb.bit(1, 4) {
        LbaBytes::Eight
    } else {
        LbaBytes::Four
    };
    sense(
        call,
        &Wanted {
            ten: true,
            descriptor: (!call.cdb.bit(1, 3)).then_some(width),
            allocation: call.cdb.length(7, 2),
        },
    )
}

fn sense(call: &Call<'_>, wanted: &Wanted) -> Result<Step, Sense> {
    let (control, code, subpage) = (call.cdb.byte(2) >> 6, call.cdb.byte(2) & 0x3f, call.cdb.byte(3));
    // There are no subpages; "all pages with all subpages" is the same as "all pages".
    if subpage != 0 && !(code == ALL_PAGES && subpage == 0xff) {
        return Err(Sense::cdb_byte(3));
    }
    let codes = if code == ALL_PAGES {
        &PAGES[..]
    } else {
        std::slice::from_ref(&code)
    };
    let modes = match control {
        2 => ModeValues::default(),
        3 => call.view.unit.saved_modes,
        _ => call.view.unit.modes,
    };
    let mut pages = Vec::with_capacity(64);
    for code in codes {
        let mut page = page(*code, call.view, modes).ok_or(Sense::cdb_bit(2, 5))?;
        // What can be changed.
        if control == 1 {
            page[2..].fill(0);
            if *code == CONTROL {
                page[SWP_BYTE] = 1 << SWP_BIT;
            }
        }
        pages.extend_from_slice(&page);
    }
    let descriptor = wanted
        .descriptor
        .map_or_else(Vec::new, |width| block_descriptor(call.view, width));
    let mut data = header(call.view, wanted, descriptor.len(), pages.len());
    data.extend_from_slice(&descriptor);
    data.extend_from_slice(&pages);
    Ok(Step::Done(Response::data(data, wanted.allocation)))
}

/// The mode parameter header (SPC-4). Device-specific parameter: WP and DPOFUA=1 (SBC-3).
fn header(view: &LuView<'_>, wanted: &Wanted, descriptor: usize, pages: usize) -> Vec<u8> {
    let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    let specific = 0x10 | if view.write_protected { 0x80 } else { 0 };
    if wanted.ten {
        let long = u8::from(wanted.descriptor == Some(LbaBytes::Eight));
        vec![
            0,
            byte(6 + descriptor + pages),
            0,
            specific,
            long,
            0,
            0,
            byte(descriptor),
        ]
    } else {
        vec![byte(3 + descriptor + pages), 0, specific, byte(descriptor)]
    }
}

/// The block descriptor (SBC-3): short with a number of blocks that may not fit, or long.
fn block_descriptor(view: &LuView<'_>, width: LbaBytes) -> Vec<u8> {
    let size = view.block_size.bytes();
    match width {
        LbaBytes::Four => {
            let blocks = u32::try_from(view.blocks).unwrap_or(u32::MAX);
            [blocks.to_be_bytes(), size.to_be_bytes()].concat()
        }
        LbaBytes::Eight => {
            let mut descriptor = view.blocks.to_be_bytes().to_vec();
            descriptor.extend_from_slice(&[0; 4]);
            descriptor.extend_from_slice(&size.to_be_bytes());
            descriptor
        }
    }
}

pub(crate) fn select_6(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    select(call, call.cdb.number(4, 1), false)
}

pub(crate) fn select_10(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    select(call, call.cdb.number(7, 2), true)
}

fn select(call: &Call<'_>, length: u64, ten: bool) -> Result<Step, Sense> {
    // PF=1: pages as the standard has them.
    if !call.cdb.bit(1, 4) {
        return Err(Sense::cdb_bit(1, 4));
    }
    let save = call.cdb.bit(1, 0);
    if length == 0 {
        return Ok(change(call.view, call.view.unit.modes, save));
    }
    Ok(call.need(length, DataUse::ModeSelect { ten, save }))
}

/// Asks for what is not so yet. SP=1 saves all pages, those that were not sent included (SPC-4, 6.8).
fn change(view: &LuView<'_>, modes: ModeValues, save: bool) -> Step {
    let change = if save && (modes, modes) != (view.unit.modes, view.unit.saved_modes) {
        UnitChange::SaveMode(modes)
    } else if modes != view.unit.modes {
        UnitChange::Mode(modes)
    } else {
        return Step::Done(Response::good());
    };
    Step::Unit(UnitRequest::Change(change))
}

/// The parameter list: header, block descriptors, pages; each must say what is so already, but for SWP (I12).
pub(crate) fn select_data(view: &LuView<'_>, (ten, save): (bool, bool), data: &Bytes) -> Result<Step, Sense> {
    let fields = Cdb(data);
    let (header, descriptor, long) = if ten {
        (8, fields.length(6, 2), fields.bit(4, 0))
    } else {
        (4, fields.length(3, 1), false)
    };
    let pages_at = header + descriptor;
    if data.len() < pages_at {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    // MODE DATA LENGTH and the device-specific parameter are reserved or ignored here (SPC-4, SBC-3).
    let width = if long { LbaBytes::Eight } else { LbaBytes::Four };
    check_descriptor(view, width, &data[header..pages_at], header)?;
    let mut modes = view.unit.modes;
    let mut at = pages_at;
    while at < data.len() {
        at = check_page(view, data, at, &mut modes)?;
    }
    Ok(change(view, modes, save))
}

fn check_descriptor(view: &LuView<'_>, width: LbaBytes, found: &[u8], at: usize) -> Result<(), Sense> {
    if found.is_empty() {
        return Ok(());
    }
    let mut wanted = block_descriptor(view, width);
    let blocks = if width == LbaBytes::Four { 4 } else { 8 };
    // A number of blocks of 0 leaves the capacity alone (SBC-3).
    if found
        .get(..blocks)
        .is_some_and(|number| number.iter().all(|byte| *byte == 0))
    {
        wanted[..blocks].fill(0);
    }
    same(&wanted, found, at)
}

/// Compares one page with what it is now, and takes what may be changed; gives the offset behind it.
fn check_page(view: &LuView<'_>, data: &[u8], at: usize, modes: &mut ModeValues) -> Result<usize, Sense> {
    let rest = data.get(at..).unwrap_or(&[]);
    let [first, length, ..] = *rest else {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    };
    // SPF=1: a subpage, of which there are none. PS is reserved in MODE SELECT.
    let code = first & 0x7f;
    let mut wanted = page(code, view, view.unit.modes).ok_or_else(|| pointer(at))?;
    if usize::from(length) + 2 != wanted.len() {
        return Err(pointer(at + 1));
    }
    let found = rest.get(..wanted.len()).ok_or(Sense::PARAMETER_LIST_LENGTH)?;
    if code == CONTROL {
        let swp = found[SWP_BYTE] & 1 << SWP_BIT;
        modes.software_write_protect = swp != 0;
        wanted[SWP_BYTE] = wanted[SWP_BYTE] & !(1 << SWP_BIT) | swp;
    }
    same(&wanted[2..], &found[2..], at + 2)?;
    Ok(at + wanted.len())
}

/// 05/26/00 at the first byte that differs.
fn same(wanted: &[u8], found: &[u8], at: usize) -> Result<(), Sense> {
    if wanted.len() != found.len() {
        return Err(pointer(at));
    }
    match wanted
        .iter()
        .zip(found)
        .position(|(wanted, found)| wanted != found)
    {
        None => Ok(()),
        Some(offset) => Err(pointer(at + offset)),
    }
}

fn pointer(at: usize) -> Sense {
    Sense::parameter_byte(u16::try_from(at).unwrap_or(u16::MAX))
}

#[cfg(test)]
#[path = "mode_test.rs"]
mod tests;
