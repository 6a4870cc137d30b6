//! Events in files: `events.jsonl` in the node's directory, one JSON document a line, and what it was before as `events.1.jsonl` and so on.
//! A thread of its own writes them: no disk that hangs may hold up who has something to tell. Nothing is flushed: what a power cut takes
//! is in the log of the system.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use serde::{Deserialize, Serialize};

use super::Event;

/// A file is put aside when it is as large, in bytes.
const FILE_BYTES: u64 = 4 << 20;
/// Files that are kept besides the one that is written.
const KEPT: u32 = 3;
/// Version of a line. Lines of others are left out when files are read.
const FORMAT: u32 = 1;
/// Longest line that is read back, in bytes.
const LINE_MAX: u64 = 64 << 10;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
struct Line<T> {
    format: u32,
    #[serde(flatten)]
    event: T,
}

fn path(dir: &Path, age: u32) -> PathBuf {
    match age {
        0 => dir.join("events.jsonl"),
        age => dir.join(format!("events.{age}.jsonl")),
    }
}

/// The newest events of earlier runs, `most` at most, oldest first. Lines that are none are left out.
pub(super) fn read(dir: &Path, most: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for age in (0..=KEPT).rev() {
        let Ok(file) = File::open(path(dir, age)) else {
            continue;
        };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            match std::io::Read::take(&mut reader, LINE_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => events.extend(known(&line)),
            }
        }
    }
    let first = events.len().saturating_sub(most);
    events.split_off(first)
}

fn known(line: &[u8]) -> Option<Event> {
    let line: Line<Event> = serde_json::from_slice(line).ok()?;
    (line.format == FORMAT).then_some(line.event)
}

fn put_aside(dir: &Path) -> std::io::Result<()> {
    for age in (0..KEPT).rev() {
        match fs::rename(path(dir, age), path(dir, age + 1)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn open(dir: &Path) -> std::io::Result<(File, u64)> {
    let file = File::options().create(true).append(true).open(path(dir, 0))?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// Writes what comes, until nobody sends any more. What cannot be written is dropped: it is in memory.
pub(super) fn write(dir: &Path, events: &Receiver<Event>) {
    let mut place = open(dir).ok();
    let mut lines = Vec::new();
    while let Ok(first) = events.recv() {
        lines.clear();
        for event in std::iter::once(first).chain(events.try_iter()) {
            let format = FORMAT;
            if serde_json::to_writer(&mut lines, &Line { format, event }).is_ok() {
                lines.push(b'\n');
            }
            if lines.len() as u64 >= FILE_BYTES {
                break;
            }
        }
        if place.as_ref().is_some_and(|(_, bytes)| *bytes >= FILE_BYTES) {
            place = put_aside(dir).and_then(|()| open(dir)).ok();
        }
        place = match place.take() {
            Some((mut file, bytes)) => file
                .write_all(&lines)
                .ok()
                .map(|()| (file, bytes + lines.len() as u64)),
            // It did not go, a moment ago; perhaps it does now.
            None => open(dir).ok(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::event::Level;
    use super::*;

    fn event(at_ms: u64) -> Event {
        Event {
            at_ms,
            level: Level::Info,
            what: Kind::Log,
            extent: None,
            node: None,
            text: "x".repeat(1000),
        }
    }

    #[test]
    fn files_are_bounded_and_the_newest_events_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (send, receive) = std::sync::mpsc::channel();
        let writer = {
            let dir = dir.path().to_owned();
            std::thread::spawn(move || write(&dir, &receive))
        };
        let count = 30_000;
        for at_ms in 0..count {
            send.send(event(at_ms)).unwrap();
        }
        drop(send);
        writer.join().unwrap();
        let sizes: Vec<u64> = (0..=KEPT + 1)
            .filter_map(|age| Some(fs::metadata(path(dir.path(), age)).ok()?.len()))
            .collect();
        assert_eq!(sizes.len(), KEPT as usize + 1, "{sizes:?}");
        assert!(sizes.iter().all(|bytes| *bytes <= 2 * FILE_BYTES), "{sizes:?}");
        // A line that a crash cut, and one that is none.
        let mut newest = File::options().append(true).open(path(dir.path(), 0)).unwrap();
        let newer = serde_json::to_string(&Line {
            format: 2,
            event: event(1),
        });
        newest.write_all(newer.unwrap().as_bytes()).unwrap();
        newest.write_all(b"\n{}\n{\"at_ms\":1").unwrap();
        let back = read(dir.path(), 100);
        let times: Vec<u64> = back.iter().map(|event| event.at_ms).collect();
        assert_eq!(times, (count - 100..count).collect::<Vec<_>>());
        assert!(read(&dir.path().join("none"), 100).is_empty());
    }
}
