//! Files of JSON documents, one a line: `NAME.jsonl`, and what it was before as `NAME.1.jsonl`, `NAME.2.jsonl` and so on; the oldest goes.
//! Each line has a `format`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes after which a file is full.
const FILE_BYTES: u64 = 4 << 20;
/// Version of a line. Lines of others are left out when files are read.
const FORMAT: u32 = 1;
/// Longest line that is read back, in bytes.
const LINE_MAX: u64 = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Line<T> {
    format: u32,
    #[serde(flatten)]
    entry: T,
}

/// The files of one name, and the limits of them.
#[derive(Debug)]
pub(crate) struct LineFiles {
    dir: PathBuf,
    name: &'static str,
    full: u64,
    files: usize,
    /// Each call ends when what it wrote is stable.
    stable: bool,
    open: Option<(File, u64)>,
}

impl LineFiles {
    /// In a node's directory, so many at most, the one that is written included. Opened when the first entry comes.
    pub(crate) fn new(dir: &Path, name: &'static str, files: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            name,
            full: FILE_BYTES,
            files,
            stable: false,
            open: None,
        }
    }

    /// From now on each call ends when what it wrote is stable.
    pub(crate) fn stable(self) -> Self {
        Self { stable: true, ..self }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(match number {
            0 => format!("{}.jsonl", self.name),
            number => format!("{}.{number}.jsonl", self.name),
        })
    }

    /// Writes entries.
    ///
    /// # Errors
    /// The disk does not take them; the next call tries with a file opened anew.
    pub(crate) fn append<T: Serialize>(&mut self, entries: &[T]) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            let format = FORMAT;
            serde_json::to_writer(&mut lines, &Line { format, entry })?;
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
        if self.stable {
            file.sync_data()?;
        }
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
        match self.stable {
            true => File::open(&self.dir)?.sync_all(),
            false => Ok(()),
        }
    }

    /// The newest entries, `most` at most, oldest first. Lines that are none are left out, and files that cannot be read.
    pub(crate) fn read<T: DeserializeOwned>(&self, most: usize) -> Vec<T> {
        let mut entries = Vec::new();
        // The newest file first: where it has enough, the others are left alone.
        for number in 0..self.files {
            let mut older = read(&self.path(number));
            older.append(&mut entries);
            entries = older;
            if entries.len() >= most {
                break;
            }
        }
        let first = entries.len().saturating_sub(most);
        entries.split_off(first)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let mut entries = Vec::new();
    let Ok(file) = File::open(path) else {
        return entries;
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return entries,
            Ok(_) => entries.extend(known(&line)),
        }
    }
}

fn known<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line: Line<T> = serde_json::from_slice(line).ok()?;
    (line.format == FORMAT).then_some(line.entry)
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

    #[derive(Debug, Serialize, Deserialize)]
    struct Entry {
        id: u64,
        text: String,
    }

    fn entry(id: u64) -> Entry {
        Entry {
            id,
            text: "x".repeat(90),
        }
    }

    fn ids(files: &LineFiles, most: usize) -> Vec<u64> {
        files.read(most).iter().map(|entry: &Entry| entry.id).collect()
    }

    #[test]
    fn full_files_make_room_and_the_newest_entries_stay() {
        let dir = tempfile::tempdir().unwrap();
        let small = || LineFiles {
            full: 1000,
            ..LineFiles::new(dir.path(), "some", 3).stable()
        };
        let mut files = small();
        for id in 0..40 {
            if id % 7 == 0 {
                // A node that was started anew goes on where it was.
                files = small();
            }
            files.append(&[entry(id)]).unwrap();
        }
        let kept = ids(&files, usize::MAX);
        let from = 40 - kept.len() as u64;
        assert_eq!(kept, (from..40).collect::<Vec<_>>());
        assert!((12..=24).contains(&kept.len()), "{kept:?}");
        assert_eq!(ids(&files, 2), [38, 39]);
        assert!(!files.path(3).exists() && files.path(2).exists());
        for number in 0..3 {
            let size = std::fs::metadata(files.path(number)).unwrap();
            assert!(size.len() <= 1000);
            assert_eq!(
                std::os::unix::fs::PermissionsExt::mode(&size.permissions()) & 0o777,
                0o600
            );
        }
    }

    #[test]
    fn a_line_that_was_broken_off_spoils_no_other_and_one_of_a_newer_release_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let files = || LineFiles::new(dir.path(), "some", 2);
        files().append(&[entry(1)]).unwrap();
        let path = files().path(0);
        let text = std::fs::read_to_string(&path).unwrap();
        let newer = text.replace("\"format\":1", "\"format\":2");
        assert_ne!(text, newer);
        std::fs::write(
            &path,
            format!("{text}{newer}{{}}\n{{\"format\": 1, \"id\": 2, \"te"),
        )
        .unwrap();
        files().append(&[entry(3), entry(4)]).unwrap();
        assert_eq!(ids(&files(), 10), [1, 3, 4]);
    }

    #[test]
    fn a_disk_that_does_not_take_it_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let mut files = LineFiles::new(&gone, "some", 2);
        assert!(files.append(&[entry(1)]).is_err() && ids(&files, 10).is_empty());
        std::fs::create_dir(&gone).unwrap();
        files.append(&[entry(2)]).unwrap();
        assert_eq!(ids(&files, 10), [2]);
    }
}
