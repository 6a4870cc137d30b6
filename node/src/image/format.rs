//! Formats of images that are not raw, by what their first bytes say.

/// So many bytes of an image tell, or all of a shorter one.
pub(super) const HEAD_BYTES: usize = 4096;

/// Offset, bytes there, and the name that qemu-img has for the format.
const MAGICS: [(usize, &[u8], &str); 10] = [
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
];

/// The format that an image is in, by its first bytes; `None` for a raw one.
pub(super) fn other_format(head: &[u8]) -> Option<&'static str> {
    let is =
        |(at, magic, _): &&(usize, &[u8], &str)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic));
    MAGICS.iter().find(is).map(|(.., name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes_and_all_else_is_raw() {
        for (at, magic, name) in MAGICS {
            let mut head = vec![0; HEAD_BYTES];
            head[at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(other_format(&head), Some(name));
            assert_eq!(other_format(&head[..at + magic.len() - 1]), None, "{name}, cut");
        }
        // A boot sector, nothing, and zeros.
        for raw in [&b"\xeb\x63\x90"[..], b"", &[0; HEAD_BYTES]] {
            assert_eq!(other_format(raw), None);
        }
    }
}
