//! The audit log in files of a node: `audit.jsonl`, one JSON object a line. A full one becomes `audit.1.jsonl`, that one `audit.2.jsonl`,
//! and so on; the oldest goes.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use holdfast_raft::model::AuditEntry;

/// Bytes after which a file is full.
const FILE_BYTES: u64 = 4 << 20;
/// Files at most, the one that is written included.
const FILES: usize = 8;

/// The files of a node, and the limits of them.
#[derive(Debug)]
pub(crate) struct AuditFile {
    dir: PathBuf,
    full: u64,
    files: usize,
    open: Option<(File, u64)>,
}

impl AuditFile {
    /// In a node's directory. Opened when the first entry comes.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            full: FILE_BYTES,
            files: FILES,
            open: None,
        }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(match number {
            0 => "audit.jsonl".to_owned(),
            number => format!("audit.{number}.jsonl"),
        })
    }

    /// Writes entries, stable when this returns.
    ///
    /// # Errors
    /// The disk does not take them; the next call tries with a file opened anew.
    pub(super) fn append(&mut self, entries: &[AuditEntry]) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        let written = self.write(&lines);
        if written.is_err() {
            self.open = None;
        }
        written.with_context(|| format!("cannot write {}", self.path(0).display()))
    }

    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        let (mut file, mut length) = match self.open.take() {
            Some(open) => open,
            None => open(&self.path(0))?,
        };
        if length > 0 && length + lines.len() as u64 > self.full {
            drop(file);
            self.rotate()?;
            (file, length) = open(&self.path(0))?;
        }
        file.write_all(lines)?;
        file.sync_data()?;
        length += lines.len() as u64;
        self.open = Some((file, length));
        Ok(())
    }

    fn rotate(&self) -> std::io::Result<()> {
        for number in (0..self.files - 1).rev() {
            match std::fs::rename(self.path(number), self.path(number + 1)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        File::open(&self.dir)?.sync_all()
    }
}

/// For its owner alone. A line that a crash broke off is ended, so that the next one stands alone.
fn open(path: &Path) -> std::io::Result<(File, u64)> {
    let mut options = File::options();
    options.read(true).append(true).create(true).mode(0o600);
    let mut file = options.open(path)?;
    let mut length = file.seek(SeekFrom::End(0))?;
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64) -> AuditEntry {
        AuditEntry {
            id,
            at: 0,
            node: "a".into(),
            who: "user 0 on the socket".into(),
            from: "socket".into(),
            method: "switchover".into(),
            request: "{}".into(),
            outcome: "done".into(),
        }
    }

    fn ids(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let read = |line: &str| serde_json::from_str::<AuditEntry>(line).ok();
        text.lines().filter_map(read).map(|entry| entry.id).collect()
    }

    #[test]
    fn full_files_make_room_and_the_newest_entries_stay() {
        let dir = tempfile::tempdir().unwrap();
        let small = || AuditFile {
            full: 1000,
            files: 3,
            ..AuditFile::new(dir.path())
        };
        let mut file = small();
        for id in 0..40 {
            if id % 7 == 0 {
                // A node that was started anew goes on where it was.
                file = small();
            }
            file.append(&[entry(id)]).unwrap();
        }
        let kept: Vec<u64> = (0..5).rev().flat_map(|number| ids(&file.path(number))).collect();
        let from = 40 - kept.len() as u64;
        assert_eq!(kept, (from..40).collect::<Vec<_>>());
        assert!((12..=24).contains(&kept.len()), "{kept:?}");
        assert!(!file.path(3).exists() && file.path(2).exists());
        for number in 0..3 {
            let size = std::fs::metadata(file.path(number)).unwrap();
            assert!(size.len() <= 1000);
            assert_eq!(
                std::os::unix::fs::PermissionsExt::mode(&size.permissions()) & 0o777,
                0o600
            );
        }
    }

    #[test]
    fn a_line_that_was_broken_off_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        AuditFile::new(dir.path()).append(&[entry(1)]).unwrap();
        let path = dir.path().join("audit.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{{\"id\": 2, \"at")).unwrap();
        AuditFile::new(dir.path()).append(&[entry(3), entry(4)]).unwrap();
        assert_eq!(ids(&path), [1, 3, 4]);
    }

    #[test]
    fn a_disk_that_does_not_take_it_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let mut file = AuditFile::new(&gone);
        assert!(file.append(&[entry(1)]).is_err());
        std::fs::create_dir(&gone).unwrap();
        file.append(&[entry(2)]).unwrap();
        assert_eq!(ids(&gone.join("audit.jsonl")), [2]);
    }
}
