//! REPORT and SET IDENTIFYING INFORMATION (SPC-4, 6.32 and 6.45): what operators have hosts write onto a unit. It is the unit's (I13): the
//! same through every node, and it outlives failovers and restarts.

use bytes::Bytes;

use super::DataUse;
use crate::cdb::Cdb;
use crate::reservation::{IdentifyingType, UnitChange};
use crate::step::UnitRequest;
use crate::table::Call;
use crate::{LuView, NexusLu, Response, Sense, Step};

/// IDENTIFYING INFORMATION TYPE that asks which types there are.
const SUPPORTED: u8 = 0x7f;
const TYPE_BYTE: usize = 10;

/// IDENTIFYING INFORMATION TYPE.
fn type_code(cdb: Cdb<'_>) -> u8 {
    cdb.byte(TYPE_BYTE) >> 1
}

/// REPORT IDENTIFYING INFORMATION: what was set last, nothing where nothing was.
pub(crate) fn report(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let info = match type_code(call.cdb) {
        SUPPORTED => supported(),
        code => {
            let kind = IdentifyingType::from_code(code).ok_or(Sense::cdb_bit(10, 7))?;
            call.view.unit.identifying.get(kind).to_vec()
        }
    };
    let [high, low] = u16::try_from(info.len()).unwrap_or(u16::MAX).to_be_bytes();
    let data = [&[0, 0, high, low][..], &info].concat();
    Ok(Step::Done(Response::data(data, call.cdb.length(6, 4))))
}

/// A descriptor for each type: its code and the most that it holds.
fn supported() -> Vec<u8> {
    let descriptor = |kind: IdentifyingType| {
        let [high, low] = kind.bytes_max().to_be_bytes();
        [kind.code() << 1, 0, high, low]
    };
    IdentifyingType::ALL.into_iter().flat_map(descriptor).collect()
}

/// SET IDENTIFYING INFORMATION: no parameter list clears it.
pub(crate) fn set(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let kind = IdentifyingType::from_code(type_code(call.cdb)).ok_or(Sense::cdb_bit(10, 7))?;
    let length = call.cdb.number(6, 4);
    if length > u64::from(kind.bytes_max()) {
        return Err(Sense::cdb_byte(6));
    }
    if length == 0 {
        return set_data(call.view, kind, &Bytes::new());
    }
    Ok(call.need(length, DataUse::Identify { kind }))
}

pub(crate) fn set_data(view: &LuView<'_>, kind: IdentifyingType, info: &Bytes) -> Result<Step, Sense> {
    if !kind.takes(info) {
        return Err(Sense::parameter_byte(0));
    }
    if view.unit.identifying.get(kind) == &info[..] {
        return Ok(Step::Done(Response::good()));
    }
    let info = info.to_vec();
    Ok(Step::Unit(UnitRequest::Change(UnitChange::Identify {
        kind,
        info,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, done, sense};
    use crate::reservation::{ServiceAction, UnitOutcome};
    use crate::{Status, UnitAttention};

    fn cdb(opcode: u8, action: u8, length: u16, code: u8) -> [u8; 12] {
        let [high, low] = length.to_be_bytes();
        [opcode, action, 0, 0, 0, 0, 0, 0, high, low, code << 1, 0]
    }

    fn report(fixture: &mut Fixture, code: u8) -> Bytes {
        fixture.data(&cdb(0xa3, 5, 300, code))
    }

    /// Sets it as the fixture's nexus, with all data announced.
    fn set(fixture: &mut Fixture, code: u8, info: &[u8]) {
        let length = u16::try_from(info.len()).unwrap();
        let Step::Unit(UnitRequest::Change(change)) = fixture.run(&cdb(0xa4, 6, length, code), info) else {
            panic!("no change");
        };
        let who = fixture.who.clone();
        assert_eq!(fixture.unit.apply(&who, &change, &[]), UnitOutcome::Good);
    }

    #[test]
    fn golden_nothing_is_set_and_two_types_can_be() {
        let mut fixture = Fixture::new();
        assert_eq!(report(&mut fixture, 0)[..], [0, 0, 0, 0]);
        assert_eq!(report(&mut fixture, 2)[..], [0, 0, 0, 0]);
        let both = [0, 0, 0, 8, 0, 0, 0, 64, 4, 0, 1, 0];
        assert_eq!(report(&mut fixture, 0x7f)[..], both);
        let cut = fixture.data(&cdb(0xa3, 5, 6, 0x7f));
        assert_eq!(cut[..], both[..6]);
    }

    #[test]
    fn i13_what_is_set_is_reported_until_it_is_cleared() {
        let mut fixture = Fixture::new();
        set(&mut fixture, 0, &[0xff, 0, 7]);
        set(&mut fixture, 2, b"accounts\0");
        assert_eq!(report(&mut fixture, 0)[..], [0, 0, 0, 3, 0xff, 0, 7]);
        assert_eq!(report(&mut fixture, 2)[..], *b"\0\0\0\x09accounts\0");
        let same = fixture.run(&cdb(0xa4, 6, 3, 0), &[0xff, 0, 7]);
        assert_eq!(done(same).status, Status::Good, "nothing is to be changed");
        set(&mut fixture, 0, &[]);
        assert_eq!(report(&mut fixture, 0)[..], [0, 0, 0, 0]);
        assert_eq!(report(&mut fixture, 2)[..3], [0, 0, 0], "the other type stays");
    }

    #[test]
    fn i12_what_does_not_fit_is_refused() {
        let mut fixture = Fixture::new();
        for code in [1, 3, 0x40] {
            assert_eq!(fixture.sense(&cdb(0xa3, 5, 300, code)), "05/24/00", "{code}");
        }
        assert_eq!(fixture.sense(&cdb(0xa4, 6, 0, 0x7f)), "05/24/00");
        assert_eq!(sense(fixture.run(&cdb(0xa4, 6, 65, 0), &[1; 65])), "05/24/00");
        assert_eq!(sense(fixture.run(&cdb(0xa4, 6, 257, 2), &[0; 257])), "05/24/00");
        // Text is UTF-8 and ends with a null character, its only one.
        for text in [&b"abc"[..], b"a\0b\0", b"\xff\0"] {
            let length = u16::try_from(text.len()).unwrap();
            assert_eq!(
                sense(fixture.run(&cdb(0xa4, 6, length, 2), text)),
                "05/26/00",
                "{text:?}"
            );
        }
        let long = UnitChange::Identify {
            kind: IdentifyingType::Device,
            info: vec![1; 65],
        };
        let (before, who) = (fixture.unit.clone(), fixture.who.clone());
        let refused = UnitOutcome::InvalidParameter { byte: 0 };
        assert_eq!(fixture.unit.apply(&who, &long, &[]), refused, "from a peer");
        assert_eq!(fixture.unit, before);
    }

    #[test]
    fn p3_everybody_else_hears_that_it_changed() {
        let mut fixture = Fixture::new();
        set(&mut fixture, 0, b"x");
        let mut other = fixture.who.clone();
        other.isid.0[0] = 9;
        let news = fixture.unit.identified_for(&other);
        assert_eq!(news, fixture.unit.version);
        assert_eq!(fixture.unit.identified_for(&fixture.who).0, 0);
        assert_eq!(
            sense(fixture.start_on(&[0; 6], 0, |view| view.counters.identified = news)),
            "06/3F/05"
        );
        assert!(!fixture.nexus.is_pending(UnitAttention::IdentifierChanged));
    }

    #[test]
    fn p1_another_ones_reservation_stands_in_the_way() {
        let mut fixture = Fixture::new();
        let mut other = fixture.who.clone();
        other.isid.0[0] = 9;
        for (action, scope_and_type, key, new_key) in [(0, 0, 0, 1), (1, 1, 1, 0)] {
            let mut list = [0; 24];
            (list[7], list[15]) = (key, new_key);
            let out = crate::reservation::read(action, scope_and_type, &list).unwrap();
            assert!(matches!(
                out.action,
                ServiceAction::Register | ServiceAction::Reserve
            ));
            assert_eq!(
                fixture.unit.apply(&other, &UnitChange::Persistent(out), &[]),
                UnitOutcome::Good
            );
        }
        let change = UnitChange::Identify {
            kind: IdentifyingType::Device,
            info: vec![1],
        };
        let who = fixture.who.clone();
        assert_eq!(fixture.unit.apply(&who, &change, &[]), UnitOutcome::Conflict);
        assert_eq!(report(&mut fixture, 0)[..], [0, 0, 0, 0], "looking is allowed");
    }
}
