//! What takes machines and mounted disks away when the process that made them is killed without a chance to do so.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// A guard at work: it hears of this process's end by the end of its own standard input.
pub(super) struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // By now nothing is left for it to take away; it may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the guard of this process.
pub(super) fn start() -> anyhow::Result<Guard> {
    let child = Command::new(std::env::current_exe()?)
        .args(["drill", "chaos-guard"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Out of reach of Ctrl-C.
        .process_group(0)
        .spawn()
        .context("cannot start the guard")?;
    Ok(Guard(child))
}

/// `holdfast drill chaos-guard`: waits until nobody holds the other end, and sweeps.
pub(crate) fn guard() -> anyhow::Result<()> {
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing)?;
    // Until the process that has ended is gone from the table.
    for _ in 0..40 {
        std::thread::sleep(std::time::Duration::from_millis(250));
        holdfast_drill::ground::sweep();
    }
    Ok(())
}
