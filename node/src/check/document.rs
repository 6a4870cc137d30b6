//! What a check says: lines, each with a verdict, as `--json` prints them.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// As it should be, as far as it was measured.
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work, or will not when it is needed.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CheckLine {
    /// `quorum`, `node`, `version`, `clock`, `reach`, `round trip`, `packets`, `flush`, `room`, `replicas` or `hosts`.
    pub(crate) check: String,
    /// Of what: a node, a pair of nodes and a network, an extent, a host.
    pub(crate) about: String,
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it, where it is not ok.
    pub(crate) advice: Option<String>,
}

impl CheckLine {
    pub(super) fn ok(check: &str, about: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            about: about.into(),
            verdict: Verdict::Ok,
            found: found.into(),
            advice: None,
        }
    }

    pub(super) fn not_ok(
        verdict: Verdict,
        (check, about): (&str, String),
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            check: check.to_owned(),
            about,
            verdict,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }
}

/// What `holdfast cluster check --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CheckDocument {
    pub(crate) cluster: String,
    /// The node that asked all others.
    pub(crate) answered_by: String,
    /// The worst of all lines.
    pub(crate) verdict: Verdict,
    pub(crate) lines: Vec<CheckLine>,
}

impl CheckDocument {
    pub(crate) fn new(cluster: String, answered_by: String, lines: Vec<CheckLine>) -> Self {
        let worst = lines.iter().map(|line| line.verdict).max();
        Self {
            cluster,
            answered_by,
            verdict: worst.unwrap_or(Verdict::Ok),
            lines,
        }
    }

    /// For people: a line each.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{:<9}{:<12}{}: {}",
                line.verdict, line.check, line.about, line.found
            );
            if let Some(advice) = &line.advice {
                let _ = write!(text, "; {advice}");
            }
            text.push('\n');
        }
        text
    }

    /// How many lines are not ok, for people; `None` where all are.
    pub(crate) fn trouble(&self) -> Option<String> {
        let count = |verdict| self.lines.iter().filter(|line| line.verdict == verdict).count();
        let (warnings, failed) = (count(Verdict::Warning), count(Verdict::Failed));
        (self.verdict != Verdict::Ok).then(|| format!("{failed} failed, {warnings} to look at"))
    }
}
