//! Initiator groups and CHAP names of a plan.

use super::call::{Call, SecretPlace};
use super::document::{ChapName, Group};
use super::plan::{Action, Phase, Planner, arrow, differs};
use crate::admin::access::AccessRequest;

impl Planner<'_> {
    pub(super) fn access(&mut self) {
        let (document, present) = (self.document, &self.present.configuration);
        let (now, wanted) = (&present.discovery, &document.discovery);
        self.users(None, &now.users, &wanted.users);
        self.mutual(None, now.mutual.as_ref(), wanted.mutual.as_ref());
        for wanted in &document.groups {
            match present.groups.iter().find(|group| group.name == wanted.name) {
                None => self.new_group(wanted),
                Some(now) => self.changed_group(now, wanted),
            }
        }
        for now in &present.groups {
            let object = format!("group {}", now.name);
            if document.groups.iter().all(|group| group.name != now.name) && self.goes(&object) {
                self.tell(Action::Delete, &object, Vec::new());
                let name = now.name.clone();
                let call = Call::Access(AccessRequest::DeleteGroup { name });
                self.step(Phase::DeleteGroups, &object, call);
            }
        }
    }

    fn new_group(&mut self, wanted: &Group) {
        let object = format!("group {}", wanted.name);
        let initiators = wanted.initiators.clone().unwrap_or_default();
        let networks = wanted.networks.clone().unwrap_or_default();
        let any_initiator = wanted.any_initiator == Some(true);
        let read_only = wanted.read_only == Some(true);
        let mut values = Vec::new();
        if any_initiator {
            values.push("any_initiator true".to_owned());
        }
        if !initiators.is_empty() {
            values.push(format!("initiators {}", initiators.join(" ")));
        }
        if !networks.is_empty() {
            values.push(format!("networks {}", networks.join(" ")));
        }
        if read_only {
            values.push("read_only true".to_owned());
        }
        self.tell(Action::Create, &object, values);
        let request = AccessRequest::CreateGroup {
            name: wanted.name.clone(),
            any_initiator,
            initiators,
            networks,
            read_only,
        };
        self.step(Phase::NewGroups, &object, Call::Access(request));
        self.users(Some(&wanted.name), &[], &wanted.users);
        self.mutual(Some(&wanted.name), None, wanted.mutual.as_ref());
    }

    fn changed_group(&mut self, now: &Group, wanted: &Group) {
        let object = format!("group {}", wanted.name);
        let mut values = Vec::new();
        let any = (now.any_initiator.as_ref(), wanted.any_initiator.as_ref());
        let any_initiator = differs(&mut values, "any_initiator", any.0, any.1);
        let initiators = (now.initiators.as_ref(), wanted.initiators.as_ref());
        let (add_initiators, remove_initiators) = members(&mut values, "initiators", initiators);
        let networks = (now.networks.as_ref(), wanted.networks.as_ref());
        let (add_networks, remove_networks) = members(&mut values, "networks", networks);
        let read_only = differs(
            &mut values,
            "read_only",
            now.read_only.as_ref(),
            wanted.read_only.as_ref(),
        );
        if !values.is_empty() {
            self.tell(Action::Change, &object, values);
            let request = AccessRequest::ChangeGroup {
                name: wanted.name.clone(),
                any_initiator,
                add_initiators,
                remove_initiators,
                add_networks,
                remove_networks,
                read_only,
            };
            self.step(Phase::Groups, &object, Call::Access(request));
        }
        self.users(Some(&wanted.name), &now.users, &wanted.users);
        self.mutual(Some(&wanted.name), now.mutual.as_ref(), wanted.mutual.as_ref());
    }

    fn users(&mut self, group: Option<&str>, now: &[ChapName], wanted: &[ChapName]) {
        let object = |name: &str| format!("CHAP user {name} of {}", of(group));
        for user in wanted {
            if now.iter().all(|known| known.name != user.name) {
                let object = object(&user.name);
                self.tell(Action::Create, &object, Vec::new());
                self.secret(&object, group, user, false);
            }
        }
        for known in now {
            let object = object(&known.name);
            if wanted.iter().all(|user| known.name != user.name) && self.goes(&object) {
                self.tell(Action::Delete, &object, Vec::new());
                let request = AccessRequest::SetUser {
                    group: group.map(str::to_owned),
                    user: known.name.clone(),
                    secret: None,
                };
                self.step(Phase::DeleteUsers, &object, Call::Access(request));
            }
        }
    }

    fn mutual(&mut self, group: Option<&str>, now: Option<&ChapName>, wanted: Option<&ChapName>) {
        let object = format!("mutual CHAP of {}", of(group));
        match (now, wanted) {
            (None, Some(wanted)) => {
                self.tell(Action::Create, &object, vec![format!("name {}", wanted.name)]);
                self.secret(&object, group, wanted, true);
            }
            (Some(now), Some(wanted)) if now.name != wanted.name => {
                let value = format!("name {}", arrow(&now.name, &wanted.name));
                self.tell(Action::Change, &object, vec![value]);
                self.secret(&object, group, wanted, true);
            }
            (Some(now), None) if self.goes(&object) => {
                self.tell(Action::Delete, &object, vec![format!("name {}", now.name)]);
                let request = AccessRequest::SetMutual {
                    group: group.map(str::to_owned),
                    name: now.name.clone(),
                    secret: None,
                };
                self.step(Phase::DeleteUsers, &object, Call::Access(request));
            }
            _ => {}
        }
    }

    /// A name that is not there yet needs its secret.
    fn secret(&mut self, object: &str, group: Option<&str>, name: &ChapName, mutual: bool) {
        let Some(file) = &name.secret_file else {
            let fault = "secret_file is missing: the cluster does not have this name, so give the file whose first line is its secret, \
                         secret_file = \"FILE\"";
            self.fault(object, fault);
            return;
        };
        let place = SecretPlace {
            group: group.map(str::to_owned),
            name: name.name.clone(),
            mutual,
            file: file.clone(),
        };
        self.step(Phase::Users, object, Call::Secret(place));
    }
}

fn of(group: Option<&str>) -> String {
    group.map_or_else(|| "discovery".to_owned(), |group| format!("group {group}"))
}

/// Who comes and who goes, of two lists in order.
fn members(
    values: &mut Vec<String>,
    name: &str,
    (now, wanted): (Option<&Vec<String>>, Option<&Vec<String>>),
) -> (Vec<String>, Vec<String>) {
    let (Some(now), Some(wanted)) = (now, wanted) else {
        return Default::default();
    };
    let without = |list: &[String], other: &[String]| -> Vec<String> {
        let rest = list.iter().filter(|item| !other.contains(item));
        rest.cloned().collect()
    };
    let (comes, goes) = (without(wanted, now), without(now, wanted));
    if !comes.is_empty() || !goes.is_empty() {
        let signed = |sign: char, list: &[String]| -> Vec<String> {
            list.iter().map(|item| format!("{sign}{item}")).collect()
        };
        let all = [signed('-', &goes), signed('+', &comes)].concat();
        values.push(format!("{name} {}", all.join(" ")));
    }
    (comes, goes)
}
