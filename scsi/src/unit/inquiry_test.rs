use crate::fixture::{Fixture, sense};
use crate::start_absent;

fn inquiry(page: Option<u8>) -> Vec<u8> {
    let cdb = [0x12, u8::from(page.is_some()), page.unwrap_or(0), 0x04, 0, 0];
    Fixture::new().data(&cdb).to_vec()
}

#[test]
fn golden_standard_data() {
    let data = inquiry(None);
    assert_eq!(data.len(), 74);
    assert_eq!(data[..8], [0x00, 0x00, 0x06, 0x12, 69, 0x18, 0x10, 0x02]);
    assert_eq!(&data[8..32], b"HOLDFASTVDISK           ");
    assert_eq!(data[36..58], [0; 22]);
    assert_eq!(
        data[58..],
        [
            0x00, 0xa0, 0x09, 0x60, 0x04, 0x60, 0x04, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0
        ]
    );
}

#[test]
fn revision_is_that_of_the_release() {
    let version = env!("CARGO_PKG_VERSION");
    let revision = String::from_utf8(inquiry(None)[32..36].to_vec()).unwrap();
    assert_eq!(revision.len(), 4);
    assert!(
        version.starts_with(revision.trim_end()),
        "{revision} of {version}"
    );
    assert!(revision.trim_end().contains('.'));
}

#[test]
fn golden_list_of_pages_and_each_can_be_read() {
    let pages = inquiry(Some(0));
    let listed = [0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8f, 0xb0, 0xb1, 0xb2];
    assert_eq!(pages[..4], [0, 0x00, 0, 10]);
    assert_eq!(pages[4..], listed);
    for page in &pages[4..] {
        let data = inquiry(Some(*page));
        assert_eq!(data[1], *page);
        assert_eq!(
            usize::from(u16::from_be_bytes([data[2], data[3]])) + 4,
            data.len()
        );
    }
    let mut fixture = Fixture::new();
    for page in (0..=255).filter(|page| !pages[4..].contains(page)) {
        assert_eq!(
            fixture.sense(&[0x12, 1, page, 0, 255, 0]),
            "05/24/00",
            "page {page:02x}"
        );
    }
}

#[test]
fn golden_ports() {
    let name = b"iqn.2026-11.example:disk,t,0x0001\0\0\0";
    let data = inquiry(Some(0x88));
    assert_eq!(data[..4], [0, 0x88, 0, 104]);
    assert_eq!(data[4..16], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 40]);
    assert_eq!(data[16..20], [0x53, 0x98, 0, 36]);
    assert_eq!(data[20..56], name[..]);
    // The other node's port.
    assert_eq!(data[58..60], [0, 2]);
    assert_eq!(inquiry(Some(0x87)), [0, 0x87, 0, 4, 0x3f, 0xff, 0, 0]);
}

#[test]
fn golden_serial_number() {
    let data = inquiry(Some(0x80));
    assert_eq!(data[..4], [0, 0x80, 0, 32]);
    assert_eq!(&data[4..], b"0123456789abcdef0011223344556677");
}

#[test]
fn golden_device_identification() {
    let data = inquiry(Some(0x83));
    let mut wanted = vec![0, 0x83, 0, 0];
    // NAA-6 of the unit.
    wanted.extend_from_slice(&[0x01, 0x03, 0, 16]);
    wanted.extend_from_slice(&[
        0x64, 0x84, 0xf4, 0xc7, 0x89, 0xab, 0xcd, 0xef, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
    ]);
    // T10 vendor id and serial number.
    wanted.extend_from_slice(&[0x02, 0x01, 0, 40]);
    wanted.extend_from_slice(b"HOLDFAST0123456789abcdef0011223344556677");
    // Relative target port, target port group.
    wanted.extend_from_slice(&[0x51, 0x94, 0, 4, 0, 0, 0, 2]);
    wanted.extend_from_slice(&[0x51, 0x95, 0, 4, 0, 0, 0, 2]);
    // SCSI names of the port and of the target.
    wanted.extend_from_slice(&[0x53, 0x98, 0, 36]);
    wanted.extend_from_slice(b"iqn.2026-11.example:disk,t,0x0002\0\0\0");
    wanted.extend_from_slice(&[0x53, 0xa8, 0, 28]);
    wanted.extend_from_slice(b"iqn.2026-11.example:disk\0\0\0\0");
    wanted[3] = u8::try_from(wanted.len() - 4).unwrap();
    assert_eq!(data, wanted);
}

#[test]
fn i13_the_unit_has_one_name_through_every_port() {
    let page = |port| {
        let mut fixture = Fixture::new();
        let mut nexus = fixture.nexus;
        let mut view = fixture.view();
        view.port = holdfast_types::TpgId(port);
        let step = crate::start(&[0x12, 1, 0x83, 0, 255, 0], &view, &mut nexus, 0);
        fixture.nexus = nexus;
        crate::fixture::done(step).data
    };
    let (first, second) = (page(1), page(2));
    // NAA and vendor id take the first 64 bytes behind the header.
    assert_eq!(first[4..68], second[4..68]);
    assert_ne!(first[68..], second[68..]);
}

#[test]
fn the_longest_target_name_fits_into_its_designators() {
    let mut fixture = Fixture::new();
    fixture.target = format!("iqn.2026-11.example:{}", "x".repeat(203))
        .parse()
        .unwrap();
    assert_eq!(fixture.target.as_str().len(), 223);
    let data = fixture.data(&[0x12, 1, 0x83, 4, 0, 0]);
    let mut rest = &data[4..];
    let mut kinds = vec![];
    while !rest.is_empty() {
        let length = usize::from(rest[3]);
        assert_eq!(length % 4, 0);
        kinds.push(rest[1]);
        rest = &rest[4 + length..];
    }
    assert_eq!(kinds, [0x03, 0x01, 0x94, 0x95, 0x98, 0xa8]);
}

#[test]
fn golden_extended_inquiry() {
    let mut wanted = vec![0; 64];
    wanted[1] = 0x86;
    wanted[3] = 60;
    wanted[5] = 0x01;
    wanted[7] = 0x01;
    assert_eq!(inquiry(Some(0x86)), wanted);
}

#[test]
fn golden_block_limits() {
    let mut wanted = vec![0, 0xb0, 0, 60];
    wanted.extend_from_slice(&[0, 255, 0, 8]);
    for value in [16_384_u32, 2048, 0, 1 << 20, 256, 8, 1 << 31, 0, 32768, 2048] {
        wanted.extend_from_slice(&value.to_be_bytes());
    }
    wanted.resize(64, 0);
    assert_eq!(inquiry(Some(0xb0)), wanted);
}

#[test]
fn block_limits_of_large_blocks_count_in_them() {
    let mut fixture = Fixture::new();
    let step = fixture.start_on(&[0x12, 1, 0xb0, 0, 255, 0], 0, |view| {
        view.block_size = holdfast_types::BlockSize::B4096;
    });
    let data = crate::fixture::done(step).data;
    assert_eq!(data[6..12], [0, 1, 0, 0, 8, 0]);
    assert_eq!(data[36..44], [0, 0, 0, 0, 0, 0, 0x10, 0]);
}

#[test]
fn golden_characteristics_and_provisioning() {
    let characteristics = inquiry(Some(0xb1));
    assert_eq!(characteristics[..6], [0, 0xb1, 0, 60, 0, 1]);
    assert_eq!(characteristics[6..8], [0, 0x40], "WABEREQ=01b");
    assert_eq!(characteristics[8..], [0; 56]);
    assert_eq!(inquiry(Some(0xb2)), [0, 0xb2, 0, 4, 0, 0xe4, 2, 0]);
    let full = Fixture::new().start_on(&[0x12, 1, 0xb2, 0, 255, 0], 0, |view| view.thin = false);
    assert_eq!(
        crate::fixture::done(full).data[..],
        [0, 0xb2, 0, 4, 0, 0xe4, 1, 0]
    );
}

#[test]
fn data_is_cut_to_the_allocation_length() {
    let mut fixture = Fixture::new();
    for allocation in [0, 1, 5, 36, 73, 74, 75, 255] {
        let data = fixture.data(&[0x12, 0, 0, 0, allocation, 0]);
        assert_eq!(data.len(), usize::from(allocation).min(74));
    }
}

#[test]
fn wrong_fields_are_refused() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.sense(&[0x12, 0, 1, 0, 255, 0]), "05/24/00");
    assert_eq!(fixture.sense(&[0x12, 2, 0, 0, 255, 0]), "05/24/00");
}

#[test]
fn a_lun_that_is_not_mapped() {
    let fixture = Fixture::new();
    let answer = |cdb: &[u8]| start_absent(cdb, &fixture.luns);
    let standard = answer(&[0x12, 0, 0, 0, 255, 0]).data;
    assert_eq!(standard[0], 0x7f);
    assert_eq!(standard[1..], inquiry(None)[1..]);
    assert_eq!(answer(&[0x12, 1, 0, 0, 255, 0]).data[..], [0x7f, 0, 0, 1, 0]);
    assert_eq!(
        sense(crate::Step::Done(answer(&[0x12, 1, 0x83, 0, 255, 0]))),
        "05/24/00"
    );
    let luns = answer(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]).data;
    assert_eq!(luns.len(), 8 + 3 * 8);
    assert_eq!(
        answer(&[0x03, 0, 0, 0, 252, 0]).data[..14],
        [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x25, 0]
    );
    for opcode in (0..=255).filter(|opcode| ![0x03, 0x12, 0xa0].contains(opcode)) {
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        assert_eq!(sense(crate::Step::Done(answer(&cdb))), "05/25/00");
    }
    assert_eq!(sense(crate::Step::Done(answer(&[]))), "05/25/00");
    assert_eq!(sense(crate::Step::Done(answer(&[0x12]))), "05/25/00");
}
