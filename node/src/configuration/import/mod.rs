//! Configurations of other targets, made into a document. Nothing here touches a cluster: what is printed is looked at, completed and
//! applied by a person.

mod lio;
mod scst;
mod words;

use serde::Serialize;

use super::document::{Configuration, Group};

pub(crate) use lio::lio;
pub(crate) use scst::scst;

/// A document, and what has no counterpart in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Imported {
    pub(super) configuration: Configuration,
    /// For people, one line each.
    pub(super) notes: Vec<String>,
}

impl Imported {
    fn new() -> Self {
        Self {
            configuration: Configuration::empty(),
            notes: Vec::new(),
        }
    }

    fn note(&mut self, note: impl Into<String>) {
        // Names come from a file of which nothing is known: none of them ends the comment.
        let note = note.into().replace(|c: char| c.is_control(), " ");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// A name for another extent, as close to `stem` as can be.
    fn extent_name(&self, stem: &str) -> String {
        let extents = self.configuration.extents.iter();
        let taken: Vec<&str> = extents.map(|extent| extent.name.as_str()).collect();
        words::name(stem, &taken)
    }

    /// A group for initiators that are treated alike: one that is there already, or the next name.
    fn group(&mut self, stem: &str, group: Group) -> String {
        let same = |known: &&Group| {
            Group {
                name: String::new(),
                ..(*known).clone()
            } == group
        };
        if let Some(known) = self.configuration.groups.iter().find(same) {
            return known.name.clone();
        }
        let taken: Vec<&str> = self
            .configuration
            .groups
            .iter()
            .map(|group| group.name.as_str())
            .collect();
        let name = words::name(stem, &taken);
        self.configuration.groups.push(Group {
            name: name.clone(),
            ..group
        });
        name
    }

    /// The document, the notes as comments below its first key. `name` is the file that was read.
    pub(crate) fn text(&self, name: &str) -> String {
        let text = self.configuration.to_toml();
        let name = name.replace(|c: char| c.is_control(), " ");
        let mut notes = format!(
            "# Made of {name}. Look through it, complete it, and 'holdfast apply' it. No data is copied.\n"
        );
        for note in &self.notes {
            notes.push_str(&format!("# - {note}\n"));
        }
        match text.split_once('\n') {
            Some((format, rest)) => format!("{format}\n{notes}{rest}"),
            None => text,
        }
    }
}
