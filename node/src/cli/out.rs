//! Standard output and standard error of commands.

use std::io::{self, Write};

use serde::Serialize;

/// Where a command's answer goes: text for people, or one JSON document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    json: bool,
}

impl Out {
    /// With `json`, standard output carries one JSON document and nothing else.
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON was asked for.
    pub(crate) const fn json(self) -> bool {
        self.json
    }

    /// Prints the answer: `document` as JSON, or else `text`.
    pub(crate) fn answer(self, document: &impl Serialize, text: &str) -> anyhow::Result<()> {
        if self.json {
            self.document(document)
        } else {
            self.text(text)
        }
    }

    /// Prints one JSON document on a line of its own.
    pub(crate) fn document(self, document: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(document)?;
        line.push(b'\n');
        write_all(&line)
    }

    /// Prints text for people.
    pub(crate) fn text(self, text: &str) -> anyhow::Result<()> {
        write_all(format!("{}\n", text.trim_end()).as_bytes())
    }

    /// Tells what is going on: on standard output for people, on standard error beside a JSON document.
    pub(crate) fn narrate(self, text: &str) {
        // Nobody to tell is no reason to stop.
        let _ = if self.json {
            writeln!(io::stderr(), "{text}").map_err(Into::into)
        } else {
            self.text(text)
        };
    }

    /// One line on standard error that says what failed and why.
    pub(crate) fn failed(self, error: &anyhow::Error) {
        let _ = writeln!(
            io::stderr(),
            "holdfast: {}",
            format!("{error:#}").replace('\n', " ")
        );
    }
}

fn write_all(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // The reader of a pipe has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
