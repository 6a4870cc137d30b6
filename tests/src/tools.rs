//! Programs that tests start: the binary under test, and other projects' initiators.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_drill::ground::{self, GroundError};

use crate::{say, tree};

/// The `holdfast` binary: `HOLDFAST_BIN`, or the release build, which is made first.
///
/// # Errors
/// It does not compile, or `HOLDFAST_BIN` names nothing.
pub fn holdfast() -> Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| find_or_build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn find_or_build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("HOLDFAST_BIN") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("HOLDFAST_BIN names {}, which is not there", path.display());
        }
        return Ok(path);
    }
    built(&["--release", "--package", "holdfast", "--bin", "holdfast"])
}

/// Builds one executable with `cargo build` and more arguments; tells where it is.
///
/// # Errors
/// It does not compile.
pub fn built(arguments: &[&str]) -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["build", "--locked", "--message-format", "json"])
        .args(arguments)
        .current_dir(tree::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo build")?;
    if !output.status.success() {
        bail!("cargo build {} failed", arguments.join(" "));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut paths = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    paths.next_back().context("cargo names no executable")
}

/// Where a program is, or a line on standard error that says what is left out without it.
pub fn find(program: &str, package: &str) -> Option<PathBuf> {
    or_left_out(ground::find(program, package)).ok().flatten()
}

/// What was made; `None`, and a line that says why, where it cannot be had on this machine.
///
/// # Errors
/// It can be had, and failed.
pub fn or_left_out<T>(made: Result<T, GroundError>) -> Result<Option<T>> {
    match made {
        Ok(made) => Ok(Some(made)),
        Err(GroundError::Unavailable(why)) => {
            say(&format!("left out: {why}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The last lines of a file, at most so many; nothing of one that is not there.
pub fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A page or a picture that `holdfast` has drawn.
///
/// # Errors
/// It is not well-formed.
pub fn drawn(text: &str) -> Result<roxmltree::Document<'_>> {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..roxmltree::ParsingOptions::default()
    };
    Ok(roxmltree::Document::parse_with_options(text, options)?)
}

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    /// Exit status; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Finished {
    /// Standard output of a program that must have ended well.
    ///
    /// # Errors
    /// Exit status and standard error of one that did not.
    pub fn success(self) -> Result<String> {
        if self.code == Some(0) {
            Ok(self.out)
        } else {
            bail!("exit status {:?}: {}{}", self.code, self.err, self.out)
        }
    }
}

/// Runs a program to its end; what it printed.
///
/// # Errors
/// It fails; its own words are in the text.
pub fn call(program: &Path, arguments: &[&str]) -> Result<String> {
    Ok(ground::call(program, arguments)?)
}

/// Runs a program to its end, `limit` at most.
///
/// # Errors
/// It cannot be started, or does not end in time (then it is killed).
pub async fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], limit: Duration) -> Result<Finished> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .kill_on_drop(true);
    let name = program.display();
    let output = tokio::time::timeout(limit, command.output())
        .await
        .with_context(|| format!("{name} did not end within {limit:?}"))?
        .with_context(|| format!("{name}"))?;
    Ok(Finished {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
