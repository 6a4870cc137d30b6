//! INQUIRY (SPC-4): who the unit is.

use super::vpd;
use crate::cdb::Cdb;
use crate::table::Call;
use crate::{NexusLu, Response, Sense, Step, WellKnown};

/// T10 vendor identification. Fixed: initiators match on it.
pub(crate) const VENDOR: &[u8; 8] = b"HOLDFAST";
/// Product identification. Fixed.
const PRODUCT: &[u8; 16] = b"VDISK           ";

/// Peripheral qualifier 000b, direct access block device.
const CONNECTED: u8 = 0x00;
/// Peripheral qualifier 011b, device type 1Fh: no unit can be here.
const ABSENT: u8 = 0x7f;
/// Peripheral qualifier 000b, well-known logical unit.
const WELL_KNOWN: u8 = 0x1e;

/// SAM-5, iSCSI, SPC-4, SBC-3: version descriptors without a claim to a revision.
const VERSIONS: [u16; 4] = [0x00a0, 0x0960, 0x0460, 0x04c0];

pub(crate) fn inquiry(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let (page, allocation) = fields(call.cdb)?;
    let data = match page {
        None => standard(CONNECTED),
        Some(page) => vpd::page(page, call.view).ok_or(Sense::cdb_byte(2))?,
    };
    Ok(Step::Done(Response::data(data, allocation)))
}

/// INQUIRY to a LUN that is not mapped: qualifier 011b in the standard data and in the list of VPD pages, which is empty but for itself.
pub(crate) fn absent(cdb: Cdb<'_>) -> Result<Response, Sense> {
    let (page, allocation) = fields(cdb)?;
    let data = match page {
        None => standard(ABSENT),
        Some(0x00) => vec![ABSENT, 0x00, 0, 1, 0x00],
        Some(_) => return Err(Sense::cdb_byte(2)),
    };
    Ok(Response::data(data, allocation))
}

/// INQUIRY to the REPORT LUNS well-known unit. It has neither port groups nor copies, and is no block device.
pub(crate) fn well_known(cdb: Cdb<'_>, unit: &WellKnown<'_>) -> Result<Response, Sense> {
    let (page, allocation) = fields(cdb)?;
    let data = match page {
        None => {
            let mut data = standard(WELL_KNOWN);
            data[5] = 0;
            // The last version descriptor is SBC-3.
            data[64..66].fill(0);
            data
        }
        Some(page) => vpd::well_known_page(page, WELL_KNOWN, unit).ok_or(Sense::cdb_byte(2))?,
    };
    Ok(Response::data(data, allocation))
}

/// The VPD page asked for, if one is, and the allocation length. CMDDT is obsolete.
fn fields(cdb: Cdb<'_>) -> Result<(Option<u8>, usize), Sense> {
    if cdb.bit(1, 1) {
        return Err(Sense::cdb_bit(1, 1));
    }
    let page = cdb.byte(2);
    match (cdb.bit(1, 0), page) {
        (true, page) => Ok((Some(page), cdb.length(3, 2))),
        (false, 0) => Ok((None, cdb.length(3, 2))),
        (false, _) => Err(Sense::cdb_byte(2)),
    }
}

/// The release's `major.minor`, cut or filled to four characters.
pub(crate) fn revision() -> [u8; 4] {
    let version = concat!(
        env!("CARGO_PKG_VERSION_MAJOR"),
        ".",
        env!("CARGO_PKG_VERSION_MINOR")
    );
    let mut revision = [b' '; 4];
    for (to, from) in revision.iter_mut().zip(version.bytes()) {
        *to = from;
    }
    revision
}

/// Standard INQUIRY data, 74 bytes (SPC-4).
fn standard(peripheral: u8) -> Vec<u8> {
    let mut data = vec![0; 58];
    data[0] = peripheral;
    // Byte 1: RMB=0, a fixed disk. VERSION 06h: SPC-4.
    data[2] = 0x06;
    // NORMACA=0, HISUP=1 (LUNs above 255 are flat, SAM-5, 4.7), response data format 2.
    data[3] = 0x12;
    // SCCS=0, TPGS=01b (implicit), 3PC=1 (EXTENDED COPY), PROTECT=0.
    data[5] = 0x18;
    // MULTIP=1: more than one target port.
    data[6] = 0x10;
    // CMDQUE=1.
    data[7] = 0x02;
    data[8..16].copy_from_slice(VENDOR);
    data[16..32].copy_from_slice(PRODUCT);
    data[32..36].copy_from_slice(&revision());
    for version in VERSIONS {
        data.extend_from_slice(&version.to_be_bytes());
    }
    data.resize(74, 0);
    data[4] = 74 - 5;
    data
}

#[cfg(test)]
#[path = "inquiry_test.rs"]
mod tests;
