//! The REPORT LUNS well-known logical unit (SAM-5, 4.7.8; SPC-4, 8.2): every target has it, whatever other units an initiator sees.

use holdfast_types::{IscsiName, Lun, TpgId};

use crate::cdb::Cdb;
use crate::unit::{inquiry, report};
use crate::{Counters, NexusLu, Response, Sense};

/// Its LUN field: extended addressing, W-LUN 01h.
pub const REPORT_LUNS_UNIT: u64 = 0xc101 << 48;

/// The unit as an initiator finds it.
#[derive(Debug, Clone, Copy)]
pub struct WellKnown<'a> {
    /// The target's name.
    pub target: &'a IscsiName,
    /// The portal group through which the command came.
    pub port: TpgId,
    /// The LUNs that this initiator sees.
    pub luns: &'a [Lun],
    /// How often those have changed.
    pub changes: u64,
}

impl WellKnown<'_> {
    /// What its unit attentions are raised from: 06/29/00 in a new session, 06/3F/0E.
    pub fn counters(&self) -> Counters {
        Counters {
            luns: self.changes,
            ..Counters::default()
        }
    }
}

/// Answers a command to it: INQUIRY, REPORT LUNS, REQUEST SENSE and TEST UNIT READY; 05/20/00 to all else. It has no medium, no
/// reservations and no access states.
pub fn start_well_known(cdb: &[u8], unit: &WellKnown<'_>, nexus: &mut NexusLu) -> Response {
    nexus.observe(unit.counters());
    answer(Cdb(cdb), unit, nexus).unwrap_or_else(Response::check)
}

fn answer(cdb: Cdb<'_>, unit: &WellKnown<'_>, nexus: &mut NexusLu) -> Result<Response, Sense> {
    let length = match cdb.0.first() {
        Some(0x00 | 0x03 | 0x12) => 6,
        Some(0xa0) => 12,
        _ => return Err(Sense::INVALID_OPERATION_CODE),
    };
    if cdb.opcode() == 0x00
        && let Some(attention) = nexus.take()
    {
        return Err(attention.sense());
    }
    if cdb.0.len() < length {
        return Err(Sense::cdb_byte(u16::try_from(cdb.0.len()).unwrap_or(u16::MAX)));
    }
    // NACA, as for other units.
    if cdb.bit(length - 1, 2) {
        return Err(Sense::cdb_bit(u16::try_from(length - 1).unwrap_or(u16::MAX), 2));
    }
    match cdb.opcode() {
        0x03 => {
            let told = nexus.take().map_or(Sense::NONE, |attention| attention.sense());
            Ok(report::sense_data(cdb, &told))
        }
        0x12 => inquiry::well_known(cdb, unit),
        0xa0 => {
            let list = report::lun_list(cdb, unit.luns)?;
            nexus.luns_reported(unit.counters());
            Ok(list)
        }
        _ => Ok(Response::good()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    /// A unit, and a session that has heard everything of it.
    fn fixture() -> (IscsiName, [Lun; 2], NexusLu) {
        let luns = [0, 300].map(|lun| Lun::try_from(lun).unwrap());
        let mut nexus = NexusLu::new(Counters::default());
        nexus.take();
        ("iqn.2026-11.example:disk".parse().unwrap(), luns, nexus)
    }

    fn ask(cdb: &[u8], changes: u64, nexus: &mut NexusLu) -> Response {
        let (target, luns, _) = fixture();
        let unit = WellKnown {
            target: &target,
            port: TpgId(2),
            luns: &luns,
            changes,
        };
        start_well_known(cdb, &unit, nexus)
    }

    fn data(cdb: &[u8]) -> Vec<u8> {
        let response = ask(cdb, 0, &mut fixture().2);
        assert_eq!(response.status, Status::Good, "{cdb:02x?}: {:?}", response.sense);
        response.data.to_vec()
    }

    fn sense(cdb: &[u8], changes: u64, nexus: &mut NexusLu) -> String {
        let response = ask(cdb, changes, nexus);
        response.sense.map_or_else(String::new, |sense| sense.to_string())
    }

    #[test]
    fn golden_it_says_what_it_is() {
        let standard = data(&[0x12, 0, 0, 0, 255, 0]);
        assert_eq!(standard[..8], [0x1e, 0, 6, 0x12, 69, 0, 0x10, 2]);
        assert_eq!(standard[8..16], *b"HOLDFAST");
        assert_eq!(data(&[0x12, 1, 0, 0, 255, 0]), [0x1e, 0, 0, 2, 0x00, 0x83]);
        let page = data(&[0x12, 1, 0x83, 0, 255, 0]);
        assert_eq!(page[..2], [0x1e, 0x83]);
        assert_eq!(usize::from(page[3]), page.len() - 4);
        // The relative port, the port's name and the target's; nothing of a unit (association 00b).
        let (mut at, mut kinds) = (4, Vec::new());
        while at < page.len() {
            kinds.push(page[at + 1]);
            at += 4 + usize::from(page[at + 3]);
        }
        assert_eq!(kinds, [0x94, 0x98, 0xa8]);
    }

    #[test]
    fn golden_it_lists_the_units() {
        let own = [0xc1, 0x01, 0, 0, 0, 0, 0, 0];
        let luns = [[0; 8], [0x41, 0x2c, 0, 0, 0, 0, 0, 0]];
        let report = |select| data(&[0xa0, 0, select, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(
            report(0),
            [&[0, 0, 0, 16, 0, 0, 0, 0], &luns.concat()[..]].concat()
        );
        assert_eq!(report(1), [&[0, 0, 0, 8, 0, 0, 0, 0], &own[..]].concat());
        let all = [&[0, 0, 0, 24, 0, 0, 0, 0], &luns.concat()[..], &own].concat();
        assert_eq!(report(2), all);
    }

    #[test]
    fn p3_it_has_unit_attentions_of_its_own() {
        let ready = [0; 6];
        let mut nexus = NexusLu::new(Counters::default());
        assert_eq!(sense(&ready, 0, &mut nexus), "06/29/00");
        assert_eq!(sense(&ready, 0, &mut nexus), "");
        assert_eq!(sense(&ready, 1, &mut nexus), "06/3F/0E");
        let list = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(sense(&list, 2, &mut nexus), "");
        assert_eq!(sense(&ready, 2, &mut nexus), "", "the list was read");
        let told = ask(&[0x03, 0, 0, 0, 252, 0], 3, &mut nexus);
        assert_eq!(told.data[12..14], [0x3f, 0x0e]);
    }

    #[test]
    fn i12_anything_else_is_refused() {
        let mut nexus = fixture().2;
        let attention = NexusLu::new(Counters::default());
        for opcode in (0..=255).filter(|opcode| ![0x00, 0x03, 0x12, 0xa0].contains(opcode)) {
            let mut fresh = attention;
            assert_eq!(sense(&[opcode; 16], 0, &mut fresh), "05/20/00", "{opcode:02x}");
        }
        assert_eq!(sense(&[], 0, &mut nexus), "05/20/00");
        assert_eq!(sense(&[0xa0, 0, 0], 0, &mut nexus), "05/24/00");
        assert_eq!(sense(&[0, 0, 0, 0, 0, 4], 0, &mut nexus), "05/24/00", "NACA");
        assert_eq!(sense(&[0x12, 1, 0x80, 0, 255, 0], 0, &mut nexus), "05/24/00");
        assert_eq!(
            sense(&[0xa0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0], 0, &mut nexus),
            "05/24/00"
        );
    }
}
