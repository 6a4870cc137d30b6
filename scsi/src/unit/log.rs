//! LOG SENSE (SPC-4, 6.8 and 7.3): what tools for disks ask to tell whether one is well. There is nothing to set or to save.

use super::Call;
use crate::sense::asc;
use crate::{NexusLu, Response, Sense, Step};

const SUPPORTED_PAGES: u8 = 0x00;
const INFORMATIONAL_EXCEPTIONS: u8 = 0x2f;
/// In ascending order.
const PAGES: [u8; 2] = [SUPPORTED_PAGES, INFORMATIONAL_EXCEPTIONS];
/// The subpage of page 00h that lists subpages, too.
const ALL_SUBPAGES: u8 = 0xff;
/// SPF: the page has a subpage code.
const SPF: u8 = 0x40;
/// MOST RECENT TEMPERATURE READING of what has no thermometer.
const NO_TEMPERATURE: u8 = 0xff;

/// LOG SENSE. Page control is not looked at: no page has counters or thresholds.
pub(crate) fn sense(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    // SP would save what cannot be saved.
    if call.cdb.bit(1, 0) {
        return Err(Sense::cdb_bit(1, 0));
    }
    let (code, subpage) = (call.cdb.byte(2) & 0x3f, call.cdb.byte(3));
    let (first, body) = match (code, subpage) {
        (SUPPORTED_PAGES, 0) => (code, PAGES.to_vec()),
        (SUPPORTED_PAGES, ALL_SUBPAGES) => (
            code | SPF,
            [
                [SUPPORTED_PAGES, 0],
                [SUPPORTED_PAGES, ALL_SUBPAGES],
                [INFORMATIONAL_EXCEPTIONS, 0],
            ]
            .concat(),
        ),
        (INFORMATIONAL_EXCEPTIONS, 0) => (code, no_exceptions().to_vec()),
        (SUPPORTED_PAGES | INFORMATIONAL_EXCEPTIONS, _) => return Err(Sense::cdb_byte(3)),
        _ => return Err(Sense::cdb_bit(2, 5)),
    };
    // PARAMETER POINTER: no page has a parameter above 0.
    if call.cdb.number(5, 2) != 0 {
        return Err(Sense::cdb_byte(5));
    }
    let [high, low] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let data = [&[first, subpage, high, low][..], &body].concat();
    Ok(Step::Done(Response::data(data, call.cdb.length(7, 2))))
}

/// Parameter 0000h of the informational exceptions page, a binary list (FORMAT AND LINKING=11b): a unit that answers is well. Trouble of a
/// node's disk is not the unit's; its replicas serve, and the cluster's alarms tell of it.
const fn no_exceptions() -> [u8; 8] {
    let well = asc::NONE;
    [0, 0, 0x03, 4, well.0, well.1, NO_TEMPERATURE, 0]
}

#[cfg(test)]
mod tests {
    use crate::fixture::Fixture;

    fn cdb(page: u8, subpage: u8, pointer: u8, allocation: u8) -> [u8; 10] {
        [0x4d, 0, page, subpage, 0, 0, pointer, 0, allocation, 0]
    }

    #[test]
    fn golden_pages() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.data(&cdb(0x40, 0, 0, 255))[..], [0, 0, 0, 2, 0, 0x2f]);
        assert_eq!(
            fixture.data(&cdb(0x40, 0xff, 0, 255))[..],
            [0x40, 0xff, 0, 6, 0, 0, 0, 0xff, 0x2f, 0]
        );
        let well = [0x2f, 0, 0, 8, 0, 0, 3, 4, 0, 0, 0xff, 0];
        assert_eq!(fixture.data(&cdb(0x6f, 0, 0, 255))[..], well);
        assert_eq!(fixture.data(&cdb(0x6f, 0, 0, 4))[..], well[..4]);
    }

    #[test]
    fn i12_other_pages_and_what_would_be_saved_are_refused() {
        let mut fixture = Fixture::new();
        for page in (1..0x3f).filter(|page| *page != 0x2f) {
            assert_eq!(
                fixture.sense(&cdb(0x40 | page, 0, 0, 255)),
                "05/24/00",
                "{page:02x}"
            );
        }
        assert_eq!(fixture.sense(&cdb(0x40, 1, 0, 255)), "05/24/00");
        assert_eq!(fixture.sense(&cdb(0x6f, 0xff, 0, 255)), "05/24/00");
        assert_eq!(fixture.sense(&cdb(0x6f, 0, 1, 255)), "05/24/00");
        let mut saving = cdb(0x6f, 0, 0, 255);
        saving[1] = 1;
        assert_eq!(fixture.sense(&saving), "05/24/00");
    }
}
