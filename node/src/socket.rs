//! Unix sockets in directories of any depth.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Longest path of a socket, without the zero behind it (`sun_path` of unix(7)).
const PATH_MAX: usize = 107;

/// A path by which a socket can be bound and reached, as long as this is kept.
#[derive(Debug)]
pub(crate) struct Reach {
    path: PathBuf,
    /// What a path through `/proc/self/fd` goes by.
    _dir: Option<OwnedFd>,
}

impl Reach {
    /// The path as it is, or one by way of its open directory where it is too long for a socket.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let (dir, name) = match (path.parent(), path.file_name()) {
            (Some(dir), Some(name)) if path.as_os_str().len() > PATH_MAX => (dir, name),
            _ => {
                return Ok(Self {
                    path: path.to_owned(),
                    _dir: None,
                });
            }
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir, flags, Mode::empty())?;
        Ok(Self {
            path: Path::new("/proc/self/fd")
                .join(dir.as_raw_fd().to_string())
                .join(name),
            _dir: Some(dir),
        })
    }

    /// The path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_in_a_long_directory_is_bound_and_reached() {
        let root = tempfile::tempdir().unwrap();
        for depth in 0..3 {
            let mut dir = root.path().to_owned();
            dir.extend(std::iter::repeat_n("d".repeat(200), depth));
            std::fs::create_dir_all(&dir).unwrap();
            let path = dir.join("one.sock");
            let _listener = UnixListener::bind(Reach::new(&path).unwrap().path()).unwrap();
            assert!(path.exists());
            UnixStream::connect(Reach::new(&path).unwrap().path()).unwrap();
        }
    }

    #[test]
    fn a_long_name_or_a_missing_directory_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let name = Reach::new(&root.path().join("n".repeat(200))).unwrap();
        assert!(UnixListener::bind(name.path()).is_err());
        assert!(Reach::new(&root.path().join("d".repeat(200)).join("one.sock")).is_err());
    }
}
