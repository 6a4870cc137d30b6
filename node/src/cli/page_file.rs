//! Reports that people look at, written to a file that the user names.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use clap::Args;
use holdfast_drill::report::Page;
use holdfast_types::utc_to_the_millisecond;

/// Where a report goes.
#[derive(Debug, Args)]
pub(crate) struct PageFile {
    /// Writes a report to look at: one HTML file that needs nothing else; with a name that ends in .svg the pictures alone.
    #[arg(long = "report", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl PageFile {
    /// Makes sure that the file can be written, before anything is done that takes time.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        opened.map(drop).with_context(|| cannot(path))
    }

    /// Writes it, where the user wants it.
    pub(crate) fn write(&self, page: impl FnOnce(String) -> Page) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let page = page(foot());
        let is_picture = path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("svg"));
        let text = if is_picture { page.svg() } else { page.html() };
        std::fs::write(path, text).with_context(|| cannot(path))
    }
}

/// The small print of a page that is made now.
pub(crate) fn foot() -> String {
    format!(
        "Made by holdfast {}, {}",
        env!("CARGO_PKG_VERSION"),
        utc_to_the_millisecond(SystemTime::now())
    )
}

fn cannot(path: &Path) -> String {
    format!("cannot write the report to {}", path.display())
}
