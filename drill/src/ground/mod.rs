//! What clusters can be hurt on: machines on a network of their own whose links can be cut, and disks that hang or fill up.
//!
//! All of it needs root, and Linux's own tools; [`GroundError::Unavailable`] says what is missing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

mod image;
mod loops;
mod network;
mod programs;

pub use image::{Frozen, Image, Tools};
pub use loops::LoopDevice;
pub use network::Network;
pub use programs::{call, find};

/// Why there is no such ground.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// It cannot be had on this machine, for this reason.
    #[error("{0}")]
    Unavailable(String),
    /// A step failed where it should not.
    #[error("{what}: {why}")]
    Failed {
        /// Which.
        what: String,
        /// In whose words.
        why: String,
    },
}

impl GroundError {
    fn failed(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Failed {
            what: what.into(),
            why: why.to_string(),
        }
    }
}

fn needs_root(what: &str) -> Result<(), GroundError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(GroundError::Unavailable(format!("{what} need root")))
}

/// Makes a name this process's own until the socket is dropped or the process ends, among all processes of this machine that claim theirs
/// so: numbers of ports, addresses of networks.
///
/// # Errors
/// Another one has it.
pub fn claim(name: &str) -> std::io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("holdfast {name}"))?)
}

/// Directories whose names begin with this and the process id of their maker hold mounted images.
pub const DIR_MARK: &str = "holdfast-ground-";
/// A directory of that kind that holds this file is kept, for whoever wants to look into it.
pub const KEPT: &str = "report.json";

/// Takes away what makers left behind whose process is gone: their machines with all that runs there, their mounted images, and their
/// directories among the temporary ones, but for those that hold [`KEPT`].
pub fn sweep() {
    network::sweep();
    image::sweep();
    loops::sweep();
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(DIR_MARK));
        if owner.is_some_and(is_left_behind) && !entry.path().join(KEPT).exists() {
            // What is still mounted there is not removed, and is tried again by the next one.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether the maker is gone of what is named by its process id, a dash and anything.
fn is_left_behind(rest: &str) -> bool {
    let id = rest.split('-').next().unwrap_or_default();
    id.parse::<u32>().is_ok() && !is_alive(id)
}

/// Whether a process is there.
fn is_alive(process: &str) -> bool {
    std::path::Path::new("/proc").join(process).exists()
}
