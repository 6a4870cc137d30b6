//! How far a command is: a line at the terminal that is written over and over. Where standard error is no terminal, nothing.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Out;

/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Places of the bar.
const BAR: usize = 24;
/// Characters of the line: what a terminal has at least.
const COLUMNS: usize = 79;

/// The line. It is wiped when this is dropped.
pub(super) struct Progress {
    out: Out,
    line: Arc<Mutex<Line>>,
    /// `None` where nobody looks.
    drawer: Option<JoinHandle<()>>,
}

struct Line {
    began: Instant,
    /// How much is done, 0 to 1; `None` where nobody knows.
    share: Option<f64>,
    text: String,
}

impl Progress {
    /// Begins. To be called within a runtime.
    pub(super) fn new(out: Out) -> Self {
        let line = Arc::new(Mutex::new(Line {
            began: Instant::now(),
            share: None,
            text: String::new(),
        }));
        let drawer = stderr().is_terminal().then(|| {
            let line = Arc::clone(&line);
            tokio::spawn(async move {
                loop {
                    draw(&line);
                    tokio::time::sleep(DRAW_EVERY).await;
                }
            })
        });
        Self { out, line, drawer }
    }

    /// From now on, `text` and how much is done.
    pub(super) fn set(&self, share: Option<f64>, text: String) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.share = share;
        line.text = text;
    }

    /// Tells something that stays.
    pub(super) fn narrate(&self, text: &str) {
        self.wipe();
        self.out.narrate(text);
    }

    fn wipe(&self) {
        if self.drawer.is_some() {
            // Nobody to tell is no reason to stop.
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(drawer) = &self.drawer {
            drawer.abort();
        }
        self.wipe();
    }
}

/// A place in the bar.
#[expect(clippy::cast_precision_loss, reason = "a place in a bar")]
pub(super) fn share(done: u64, total: u64) -> f64 {
    done as f64 / total.max(1) as f64
}

fn draw(line: &Mutex<Line>) {
    let text = line.lock().unwrap_or_else(PoisonError::into_inner).drawn();
    let mut stderr = stderr();
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
}

impl Line {
    fn drawn(&self) -> String {
        let mut text = String::new();
        if let Some(share) = self.share {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a place in a bar"
            )]
            let done = (share.clamp(0.0, 1.0) * BAR as f64) as usize;
            // Writing to a string cannot fail.
            let _ = write!(text, "[{}{}] ", "#".repeat(done), "-".repeat(BAR - done));
        }
        let _ = write!(text, "{} s  {}", self.began.elapsed().as_secs(), self.text);
        text.chars()
            .filter(|sign| !sign.is_control())
            .take(COLUMNS)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_a_terminal_and_holds_no_signs_that_move_the_cursor() {
        let line = |share, text: &str| Line {
            began: Instant::now(),
            share,
            text: text.to_owned(),
        };
        let half = line(Some(0.5), "kill -9 of the primary").drawn();
        assert!(half.starts_with("[############------------] 0 s  kill"), "{half}");
        assert!(
            line(Some(7.0), "")
                .drawn()
                .starts_with(&format!("[{}]", "#".repeat(BAR)))
        );
        assert_eq!(line(None, "watching").drawn(), "0 s  watching");
        let hostile = line(None, &"\x1b[2J\r\n".repeat(50)).drawn();
        assert!(!hostile.contains(['\x1b', '\r', '\n']) && hostile.len() <= COLUMNS);
    }
}
