//! Fuzzing on the stable toolchain: mutated inputs over a corpus that is kept, led by what the code under test makes of them.
//!
//! Each target gives a *signature* of a run (what was answered, how it ended). An input whose signature was never seen before is kept and
//! mutated further, as coverage-guided fuzzers do with new branches. All of it follows from one seed.

mod mutate;
pub mod targets;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::tree;
use mutate::Mutator;

/// Longest input in bytes.
const INPUT_MAX: usize = 64 << 10;
/// Inputs that are kept beside the corpus while fuzzing goes on.
const KEPT_MAX: usize = 4096;
/// Bytes of an input on one line of a corpus file.
const LINE_BYTES: usize = 64;

/// Something that takes arbitrary bytes.
pub struct Target {
    /// Its name, and that of its corpus file.
    pub name: &'static str,
    /// Byte strings that mean something to it.
    pub words: &'static [&'static [u8]],
    /// Takes an input and tells what came of it. What must hold of every input it asserts.
    pub run: fn(&[u8]) -> u64,
}

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub enum Effort {
    /// So many inputs.
    Runs(u64),
    /// So long.
    Time(Duration),
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Inputs tried.
    pub runs: u64,
    /// Inputs with a signature of their own.
    pub kept: usize,
    /// What took longest.
    pub slowest: Duration,
}

/// Where the inputs of a target are kept.
pub fn corpus_file(name: &str) -> PathBuf {
    tree::root().join("tests/fuzz-corpus").join(format!("{name}.txt"))
}

/// Reads a corpus: inputs in hexadecimal, a blank line between two, `#` before what is for people.
///
/// # Errors
/// The file cannot be read, or is not of that form.
pub fn read_corpus(name: &str) -> Result<Vec<Vec<u8>>> {
    let path = corpus_file(name);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut inputs = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match inputs.last_mut() {
            Some(input) if !line.is_empty() => {
                input.extend(unhex(line).with_context(|| format!("{}: '{line}'", path.display()))?);
            }
            _ => inputs.push(Vec::new()),
        }
    }
    inputs.retain(|input| !input.is_empty());
    Ok(inputs)
}

/// An input as a corpus holds it.
pub fn write_input(input: &[u8]) -> String {
    let mut text = String::new();
    for line in input.chunks(LINE_BYTES) {
        for byte in line {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

fn unhex(line: &str) -> Result<Vec<u8>> {
    ensure!(line.len().is_multiple_of(2) && line.is_ascii(), "not hexadecimal");
    (0..line.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(&line[at..at + 2], 16)?))
        .collect()
}

/// Tries the whole corpus and then mutations of it.
///
/// # Errors
/// An input that makes the target panic: it is written to `target/fuzz/NAME-finding.txt`.
pub fn fuzz(target: &Target, seed: u64, effort: Effort) -> Result<Report> {
    let mut inputs = read_corpus(target.name)?;
    ensure!(!inputs.is_empty(), "{}: no corpus", target.name);
    let mut signatures = HashSet::new();
    let mut report = Report {
        runs: 0,
        kept: 0,
        slowest: Duration::ZERO,
    };
    for input in &inputs {
        signatures.insert(attempt(target, seed, input, &mut report)?);
    }
    let corpus = inputs.len();
    let mut mutator = Mutator::new(seed, target.words, INPUT_MAX);
    let began = Instant::now();
    let goes_on = |runs| match effort {
        Effort::Runs(most) => runs < most,
        Effort::Time(time) => began.elapsed() < time,
    };
    while goes_on(report.runs) {
        let input = mutator.next(&inputs);
        let is_new = signatures.insert(attempt(target, seed, &input, &mut report)?);
        if is_new && inputs.len() < corpus + KEPT_MAX {
            inputs.push(input);
        }
    }
    report.kept = inputs.len() - corpus;
    Ok(report)
}

fn attempt(target: &Target, seed: u64, input: &[u8], report: &mut Report) -> Result<u64> {
    let began = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    report.runs += 1;
    report.slowest = report.slowest.max(began.elapsed());
    if let Ok(signature) = result {
        return Ok(signature);
    }
    let dir = tree::root().join("target/fuzz");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{}-finding.txt", target.name));
    std::fs::write(&path, write_input(input))?;
    bail!(
        "{}: an input of {} bytes makes it panic (HOLDFAST_SEED={seed}, run {}): {}. Mend it and add the input to {}",
        target.name,
        input.len(),
        report.runs,
        path.display(),
        corpus_file(target.name).display()
    )
}
