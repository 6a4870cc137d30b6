//! Who may use whom: the table of the crates, held against what cargo says and against the sources.

use holdfast_tests::tree::{self, SourceFile};
use serde_json::Value;

/// Crate, its directory, and the crates of this workspace that it may use.
type Row = (&'static str, &'static str, &'static [&'static str]);

const ALL: &[&str] = &[
    "types",
    "journal",
    "proto",
    "alua",
    "scsi",
    "iscsi",
    "replication",
    "raft",
    "planes",
    "trust",
    "injection",
    "drill",
];

/// A crate that is not here, or a use that is not here, is forbidden.
const ALLOWED: &[Row] = &[
    ("holdfast-types", "types", &[]),
    ("holdfast-journal", "journal", &["types"]),
    ("holdfast-proto", "proto", &["types"]),
    ("holdfast-alua", "alua", &["types"]),
    ("holdfast-scsi", "scsi", &["types", "alua"]),
    ("holdfast-iscsi", "iscsi", &["types"]),
    (
        "holdfast-replication",
        "replication",
        &["types", "journal", "proto", "injection", "trust"],
    ),
    (
        "holdfast-raft",
        "raft",
        &["types", "journal", "proto", "scsi", "alua", "injection", "trust"],
    ),
    ("holdfast-trust", "trust", &["types"]),
    ("holdfast-injection", "injection", &["types"]),
    ("holdfast-planes", "planes", &["types", "raft", "replication"]),
    ("holdfast-drill", "drill", &["types", "iscsi", "scsi"]),
    ("holdfast", "node", ALL),
    ("holdfast-tests", "tests", ALL),
];

/// Crates from outside that only some rooms may use: an alpha and a store with a known weakness stay behind one wall.
const WALLED: &[(&str, &[&str])] = &[("openraft", &["raft"]), ("sled", &["raft"])];

/// Crates that do I/O, keep time or run tasks: crates that are cores as a whole use none of them outside tests.
const WITH_IO: &[&str] = &[
    "tokio",
    "tokio-stream",
    "tonic",
    "rustix",
    "sled",
    "tempfile",
    "futures",
];
const PURE_CRATES: &[&str] = &["types", "alua", "scsi", "iscsi", "planes"];

/// Sans-IO code: events and the time come in, commands go out.
const CORES: &[&str] = &[
    "alua/src",
    "scsi/src",
    "iscsi/src",
    "types/src",
    "planes/src",
    "replication/src/core",
    "raft/src/model",
    "raft/src/lease",
    "raft/src/governor",
    "node/src/configuration",
];

const NOT_IN_CORES: &[&str] = &[
    "Instant",
    // A time of the calendar may come as an argument.
    "SystemTime::now",
    "tokio::",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "std::fs",
    "std::thread",
    "rustix::",
];

/// What is wrong with the packages that `cargo metadata --no-deps` lists.
fn faults_of_manifests(metadata: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or("?");
        let Some((_, room, allowed)) = ALLOWED.iter().find(|row| row.0 == name) else {
            faults.push(format!("{name} is not in the table of crates"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or("?");
            let is_normal = dependency["kind"].is_null();
            faults.extend(fault_of_use(room, allowed, other, is_normal));
        }
    }
    faults
}

fn fault_of_use(room: &str, allowed: &[&str], other: &str, is_normal: bool) -> Option<String> {
    if other == "holdfast" || other.starts_with("holdfast-") {
        let other = other.strip_prefix("holdfast-").unwrap_or("node");
        return (!allowed.contains(&other)).then(|| {
            let list = if allowed.is_empty() {
                "nothing".to_owned()
            } else {
                allowed.join(", ")
            };
            format!("{room} uses {other}, but may use {list} only")
        });
    }
    if let Some((_, rooms)) = WALLED.iter().find(|(name, _)| *name == other)
        && !rooms.contains(&room)
    {
        return Some(format!(
            "{room} uses {other}, which only {} may",
            rooms.join(", ")
        ));
    }
    (is_normal && PURE_CRATES.contains(&room) && WITH_IO.contains(&other))
        .then(|| format!("{room} is sans-IO and uses {other}"))
}

/// Lines of production code that name what a wall or the rule for cores forbids there.
fn faults_of_sources(files: &[SourceFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for (number, line) in file.production_lines() {
            let at = format!("{}:{number}", file.path);
            for (name, rooms) in WALLED {
                // As a path: a filter for log lines may name it in a string.
                if has_word(line, &format!("{name}::")) && !rooms.contains(&file.room()) {
                    faults.push(format!("{at}: names {name}, which only {} may", rooms.join(", ")));
                }
            }
            if is_core(&file.path)
                && let Some(word) = NOT_IN_CORES.iter().find(|word| has_word(line, word))
            {
                faults.push(format!("{at}: a sans-IO core names {word}"));
            }
        }
    }
    faults
}

/// In a core's directory, or in the file of its name; a driver inside such a directory says so in its name.
fn is_core(path: &str) -> bool {
    !path.contains("driver")
        && CORES.iter().any(|core| {
            path.strip_prefix(core)
                .is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
        })
}

/// Whether `word` stands in `line` on its own: `Instant` is not in `Instantly`.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && (word.ends_with(':') || !after.is_some_and(part_of_name))
    })
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let metadata = tree::cargo_metadata(&["--no-deps"]).unwrap();
    let packages = metadata["packages"].as_array().unwrap().len();
    assert_eq!(
        packages,
        ALLOWED.len(),
        "the table and the workspace have the same crates"
    );
    assert_none(&faults_of_manifests(&metadata));
}

#[test]
fn sources_keep_to_their_walls_and_cores_do_no_io() {
    assert_none(&faults_of_sources(&tree::files().unwrap()));
}

#[test]
fn a_forbidden_use_is_found() {
    let metadata = serde_json::json!({"packages": [
        {"name": "holdfast-alua", "dependencies": [
            {"name": "holdfast-scsi", "kind": null}, {"name": "tokio", "kind": null}, {"name": "tokio", "kind": "dev"}]},
        {"name": "holdfast", "dependencies": [{"name": "openraft", "kind": null}]},
        {"name": "holdfast-extra", "dependencies": []},
    ]});
    let wanted = [
        "alua uses scsi, but may use types only",
        "alua is sans-IO and uses tokio",
        "node uses openraft, which only raft may",
        "holdfast-extra is not in the table of crates",
    ];
    assert_eq!(faults_of_manifests(&metadata), wanted);
}

#[test]
fn a_core_that_reads_a_clock_is_found() {
    let file = |path: &str, text: &str| SourceFile {
        path: path.into(),
        text: text.into(),
    };
    let files = [
        file(
            "replication/src/core/a.rs",
            "// Instant in a comment\nuse std::time::Instant;\n",
        ),
        file("replication/src/driver.rs", "use std::time::Instant;\n"),
        file(
            "types/src/time.rs",
            "use std::time::SystemTime;\nlet now = SystemTime::now();\n",
        ),
        file("raft/src/lease/driver.rs", "tokio::spawn(x);\n"),
        file("raft/src/governor.rs", "tokio::spawn(x);\n"),
        file(
            "alua/src/b.rs",
            "fn x() {}\n#[cfg(test)]\nmod tests {\nuse std::time::Instant;\n}\n",
        ),
        file("node/src/c.rs", "use openraft::Raft;\n"),
    ];
    let wanted = [
        "replication/src/core/a.rs:2: a sans-IO core names Instant",
        "types/src/time.rs:2: a sans-IO core names SystemTime::now",
        "raft/src/governor.rs:1: a sans-IO core names tokio::",
        "node/src/c.rs:1: names openraft, which only raft may",
    ];
    assert_eq!(faults_of_sources(&files), wanted);
}
