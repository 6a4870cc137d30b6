//! What must not go on after a panic.

/// Ends the process if its thread panics: peers take over from a node that is gone, never from one that is half there.
pub(super) struct EndsWithPanic(pub(super) &'static str);

impl Drop for EndsWithPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            end(self.0);
        }
    }
}

/// Ends the process at once: what is stable is on disk, and nothing else may be said any more.
pub(super) fn end(what: &str) -> ! {
    tracing::error!(what, "panicked: this process ends");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// In a process of its own, which is this test once more.
    #[test]
    fn a_panic_of_a_thread_ends_the_process() {
        const HERE: &str = "HOLDFAST_TEST_PANIC";
        if std::env::var_os(HERE).is_some() {
            let thread = std::thread::spawn(|| {
                let _ends = EndsWithPanic("a thread");
                panic!("on purpose");
            });
            let _ = thread.join();
            return;
        }
        let name = "driver::fatal::tests::a_panic_of_a_thread_ends_the_process";
        let ended = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact"])
            .env(HERE, "1")
            .output()
            .unwrap();
        assert_eq!(ended.status.signal(), Some(6), "{ended:?}");
    }
}
