use bytes::Bytes;

use crate::fixture::{Fixture, done, sense};
use crate::reservation::{Sanitize, SanitizeMethod, SanitizeOrder, UnitChange, UnitOutcome};
use crate::{Status, Step, UnitRequest};

const OVERWRITE: u8 = 0x01;
const BLOCK_ERASE: u8 = 0x02;
const EXIT: u8 = 0x1f;
const IMMED: u8 = 0x80;
const AUSE: u8 = 0x20;

const fn cdb(byte1: u8, length: u16) -> [u8; 10] {
    let [high, low] = length.to_be_bytes();
    [0x48, byte1, 0, 0, 0, 0, 0, high, low, 0]
}

/// OVERWRITE's parameter list.
fn list(flags: u8, said: u16, pattern: &[u8]) -> Vec<u8> {
    let [high, low] = said.to_be_bytes();
    [&[flags, 0, high, low], pattern].concat()
}

fn asked(step: Step) -> (SanitizeOrder, bool) {
    match step {
        Step::Unit(UnitRequest::Sanitize { order, immediate }) => (order, immediate),
        other => panic!("{other:?}"),
    }
}

fn commit(fixture: &mut Fixture, change: &UnitChange) -> UnitOutcome {
    let who = fixture.who.clone();
    fixture.unit.apply(&who, change, &[])
}

/// A unit on which an erasure has begun.
fn erasing(ause: u8) -> Fixture {
    let mut fixture = Fixture::new();
    let (order, _) = asked(fixture.start(&cdb(BLOCK_ERASE | ause, 0)));
    assert_eq!(
        commit(&mut fixture, &UnitChange::Sanitize(order)),
        UnitOutcome::Good
    );
    fixture
}

fn end(fixture: &mut Fixture, failed: bool) {
    let begun = fixture.unit.sanitize.running().unwrap().begun;
    let change = UnitChange::SanitizeOver { begun, failed };
    assert_eq!(commit(fixture, &change), UnitOutcome::Good);
}

#[test]
fn golden_what_is_asked_for_is_ordered() {
    let mut fixture = Fixture::new();
    let (order, immediate) = asked(fixture.start(&cdb(BLOCK_ERASE | IMMED, 0)));
    assert!(immediate && !order.unrestricted_exit);
    assert_eq!(order.method, SanitizeMethod::BlockErase);
    let pattern = [0xaa; 512];
    let (order, immediate) = asked(fixture.run(&cdb(OVERWRITE | AUSE, 516), &list(0x83, 512, &pattern)));
    assert!(!immediate && order.unrestricted_exit);
    let method = SanitizeMethod::Overwrite {
        pattern: pattern.to_vec(),
        count: 3,
        invert: true,
    };
    assert_eq!(order.method, method);
}

#[test]
fn i12_what_is_wrong_changes_nothing() {
    let mut fixture = Fixture::new();
    for action in [0, 3, 4, 0x1e] {
        assert_eq!(fixture.sense(&cdb(action, 0)), "05/24/00", "{action:#x}");
    }
    for action in [OVERWRITE, BLOCK_ERASE, EXIT] {
        // ZNR, and every reserved byte.
        assert_eq!(fixture.sense(&cdb(action | 0x40, 0)), "05/24/00");
        for at in 2..7 {
            let mut reserved = cdb(action, 0);
            reserved[at] = 1;
            assert_eq!(fixture.sense(&reserved), "05/24/00", "byte {at}");
        }
    }
    assert_eq!(fixture.sense(&cdb(BLOCK_ERASE, 8)), "05/24/00");
    assert_eq!(fixture.sense(&cdb(EXIT, 8)), "05/24/00");
    for length in [0, 1, 4, 517] {
        assert_eq!(fixture.sense(&cdb(OVERWRITE, length)), "05/24/00", "{length}");
    }
    let wrong = [
        list(0x00, 4, &[0; 4]),
        list(0x21, 4, &[0; 4]),
        list(0x01, 0, &[0; 4]),
        list(0x01, 5, &[0; 4]),
        list(0x01, 3, &[0; 4]),
    ];
    for list in wrong {
        assert_eq!(
            sense(fixture.run(&cdb(OVERWRITE, 8), &list)),
            "05/26/00",
            "{list:?}"
        );
    }
    let short = fixture.start_on(&cdb(OVERWRITE, 8), 7, |_| {});
    assert_eq!(sense(short), "05/0E/03");
    let protected = fixture.start_on(&cdb(BLOCK_ERASE, 0), 0, |view| view.write_protected = true);
    assert_eq!(sense(protected), "07/27/00");
}

#[test]
fn while_it_runs_nearly_everything_hears_how_far_it_is() {
    let mut fixture = erasing(0);
    let begun = fixture.unit.sanitize.running().unwrap().begun;
    let progress = UnitChange::SanitizeProgress {
        begun,
        pass: 0,
        done: 500,
    };
    commit(&mut fixture, &progress);
    let unready: [&[u8]; 7] = [
        &[0; 6],
        &[0x1b, 0, 0, 0, 1, 0],
        &[0x1a, 0, 0x3f, 0, 255, 0],
        &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        &cdb(BLOCK_ERASE, 0),
        &cdb(EXIT, 0),
    ];
    for cdb in unready {
        let response = done(fixture.start(cdb));
        let sense = response.sense.unwrap();
        assert_eq!(sense.to_string(), "02/04/1B", "{cdb:02x?}");
        assert_eq!(sense.fixed()[15..], [0x80, 0x80, 0], "half of it");
    }
    let answered: [&[u8]; 4] = [
        &[0x12, 0, 0, 0, 96, 0],
        &[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        &[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        &[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
    ];
    for cdb in answered {
        assert_eq!(done(fixture.start(cdb)).status, Status::Good, "{cdb:02x?}");
    }
    let sense = fixture.data(&[3, 0, 0, 0, 18, 0]);
    assert_eq!((sense[2], sense[12], sense[13]), (2, 4, 0x1b));
    assert_eq!(sense[15..], [0x80, 0x80, 0]);
    // What passed the front of a node that had not heard of it.
    let order = fixture.unit.sanitize.running().unwrap().order.clone();
    assert_eq!(
        commit(&mut fixture, &UnitChange::Sanitize(order)),
        UnitOutcome::Sanitizing
    );
    assert_eq!(
        UnitOutcome::Sanitizing.response().sense.unwrap().to_string(),
        "02/04/1B"
    );
    end(&mut fixture, false);
    assert_eq!(done(fixture.start(&[0; 6])).status, Status::Good);
}

#[test]
fn i13_nothing_that_was_admitted_before_takes_effect_and_nothing_while_it_runs() {
    let mut fixture = Fixture::new();
    let before = fixture.unit.version;
    assert!(!fixture.unit.rule().closed);
    let order = asked(fixture.start(&cdb(BLOCK_ERASE, 0))).0;
    commit(&mut fixture, &UnitChange::Sanitize(order));
    let rule = fixture.unit.rule();
    assert!(rule.closed && rule.cleared > before);
    // A reset does not end it.
    commit(&mut fixture, &UnitChange::Reset);
    assert!(fixture.unit.rule().closed);
    end(&mut fixture, false);
    assert!(!fixture.unit.rule().closed);
}

#[test]
fn a_report_that_comes_late_changes_nothing() {
    let mut fixture = erasing(0);
    let begun = fixture.unit.sanitize.running().unwrap().begun;
    let mut report = |begun, pass, done| {
        commit(&mut fixture, &UnitChange::SanitizeProgress { begun, pass, done });
        fixture
            .unit
            .sanitize
            .running()
            .map(|running| (running.pass, running.done))
    };
    assert_eq!(report(begun, 0, 100), Some((0, 100)));
    assert_eq!(report(begun, 0, 50), Some((0, 100)));
    assert_eq!(report(begun.next(), 0, 200), Some((0, 100)));
    assert_eq!(report(begun, 1, 0), Some((0, 100)), "it has one pass");
    let other = UnitChange::SanitizeOver {
        begun: begun.next(),
        failed: false,
    };
    commit(&mut fixture, &other);
    assert!(fixture.unit.sanitize.running().is_some());
}

#[test]
fn one_that_failed_is_told_until_it_is_repeated_or_left() {
    let mut fixture = erasing(0);
    end(&mut fixture, true);
    assert_eq!(fixture.sense(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), "03/31/03");
    assert_eq!(fixture.sense(&[0; 6]), "03/31/03");
    assert_eq!(fixture.sense(&cdb(EXIT, 0)), "05/24/00", "restricted");
    assert_eq!(
        commit(&mut fixture, &UnitChange::SanitizeExit),
        UnitOutcome::InvalidCdb { byte: 1 }
    );
    let (order, _) = asked(fixture.start(&cdb(BLOCK_ERASE | AUSE, 0)));
    commit(&mut fixture, &UnitChange::Sanitize(order));
    end(&mut fixture, true);
    assert!(matches!(
        fixture.start(&cdb(EXIT, 0)),
        Step::Unit(UnitRequest::Change(UnitChange::SanitizeExit))
    ));
    commit(&mut fixture, &UnitChange::SanitizeExit);
    assert_eq!(fixture.unit.sanitize, Sanitize::Idle);
    assert_eq!(done(fixture.start(&[0; 6])).status, Status::Good);
}

#[test]
fn p1_another_ones_reservation_stands_in_the_way() {
    let mut fixture = Fixture::new();
    let mut other = fixture.who.clone();
    other.isid.0[0] = 9;
    let node = holdfast_types::NodeId(1);
    fixture.unit.apply(&other, &UnitChange::Reserve { node }, &[]);
    let list = Bytes::from(list(1, 4, &[0; 4]));
    let order = SanitizeOrder {
        method: SanitizeMethod::BlockErase,
        unrestricted_exit: false,
    };
    let before = fixture.unit.clone();
    assert_eq!(
        commit(&mut fixture, &UnitChange::Sanitize(order)),
        UnitOutcome::Conflict
    );
    assert_eq!(
        commit(&mut fixture, &UnitChange::SanitizeExit),
        UnitOutcome::Conflict
    );
    assert_eq!(fixture.unit, before);
    // Asked for with data, it goes on to be refused by the cluster.
    asked(fixture.run(&cdb(OVERWRITE, 8), &list));
}
