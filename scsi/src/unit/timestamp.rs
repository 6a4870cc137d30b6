//! REPORT and SET TIMESTAMP (SPC-5): the unit's clock. It is the node's calendar, and once a host has set it, as far ahead of that as it
//! was then. That distance is the unit's (I13): the clock goes on through failovers and restarts, as exactly as the nodes'
//! calendars agree.

use bytes::Bytes;

use super::DataUse;
use crate::reservation::UnitChange;
use crate::step::UnitRequest;
use crate::table::Call;
use crate::{LuView, NexusLu, Response, Sense, Step};

/// Bytes of the parameter data and of the parameter list, header included.
const BYTES: usize = 12;
/// TIMESTAMP ORIGIN: set by SET TIMESTAMP.
const BY_COMMAND: u8 = 0b010;
/// TIMESTAMP ORIGIN: set by other means.
const BY_OTHER_MEANS: u8 = 0b011;
/// A timestamp has 48 bits.
const MOST: u64 = (1 << 48) - 1;

/// REPORT TIMESTAMP.
pub(crate) fn report(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let calendar = call.view.calendar.0;
    let (origin, now) = match call.view.unit.clock_ahead {
        None => (BY_OTHER_MEANS, calendar),
        Some(ahead) => (BY_COMMAND, calendar.saturating_add_signed(ahead)),
    };
    let mut data = vec![0; BYTES];
    data[1] = 10;
    data[2] = origin;
    data[4..10].copy_from_slice(&now.min(MOST).to_be_bytes()[2..]);
    Ok(Step::Done(Response::data(data, call.cdb.length(6, 4))))
}

/// SET TIMESTAMP: no parameter list sets nothing.
pub(crate) fn set(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    match call.cdb.number(6, 4) {
        0 => Ok(Step::Done(Response::good())),
        length if length < BYTES as u64 => Err(Sense::PARAMETER_LIST_LENGTH),
        _ => Ok(call.need(BYTES as u64, DataUse::Timestamp)),
    }
}

pub(crate) fn set_data(view: &LuView<'_>, list: &Bytes) -> Result<Step, Sense> {
    let to = list[4..10].iter().fold(0, |to, byte| to << 8 | i64::from(*byte));
    let calendar = i64::try_from(view.calendar.0).unwrap_or(i64::MAX);
    let ahead = to.saturating_sub(calendar);
    Ok(Step::Unit(UnitRequest::Change(UnitChange::SetClock { ahead })))
}

#[cfg(test)]
mod tests {
    use holdfast_types::UnixMillis;

    use super::*;
    use crate::UnitAttention;
    use crate::fixture::{Fixture, done, sense};
    use crate::reservation::UnitOutcome;

    const REPORT: [u8; 12] = [0xa3, 0x0f, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0];
    /// In the year 2026.
    const NOW: u64 = 1_795_000_000_123;

    fn set_cdb(length: u8) -> [u8; 12] {
        [0xa4, 0x0f, 0, 0, 0, 0, 0, 0, 0, length, 0, 0]
    }

    fn list(to: u64) -> [u8; 12] {
        let mut list = [0; 12];
        list[4..10].copy_from_slice(&to.to_be_bytes()[2..]);
        list
    }

    /// Origin and clock, on a node with that calendar.
    fn told(fixture: &mut Fixture, calendar: u64) -> (u8, u64) {
        let step = fixture.start_on(&REPORT, 0, |view| view.calendar = UnixMillis(calendar));
        let data = done(step).data;
        assert_eq!(data[..2], [0, 10]);
        assert_eq!((data[3], &data[10..]), (0, &[0, 0][..]));
        (
            data[2],
            data[4..10]
                .iter()
                .fold(0, |now, byte| now << 8 | u64::from(*byte)),
        )
    }

    fn set(fixture: &mut Fixture, to: u64, calendar: u64) -> UnitChange {
        let step = fixture.run_on(&set_cdb(12), &list(to), |view| {
            view.calendar = UnixMillis(calendar);
        });
        let Step::Unit(UnitRequest::Change(change)) = step else {
            panic!("no change: {step:?}");
        };
        let who = fixture.who.clone();
        assert_eq!(fixture.unit.apply(&who, &change, &[]), UnitOutcome::Good);
        change
    }

    #[test]
    fn golden_it_is_the_calendar_until_a_host_sets_it() {
        let mut fixture = Fixture::new();
        assert_eq!(told(&mut fixture, NOW), (0b011, NOW));
        set(&mut fixture, 5_000, NOW);
        assert_eq!(told(&mut fixture, NOW), (0b010, 5_000));
        assert_eq!(told(&mut fixture, NOW + 1_500), (0b010, 6_500), "it goes on");
        assert_eq!(told(&mut fixture, 7), (0b010, 0), "never before 1970");
        set(&mut fixture, MOST, NOW);
        assert_eq!(told(&mut fixture, NOW + 9), (0b010, MOST), "nor beyond its bits");
        let cut = [0xa3, 0x0f, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0];
        assert_eq!(fixture.data(&cut)[..], [0, 10, 0b010, 0]);
    }

    #[test]
    fn i12_a_list_that_is_cut_short_sets_nothing() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.sense(&set_cdb(0)), "");
        for length in [1, 11] {
            assert_eq!(fixture.sense(&set_cdb(length)), "05/1A/00", "{length}");
        }
        assert_eq!(sense(fixture.run(&set_cdb(12), &[0; 11])), "05/0E/03");
        assert_eq!(fixture.unit.clock_ahead, None);
    }

    #[test]
    fn p3_everybody_else_hears_that_it_was_set() {
        let mut fixture = Fixture::new();
        set(&mut fixture, 1, NOW);
        let mut other = fixture.who.clone();
        other.isid.0[0] = 9;
        let news = fixture.unit.clock_set_for(&other);
        assert_eq!(news, fixture.unit.version);
        assert_eq!(fixture.unit.clock_set_for(&fixture.who).0, 0);
        assert_eq!(
            sense(fixture.start_on(&[0; 6], 0, |view| view.counters.clock = news)),
            "06/2A/10"
        );
        assert!(!fixture.nexus.is_pending(UnitAttention::TimestampChanged));
    }

    #[test]
    fn p1_a_reservation_of_another_one_stands_in_the_way() {
        let mut fixture = Fixture::new();
        let mut other = fixture.who.clone();
        other.isid.0[0] = 9;
        let reserve = UnitChange::Reserve {
            node: holdfast_types::NodeId(1),
        };
        assert_eq!(fixture.unit.apply(&other, &reserve, &[]), UnitOutcome::Good);
        let who = fixture.who.clone();
        let refused = fixture.unit.apply(&who, &UnitChange::SetClock { ahead: 1 }, &[]);
        assert_eq!(refused, UnitOutcome::Conflict);
    }
}
