//! A raw image, read from its first byte to its last; where it has holes, nothing is read.

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use rustix::fs::SeekFrom;

use super::format::{HEAD_BYTES, other_format};

/// Bytes of a piece, but for those at the ends of data.
const PIECE_BYTES: u64 = 1 << 20;

/// A part of an image that is not all zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it is.
    pub(crate) offset: u64,
    /// What is there; at most 1 MiB.
    pub(crate) data: Vec<u8>,
}

/// An image that is open.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    bytes: u64,
    /// Read up to here.
    at: u64,
    /// Whether it can say where its holes are.
    has_holes: bool,
}

impl Source {
    /// Opens a file or a block device.
    ///
    /// # Errors
    /// One line: it cannot be read, it is neither, it is empty, or it is not raw.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let place = path.display();
        let file = File::open(path).with_context(|| format!("--from {place}: cannot read it"))?;
        let kind = file
            .metadata()
            .with_context(|| format!("--from {place}"))?
            .file_type();
        ensure!(
            kind.is_file() || kind.is_block_device(),
            "--from {place}: an image is a file or a block device"
        );
        // Of a device, too, where its description says 0.
        let bytes = rustix::fs::seek(&file, SeekFrom::End(0)).with_context(|| format!("--from {place}"))?;
        ensure!(bytes > 0, "--from {place}: it is empty");
        let mut head = vec![0; HEAD_BYTES.min(usize::try_from(bytes).unwrap_or(HEAD_BYTES))];
        file.read_exact_at(&mut head, 0)
            .with_context(|| format!("--from {place}: cannot read it"))?;
        if let Some(format) = other_format(&head) {
            bail!(
                "--from {place}: it is a {format} image, and only raw ones are taken: 'qemu-img convert -O raw {place} {place}.raw' \
                 makes one"
            );
        }
        Ok(Self {
            file,
            bytes,
            at: 0,
            has_holes: kind.is_file(),
        })
    }

    /// How large it is.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next part that is not all zeros; `None` behind the last one.
    ///
    /// # Errors
    /// It cannot be read, or it ends before the size that it had when it was opened.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Piece>> {
        while let Some(from) = self.next_data()? {
            // Up to a border, so that the same image is always cut in the same way.
            let border = (from / PIECE_BYTES + 1) * PIECE_BYTES;
            let end = border.min(self.bytes);
            let mut data = vec![0; usize::try_from(end - from).context("a piece has 1 MiB at most")?];
            self.file.read_exact_at(&mut data, from).map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => anyhow::anyhow!(
                    "the image ends before byte {end}, though it had {} bytes when it was opened: it was cut meanwhile",
                    self.bytes
                ),
                _ => anyhow::Error::new(error).context(format!("the image cannot be read at byte {from}")),
            })?;
            self.at = end;
            if data.iter().any(|byte| *byte != 0) {
                return Ok(Some(Piece { offset: from, data }));
            }
        }
        Ok(None)
    }

    /// Where data begins that was not read yet.
    fn next_data(&mut self) -> anyhow::Result<Option<u64>> {
        if self.at >= self.bytes {
            return Ok(None);
        }
        if !self.has_holes {
            return Ok(Some(self.at));
        }
        match rustix::fs::seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(data) => {
                // Parts begin where pieces do.
                let begin = (data / PIECE_BYTES * PIECE_BYTES).max(self.at);
                Ok((begin < self.bytes).then_some(begin))
            }
            // A hole up to the end, or the file was cut: its size tells.
            Err(rustix::io::Errno::NXIO) => {
                let now = rustix::fs::seek(&self.file, SeekFrom::End(0))?;
                ensure!(
                    now >= self.bytes,
                    "the image has {now} bytes now, and had {} when it was opened: it was cut meanwhile",
                    self.bytes
                );
                Ok(None)
            }
            // A file system that knows no holes.
            Err(_) => {
                self.has_holes = false;
                Ok(Some(self.at))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn all(source: &mut Source) -> Vec<(u64, usize)> {
        let mut all = Vec::new();
        while let Some(piece) = source.next().unwrap() {
            all.push((piece.offset, piece.data.len()));
        }
        all
    }

    #[test]
    fn an_image_is_read_in_pieces_and_its_holes_and_zeros_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let file = File::create(&path).unwrap();
        file.set_len(64 * MIB + 100).unwrap();
        file.write_all_at(&[1; 10], 3 * MIB + 5).unwrap();
        file.write_all_at(&vec![0; 2 << 20], 8 * MIB).unwrap();
        file.write_all_at(&vec![2; 1 << 20], 20 * MIB - 1).unwrap();
        file.write_all_at(&[3], 64 * MIB + 99).unwrap();
        for has_holes in [true, false] {
            let mut source = Source::open(&path).unwrap();
            assert_eq!(source.bytes(), 64 * MIB + 100);
            source.has_holes = has_holes;
            let whole = 1 << 20;
            assert_eq!(
                all(&mut source),
                [
                    (3 * MIB, whole),
                    (19 * MIB, whole),
                    (20 * MIB, whole),
                    (64 * MIB, 100)
                ],
                "{has_holes}"
            );
        }
    }

    #[test]
    fn a_file_that_is_cut_meanwhile_is_no_whole_image() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, vec![1; 3 << 20]).unwrap();
        for left in [MIB, 2 * MIB + 5] {
            std::fs::write(&path, vec![1; 3 << 20]).unwrap();
            let mut source = Source::open(&path).unwrap();
            source.next().unwrap().unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(left)
                .unwrap();
            let error = loop {
                match source.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it is taken for whole"),
                    Err(error) => break error.to_string(),
                }
            };
            assert!(error.contains("it was cut meanwhile"), "{error}");
        }
    }

    #[test]
    fn what_is_no_raw_image_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, b"QFI\xfb and more").unwrap();
        let refused = Source::open(&path).unwrap_err().to_string();
        assert!(
            refused.contains("qcow2") && refused.contains("qemu-img convert -O raw"),
            "{refused}"
        );
        std::fs::write(&path, b"").unwrap();
        assert!(
            Source::open(&path)
                .unwrap_err()
                .to_string()
                .contains("it is empty")
        );
        assert!(
            Source::open(dir.path())
                .unwrap_err()
                .to_string()
                .contains("a file or a block device")
        );
    }
}
