//! Reports to look at: what was done to a cluster, what it was like meanwhile and what its initiators noticed, over time, on one page.
//!
//! A caller fills a [`Page`] with facts; [`Page::html`] makes one file of it that needs nothing else and no script, [`Page::svg`] the
//! pictures alone. All of it serialises, so that `--json` tells the same. Times are since an origin that the caller chooses, the same for
//! everything of a [`Timeline`].

mod html;
mod picture;
pub(crate) mod plot;
mod style;

use std::time::Duration;

use serde::{Serialize, Serializer};

/// A whole report.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Page {
    /// What was done, in a few words.
    pub title: String,
    /// Whether all was as it should be.
    pub held: bool,
    /// Why, a line each; the first one is set large.
    pub verdict: Vec<String>,
    /// Figures.
    pub tables: Vec<Table>,
    /// One picture each.
    pub timelines: Vec<Timeline>,
    /// Small print at the end: with what and when it was made.
    pub foot: String,
}

/// Figures in rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Table {
    /// What the figures are.
    pub title: String,
    /// Of each column.
    pub heading: Vec<String>,
    /// As many cells each as there are columns.
    pub rows: Vec<Row>,
}

/// A row of a [`Table`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its cells; those that begin with a digit stand to the right.
    pub cells: Vec<String>,
    /// Whether it is as it should be; a row that is not is marked.
    pub good: bool,
}

/// What happened over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Timeline {
    /// What it shows.
    pub title: String,
    /// Remarks under the title, a line each.
    pub lines: Vec<String>,
    /// Where the picture begins.
    #[serde(rename = "begin_ms", serialize_with = "as_ms")]
    pub begin: Duration,
    /// Where it ends.
    #[serde(rename = "end_ms", serialize_with = "as_ms")]
    pub end: Duration,
    /// What the axis calls 0: the failure, or the start.
    #[serde(rename = "zero_ms", serialize_with = "as_ms")]
    pub zero: Duration,
    /// Names of the lanes; each has a colour.
    pub lanes: Vec<String>,
    /// Requests. In JSON each is `[lane, issued, answered, good]`, times in microseconds.
    pub samples: Vec<Sample>,
    /// What was done.
    pub marks: Vec<Mark>,
    /// What the cluster was like; see [`Timeline::turns`].
    pub bands: Vec<Band>,
    /// Pauses from this length on, in which no request at all was answered well, are shaded; zero shades none.
    #[serde(rename = "stall_from_ms", serialize_with = "as_ms")]
    pub stall_from: Duration,
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Number of its lane.
    pub lane: usize,
    /// When it was sent first.
    pub issued: Duration,
    /// When its fate was known.
    pub answered: Duration,
    /// Whether it was done.
    pub good: bool,
}

impl From<&crate::workload::Sample> for Sample {
    /// A workload takes down only what was done.
    fn from(sample: &crate::workload::Sample) -> Self {
        Self {
            lane: sample.lane,
            issued: sample.issued,
            answered: sample.answered,
            good: true,
        }
    }
}

/// Something that was done: for a while, or at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// When.
    #[serde(rename = "at_ms", serialize_with = "as_ms")]
    pub at: Duration,
    /// When it was taken back, for what can be.
    #[serde(rename = "until_ms", serialize_with = "as_optional_ms")]
    pub until: Option<Duration>,
    /// What.
    pub text: String,
}

/// What one thing was like for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Band {
    /// The thing: bands with the same name share a row. Rows stand in the order in which they come first.
    pub row: String,
    /// From then on.
    #[serde(rename = "from_ms", serialize_with = "as_ms")]
    pub from: Duration,
    /// Until then.
    #[serde(rename = "to_ms", serialize_with = "as_ms")]
    pub to: Duration,
    /// Decides the colour.
    pub state: State,
    /// In words.
    pub text: String,
}

/// What kind of state a [`Band`] tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It serves: active/optimized.
    Serving,
    /// It helps another one to serve: active/non-optimized.
    Helping,
    /// It is there, and has nothing to do: standby, a witness.
    Waiting,
    /// It is about to become something else: transitioning.
    Changing,
    /// It gives no answer, or serves nobody although it should.
    Down,
    /// It belongs to the member of that number: its primary, its leader. Members have the colours of the lanes with the same numbers.
    Of(usize),
}

impl Timeline {
    /// Says that `row` is so from `at` on. Where it was so before, that goes on; otherwise what it was before ends. Calls for one row are
    /// in the order of time.
    pub fn turns(&mut self, row: &str, at: Duration, state: State, text: &str) {
        if let Some(last) = self.bands.iter_mut().rev().find(|band| band.row == row) {
            last.to = last.to.max(at);
            if last.state == state && last.text == text {
                return;
            }
        }
        self.bands.push(Band {
            row: row.to_owned(),
            from: at,
            to: at,
            state,
            text: text.to_owned(),
        });
    }

    /// Ends the picture: what each row was last, it is until then.
    pub fn ends(&mut self, at: Duration) {
        self.end = at;
        let mut closed: Vec<String> = Vec::new();
        for band in self.bands.iter_mut().rev() {
            if !closed.contains(&band.row) {
                band.to = band.to.max(at);
                closed.push(band.row.clone());
            }
        }
    }

    /// The pauses to shade: between two requests of any lane that were answered well, or from the last one to the end.
    pub fn stalls(&self) -> Vec<(Duration, Duration)> {
        if self.stall_from.is_zero() {
            return Vec::new();
        }
        let good = self.samples.iter().filter(|sample| sample.good);
        let mut answers: Vec<Duration> = good.map(|sample| sample.answered).collect();
        answers.retain(|at| (self.begin..=self.end).contains(at));
        answers.sort_unstable();
        let begins = std::iter::once(self.begin).chain(answers.iter().copied());
        let ends = answers.iter().copied().chain(std::iter::once(self.end));
        begins
            .zip(ends)
            .filter(|(from, to)| to.saturating_sub(*from) >= self.stall_from)
            .collect()
    }
}

impl Page {
    /// One HTML file, which is well-formed XML, too.
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// The pictures alone, one below the other.
    pub fn svg(&self) -> String {
        picture::alone(&self.timelines)
    }
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        (self.lane, micros(self.issued), micros(self.answered), self.good).serialize(serializer)
    }
}

fn as_ms<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e3)
}

fn as_optional_ms<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64() * 1e3).serialize(serializer)
}

/// Text as it may stand in HTML and XML, in quotes too. Signs that XML does not allow at all become U+FFFD.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            sign if sign.is_control() => out.push('\u{fffd}'),
            sign => out.push(sign),
        }
    }
    out
}

#[cfg(test)]
#[path = "report_test.rs"]
mod tests;
