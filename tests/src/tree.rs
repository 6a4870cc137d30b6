//! The source tree as the rules see it: its files, the modules that cargo reaches, and what cargo says about the workspace.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A text file of the tree.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path from the root, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl SourceFile {
    /// The crate's directory: the first part of the path.
    pub fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or("")
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Numbered lines of production code: no comments, nothing from an inline `#[cfg(test)] mod … {` on, nothing of a `_test.rs` file.
    pub fn production_lines(&self) -> Vec<(usize, &str)> {
        if self.path.ends_with("_test.rs") || self.path.contains("/tests/") || self.path.starts_with("tests/")
        {
            return Vec::new();
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let end = (0..lines.len())
            .find(|at| starts_inline_tests(&lines[*at..]))
            .unwrap_or(lines.len());
        (1..)
            .zip(&lines[..end])
            .map(|(number, line)| (number, without_comment(line)))
            .collect()
    }
}

fn starts_inline_tests(lines: &[&str]) -> bool {
    lines[0].trim() == "#[cfg(test)]"
        && lines[1..]
            .iter()
            .find(|line| !line.trim_start().starts_with("#["))
            .is_some_and(|line| line.trim_start().starts_with("mod ") && line.ends_with('{'))
}

/// The line up to `//`. A `//` inside a string (a URL) ends it too, which is harmless: the rules look for paths of code.
fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Every text file that belongs to the tree, in order of path. Build results and hidden directories (but `.ci`) are not of it.
///
/// # Errors
/// A directory or file that cannot be read.
pub fn files() -> Result<Vec<SourceFile>> {
    let root = root();
    let mut found = Vec::new();
    walk(&root, &root, &mut found)?;
    found.sort_by(|a: &SourceFile, b| a.path.cmp(&b.path));
    if found.len() < 20 {
        bail!("only {} files found under {}", found.len(), root.display());
    }
    Ok(found)
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<SourceFile>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if path.is_dir() {
            let skipped = (name.starts_with('.') && name != ".ci") || name.starts_with("target");
            if !skipped {
                walk(root, &path, found)?;
            }
        } else if is_ours(name) {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let path = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            found.push(SourceFile { path, text });
        }
    }
    Ok(())
}

/// Text that people wrote: not lock files, licences, recorded findings of random tests.
fn is_ours(name: &str) -> bool {
    let known = ["rs", "md", "toml", "proto", "sh", "service", "svg"];
    let whole = ["Makefile", "run", "gate", "prepare"];
    whole.contains(&name)
        || name
            .rsplit_once('.')
            .is_some_and(|(_, ending)| known.contains(&ending))
}

/// `cargo metadata --format-version 1 --locked` with more arguments, as JSON.
///
/// # Errors
/// cargo is missing or refuses.
pub fn cargo_metadata(more: &[&str]) -> Result<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(more)
        .current_dir(root())
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Paths (from the root) of all Rust files that cargo's targets reach through `mod` lines.
///
/// # Errors
/// cargo is missing or refuses.
pub fn reachable(files: &[SourceFile]) -> Result<BTreeSet<String>> {
    let metadata = cargo_metadata(&["--no-deps"])?;
    let root = root();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let path = Path::new(target["src_path"].as_str().unwrap_or(""));
            let path = path.strip_prefix(&root).unwrap_or(path);
            reach(path, true, files, &mut seen);
        }
    }
    Ok(seen)
}

/// Follows the `mod` lines of one file. `is_top` for a crate's first file and `mod.rs`, whose modules lie beside it.
fn reach(path: &Path, is_top: bool, files: &[SourceFile], seen: &mut BTreeSet<String>) {
    let name = path.to_string_lossy().into_owned();
    let Some(file) = files.iter().find(|file| file.path == name) else {
        return;
    };
    if !seen.insert(name) {
        return;
    }
    let beside = path.parent().unwrap_or(Path::new(""));
    let below = path.with_extension("");
    let inside = if is_top { beside } else { &below };
    for module in module_lines(&file.text) {
        match module {
            Module::Path(other) => reach(&normal(&beside.join(other)), false, files, seen),
            Module::Named(name) => {
                reach(&inside.join(format!("{name}.rs")), false, files, seen);
                reach(&inside.join(name).join("mod.rs"), true, files, seen);
            }
        }
    }
}

/// A module that lies in a file of its own.
#[derive(Debug, PartialEq, Eq)]
enum Module<'a> {
    /// `mod name;`
    Named(&'a str),
    /// `#[path = "…"] mod name;`
    Path(&'a str),
}

fn module_lines(text: &str) -> Vec<Module<'_>> {
    let mut modules = Vec::new();
    let mut path = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next();
        } else if let Some(name) = module_name(line) {
            modules.push(path.take().map_or(Module::Named(name), Module::Path));
        }
    }
    modules
}

fn module_name(line: &str) -> Option<&str> {
    let rest = line.strip_suffix(';')?;
    let rest = match rest.strip_prefix("pub") {
        Some(public) => public
            .trim_start_matches("(crate)")
            .trim_start_matches("(super)")
            .trim_start(),
        None => rest,
    };
    rest.strip_prefix("mod ").filter(|name| !name.contains(' '))
}

/// Takes `..` out of a path.
fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for part in path.components() {
        if part.as_os_str() == ".." {
            result.pop();
        } else {
            result.push(part);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_their_spellings() {
        let text = "mod a;\npub mod b;\npub(crate) mod c;\n#[cfg(test)]\n#[path = \"d_test.rs\"]\nmod tests;\nmod inline {\n}\n";
        let wanted = [
            Module::Named("a"),
            Module::Named("b"),
            Module::Named("c"),
            Module::Path("d_test.rs"),
        ];
        assert_eq!(module_lines(text), wanted);
    }

    #[test]
    fn production_lines_leave_tests_and_comments_out() {
        let file = SourceFile {
            path: "x/src/a.rs".into(),
            text: "use a; // why\n#[cfg(test)]\nmod b_test;\nfn f() {}\n#[cfg(test)]\nmod tests {\n}\n"
                .into(),
        };
        let lines: Vec<&str> = file
            .production_lines()
            .into_iter()
            .map(|(_, line)| line)
            .collect();
        assert_eq!(lines, ["use a; ", "#[cfg(test)]", "mod b_test;", "fn f() {}"]);
        let test = SourceFile {
            path: "x/src/a_test.rs".into(),
            ..file
        };
        assert!(test.production_lines().is_empty());
    }
}
