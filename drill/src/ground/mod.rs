//! What clusters can be hurt on: machines on a network of their own whose links can be cut, and disks that hang or fill up.
//!
//! All of it needs root, and Linux's own tools; [`GroundError::Unavailable`] says what is missing.

mod image;
mod network;
mod programs;

pub use image::{Frozen, Image, Tools};
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

/// Directories whose names begin with this and the process id of their maker hold mounted images.
pub const DIR_MARK: &str = "holdfast-ground-";

/// Takes away what makers left behind whose process is gone: their machines with all that runs there, their mounted images.
pub fn sweep() {
    network::sweep();
    image::sweep();
}

/// Whether a process is there.
fn is_alive(process: &str) -> bool {
    std::path::Path::new("/proc").join(process).exists()
}
