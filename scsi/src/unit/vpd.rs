//! Vital product data (SPC-4, 7.8; the pages from B0h on: SBC-3).

use holdfast_types::{
    ATOMIC_BYTES_MAX, BlockSize, COMPARE_AND_WRITE_BLOCKS_MAX, IscsiName, Naa, PHYSICAL_BYTES, TpgId,
};
use holdfast_types::{TRANSFER_BYTES_MAX, UNMAP_BLOCKS_MAX, UNMAP_DESCRIPTORS_MAX, WRITE_SAME_BYTES_MAX};

use super::copy;
use super::inquiry::VENDOR;
use crate::{LuView, WellKnown};

/// The pages there are, in ascending order as page 00h lists them.
const PAGES: [u8; 10] = [0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8f, 0xb0, 0xb1, 0xb2];

/// The codes of the VPD pages that there are, in ascending order.
pub fn vpd_pages() -> impl Iterator<Item = u8> {
    PAGES.into_iter()
}

/// Longer transfers gain nothing.
const OPTIMAL_TRANSFER_BYTES: u32 = 1 << 20;

/// A page with its header; `None` where there is no such page.
pub(crate) fn page(code: u8, view: &LuView<'_>) -> Option<Vec<u8>> {
    let body = match code {
        0x00 => PAGES.to_vec(),
        0x80 => view.serial().into_bytes(),
        0x83 => identification(view),
        0x86 => extended_inquiry(view),
        0x87 => MODE_PAGE_POLICY.to_vec(),
        0x88 => ports(view),
        0x8f => copy::third_party_page(),
        0xb0 => block_limits(view.block_size),
        0xb1 => characteristics(),
        0xb2 => provisioning(view),
        _ => return None,
    };
    Some(with_header([0x00, code], &body))
}

fn with_header([peripheral, code]: [u8; 2], body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[peripheral, code, high, low], body].concat()
}

/// A page of the REPORT LUNS well-known unit: the list, and of port and target who they are. It has no name of its own.
pub(crate) fn well_known_page(code: u8, peripheral: u8, unit: &WellKnown<'_>) -> Option<Vec<u8>> {
    let body = match code {
        0x00 => vec![0x00, 0x83],
        0x83 => {
            let mut data = Vec::with_capacity(120);
            relative_port(&mut data, unit.port);
            port_and_target(&mut data, unit.target, unit.port);
            data
        }
        _ => return None,
    };
    Some(with_header([peripheral, code], &body))
}

const BINARY: u8 = 1;
const ASCII: u8 = 2;
const UTF8: u8 = 3;
/// The protocol identifier of iSCSI, in the high half of a designator's first byte.
const ISCSI: u8 = 0x50;

/// A designator of the logical unit.
fn of_unit(data: &mut Vec<u8>, code_set: u8, kind: u8, value: &[u8]) {
    designator(data, [code_set, kind], value);
}

/// A designator of the target port through which the command came: PIV=1, association 01b.
fn of_port(data: &mut Vec<u8>, code_set: u8, kind: u8, value: &[u8]) {
    designator(data, [ISCSI | code_set, 0x90 | kind], value);
}

fn designator(data: &mut Vec<u8>, head: [u8; 2], value: &[u8]) {
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    data.extend_from_slice(&[head[0], head[1], 0, length]);
    data.extend_from_slice(&value[..usize::from(length)]);
}

/// Device identification, 83h (SPC-4, 7.8). The unit's designators are the same through every port of every node; Linux attaches its
/// ALUA handler only where a unit's name, a target port group and a relative target port are all there.
fn identification(view: &LuView<'_>) -> Vec<u8> {
    let mut data = Vec::with_capacity(160);
    of_unit(&mut data, BINARY, 3, &Naa::of(view.extent).bytes());
    let vendor_id = [VENDOR.as_slice(), view.serial().as_bytes()].concat();
    of_unit(&mut data, ASCII, 1, &vendor_id);
    relative_port(&mut data, view.port);
    if let Some(group) = view.group() {
        let [high, low] = group.id.value().to_be_bytes();
        of_port(&mut data, BINARY, 5, &[0, 0, high, low]);
    }
    port_and_target(&mut data, view.target, view.port);
    data
}

/// The relative target port identifier of the port through which the command came, which is its portal group's tag.
fn relative_port(data: &mut Vec<u8>, port: TpgId) {
    let [high, low] = port.value().to_be_bytes();
    of_port(data, BINARY, 4, &[0, 0, high, low]);
}

/// The names of that port and of the target.
fn port_and_target(data: &mut Vec<u8>, target: &IscsiName, port: TpgId) {
    let port_name = format!("{},t,0x{:04x}", target.as_str(), port.value());
    of_port(data, UTF8, 8, &name_string(&port_name));
    // The target device: PIV=1, association 10b.
    designator(data, [ISCSI | UTF8, 0xa8], &name_string(target.as_str()));
}

/// Mode page policy, 87h (SPC-4, 7.8.10): every page and subpage is shared by all nexuses of the unit (I13); MLUS=0, of this unit alone.
const MODE_PAGE_POLICY: [u8; 4] = [0x3f, 0xff, 0x00, 0x00];

/// SCSI ports, 88h (SPC-4, 7.8.15): every target port of every node, with its name. No initiator port has one.
fn ports(view: &LuView<'_>) -> Vec<u8> {
    let mut data = Vec::with_capacity(64);
    for port in view.groups.iter().flat_map(|group| &group.ports) {
        let name = format!("{},t,0x{:04x}", view.target.as_str(), port.value());
        let mut designators = Vec::with_capacity(64);
        of_port(&mut designators, UTF8, 8, &name_string(&name));
        let [high, low] = port.value().to_be_bytes();
        data.extend_from_slice(&[0, 0, high, low, 0, 0, 0, 0, 0, 0]);
        data.extend_from_slice(&u16::try_from(designators.len()).unwrap_or(u16::MAX).to_be_bytes());
        data.extend_from_slice(&designators);
    }
    data
}

/// A SCSI name string: null-terminated and null-padded to a multiple of four bytes (SPC-4, 7.8). A name of 223 bytes and its
/// suffix fit into the 255 that a designator holds, of which 252 are a multiple of four.
fn name_string(name: &str) -> Vec<u8> {
    let mut value = name.as_bytes().to_vec();
    value.resize((name.len() / 4 + 1) * 4, 0);
    value
}

/// Extended INQUIRY data, 86h (SPC-4, 7.8).
fn extended_inquiry(view: &LuView<'_>) -> Vec<u8> {
    let mut body = vec![0; 60];
    // SIMPSUP=1: only SIMPLE tasks keep their promise; no ORDERED or HEAD OF QUEUE is claimed.
    body[5 - 4] = 0x01;
    // V_SUP: a volatile cache only under write-back.
    body[6 - 4] = u8::from(view.write_back);
    // LUICLR=1: a unit attention is cleared for the nexus that heard it.
    body[7 - 4] = 0x01;
    body
}

/// Block limits, B0h (SBC-3).
fn block_limits(size: BlockSize) -> Vec<u8> {
    let blocks = |bytes: u32| bytes >> size.shift();
    let granule = blocks(PHYSICAL_BYTES);
    let mut body = vec![0; 60];
    // Offsets are those of the page, which has four bytes of header.
    let mut put = |at: usize, value: u32| body[at - 4..at].copy_from_slice(&value.to_be_bytes());
    // Bytes 4 to 7: WSNZ=0, the length of a COMPARE AND WRITE, OPTIMAL TRANSFER LENGTH GRANULARITY.
    put(4, u32::from(COMPARE_AND_WRITE_BLOCKS_MAX) << 16 | granule);
    put(8, blocks(TRANSFER_BYTES_MAX));
    put(12, blocks(OPTIMAL_TRANSFER_BYTES));
    // Bytes 16 to 19: no limit of PRE-FETCH is reported.
    put(20, UNMAP_BLOCKS_MAX);
    put(24, UNMAP_DESCRIPTORS_MAX);
    put(28, granule);
    // UGAVALID=1, alignment 0.
    put(32, 1 << 31);
    // MAXIMUM WRITE SAME LENGTH has eight bytes, 36 to 43.
    put(40, blocks(WRITE_SAME_BYTES_MAX));
    // MAXIMUM ATOMIC TRANSFER LENGTH; ATOMIC ALIGNMENT and GRANULARITY 0 (bytes 48 to 55): any block. No atomic boundaries.
    put(44, blocks(ATOMIC_BYTES_MAX));
    body
}

/// Block device characteristics, B1h (SBC-3): not a rotating medium. WABEREQ=01b: after a BLOCK ERASE blocks are read without being
/// written first.
fn characteristics() -> Vec<u8> {
    let mut body = vec![0; 60];
    body[1] = 0x01;
    body[7 - 4] = 0x40;
    body
}

/// Logical block provisioning, B2h (SBC-3): no threshold sets, LBPU, LBPWS, LBPWS10, LBPRZ; no anchors, no provisioning group.
fn provisioning(view: &LuView<'_>) -> Vec<u8> {
    // PROVISIONING TYPE: 1 resource provisioned, 2 thin.
    let kind = if view.thin { 2 } else { 1 };
    vec![0, 0xe4, kind, 0]
}
