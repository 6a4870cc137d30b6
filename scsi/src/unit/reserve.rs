//! PERSISTENT RESERVE IN and OUT (SPC-4, 6.15 and 6.16), RESERVE and RELEASE (SPC-2, 7.16 to 7.21). What they do is committed state:
//! see [`crate::reservation`].

use bytes::Bytes;

use super::DataUse;
use crate::reservation::{PersistentIn, UnitChange, data_length, read};
use crate::step::UnitRequest;
use crate::table::Call;
use crate::{NexusLu, Sense, Step};

pub(crate) fn persistent_in(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let action = PersistentIn::from_code(call.cdb.action()).ok_or(Sense::cdb_bit(1, 4))?;
    let allocation = call.cdb.length(7, 2);
    Ok(Step::Unit(UnitRequest::Report { action, allocation }))
}

pub(crate) fn persistent_out(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    let purpose = DataUse::PersistentOut {
        action: call.cdb.action(),
        scope_and_type: call.cdb.byte(2),
    };
    Ok(call.need(data_length(call.cdb)?, purpose))
}

pub(crate) fn persistent_out_data(action: u8, scope_and_type: u8, data: &Bytes) -> Result<Step, Sense> {
    let out = read(action, scope_and_type, data)?;
    Ok(Step::Unit(UnitRequest::Change(UnitChange::Persistent(out))))
}

/// Third-party reservations, extents and long ids are obsolete, and not there.
fn plain(call: &Call<'_>) -> Result<(), Sense> {
    match call.cdb.byte(1) & 0x13 {
        0 => Ok(()),
        flags => Err(Sense::cdb_bit(1, if flags & 0x10 != 0 { 4 } else { 1 })),
    }
}

pub(crate) fn reserve(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    plain(call)?;
    // A port that the applied state does not know is transitioning, so nothing gets here through it.
    let group = call.view.group().ok_or(Sense::TRANSITIONING)?;
    let node = group.node;
    Ok(Step::Unit(UnitRequest::Change(UnitChange::Reserve { node })))
}

pub(crate) fn release(call: &Call<'_>, _: &mut NexusLu) -> Result<Step, Sense> {
    plain(call)?;
    Ok(Step::Unit(UnitRequest::Change(UnitChange::Release)))
}

#[cfg(test)]
mod tests {
    use holdfast_types::NodeId;

    use crate::fixture::{Fixture, done, sense, storage};
    use crate::reservation::{PersistentIn, ServiceAction, UnitChange, UnitOutcome};
    use crate::{Status, Step, UnitRequest};

    fn request(step: Step) -> UnitRequest {
        match step {
            Step::Unit(request) => request,
            other => panic!("not about the unit: {other:?}"),
        }
    }

    /// REGISTER with key 1, then RESERVE of `kind`, by another nexus than the fixture's.
    fn reserved_by_another(kind: u8) -> Fixture {
        let mut fixture = Fixture::new();
        let mut other = fixture.who.clone();
        other.isid.0[0] = 9;
        for (action, scope_and_type, new_key) in [(0, 0, 1), (1, kind, 0)] {
            let mut list = [0; 24];
            list[7] = u8::from(action == 1);
            list[15] = new_key;
            let out = crate::reservation::read(action, scope_and_type, &list).unwrap();
            let change = UnitChange::Persistent(out);
            assert_eq!(fixture.unit.apply(&other, &change, &[]), UnitOutcome::Good);
        }
        fixture
    }

    #[test]
    fn persistent_reserve_goes_to_the_cluster() {
        let mut fixture = Fixture::new();
        let (action, allocation) = (PersistentIn::ReadFullStatus, 0x102);
        assert_eq!(
            request(fixture.start(&[0x5e, 3, 0, 0, 0, 0, 0, 1, 2, 0])),
            UnitRequest::Report { action, allocation }
        );
        let cdb = [0x5f, 6, 0, 0, 0, 0, 0, 0, 24, 0];
        let UnitRequest::Change(UnitChange::Persistent(out)) = request(fixture.run(&cdb, &[7; 24])) else {
            panic!("no change");
        };
        assert_eq!(
            (out.action, out.key),
            (ServiceAction::RegisterAndIgnore, 0x0707_0707_0707_0707)
        );
    }

    #[test]
    fn i12_bad_reservation_commands() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.sense(&[0x5e, 4, 0, 0, 0, 0, 0, 0, 8, 0]), "05/24/00");
        assert_eq!(fixture.sense(&[0x5f, 9, 0, 0, 0, 0, 0, 0, 24, 0]), "05/24/00");
        assert_eq!(
            sense(fixture.run(&[0x5f, 0, 0, 0, 0, 0, 0, 0, 20, 0], &[0; 20])),
            "05/1A/00"
        );
        for third_party in [0x10, 0x01] {
            assert_eq!(
                fixture.sense(&[0x56, third_party, 0, 0, 0, 0, 0, 0, 0, 0]),
                "05/24/00"
            );
        }
    }

    #[test]
    fn reserve_names_the_node_of_its_port() {
        let mut fixture = Fixture::new();
        let node = NodeId(2);
        for cdb in [&[0x16, 0, 0, 0, 0, 0][..], &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            let wanted = UnitRequest::Change(UnitChange::Reserve { node });
            assert_eq!(request(fixture.start(cdb)), wanted);
        }
        let release = UnitRequest::Change(UnitChange::Release);
        assert_eq!(request(fixture.start(&[0x17, 0, 0, 0, 0, 0])), release);
    }

    #[test]
    fn p1_what_reaches_the_medium_is_judged_by_the_primary_and_the_rest_here() {
        let mut fixture = reserved_by_another(3);
        storage(fixture.start(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
        storage(fixture.run(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[0; 512]));
        let mut status = |cdb: &[u8]| done(fixture.start(cdb)).status;
        assert_eq!(status(&[0x1a, 0, 0x3f, 0, 255, 0]), Status::ReservationConflict);
        assert_eq!(
            status(&[0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Status::ReservationConflict,
            "of no block"
        );
        assert_eq!(status(&[0x1b, 0, 0, 0, 1, 0]), Status::Good, "a start");
        assert_eq!(status(&[0; 6]), Status::Good);
        assert_eq!(status(&[0x12, 0, 0, 0, 255, 0]), Status::Good);
        // A bad CDB is told as such, reserved or not.
        assert_eq!(
            fixture.sense(&[0x28, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0]),
            "05/21/00"
        );
    }

    #[test]
    fn i13_reserve_refuses_others_all_but_who_is_there() {
        let mut fixture = Fixture::new();
        let mut other = fixture.who.clone();
        other.isid.0[0] = 9;
        let reserve = UnitChange::Reserve { node: NodeId(1) };
        assert_eq!(fixture.unit.apply(&other, &reserve, &[]), UnitOutcome::Good);
        let mut status = |cdb: &[u8]| done(fixture.start(cdb)).status;
        assert_eq!(status(&[0; 6]), Status::ReservationConflict);
        assert_eq!(status(&[0x1a, 0, 0x3f, 0, 255, 0]), Status::ReservationConflict);
        for cdb in [&[0x12, 0, 0, 0, 255, 0][..], &[0x03, 0, 0, 0, 18, 0]] {
            assert_eq!(status(cdb), Status::Good, "{cdb:02x?}");
        }
    }
}
