//! LUNs that are not mapped.

use holdfast_types::Lun;

use crate::cdb::Cdb;
use crate::unit::{inquiry, report};
use crate::{Response, Sense};

/// Answers a command to a LUN that is not mapped for this initiator (SAM-5, SPC-4): INQUIRY with peripheral
/// qualifier 011b, REPORT LUNS with the LUNs that there are, REQUEST SENSE with 05/25/00 as data, 05/25/00 to all else.
///
/// Only for a LUN that is **committed** as not mapped, on a node that has caught up: to an initiator, 05/25/00 means that the disk is
/// gone for good (I8).
pub fn start_absent(cdb: &[u8], luns: &[Lun]) -> Response {
    let cdb = Cdb(cdb);
    let answer = match (cdb.0.len(), cdb.opcode()) {
        (6.., 0x12) => inquiry::absent(cdb),
        (12.., 0xa0) => report::lun_list(cdb, luns),
        (6.., 0x03) => Ok(report::sense_data(cdb, &Sense::LOGICAL_UNIT_NOT_SUPPORTED)),
        _ => Err(Sense::LOGICAL_UNIT_NOT_SUPPORTED),
    };
    answer.unwrap_or_else(Response::check)
}
