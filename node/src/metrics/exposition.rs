//! The text format of Prometheus (version 0.0.4): families with help and type, samples with labels.

use std::fmt::{Display, Write};

/// What a family's values mean.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Goes up, until the process starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// A page under construction.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// Begins a family: the samples that follow are its own.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A value.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A family of one sample.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted() {
        let mut page = Page::default();
        page.single("holdfast_x", Kind::Gauge, "Something.", 1.5);
        page.family("holdfast_y_total", Kind::Counter, "Something else.");
        page.sample("holdfast_y_total", &[("a", "x\"y\\z\n"), ("b", "")], 7);
        let wanted = "# HELP holdfast_x Something.\n# TYPE holdfast_x gauge\nholdfast_x 1.5\n\
            # HELP holdfast_y_total Something else.\n# TYPE holdfast_y_total counter\n\
            holdfast_y_total{a=\"x\\\"y\\\\z\\n\",b=\"\"} 7\n";
        assert_eq!(page.finish(), wanted);
    }
}
