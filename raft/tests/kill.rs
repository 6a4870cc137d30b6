//! A single-node control plane killed with SIGKILL while it writes, again and again: what was acknowledged is there.

#![allow(clippy::unwrap_used)] // Helpers of a test are no tests to the lint.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The example beside this test; `cargo test` builds both.
fn writer() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/powercut_writer");
    assert!(
        path.exists(),
        "{} is missing: run 'cargo test -p holdfast-raft'",
        path.display()
    );
    path
}

/// Writes for a while and is killed; gives the last number that was acknowledged.
fn write_and_kill(dir: &Path, run: Duration) -> u64 {
    let mut child = Command::new(writer())
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (lines, mut last) = (output.lines(), None);
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in lines {
            // What was cut off within a line was not acknowledged.
            let Ok(line) = line else { break };
            if sender.send(line.parse::<u64>().unwrap()).is_err() {
                break;
            }
        }
    });
    last = receiver.recv_timeout(Duration::from_secs(60)).ok().or(last);
    assert!(last.is_some(), "nothing was acknowledged within a minute");
    std::thread::sleep(run);
    child.kill().unwrap();
    child.wait().unwrap();
    while let Ok(number) = receiver.recv() {
        last = Some(number);
    }
    reader.join().unwrap();
    last.unwrap()
}

#[test]
fn i1_what_was_acknowledged_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..6_u64 {
        let last = write_and_kill(dir.path(), Duration::from_millis(150 + 130 * round));
        eprintln!("round {round}: acknowledged up to {last}");
        assert!(last > before);
        before = last;
        let verify = Command::new(writer())
            .arg(dir.path())
            .args(["--verify", &last.to_string()])
            .status()
            .unwrap();
        assert!(verify.success());
    }
    let beyond = (before + 1_000_000).to_string();
    let verify = Command::new(writer())
        .arg(dir.path())
        .args(["--verify", &beyond])
        .status()
        .unwrap();
    assert!(!verify.success(), "what was never written must be missed");
}
