use holdfast_types::{BlockSize, COPY_BYTES_MAX, ExtentId, Lba, Naa};

use crate::copy::{CopyId, CopyResult, CopySegment};
use crate::fixture::{BLOCKS, EXTENT, Fixture, LARGE, OTHER, done, sense};
use crate::{CopyJob, Status, Step};

fn target(extent: u128, block: u32) -> Vec<u8> {
    let mut descriptor = vec![0xe4, 0, 0, 0, 1, 3, 0, 16];
    descriptor.extend_from_slice(&Naa::of(ExtentId::from_u128(extent)).bytes());
    descriptor.resize(28, 0);
    descriptor.extend_from_slice(&block.to_be_bytes());
    descriptor
}

fn segment(source: u16, destination: u16, blocks: u16, from: u64, to: u64) -> Vec<u8> {
    let mut descriptor = vec![0x02, 0, 0, 0x18];
    for value in [source, destination, 0, blocks] {
        descriptor.extend_from_slice(&value.to_be_bytes());
    }
    descriptor.extend_from_slice(&from.to_be_bytes());
    descriptor.extend_from_slice(&to.to_be_bytes());
    descriptor
}

/// The parameter list of EXTENDED COPY(LID1) with list identifier 9.
fn list(usage: u8, targets: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
    let (targets, segments) = (targets.concat(), segments.concat());
    let mut data = vec![9, usage << 3];
    data.extend_from_slice(&u16::try_from(targets.len()).unwrap().to_be_bytes());
    data.extend_from_slice(&[0; 4]);
    data.extend_from_slice(&u32::try_from(segments.len()).unwrap().to_be_bytes());
    data.extend_from_slice(&[0; 4]);
    [data, targets, segments].concat()
}

/// The same for LID4 with list identifier 01020304h.
fn long_list(targets: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
    let (targets, segments) = (targets.concat(), segments.concat());
    let mut data = vec![0; 48];
    (data[0], data[3], data[16]) = (1, 0x20, 0xff);
    data[20..24].copy_from_slice(&[1, 2, 3, 4]);
    data[42..44].copy_from_slice(&u16::try_from(targets.len()).unwrap().to_be_bytes());
    data[44..46].copy_from_slice(&u16::try_from(segments.len()).unwrap().to_be_bytes());
    [data, targets, segments].concat()
}

fn send_to(fixture: &mut Fixture, action: u8, data: &[u8]) -> Step {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    let cdb = [&[0x83, action][..], &[0; 8], &length, &[0, 0]].concat();
    fixture.run(&cdb, data)
}

fn send(data: &[u8]) -> Step {
    send_to(&mut Fixture::new(), 0, data)
}

fn job(step: Step) -> CopyJob {
    match step {
        Step::Copy(job) => job,
        other => panic!("no copy: {other:?}"),
    }
}

fn planned(source: u128, destination: u128, blocks: u64, from: u64, to: u64) -> CopySegment {
    CopySegment {
        source: ExtentId::from_u128(source),
        from: holdfast_types::BlockRange::new(Lba(from), blocks).unwrap(),
        destination: ExtentId::from_u128(destination),
        to: Lba(to),
        block_size: BlockSize::B512,
    }
}

#[test]
fn segments_name_units_by_their_naa() {
    let targets = [target(EXTENT, 512), target(OTHER, 0)];
    let segments = [segment(0, 1, 8, 1, 100), segment(1, 1, 0, 3, 4)];
    let plan = vec![planned(EXTENT, OTHER, 8, 1, 100), planned(OTHER, OTHER, 0, 3, 4)];
    for usage in 0..4 {
        let id = (usage < 2).then_some(CopyId(9));
        let found = job(send(&list(usage, &targets, &segments)));
        assert_eq!(found, CopyJob::new(id, plan.clone()), "usage {usage}");
    }
    let found = job(send_to(&mut Fixture::new(), 1, &long_list(&targets, &segments)));
    assert_eq!(found, CopyJob::new(Some(CopyId(0x0102_0304)), plan));
    // No list, and one without segments.
    assert_eq!(sense(send(&[])), "");
    assert_eq!(
        job(send(&list(0, &targets, &[]))),
        CopyJob::new(Some(CopyId(9)), vec![])
    );
}

#[test]
fn i12_bad_copies_are_refused_whole() {
    let one = [target(EXTENT, 512)];
    let good = segment(0, 0, 8, 1, 100);
    let on = |targets: &[Vec<u8>], segments: &[Vec<u8>]| sense(send(&list(0, targets, segments)));
    let cases = [
        // No such target in the list, no such unit, beyond the end of either, another block size.
        (on(&one, &[good.clone(), segment(0, 1, 1, 0, 0)]), "0A/08/04"),
        (on(&[target(77, 512)], std::slice::from_ref(&good)), "0A/08/04"),
        (
            on(&one, &[good.clone(), segment(0, 0, 2, BLOCKS - 1, 0)]),
            "0A/00/00",
        ),
        (
            on(&one, &[good.clone(), segment(0, 0, 2, 0, BLOCKS - 1)]),
            "0A/00/00",
        ),
        (on(&one, &[segment(0, 0, 1, u64::MAX, 0)]), "0A/00/00"),
        (
            on(&[target(EXTENT, 4096)], std::slice::from_ref(&good)),
            "0A/00/00",
        ),
        (
            on(
                &[target(EXTENT, 512), target(LARGE, 4096)],
                &[segment(0, 1, 1, 0, 0)],
            ),
            "0A/00/00",
        ),
        // Kinds of descriptors, and too many of them.
        (
            on(&[[&[0xe0][..], &[0; 31]].concat()], std::slice::from_ref(&good)),
            "05/26/07",
        ),
        (on(&one, &[[&[0x03][..], &[0; 27]].concat()]), "05/26/09"),
        (
            on(&vec![one[0].clone(); 17], std::slice::from_ref(&good)),
            "05/26/06",
        ),
        (on(&one, &vec![good.clone(); 65]), "05/26/08"),
        (
            on(&vec![one[0].clone(); 17], &vec![good.clone(); 140]),
            "05/1A/00",
        ),
    ];
    for (index, (found, wanted)) in cases.into_iter().enumerate() {
        assert_eq!(found, wanted, "case {index}");
    }
    // Cut anywhere.
    let whole = list(0, &one, &[good]);
    for length in 1..whole.len() {
        assert_eq!(sense(send(&whole[..length])), "05/1A/00", "{length}");
    }
    // Inline data.
    let mut inline = whole;
    inline[15] = 1;
    assert_eq!(sense(send(&inline)), "05/26/0B");
}

#[test]
fn a_write_protected_destination_is_not_written() {
    let mut fixture = Fixture::new();
    fixture.units[1].write_protected = true;
    let targets = [target(EXTENT, 512), target(OTHER, 512)];
    let to = |source, destination| list(0, &targets, &[segment(source, destination, 1, 0, 0)]);
    assert_eq!(sense(send_to(&mut fixture, 0, &to(0, 1))), "07/27/00");
    job(send_to(&mut fixture, 0, &to(1, 0)));
}

#[test]
fn the_amount_of_one_copy_is_bounded_as_declared() {
    let mut fixture = Fixture::new();
    fixture.units[0].blocks = 1 << 40;
    let most = u16::try_from(COPY_BYTES_MAX >> 9).unwrap();
    let on = |fixture: &mut Fixture, segments: &[Vec<u8>]| {
        send_to(fixture, 0, &list(0, &[target(EXTENT, 512)], segments))
    };
    job(on(&mut fixture, &[segment(0, 0, most, 0, 1 << 20)]));
    let two = [segment(0, 0, most, 0, 1 << 20), segment(0, 0, 1, 0, 1 << 20)];
    assert_eq!(sense(on(&mut fixture, &two)), "05/26/00");
    let parameters = fixture.data(&[0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(parameters.len(), 46);
    assert_eq!(
        parameters[..20],
        [0, 0, 0, 42, 1, 0, 0, 0, 0, 16, 0, 64, 0, 0, 0x10, 0, 1, 0, 0, 0]
    );
    assert_eq!(parameters[43..], [2, 0x02, 0xe4]);
}

#[test]
fn golden_copy_status() {
    let mut fixture = Fixture::new();
    let short = [0x84, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let long = [0x84, 5, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    for cdb in [&short, &long] {
        assert_eq!(fixture.sense(cdb), "05/24/00");
    }
    for (status, code) in [
        (None, 0),
        (Some(Status::Good), 1),
        (Some(Status::CheckCondition), 2),
    ] {
        fixture.nexus.remember_copy(CopyResult {
            id: CopyId(9),
            status,
            segments: 3,
            bytes: 5 << 10,
        });
        assert_eq!(fixture.data(&short)[..], [0, 0, 0, 8, code, 0, 3, 1, 0, 0, 0, 5]);
        let data = fixture.data(&long);
        assert_eq!((data.len(), data[3], data[5]), (32, 28, code));
        assert_eq!((data[23], data[25]), (5, 3));
    }
}

#[test]
fn the_page_is_made_of_padded_descriptors() {
    let page = done(Fixture::new().start(&[0x12, 1, 0x8f, 2, 0, 0])).data;
    let mut at = 4;
    let mut kinds = Vec::new();
    while at < page.len() {
        let length = usize::from(u16::from_be_bytes([page[at + 2], page[at + 3]]));
        assert_eq!(length % 4, 0);
        kinds.push(u16::from_be_bytes([page[at], page[at + 1]]));
        at += 4 + length;
    }
    assert_eq!((at, kinds), (page.len(), vec![1, 4, 8, 0xc, 0x8001]));
}
