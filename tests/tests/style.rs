//! Rules of style that clippy and rustfmt do not know.

use std::collections::BTreeSet;

use holdfast_tests::tree::{self, SourceFile};

/// Lines of a file, comments and tests included.
const FILE_LINES_MAX: usize = 800;
/// Lines of a function, blank lines and comments left out, as clippy counts them.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line.
const COLUMNS_MAX: usize = 140;

/// Words that belong to one machine or one way of working, not to the product. Spelled in two parts so that this file passes.
const FOREIGN: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("arti", "factory"),
    ("sparse+", "http"),
    ("replace-", "with"),
    (".inter", "nal/"),
];

fn faults(file: &SourceFile) -> Vec<String> {
    let mut faults = Vec::new();
    let count = file.text.lines().count();
    if count > FILE_LINES_MAX && !file.path.ends_with(".svg") {
        faults.push(format!("{}: {count} lines, at most {FILE_LINES_MAX}", file.path));
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        faults.push(format!("{}: no newline at the end", file.path));
    }
    for (number, line) in (1..).zip(file.text.lines()) {
        faults.extend(fault_of_line(file, line).map(|fault| format!("{}:{number}: {fault}", file.path)));
    }
    if file.is_rust() {
        faults.extend(long_functions(file));
    }
    faults
}

fn fault_of_line(file: &SourceFile, line: &str) -> Option<String> {
    let columns = line.chars().count();
    let is_table = file.path.ends_with(".md") && line.starts_with('|');
    if columns > COLUMNS_MAX && !is_table && !file.path.ends_with(".svg") {
        return Some(format!("{columns} columns, at most {COLUMNS_MAX}"));
    }
    if line.contains('\t') && !file.path.ends_with("Makefile") {
        return Some("a tab".to_owned());
    }
    if line.ends_with(' ') {
        return Some("blanks at the end".to_owned());
    }
    if let Some(word) = FOREIGN
        .iter()
        .map(|(a, b)| format!("{a}{b}"))
        .find(|word| line.contains(word))
    {
        return Some(format!("'{word}' belongs to one machine"));
    }
    bare_note(line).map(|word| format!("{word} without a text that says what is missing"))
}

/// A note of the kind `TO DO` (in one word) that is not followed by `: ` and a text.
fn bare_note(line: &str) -> Option<String> {
    [("TO", "DO"), ("FIX", "ME"), ("X", "XX")]
        .iter()
        .map(|(a, b)| format!("{a}{b}"))
        .find(|word| {
            let is_word = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric());
            line.match_indices(word.as_str()).any(|(at, _)| {
                let rest = &line[at + word.len()..];
                is_word(at) && rest.strip_prefix(": ").is_none_or(|text| text.trim().len() < 10)
            })
        })
}

/// Functions end, as rustfmt lays them out, at a `}` as far in as their first line.
fn long_functions(file: &SourceFile) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut faults = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| starts_function(line)) {
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        let body = lines[at..].iter().take_while(|line| **line != end);
        let count = body
            .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
            .count();
        // The first line is the signature's.
        if count > FUNCTION_LINES_MAX + 1 && !line.ends_with(';') && !line.ends_with('}') {
            faults.push(format!(
                "{}:{}: a function of {} lines, at most {FUNCTION_LINES_MAX}",
                file.path,
                at + 1,
                count - 1
            ));
        }
    }
    faults
}

fn starts_function(line: &str) -> bool {
    let mut rest = line.trim_start();
    for word in ["pub ", "pub(crate) ", "pub(super) ", "const ", "async "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    rest.starts_with("fn ")
}

fn unreached(files: &[SourceFile], reached: &BTreeSet<String>) -> Vec<String> {
    files
        .iter()
        .filter(|file| file.is_rust() && !reached.contains(&file.path))
        .map(|file| format!("{}: no target of cargo reaches it", file.path))
        .collect()
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}

#[test]
fn files_keep_the_rules_of_style() {
    let files = tree::files().unwrap();
    let faults: Vec<String> = files.iter().flat_map(faults).collect();
    assert_none(&faults);
}

#[test]
fn every_rust_file_is_a_module_of_something() {
    let files = tree::files().unwrap();
    let reached = tree::reachable(&files).unwrap();
    assert!(reached.contains("tests/src/tree.rs") && reached.contains("tests/tests/style.rs"));
    assert_none(&unreached(&files, &reached));
}

#[test]
fn breaking_a_rule_is_found() {
    let long = format!("fn f() {{\n{}}}\n", "    x();\n".repeat(71));
    let cases = [
        ("a\n".repeat(801), "a.rs: 801 lines, at most 800"),
        (
            format!("{}\n", "a".repeat(141)),
            "a.rs:1: 141 columns, at most 140",
        ),
        ("a\tb\n".to_owned(), "a.rs:1: a tab"),
        ("a".to_owned(), "a.rs: no newline at the end"),
        ("a \n".to_owned(), "a.rs:1: blanks at the end"),
        (long, "a.rs:1: a function of 71 lines, at most 70"),
        (
            format!("// TO{}\n", "DO"),
            concat!("a.rs:1: TO", "DO without a text that says what is missing"),
        ),
    ];
    for (text, wanted) in cases {
        let file = SourceFile {
            path: "a.rs".into(),
            text,
        };
        assert_eq!(faults(&file), [wanted]);
    }
    let file = SourceFile {
        path: "a.rs".into(),
        text: String::new(),
    };
    assert_eq!(
        unreached(&[file], &BTreeSet::new()),
        ["a.rs: no target of cargo reaches it"]
    );
}
