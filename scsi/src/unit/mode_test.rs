use bytes::Bytes;

use crate::fixture::{Fixture, done, sense};
use crate::reservation::{UnitChange, UnitOutcome};
use crate::{LuView, Step, UnitRequest};

const CACHING: [u8; 20] = [0x88, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CONTROL: [u8; 12] = [0x8a, 10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
const EXCEPTIONS: [u8; 12] = [0x9c, 10, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn sense_6(dbd: bool, page: u8, change: impl FnOnce(&mut LuView<'_>)) -> Bytes {
    let cdb = [0x1a, u8::from(dbd) << 3, page, 0, 255, 0];
    done(Fixture::new().start_on(&cdb, 0, change)).data
}

#[test]
fn golden_all_pages() {
    let mut wanted = vec![55, 0, 0x10, 8];
    wanted.extend_from_slice(&[0, 0, 3, 0xe8, 0, 0, 2, 0]);
    wanted.extend_from_slice(&CACHING);
    wanted.extend_from_slice(&CONTROL);
    wanted.extend_from_slice(&EXCEPTIONS);
    assert_eq!(sense_6(false, 0x3f, |_| {}), wanted);
    assert_eq!(Fixture::new().data(&[0x1a, 0, 0x3f, 0xff, 255, 0]), wanted);
    // By default (PC=10b) the same.
    assert_eq!(sense_6(false, 0xbf, |_| {})[4..], wanted[4..]);
}

#[test]
fn golden_single_pages() {
    assert_eq!(
        sense_6(true, 0x08, |_| {})[..],
        [&[23, 0, 0x10, 0][..], &CACHING].concat()
    );
    assert_eq!(
        sense_6(true, 0x0a, |_| {})[..],
        [&[15, 0, 0x10, 0][..], &CONTROL].concat()
    );
    assert_eq!(
        sense_6(true, 0x1c, |_| {})[..],
        [&[15, 0, 0x10, 0][..], &EXCEPTIONS].concat()
    );
}

#[test]
fn golden_ten_byte_headers() {
    let data = |flags| Fixture::new().data(&[0x5a, flags, 0x0a, 0, 0, 0, 0, 1, 0, 0]);
    let short = [0, 0, 3, 0xe8, 0, 0, 2, 0];
    let long = [0, 0, 0, 0, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0, 0, 2, 0];
    assert_eq!(
        data(0x08)[..],
        [&[0, 18, 0, 0x10, 0, 0, 0, 0][..], &CONTROL].concat()
    );
    assert_eq!(
        data(0x00)[..],
        [&[0, 26, 0, 0x10, 0, 0, 0, 8][..], &short, &CONTROL].concat()
    );
    assert_eq!(
        data(0x10)[..],
        [&[0, 34, 0, 0x10, 1, 0, 0, 16][..], &long, &CONTROL].concat()
    );
}

#[test]
fn write_protection_and_write_back_show() {
    assert_eq!(sense_6(true, 0x08, |view| view.write_protected = true)[2], 0x90);
    assert_eq!(sense_6(true, 0x08, |view| view.write_back = true)[6], 0x04);
    let many = sense_6(false, 0x08, |view| view.blocks = 1 << 33);
    assert_eq!(many[4..8], [0xff; 4]);
}

#[test]
fn swp_can_be_changed_and_nothing_else() {
    let data = sense_6(true, 0x40 | 0x3f, |_| {});
    let mut rest = &data[4..];
    while let [page, length, body @ ..] = rest {
        let length = usize::from(*length);
        let mut wanted = vec![0; length];
        if *page == 0x8a {
            wanted[2] = 0x08;
        }
        assert_eq!(body[..length], wanted);
        rest = &body[length..];
    }
}

/// Carries out what a MODE SELECT of SWP comes to.
fn select_swp(fixture: &mut Fixture, on: bool, save: bool) {
    let mut list = [&[0; 4][..], &CONTROL].concat();
    list[4 + 4] = u8::from(on) << 3;
    let step = fixture.run(&[0x15, 0x10 | u8::from(save), 0, 0, 16, 0], &list);
    let Step::Unit(UnitRequest::Change(change)) = step else {
        panic!("no change: {step:?}");
    };
    let who = fixture.who.clone();
    assert_eq!(fixture.unit.apply(&who, &change, &[]), UnitOutcome::Good);
}

/// SWP now, by default, and saved.
fn swp(fixture: &mut Fixture) -> [bool; 3] {
    [0, 2, 3].map(|control| {
        let page = fixture.data(&[0x1a, 8, control << 6 | 0x0a, 0, 255, 0]);
        page[4 + 4] & 8 != 0
    })
}

#[test]
fn i13_what_is_saved_comes_back_with_a_reset() {
    let mut fixture = Fixture::new();
    let who = fixture.who.clone();
    select_swp(&mut fixture, true, false);
    assert_eq!(swp(&mut fixture), [true, false, false]);
    assert_eq!(
        fixture.unit.apply(&who, &UnitChange::Reset, &[]),
        UnitOutcome::Good
    );
    assert_eq!(swp(&mut fixture), [false; 3], "it was not saved");
    select_swp(&mut fixture, true, true);
    assert_eq!(swp(&mut fixture), [true, false, true]);
    select_swp(&mut fixture, false, false);
    assert_eq!(swp(&mut fixture), [false, false, true]);
    fixture.unit.memory_lost();
    assert_eq!(swp(&mut fixture), [true, false, true], "as after a loss of power");
    // No list, SP=1: what is so now is saved.
    select_swp(&mut fixture, false, false);
    let step = fixture.start(&[0x15, 0x11, 0, 0, 0, 0]);
    let Step::Unit(UnitRequest::Change(change)) = step else {
        panic!("no change: {step:?}");
    };
    assert_eq!(fixture.unit.apply(&who, &change, &[]), UnitOutcome::Good);
    assert_eq!(swp(&mut fixture), [false; 3]);
    assert_eq!(fixture.sense(&[0x15, 0x11, 0, 0, 0, 0]), "", "it is so already");
    let saved = fixture.data(&[0x1a, 8, 0xff, 0, 255, 0]);
    assert_eq!(saved, fixture.data(&[0x1a, 8, 0x3f, 0, 255, 0]));
}

#[test]
fn other_pages_are_refused() {
    let mut fixture = Fixture::new();
    for page in (0..0x3f).filter(|page| ![0x08, 0x0a, 0x1c].contains(page)) {
        assert_eq!(
            fixture.sense(&[0x1a, 0, page, 0, 255, 0]),
            "05/24/00",
            "{page:02x}"
        );
    }
    assert_eq!(fixture.sense(&[0x1a, 0, 0x0a, 1, 255, 0]), "05/24/00");
    assert_eq!(fixture.sense(&[0x1a, 0, 0x3f, 1, 255, 0]), "05/24/00");
}

#[test]
fn data_is_cut_to_the_allocation_length() {
    assert_eq!(
        Fixture::new().data(&[0x1a, 0, 0x3f, 0, 4, 0])[..],
        [55, 0, 0x10, 8]
    );
}

fn select_6(list: &[u8]) -> String {
    let cdb = [0x15, 0x10, 0, 0, u8::try_from(list.len()).unwrap(), 0];
    sense(Fixture::new().run(&cdb, list))
}

#[test]
fn select_of_what_is_so_already_is_good() {
    // What MODE SENSE gives, sent back, is accepted whole and page by page; so is no list at all.
    assert_eq!(select_6(&sense_6(false, 0x3f, |_| {})), "");
    assert_eq!(select_6(&[&[0; 4][..], &CACHING].concat()), "");
    assert_eq!(select_6(&[0; 4]), "");
    assert_eq!(sense(Fixture::new().start(&[0x15, 0x10, 0, 0, 0, 0])), "");
    // A number of blocks of 0 changes nothing.
    assert_eq!(select_6(&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0]), "");
    for flags in [0, 0x10] {
        let list = Fixture::new().data(&[0x5a, flags, 0x3f, 0, 0, 0, 0, 1, 0, 0]);
        let cdb = [0x55, 0x10, 0, 0, 0, 0, 0, 0, u8::try_from(list.len()).unwrap(), 0];
        assert_eq!(sense(Fixture::new().run(&cdb, &list)), "");
    }
}

#[test]
fn i12_select_of_anything_else_is_refused() {
    let changed = |at: usize, value| {
        let mut list = sense_6(false, 0x3f, |_| {}).to_vec();
        list[at] = value;
        select_6(&list)
    };
    // Another block size, WCE, a page length, a page that is not there, a subpage.
    assert_eq!(changed(10, 4), "05/26/00");
    assert_eq!(changed(7, 1), "05/26/00");
    assert_eq!(changed(12 + 2, 4), "05/26/00");
    assert_eq!(changed(12 + 1, 17), "05/26/00");
    assert_eq!(changed(12, 0x01), "05/26/00");
    assert_eq!(changed(12, 0x48), "05/26/00");
    // Lists that end too early.
    assert_eq!(select_6(&[0; 3]), "05/1A/00");
    assert_eq!(select_6(&[0, 0, 0, 8, 0]), "05/1A/00");
    assert_eq!(select_6(&[&[0; 4][..], &CACHING[..19]].concat()), "05/1A/00");
    assert_eq!(select_6(&[0, 0, 0, 0, 0x08]), "05/1A/00");
    // A block descriptor of another length; PF=0; fewer bytes announced than said.
    assert_eq!(select_6(&[0, 0, 0, 4, 0, 0, 3, 0xe8]), "05/26/00");
    assert_eq!(Fixture::new().sense(&[0x15, 0, 0, 0, 4, 0]), "05/24/00");
    assert_eq!(Fixture::new().sense(&[0x15, 0x10, 0, 0, 4, 0]), "05/0E/03");
}

#[test]
fn i13_software_write_protection_is_asked_of_the_cluster() {
    let mut fixture = Fixture::new();
    let mut list = [&[0; 4][..], &CONTROL].concat();
    list[4 + 4] = 0x08;
    let cdb = [0x15, 0x10, 0, 0, 16, 0];
    let Step::Unit(UnitRequest::Change(UnitChange::Mode(modes))) = fixture.run(&cdb, &list) else {
        panic!("no change");
    };
    assert!(modes.software_write_protect);
    fixture.unit.modes = modes;
    assert_eq!(fixture.data(&[0x1a, 8, 0x0a, 0, 255, 0])[4 + 4], 0x08);
    assert_eq!(fixture.data(&[0x1a, 8, 0x8a, 0, 255, 0])[4 + 4], 0, "by default");
    assert_eq!(sense(fixture.run(&cdb, &list)), "", "it is so already");
    list[4 + 4] = 0;
    assert!(matches!(fixture.run(&cdb, &list), Step::Unit(_)), "and back");
    list[4 + 4] = 0x18;
    assert_eq!(sense(fixture.run(&cdb, &list)), "05/26/00", "its neighbour");
}
