//! Programs of the system.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::GroundError;

/// Where a program is.
///
/// # Errors
/// It is not installed; the text names the Debian package that holds it.
pub fn find(program: &str, package: &str) -> Result<PathBuf, GroundError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        GroundError::Unavailable(format!("{program} is not installed (Debian package {package})"))
    })
}

/// Runs a program to its end; what it printed.
///
/// # Errors
/// It fails; its own words are in the text.
pub fn call(program: &Path, arguments: &[&str]) -> Result<String, GroundError> {
    let what = || format!("{} {}", program.display(), arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| GroundError::failed(what(), error))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(GroundError::failed(what(), words.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
