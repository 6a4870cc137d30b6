//! From a document and what is there to the requests between them.

use std::collections::BTreeMap;
use std::fmt;

use holdfast_proto::admin::change_request::Change as OneChange;
use holdfast_proto::admin::{IsnsServer, SetSetting};
use serde::Serialize;

use super::call::Call;
use super::document::Configuration;
use super::present::Present;

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Create,
    Change,
    Delete,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Delete => "delete",
        })
    }
}

/// One line of the difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) action: Action,
    /// As `extent vm1`.
    pub(crate) object: String,
    /// Its values, or old and new ones.
    pub(crate) values: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.object)?;
        if self.values.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.values.join(", "))
    }
}

/// One request, and the object that it is for.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) object: String,
    pub(crate) call: Call,
}

/// What is to be done. Without differences there are no steps either.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) differences: Vec<Difference>,
    /// In the order in which they are to be made. Whoever stops after any of them and plans anew gets the rest.
    pub(crate) steps: Vec<Step>,
    /// What stays as it is though the document does not have it, for people.
    pub(crate) notes: Vec<String>,
}

/// The order of requests: what is referred to comes first and goes last; what lets somebody in comes behind what keeps others out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Settings,
    Isns,
    Extents,
    NewGroups,
    Users,
    Groups,
    /// New ones, restricted before they show anything.
    Targets,
    /// Before LUNs are mapped: an extent has one place in a map.
    UnmapLuns,
    DenyGroups,
    AllowGroups,
    MapLuns,
    /// What opens a target.
    OpenTargets,
    DeleteTargets,
    DeleteGroups,
    DeleteUsers,
    DeleteIsns,
}

/// A plan in the making.
pub(super) struct Planner<'a> {
    pub(super) document: &'a Configuration,
    pub(super) present: &'a Present,
    /// What the document does not have is to go.
    pub(super) prune: bool,
    differences: Vec<Difference>,
    steps: BTreeMap<Phase, Vec<Step>>,
    pub(super) notes: Vec<String>,
    faults: Vec<String>,
}

/// What is to be done so that everything that `document` says is so. With `prune` what it does not have goes, extents aside.
///
/// # Errors
/// Everything that cannot be done, one line each, which names the field and what is allowed.
pub(crate) fn plan(document: &Configuration, present: &Present, prune: bool) -> Result<Plan, Vec<String>> {
    let mut planner = Planner {
        document,
        present,
        prune,
        differences: Vec::new(),
        steps: BTreeMap::new(),
        notes: Vec::new(),
        faults: Vec::new(),
    };
    planner.settings();
    planner.isns();
    planner.extents();
    planner.access();
    planner.targets();
    if !planner.faults.is_empty() {
        return Err(planner.faults);
    }
    Ok(Plan {
        differences: planner.differences,
        steps: planner.steps.into_values().flatten().collect(),
        notes: planner.notes,
    })
}

impl Planner<'_> {
    pub(super) fn fault(&mut self, place: &str, fault: impl fmt::Display) {
        self.faults.push(format!("{place}: {fault}"));
    }

    pub(super) fn tell(&mut self, action: Action, object: &str, values: Vec<String>) {
        self.differences.push(Difference {
            action,
            object: object.to_owned(),
            values,
        });
    }

    pub(super) fn step(&mut self, phase: Phase, object: &str, call: Call) {
        let object = object.to_owned();
        self.steps.entry(phase).or_default().push(Step { object, call });
    }

    fn settings(&mut self) {
        let (document, present, prune) = (self.document, self.present, self.prune);
        for (key, now) in &present.configuration.settings {
            let wanted = document.settings.get(key);
            let wanted = wanted.or_else(|| present.defaults.get(key).filter(|_| prune));
            if let Some(wanted) = wanted
                && wanted != now
            {
                let object = format!("setting {key}");
                self.tell(Action::Change, &object, vec![arrow(now, wanted)]);
                let (key, value) = (key.clone(), wanted.clone());
                let change = OneChange::Setting(SetSetting { key, value });
                self.step(Phase::Settings, &object, Call::Change(change));
            }
        }
        let unknown = |key: &&String| !present.configuration.settings.contains_key(*key);
        for key in document.settings.keys().filter(unknown) {
            self.fault(
                "settings",
                format!("{key}: the cluster's release does not have it"),
            );
        }
    }

    fn isns(&mut self) {
        let (document, present) = (&self.document.isns, &self.present.configuration.isns);
        let call = |server: &str, told| {
            let server = server.to_owned();
            Call::Change(OneChange::IsnsServer(IsnsServer { server, told }))
        };
        for isns in document.iter().filter(|isns| !present.contains(isns)) {
            let object = format!("iSNS server {}", isns.server);
            self.tell(Action::Create, &object, Vec::new());
            self.step(Phase::Isns, &object, call(&isns.server, true));
        }
        for isns in present.iter().filter(|isns| !document.contains(isns)) {
            let object = format!("iSNS server {}", isns.server);
            if self.goes(&object) {
                self.tell(Action::Delete, &object, Vec::new());
                self.step(Phase::DeleteIsns, &object, call(&isns.server, false));
            }
        }
    }

    /// Whether what the document does not have is to go; a note says that it stays otherwise.
    pub(super) fn goes(&mut self, object: &str) -> bool {
        if !self.prune {
            self.notes
                .push(format!("not in the document, and left as it is: {object}"));
        }
        self.prune
    }
}

/// An old value and a new one.
pub(super) fn arrow(now: impl fmt::Display, wanted: impl fmt::Display) -> String {
    format!("{now} -> {wanted}")
}

/// Notes the change of a value where the document gives another one; that one.
pub(super) fn differs<T: Clone + PartialEq + fmt::Display>(
    values: &mut Vec<String>,
    name: &str,
    now: Option<&T>,
    wanted: Option<&T>,
) -> Option<T> {
    let wanted = wanted.filter(|wanted| now != Some(*wanted))?;
    match now {
        Some(now) => values.push(format!("{name} {}", arrow(now, wanted))),
        None => values.push(format!("{name} {wanted}")),
    }
    Some(wanted.clone())
}
