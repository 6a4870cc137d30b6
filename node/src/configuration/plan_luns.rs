//! Targets of a plan: who may use them, and their LUN maps.

use holdfast_proto::admin::{CreateTargetRequest, MapLunRequest};

use super::call::Call;
use super::document::{Grant, LunOf, Target};
use super::plan::{Action, Phase, Planner, differs};
use crate::admin::access::AccessRequest;

/// A LUN map: the target's own one, or that of a group.
#[derive(Clone, Copy)]
struct Map<'a> {
    iqn: &'a str,
    group: Option<&'a str>,
}

impl Map<'_> {
    fn name(self) -> String {
        match self.group {
            None => format!("target {}", self.iqn),
            Some(group) => format!("target {}, group {group}", self.iqn),
        }
    }

    fn object(self, lun: u32) -> String {
        match self.group {
            None => format!("LUN {lun} of {}", self.iqn),
            Some(group) => format!("LUN {lun} of {} for group {group}", self.iqn),
        }
    }

    fn group(self) -> Option<String> {
        self.group.map(str::to_owned)
    }
}

impl Planner<'_> {
    pub(super) fn targets(&mut self) {
        let (document, present) = (self.document, &self.present.configuration);
        for wanted in &document.targets {
            let now = present.targets.iter().find(|target| target.iqn == wanted.iqn);
            self.target(now, wanted);
            self.grants(now, wanted);
            let map = Map {
                iqn: &wanted.iqn,
                group: None,
            };
            self.luns(map, now.map_or(&[], |now| &now.luns), &wanted.luns);
        }
        for now in &present.targets {
            let object = format!("target {}", now.iqn);
            if document.targets.iter().any(|target| target.iqn == now.iqn) || !self.goes(&object) {
                continue;
            }
            let map = Map {
                iqn: &now.iqn,
                group: None,
            };
            self.luns(map, &now.luns, &[]);
            self.tell(Action::Delete, &object, Vec::new());
            let target = now.iqn.clone();
            let call = Call::Access(AccessRequest::DeleteTarget { target });
            self.step(Phase::DeleteTargets, &object, call);
        }
    }

    fn change_target(&mut self, phase: Phase, target: &Target) {
        let request = AccessRequest::ChangeTarget {
            target: target.iqn.clone(),
            restricted: target.restricted,
            sessions_max: target.max_sessions,
            redirect: target.redirect,
        };
        self.step(phase, &format!("target {}", target.iqn), Call::Access(request));
    }

    /// What is set for a target. Allowing its first group restricts it; whoever wants it open all the same gets that at the end.
    fn target(&mut self, now: Option<&Target>, wanted: &Target) {
        let object = format!("target {}", wanted.iqn);
        let was_restricted = now.is_some_and(|now| now.restricted == Some(true));
        let has = |name: &str| now.is_some_and(|now| now.groups.iter().any(|grant| grant.name == name));
        let is_restricted = was_restricted || wanted.groups.iter().any(|grant| !has(&grant.name));
        let restricted = wanted.restricted.unwrap_or(is_restricted);
        let mut values = Vec::new();
        let unset = Target {
            restricted: Some(false),
            max_sessions: Some(0),
            redirect: Some(false),
            ..Target::default()
        };
        let before = now.unwrap_or(&unset);
        differs(
            &mut values,
            "restricted",
            before.restricted.as_ref(),
            Some(&restricted),
        );
        let most = (before.max_sessions.as_ref(), wanted.max_sessions.as_ref());
        let max_sessions = differs(&mut values, "max_sessions", most.0, most.1);
        let redirect = differs(
            &mut values,
            "redirect",
            before.redirect.as_ref(),
            wanted.redirect.as_ref(),
        );
        match now {
            None => {
                self.tell(Action::Create, &object, values);
                let iqn = wanted.iqn.clone();
                let call = Call::CreateTarget(CreateTargetRequest { iqn });
                self.step(Phase::Targets, &object, call);
            }
            Some(_) if !values.is_empty() => self.tell(Action::Change, &object, values),
            Some(_) => {}
        }
        // Before anything of a new target is shown, if somebody is to be kept out. One that is in use closes when its first group is
        // allowed, so that hosts of that group stay logged in.
        let closes = match now {
            None => is_restricted || restricted,
            Some(_) => restricted && !is_restricted,
        };
        if closes || max_sessions.is_some() || redirect.is_some() {
            let change = Target {
                iqn: wanted.iqn.clone(),
                restricted: closes.then_some(true),
                max_sessions,
                redirect,
                ..Target::default()
            };
            self.change_target(Phase::Targets, &change);
        }
        if is_restricted && !restricted {
            let open = Target {
                iqn: wanted.iqn.clone(),
                restricted: Some(false),
                ..Target::default()
            };
            self.change_target(Phase::OpenTargets, &open);
        }
    }

    fn grants(&mut self, now: Option<&Target>, wanted: &Target) {
        let iqn = &wanted.iqn;
        let known = now.map_or(&[] as &[Grant], |now| &now.groups);
        let access = |target: &str, group: &str, allow| {
            let (target, group) = (target.to_owned(), group.to_owned());
            Call::Access(if allow {
                AccessRequest::Allow { target, group }
            } else {
                AccessRequest::Deny { target, group }
            })
        };
        for grant in &wanted.groups {
            let object = format!("group {} at {iqn}", grant.name);
            let now = known.iter().find(|known| known.name == grant.name);
            self.group_is_there(iqn, &grant.name);
            if now.is_none() {
                self.tell(Action::Create, &object, Vec::new());
                self.step(Phase::AllowGroups, &object, access(iqn, &grant.name, true));
            }
            self.own_map(iqn, now, grant);
        }
        for now in known {
            let object = format!("group {} at {iqn}", now.name);
            if wanted.groups.iter().all(|grant| grant.name != now.name) && self.goes(&object) {
                self.tell(Action::Delete, &object, Vec::new());
                self.step(Phase::DenyGroups, &object, access(iqn, &now.name, false));
            }
        }
    }

    fn group_is_there(&mut self, iqn: &str, name: &str) {
        if self.document.groups.iter().any(|group| group.name == name) {
            return;
        }
        let present = &self.present.configuration.groups;
        let place = format!("target {iqn}: group {name}");
        match present.iter().any(|group| group.name == name) {
            true if self.prune => {
                self.fault(
                    &place,
                    "the group itself is not in the document, so --prune would delete it; add a [[group]]",
                );
            }
            true => {}
            false => self.fault(&place, "there is no such group; add a [[group]] of that name"),
        }
    }

    fn own_map(&mut self, iqn: &str, now: Option<&Grant>, wanted: &Grant) {
        let map = Map {
            iqn,
            group: Some(&wanted.name),
        };
        let is_own = now.is_some_and(|now| now.own_luns == Some(true));
        if wanted.own_luns == Some(false) {
            if is_own {
                let object = format!("group {} at {iqn}", wanted.name);
                self.tell(Action::Change, &object, vec!["own_luns true -> false".to_owned()]);
                let (target, group) = (iqn.to_owned(), wanted.name.clone());
                let call = Call::Access(AccessRequest::ShareLuns { target, group });
                self.step(Phase::MapLuns, &object, call);
            }
            return;
        }
        if wanted.own_luns == Some(true) && wanted.luns.is_empty() && !is_own {
            self.fault(
                &map.name(),
                "own_luns = true without LUNs: a map of its own begins with its first LUN; to show the group nothing leave it out here",
            );
        }
        self.luns(map, now.map_or(&[], |now| &now.luns), &wanted.luns);
    }

    fn luns(&mut self, map: Map<'_>, now: &[LunOf], wanted: &[LunOf]) {
        for lun in wanted {
            self.extent_is_there(map, lun);
            match now.iter().find(|known| known.lun == lun.lun) {
                Some(known) => self.changed_lun(map, known, lun),
                None => self.new_lun(map, now, wanted, lun),
            }
        }
        for known in now {
            let object = map.object(known.lun);
            if wanted.iter().all(|lun| lun.lun != known.lun) && self.goes(&object) {
                self.tell(Action::Delete, &object, vec![format!("extent {}", known.extent)]);
                let request = AccessRequest::UnmapLun {
                    target: map.iqn.to_owned(),
                    group: map.group(),
                    lun: known.lun,
                };
                self.step(Phase::UnmapLuns, &object, Call::Access(request));
            }
        }
    }

    fn extent_is_there(&mut self, map: Map<'_>, lun: &LunOf) {
        let (document, present) = (&self.document.extents, &self.present.configuration.extents);
        if document
            .iter()
            .chain(present)
            .all(|extent| extent.name != lun.extent)
        {
            let LunOf { lun, extent, .. } = lun;
            self.fault(
                &map.name(),
                format!("lun {lun}: there is no extent '{extent}'; add an [[extent]] of that name"),
            );
        }
    }

    fn changed_lun(&mut self, map: Map<'_>, now: &LunOf, wanted: &LunOf) {
        let object = map.object(now.lun);
        if now.extent != wanted.extent {
            let (number, extent) = (wanted.lun, &wanted.extent);
            self.fault(
                &map.name(),
                format!(
                    "lun {number}: extent = '{extent}': it stands for {}, and a LUN never becomes another disk under its hosts; take it \
                     away first ('holdfast lun delete'), or use another number",
                    now.extent
                ),
            );
        }
        let mut values = Vec::new();
        if let Some(read_only) = differs(
            &mut values,
            "read_only",
            now.read_only.as_ref(),
            wanted.read_only.as_ref(),
        ) {
            self.tell(Action::Change, &object, values);
            self.read_only(map, &object, now.lun, read_only);
        }
    }

    fn read_only(&mut self, map: Map<'_>, object: &str, lun: u32, read_only: bool) {
        let request = AccessRequest::SetLunReadOnly {
            target: map.iqn.to_owned(),
            group: map.group(),
            lun,
            read_only,
        };
        self.step(Phase::MapLuns, object, Call::Access(request));
    }

    fn new_lun(&mut self, map: Map<'_>, now: &[LunOf], wanted: &[LunOf], lun: &LunOf) {
        let object = map.object(lun.lun);
        let (target, extent, number) = (map.iqn.to_owned(), lun.extent.clone(), lun.lun);
        let stays = |known: &&LunOf| !self.prune || wanted.iter().any(|lun| lun.lun == known.lun);
        if let Some(other) = now.iter().filter(stays).find(|known| known.extent == extent) {
            let other = other.lun;
            self.fault(
                &map.name(),
                format!("lun {number}: extent '{extent}' is LUN {other} of this map already, and has one LUN in a map; see --prune"),
            );
        }
        let read_only = lun.read_only == Some(true);
        let mut values = vec![format!("extent {extent}")];
        if read_only {
            values.push("read_only true".to_owned());
        }
        self.tell(Action::Create, &object, values);
        match map.group() {
            Some(group) => {
                let lun = number;
                let request = AccessRequest::MapGroupLun {
                    target,
                    group,
                    lun,
                    extent,
                    read_only,
                };
                self.step(Phase::MapLuns, &object, Call::Access(request));
            }
            None => {
                let (iqn, lun) = (target, number);
                let call = Call::MapLun(MapLunRequest { iqn, lun, extent });
                self.step(Phase::MapLuns, &object, call);
                if read_only {
                    self.read_only(map, &object, number, true);
                }
            }
        }
    }
}
