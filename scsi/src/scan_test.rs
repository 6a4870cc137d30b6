//! What initiators in use send when they find a disk, and what they conclude from: one session each, from its first unit attention on.
//! The bytes themselves are in the golden tests of each command; here it is that nothing is missing and each refusal is the right one.

use crate::fixture::{Fixture, sense};
use crate::{Step, UnitAttention};

/// What a command is to end in.
enum Wanted {
    /// GOOD with this many bytes, these among them.
    Data(usize, &'static [(usize, u8)]),
    /// GOOD without data.
    Good,
    /// An operation of storage.
    Storage,
    /// CHECK CONDITION.
    Sense(&'static str),
}

use Wanted::{Data, Good, Sense, Storage};

const NO_SUCH_COMMAND: Wanted = Sense("05/20/00");
const NO_SUCH_FIELD: Wanted = Sense("05/24/00");
const POWER_ON: Wanted = Sense("06/29/00");
const NOT_SUPPORTED: Wanted = Data(4, &[(1, 1)]);

/// Sends the commands in one new session.
fn session(commands: &[(&str, &[u8], Wanted)]) {
    let mut fixture = Fixture::new();
    fixture.nexus.raise(UnitAttention::PowerOn);
    for (name, cdb, wanted) in commands {
        match (fixture.start(cdb), wanted) {
            (Step::Storage(_), Storage) => {}
            (step, Sense(code)) => assert_eq!(sense(step), *code, "{name}"),
            (Step::Done(response), Data(..) | Good) => {
                assert_eq!(response.sense, None, "{name}");
                let (length, bytes) = match wanted {
                    Data(length, bytes) => (*length, *bytes),
                    _ => (0, &[][..]),
                };
                assert_eq!(response.data.len(), length, "{name}");
                for (at, value) in bytes {
                    assert_eq!(response.data[*at], *value, "{name}, byte {at}");
                }
            }
            (step, _) => panic!("{name}: {step:?}"),
        }
    }
}

const TEST_UNIT_READY: [u8; 6] = [0; 6];
const READ_CAPACITY_10: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const READ_CAPACITY_16: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
const SYNCHRONIZE_CACHE: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Standard data or, with a page, vital product data.
const fn inquiry(page: Option<u8>, allocation: u8) -> [u8; 6] {
    match page {
        Some(page) => [0x12, 1, page, 0, allocation, 0],
        None => [0x12, 0, 0, 0, allocation, 0],
    }
}

const fn mode_sense(flags: u8, page: u8, subpage: u8, allocation: u8) -> [u8; 6] {
    [0x1a, flags, page, subpage, allocation, 0]
}

/// REPORT SUPPORTED OPERATION CODES about one command.
const fn supported(options: u8, opcode: u8, action: u8) -> [u8; 12] {
    [0xa3, 0x0c, options, opcode, 0, action, 0, 0, 2, 0, 0, 0]
}

const fn report_luns(high: u8, low: u8) -> [u8; 12] {
    [0xa0, 0, 0, 0, 0, 0, 0, 0, high, low, 0, 0]
}

const fn port_groups(format: u8, allocation: u8) -> [u8; 12] {
    [0xa3, 0x0a | format << 5, 0, 0, 0, 0, 0, 0, 0, allocation, 0, 0]
}

/// The SCSI layer's scan and its ALUA handler: who it is, which pages there are, which group.
#[test]
#[rustfmt::skip]
fn linux_scans_a_unit() {
    session(&[
        // VERSION SPC-4, TPGS implicit, MULTIP, CMDQUE.
        ("short inquiry", &inquiry(None, 36), Data(36, &[(0, 0), (2, 6), (4, 69), (5, 0x18)])),
        ("full inquiry", &inquiry(None, 74), Data(74, &[(6, 0x10), (7, 2)])),
        ("REPORT LUNS", &report_luns(0x10, 0), Data(32, &[(3, 24)])),
        ("length of the list of pages", &inquiry(Some(0), 4), Data(4, &[(3, 10)])),
        ("pages", &inquiry(Some(0), 255), Data(14, &[])),
        ("serial number", &inquiry(Some(0x80), 255), Data(36, &[(1, 0x80)])),
        ("identification", &inquiry(Some(0x83), 255), Data(156, &[(1, 0x83)])),
        ("ATA information", &inquiry(Some(0x89), 255), NO_SUCH_FIELD),
        ("power on is told", &port_groups(1, 128), POWER_ON),
        // Format type 001b, then both groups: optimized and preferred, not optimized.
        ("port groups", &port_groups(1, 128), Data(32, &[(3, 28), (4, 0x10), (8, 0x80), (20, 0x01)])),
        ("port groups, short header", &port_groups(0, 128), Data(28, &[(3, 24)])),
        ("well-known unit for REPORT LUNS", &[0xa0, 0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0], Data(16, &[(3, 8), (8, 0xc1), (9, 1)])),
    ]);
}

/// The disk driver of older and newer kernels, up to the first read.
#[test]
#[rustfmt::skip]
fn linux_attaches_a_disk() {
    session(&[
        ("power on is told", &TEST_UNIT_READY, POWER_ON),
        ("ready", &TEST_UNIT_READY, Good),
        // Eight blocks in a physical one; LBPME, LBPRZ.
        ("capacity, 16", &READ_CAPACITY_16, Data(32, &[(13, 3), (14, 0xc0)])),
        ("capacity, 10", &READ_CAPACITY_10, Data(8, &[])),
        // WSNZ=0, COMPARE AND WRITE; UGAVALID.
        ("limits", &inquiry(Some(0xb0), 255), Data(64, &[(4, 0), (5, 255), (32, 0x80)])),
        ("characteristics: not rotating, not zoned", &inquiry(Some(0xb1), 255), Data(64, &[(5, 1), (8, 0)])),
        // LBPU, LBPWS, LBPWS10, LBPRZ; thin.
        ("provisioning", &inquiry(Some(0xb2), 255), Data(8, &[(5, 0xe4), (6, 2)])),
        ("zoned characteristics", &inquiry(Some(0xb6), 255), NO_SUCH_FIELD),
        ("limits extension", &inquiry(Some(0xb7), 255), NO_SUCH_FIELD),
        ("positioning ranges", &inquiry(Some(0xb9), 255), NO_SUCH_FIELD),
        // WP=0, DPOFUA=1.
        ("mode header", &mode_sense(0, 0x3f, 0, 4), Data(4, &[(2, 0x10)])),
        ("all pages", &mode_sense(0, 0x3f, 0, 255), Data(56, &[(0, 55), (3, 8)])),
        ("header of the caching page", &mode_sense(0, 0x08, 0, 4), Data(4, &[(0, 31)])),
        // WCE=0, RCD=0.
        ("caching page", &mode_sense(0, 0x08, 0, 32), Data(32, &[(12, 0x88), (14, 0)])),
        ("no application tag is owned", &mode_sense(8, 0x0a, 0, 255), Data(16, &[(4, 0x8a), (9, 0)])),
        ("hints of I/O groups", &mode_sense(8, 0x0a, 0x05, 255), NO_SUCH_FIELD),
        ("command duration limits", &mode_sense(8, 0x0a, 0x07, 255), NO_SUCH_FIELD),
        ("is INQUIRY supported", &supported(1, 0x12, 0), Data(10, &[(1, 3), (3, 6)])),
        ("WRITE SAME(16)", &supported(1, 0x93, 0), Data(20, &[(1, 3), (3, 16), (4, 0x93)])),
        ("WRITE SAME(10)", &supported(1, 0x41, 0), Data(14, &[(1, 3), (3, 10)])),
        ("SYNCHRONIZE CACHE(16)", &supported(3, 0x91, 0), Data(20, &[(1, 3)])),
        ("SECURITY PROTOCOL IN", &supported(1, 0xa2, 0), NOT_SUPPORTED),
        ("REPORT ZONES", &supported(3, 0x95, 0), NOT_SUPPORTED),
        ("READ(32)", &supported(3, 0x7f, 9), NOT_SUPPORTED),
        ("first blocks", &[0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], Storage),
        ("flush", &SYNCHRONIZE_CACHE, Storage),
        ("flush, 16", &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Storage),
    ]);
}

/// udev's helpers, multipath-tools, sg3-utils and smartctl: what is not there is refused as such, so that they go another way.
#[test]
#[rustfmt::skip]
fn linux_user_space_asks_on() {
    let log_sense = |page: u8| [0x4d, 0, 0x40 | page, 0, 0, 0, 0, 0, 252, 0];
    let ata_12 = [0xa1, 0x08, 0x0e, 0, 1, 0, 0, 0, 0, 0xec, 0, 0];
    let ata_16 = [0x85, 0x08, 0x0e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xec, 0];
    session(&[
        ("power on is told", &TEST_UNIT_READY, POWER_ON),
        ("path checker", &TEST_UNIT_READY, Good),
        ("path priority", &port_groups(1, 128), Data(32, &[(4, 0x10)])),
        ("vendor's pages", &inquiry(Some(0xc0), 255), NO_SUCH_FIELD),
        ("vendor's pages", &inquiry(Some(0xc9), 128), NO_SUCH_FIELD),
        ("extended inquiry", &inquiry(Some(0x86), 255), Data(64, &[(7, 1)])),
        ("explicit change of groups", &[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], NO_SUCH_COMMAND),
        ("ATA IDENTIFY, 12", &ata_12, NO_SUCH_COMMAND),
        ("ATA IDENTIFY, 16", &ata_16, NO_SUCH_COMMAND),
        ("log pages", &log_sense(0), Data(6, &[(3, 2), (5, 0x2f)])),
        ("informational exceptions now", &log_sense(0x2f), Data(12, &[(0, 0x2f), (8, 0)])),
        ("defects", &[0x37, 0, 0x0d, 0, 0, 0, 0, 0, 8, 0], Data(4, &[(1, 0x0d), (3, 0)])),
        ("defects, 12", &[0xb7, 0x1d, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], Data(8, &[(1, 0x1d), (7, 0)])),
        ("informational exceptions", &mode_sense(0, 0x1c, 0, 255), Data(24, &[(12, 0x9c)])),
        ("rigid geometry", &mode_sense(0, 0x04, 0, 252), NO_SUCH_FIELD),
        ("all commands", &supported(0, 0, 0), Data(512, &[(2, 2), (3, 0x38)])),
        ("task management", &[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0], Data(4, &[(0, 0x88)])),
        ("sense", &[0x03, 0, 0, 0, 252, 0], Data(18, &[(0, 0x70), (2, 0)])),
    ]);
}

/// The block driver of QEMU, from the first TEST UNIT READY of its library to a guest's commands.
#[test]
#[rustfmt::skip]
fn qemu_opens_and_uses_a_disk() {
    session(&[
        ("power on is told", &TEST_UNIT_READY, POWER_ON),
        ("ready", &TEST_UNIT_READY, Good),
        ("inquiry", &inquiry(None, 64), Data(64, &[(0, 0), (4, 69)])),
        ("full inquiry", &inquiry(None, 74), Data(74, &[])),
        ("mode", &mode_sense(8, 0x3f, 0, 255), Data(48, &[(2, 0x10), (3, 0)])),
        ("capacity", &READ_CAPACITY_16, Data(32, &[(14, 0xc0)])),
        ("pages", &inquiry(Some(0), 64), Data(14, &[])),
        ("provisioning", &inquiry(Some(0xb2), 64), Data(8, &[(5, 0xe4)])),
        ("limits", &inquiry(Some(0xb0), 64), Data(64, &[])),
        ("identification", &inquiry(Some(0x83), 64), Data(64, &[(3, 152)])),
        ("full identification", &inquiry(Some(0x83), 156), Data(156, &[])),
        ("block status", &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 24, 0, 0], Storage),
        ("read", &[0x28, 0, 0, 0, 0, 8, 0, 0, 8, 0], Storage),
        ("zeros without data", &[0x93, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], Storage),
        ("flush", &SYNCHRONIZE_CACHE, Storage),
        // It is there and wants its parameter list.
        ("EXTENDED COPY", &[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 92, 0, 0], Sense("05/0E/03")),
    ]);
}

/// libiscsi's tools: iscsi-ls, iscsi-inq, iscsi-readcapacity16, iscsi-rtpg, iscsi-swp, iscsi-pr, iscsi-discard.
#[test]
#[rustfmt::skip]
fn the_tools_of_libiscsi_look_at_a_disk() {
    session(&[
        ("a first look that is too short", &report_luns(0, 16), Data(16, &[(3, 24)])),
        ("REPORT LUNS", &report_luns(0, 32), Data(32, &[(3, 24)])),
        ("power on is told", &TEST_UNIT_READY, POWER_ON),
        ("ready", &TEST_UNIT_READY, Good),
        ("inquiry", &inquiry(None, 64), Data(64, &[])),
        ("capacity", &READ_CAPACITY_10, Data(8, &[(2, 3), (3, 0xe7)])),
        ("capacity, 16", &READ_CAPACITY_16, Data(32, &[])),
        ("port groups", &[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0], Data(28, &[])),
        ("control page", &[0x5a, 0x08, 0x0a, 0, 0, 0, 0, 0, 255, 0], Data(20, &[(8, 0x8a), (12, 0)])),
        ("copy results", &[0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0], Data(46, &[(3, 42)])),
    ]);
}
