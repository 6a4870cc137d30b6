//! The suite of libiscsi (`iscsi-test-cu`): running it, and reading what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::tools::{self, Finished};
use crate::{say, tree};

/// The suite takes three to four minutes alone on a machine, one of them in a pause of Sanitize.Reset.
const LIMIT: Duration = Duration::from_secs(1200);

/// How the suite prints 06/2A/06, ASYMMETRIC ACCESS STATE CHANGED.
const STATE_CHANGED: &str = "(0x2a06)";
/// How the library tells of sense data.
const SENSE: &str = "libiscsi:1 SENSE KEY:";
/// What it says of a command that it does not send without `-d`.
const HELD_BACK: &str = "--dataloss flag is not set in. Skipping";
/// What the suite provokes and wants, and complains of all the same: 0B/47/05 (iSCSIDataSnInvalid), 06/29/03 (resets).
const PROVOKED: [&str; 2] = ["(0x4705)", "(0x2903)"];
/// What its cleanup says first when it cannot read the keys.
const KEYS_UNREAD: &str = "[FAILED] PRIN command: failed with sense.";

/// What a run of the suite found.
#[derive(Debug, Default)]
pub struct Found {
    /// Tests that failed, as `Suite.Test`.
    pub failed: BTreeSet<String>,
    /// Reasons for leaving a test or a part of one out, with how often.
    pub skipped: BTreeMap<String, usize>,
    /// Tests that ran; 0 without a summary.
    pub ran: usize,
}

impl Found {
    /// Lines of what is left out.
    pub fn left_out(&self) -> usize {
        self.skipped.values().sum()
    }
}

/// Runs the suite with arguments; what it found, and all that it printed. `None` where it is not installed.
///
/// # Errors
/// It does not run to its end.
pub async fn run(arguments: &[&str]) -> Result<Option<(Found, String)>> {
    let Some(suite) = tools::find("iscsi-test-cu", "libiscsi-bin") else {
        return Ok(None);
    };
    ended(tools::run(&suite, arguments, LIMIT).await?).map(Some)
}

/// The same by a suite whose own faults are mended (`tests/suite`): nothing is to fail there. `None` where that cannot be built, for want
/// of root, apt or Debian's source packages.
///
/// # Errors
/// It does not run to its end.
pub async fn run_mended(arguments: &[&str]) -> Result<Option<(Found, String)>> {
    let build = tree::root().join("tests/suite/build");
    let built = tools::run::<&str>(&build, &[], LIMIT).await?;
    let suite = PathBuf::from(built.out.trim());
    if built.code != Some(0) || !suite.is_file() {
        let why = built.err.lines().last().unwrap_or_default();
        say(&format!(
            "left out: libiscsi's suite with its own faults mended cannot be built here ({why})"
        ));
        return Ok(None);
    }
    ended(tools::run(&suite, arguments, LIMIT).await?).map(Some)
}

/// As [`run`], with every sense that the library was given, in a line of its own (`libiscsi:1 SENSE KEY:…`) where it came.
///
/// # Errors
/// It does not run to its end.
pub async fn run_telling_senses(arguments: &[&str]) -> Result<Option<(Found, String)>> {
    let (Some(suite), Some(unbuffered)) = (
        tools::find("iscsi-test-cu", "libiscsi-bin"),
        tools::find("stdbuf", "coreutils"),
    ) else {
        return Ok(None);
    };
    // What the suite prints and what the library says stay in order only without a buffer, and in one stream.
    let script = "export LIBISCSI_DEBUG=1; exec \"$0\" -o0 \"$@\" 2>&1";
    let mut all: Vec<&OsStr> = ["-c", script].map(OsStr::new).to_vec();
    all.extend([unbuffered.as_os_str(), suite.as_os_str()]);
    all.extend(arguments.iter().map(OsStr::new));
    ended(tools::run(Path::new("/bin/sh"), &all, LIMIT).await?).map(Some)
}

fn ended(finished: Finished) -> Result<(Found, String)> {
    let found = read(&finished.out);
    ensure!(
        found.ran > 0,
        "the suite did not run to its end:\n{}{}",
        finished.out,
        finished.err
    );
    Ok((found, finished.out))
}

/// Reads the suite's report (`-n`). A reason may share its line with what came before.
pub fn read(report: &str) -> Found {
    let mut found = Found::default();
    for line in report.lines() {
        if let Some((_, reason)) = line.split_once("[SKIPPED] ") {
            *found.skipped.entry(reason.trim().to_owned()).or_default() += 1;
        }
        if let Some((suite, rest)) = line
            .split_once("Suite ")
            .and_then(|(_, rest)| rest.split_once(", Test "))
            && let Some((test, _)) = rest.split_once(" had failures")
        {
            found.failed.insert(format!("{suite}.{test}"));
        }
        let mut words = line.split_whitespace();
        if words.next() == Some("tests") {
            found.ran = words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        }
    }
    found
}

/// A test that failed, in a verbose report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `Suite.Test`.
    pub name: String,
    /// What the suite said of commands while it ran, in order: those that were answered otherwise than wanted.
    pub complaints: Vec<String>,
    /// How often the library was given 06/2A/06 meanwhile.
    pub heard: usize,
    /// It came after a suite whose cleanup got 06/2A/06 and so left keys registered, by a nexus that is gone.
    pub after_keys_left: bool,
    /// What it then counted as failures.
    pub findings: Vec<String>,
    /// The suite did not send some command of it, since it was run without `-d`, and counts that as a failure.
    pub held_back: bool,
}

impl Failure {
    /// Whether it began with a command that got 06/2A/06. What comes after that in the same test is its consequence: the suite sends no
    /// command again. Tests that send many commands at once complain of none of them: there it is enough that one got it.
    pub fn began_with_a_change_of_states(&self) -> bool {
        self.first_complaint()
            .map_or(self.heard > 0, |first| first.contains(STATE_CHANGED))
    }

    /// Whether it met a key that a cleanup had left registered when that got 06/2A/06: RESERVE conflicts from then on.
    pub fn met_keys_that_were_left(&self) -> bool {
        let conflict = |first: &str| first.contains("RESERVATION CONFLICT");
        self.after_keys_left && self.first_complaint().is_some_and(conflict)
    }

    fn first_complaint(&self) -> Option<&str> {
        let mut complaints = self.complaints.iter().map(String::as_str);
        complaints.find(|complaint| !PROVOKED.iter().any(|sense| complaint.contains(sense)))
    }
}

/// The tests that failed, in a verbose report (`-v`), and how often the library was given 06/2A/06 in all of it.
pub fn failures(report: &str) -> (Vec<Failure>, usize) {
    let (mut suite, mut failures, mut attentions) = (String::new(), Vec::new(), 0);
    let mut test: Option<Failure> = None;
    let (mut over, mut keys_left) = (false, false);
    for line in report.lines() {
        if let Some(name) = line.strip_prefix("Suite: ") {
            name.trim().clone_into(&mut suite);
        }
        let begun = line
            .strip_prefix("  Test: ")
            .and_then(|rest| rest.split_once(" ..."));
        if begun.is_some() || line.starts_with("Run Summary:") {
            failures.extend(test.take().filter(|test| !test.findings.is_empty()));
        }
        if let Some((name, _)) = begun {
            test = Some(Failure {
                name: format!("{suite}.{name}"),
                complaints: Vec::new(),
                heard: 0,
                after_keys_left: keys_left,
                findings: Vec::new(),
                held_back: false,
            });
        }
        over = (over && begun.is_none()) || line.starts_with("passed") || line.contains(" ...passed");
        let hears = usize::from(line.contains(SENSE) && line.contains(STATE_CHANGED));
        attentions += hears;
        let Some(test) = &mut test else { continue };
        let finding = line
            .trim_start()
            .starts_with(|first: char| first.is_ascii_digit())
            && line.contains(".c:");
        if finding {
            test.findings.push(line.trim().to_owned());
        }
        let cleaning = over || !test.findings.is_empty();
        keys_left |= cleaning && line.contains(KEYS_UNREAD) && line.contains(STATE_CHANGED);
        // What clears up behind a suite may complain, too.
        if test.findings.is_empty() {
            test.heard += hears;
            test.held_back |= line.contains(HELD_BACK);
            test.complaints
                .extend(line.find("[FAILED]").map(|at| line[at..].to_owned()));
        }
    }
    (failures, attentions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = "Suite WriteSame10, Test UnmapUntilEnd had failures:\n 1. x.c:71 - CU_FAIL(\"y\")    [SKIPPED] SANITIZE is not \
                      implemented.\n    [SKIPPED] Media is not removable.\n    [SKIPPED] Media is not removable.\n\n\
                      Run Summary:    Type  Total    Ran Passed Failed Inactive\n           tests    282    281    280      1        0\n";
        let found = read(report);
        assert_eq!(
            found.failed,
            BTreeSet::from(["WriteSame10.UnmapUntilEnd".to_owned()])
        );
        assert_eq!(found.skipped["Media is not removable."], 2);
        assert_eq!(found.skipped["SANITIZE is not implemented."], 1);
        assert_eq!((found.ran, found.left_out()), (281, 3));
    }

    /// As the suite prints it, cleanup in the last line of a test's findings included.
    #[test]
    fn a_failure_is_told_from_its_consequences() {
        let changed = "[FAILED] WRITE10 command failed with status 2 / sense key UNIT_ATTENTION(0x06) / ASCQ (null)(0x2a06)";
        let provoked = "[FAILED] WRITE10 command failed with status 2 / sense key COMMAND ABORTED(0x0b) / ASCQ (null)(0x4705)";
        let transition =
            "[FAILED] READ10 command failed with status 2 / sense key NOT_READY(0x02) / ASCQ (null)(0x040a)";
        let sense = "libiscsi:1 SENSE KEY:UNIT_ATTENTION(6) ASCQ:(null)(0x2a06) [iqn]";
        let conflict = "[FAILED] RESERVE6 command: failed with sense. RESERVATION CONFLICT";
        let report = [
            "Suite: Unmap".to_owned(),
            "  Test: Zero ...passed".to_owned(),
            format!("  Test: Simple ...{sense}"),
            format!("    {changed}"),
            "    [FAILED] Blocks did not read back as zero".to_owned(),
            "FAILED".to_owned(),
            "    1. test_unmap_simple.c:56  - CU_ASSERT_EQUAL(_r,0)".to_owned(),
            "    2. test_unmap_simple.c:67  - CU_FAIL(\"[FAILED] Blocks\")    [FAILED] PRIN command: failed"
                .to_owned(),
            "Suite: iSCSIdatasn".to_owned(),
            format!("  Test: Invalid ...    {provoked}"),
            "passed".to_owned(),
            format!("  Test: Other ...    {provoked}"),
            format!("    {changed}"),
            "FAILED".to_owned(),
            "    1. y.c:3  - CU_ASSERT_EQUAL(_r,0)    [FAILED] PRIN command: failed".to_owned(),
            "Suite: Read10".to_owned(),
            format!("  Test: Simple ...    {transition}"),
            format!("    {changed}"),
            "FAILED".to_owned(),
            "    1. z.c:9  - CU_FAIL(\"x\")".to_owned(),
            format!("  Test: AsyncCaw ...{sense}"),
            "FAILED".to_owned(),
            "    1. u.c:9  - CU_ASSERT_EQUAL(status)".to_owned(),
            "  Test: Async ...FAILED".to_owned(),
            "    1. w.c:9  - CU_ASSERT(status)--dataloss flag is not set in. Skipping PROUT".to_owned(),
            "  Test: Keys ...--dataloss flag is not set in. Skipping PROUT".to_owned(),
            "FAILED".to_owned(),
            "    1. v.c:9  - CU_ASSERT_EQUAL(0,ret)".to_owned(),
            "Suite: Reserve6".to_owned(),
            format!("  Test: Early ...    {conflict}"),
            "FAILED".to_owned(),
            "    1. r.c:9  - CU_ASSERT_EQUAL(_r,0)".to_owned(),
            "  Test: Last ...passed    [FAILED] PRIN command: failed with sense. UNIT_ATTENTION(6) ASCQ:(null)(0x2a06)".to_owned(),
            "  Test: Late ...    [FAILED] RESERVE6 command: failed with sense. UNIT_ATTENTION(6) ASCQ:X(0x2903)".to_owned(),
            format!("    {conflict}"),
            "FAILED".to_owned(),
            "    1. r.c:9  - CU_ASSERT_EQUAL(_r,0)".to_owned(),
            "Run Summary:    Type  Total".to_owned(),
        ];
        let (failures, attentions) = failures(&report.join("\n"));
        assert_eq!(attentions, 2);
        let judged: Vec<(&str, bool)> = failures
            .iter()
            .map(|failure| (failure.name.as_str(), failure.began_with_a_change_of_states()))
            .collect();
        assert_eq!(
            judged,
            [
                ("Unmap.Simple", true),
                ("iSCSIdatasn.Other", true),
                ("Read10.Simple", false),
                ("Read10.AsyncCaw", true),
                ("Read10.Async", false),
                ("Read10.Keys", false),
                ("Reserve6.Early", false),
                ("Reserve6.Late", false)
            ]
        );
        let left: Vec<bool> = failures.iter().map(Failure::met_keys_that_were_left).collect();
        assert_eq!(left, [false, false, false, false, false, false, false, true]);
        assert!(failures[5].held_back && failures[..5].iter().all(|failure| !failure.held_back));
        assert_eq!((failures[0].complaints.len(), failures[0].findings.len()), (2, 2));
    }
}
