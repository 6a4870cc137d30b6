//! Applying commands about access.

use std::collections::BTreeMap;

use holdfast_types::{ExtentId, IscsiName, LUNS_MAX, Lun};

use super::access::{
    AccessCommand, CHAP_NAME_MAX, Chap, ChapScope, Grant, GroupChange, GroupLun, InitiatorGroup, NewGroup,
    TargetAccess, TargetChange,
};
use super::name::check_name;
use super::reply::{Refusal, Reply};
use super::state::ClusterState;

/// Most initiator groups of a cluster.
const GROUPS_MAX: usize = 1024;
/// Most initiators, networks or users of a group.
const MEMBERS_MAX: usize = 1024;

type Applied = Result<Reply, Refusal>;

impl ClusterState {
    pub(super) fn apply_access(&mut self, command: &AccessCommand) -> Applied {
        match command {
            AccessCommand::SetKey { key } => match self.access.key {
                Some(other) if other != *key => Err(Refusal::Invalid(format!(
                    "the cluster seals secrets with key {other} already"
                ))),
                _ => {
                    self.access.key = Some(*key);
                    Ok(Reply::DONE)
                }
            },
            AccessCommand::CreateGroup { name, group } => self.create_group(name, group),
            AccessCommand::ChangeGroup { name, change } => self.change_group(name, change),
            AccessCommand::DeleteGroup { name } => Ok(self.delete_group(name)),
            AccessCommand::SetUser { scope, user, secret } => {
                check_chap_name(user)?;
                let users = &mut self.chap_mut(scope)?.users;
                match secret {
                    Some(secret) if users.len() < MEMBERS_MAX || users.contains_key(user) => {
                        users.insert(user.clone(), secret.clone());
                    }
                    Some(_) => return Err(too_many("CHAP users")),
                    None => drop(users.remove(user)),
                }
                Ok(Reply::DONE)
            }
            AccessCommand::SetMutual { scope, mutual } => {
                if let Some(mutual) = mutual {
                    check_chap_name(&mutual.name)?;
                }
                self.chap_mut(scope)?.mutual.clone_from(mutual);
                Ok(Reply::DONE)
            }
            AccessCommand::Allow { target, group } => self.allow(target, group),
            AccessCommand::Deny { target, group } => self.deny(target, group),
            AccessCommand::ChangeTarget { target, change } => self.change_target(target, change),
            AccessCommand::MapGroupLun {
                target,
                group,
                lun,
                unit,
            } => self.map_group_lun(target, group, *lun, *unit),
            AccessCommand::UnmapGroupLun { target, group, lun } => {
                let grant = self.grant_mut(target, group)?;
                if grant.luns.as_mut().and_then(|luns| luns.remove(lun)).is_some() {
                    grant.lun_changes += 1;
                }
                Ok(Reply::DONE)
            }
            AccessCommand::ShareLuns { target, group } => {
                let grant = self.grant_mut(target, group)?;
                if grant.luns.take().is_some() {
                    grant.lun_changes += 1;
                }
                Ok(Reply::DONE)
            }
            AccessCommand::SetLunReadOnly {
                target,
                lun,
                read_only,
            } => self.set_lun_read_only(target, *lun, *read_only),
        }
    }

    fn create_group(&mut self, name: &str, new: &NewGroup) -> Applied {
        check_name(name)?;
        if new.initiators.len().max(new.networks.len()) > MEMBERS_MAX {
            return Err(too_many("initiators or networks"));
        }
        let group = InitiatorGroup {
            any_initiator: new.any_initiator,
            initiators: new.initiators.clone(),
            networks: new.networks.clone(),
            chap: Chap::default(),
            read_only: new.read_only,
        };
        match self.access.groups.get(name) {
            Some(old) => {
                let again = InitiatorGroup {
                    chap: old.chap.clone(),
                    ..group
                };
                if *old == again {
                    Ok(Reply::DONE)
                } else {
                    Err(Refusal::Exists {
                        what: format!("initiator group '{name}', with other members,"),
                    })
                }
            }
            None if self.access.groups.len() >= GROUPS_MAX => Err(too_many("initiator groups")),
            None => {
                let warnings = warnings_of(name, &group);
                self.access.groups.insert(name.to_owned(), group);
                Ok(Reply::Done { warnings })
            }
        }
    }

    fn change_group(&mut self, name: &str, change: &GroupChange) -> Applied {
        let group = self.access.groups.get_mut(name).ok_or_else(|| no_group(name))?;
        let mut next = group.clone();
        next.any_initiator = change.any_initiator.unwrap_or(next.any_initiator);
        next.initiators.extend(change.add_initiators.iter().cloned());
        next.initiators
            .retain(|name| !change.remove_initiators.contains(name));
        next.networks.extend(change.add_networks.iter().copied());
        next.networks
            .retain(|network| !change.remove_networks.contains(network));
        if next.initiators.len().max(next.networks.len()) > MEMBERS_MAX {
            return Err(too_many("initiators or networks"));
        }
        let opened = !group.networks.is_empty() && next.networks.is_empty();
        next.read_only = change.read_only.unwrap_or(next.read_only);
        let rewritten = next.read_only != group.read_only;
        let mut warnings = warnings_of(name, &next);
        if opened {
            warnings.push(format!(
                "the last network of '{name}' is gone: its initiators may come from anywhere"
            ));
        }
        *group = next;
        if rewritten {
            for target in self.access.targets.values_mut() {
                target.write_changes += u64::from(target.groups.contains_key(name));
            }
        }
        Ok(Reply::Done { warnings })
    }

    fn delete_group(&mut self, name: &str) -> Reply {
        let mut warnings = Vec::new();
        if self.access.groups.remove(name).is_none() {
            warnings.push(format!("there was no initiator group '{name}'"));
        }
        for (target, access) in &mut self.access.targets {
            if access.groups.remove(name).is_some() && access.groups.is_empty() {
                warnings.push(format!("nobody may use {target} any more"));
            }
        }
        Reply::Done { warnings }
    }

    fn chap_mut(&mut self, scope: &ChapScope) -> Result<&mut Chap, Refusal> {
        match scope {
            ChapScope::Discovery => Ok(&mut self.access.discovery),
            ChapScope::Group(name) => self
                .access
                .groups
                .get_mut(name)
                .map(|group| &mut group.chap)
                .ok_or_else(|| no_group(name)),
        }
    }

    fn target_access_mut(&mut self, target: &IscsiName) -> Result<&mut TargetAccess, Refusal> {
        if !self.targets.contains_key(target) {
            return Err(Refusal::NoSuchTarget { name: target.clone() });
        }
        Ok(self.access.targets.entry(target.clone()).or_default())
    }

    fn allow(&mut self, target: &IscsiName, group: &str) -> Applied {
        if !self.access.groups.contains_key(group) {
            return Err(no_group(group));
        }
        let access = self.target_access_mut(target)?;
        let mut warnings = Vec::new();
        if !access.restricted {
            warnings.push(format!(
                "{target} was open to everyone; from now on only its initiator groups may use it"
            ));
        }
        access.restricted = true;
        access.groups.entry(group.to_owned()).or_default();
        Ok(Reply::Done { warnings })
    }

    fn deny(&mut self, target: &IscsiName, group: &str) -> Applied {
        let access = self.target_access_mut(target)?;
        let mut warnings = Vec::new();
        if access.groups.remove(group).is_some() && access.groups.is_empty() {
            warnings.push(format!("nobody may use {target} any more"));
        }
        Ok(Reply::Done { warnings })
    }

    fn change_target(&mut self, target: &IscsiName, change: &TargetChange) -> Applied {
        let access = self.target_access_mut(target)?;
        let mut warnings = Vec::new();
        if let Some(restricted) = change.restricted {
            access.restricted = restricted;
            match (restricted, access.groups.len()) {
                (true, 0) => warnings.push(format!("nobody may use {target} until a group is allowed to")),
                (false, 1..) => warnings.push(format!(
                    "everyone may use {target} now, and sees its own LUN map; its groups count again when it is restricted"
                )),
                _ => {}
            }
        }
        if let Some(most) = change.sessions_max {
            access.sessions_max = (most > 0).then_some(most);
        }
        access.redirect = change.redirect.unwrap_or(access.redirect);
        Ok(Reply::Done { warnings })
    }

    fn grant_mut(&mut self, target: &IscsiName, group: &str) -> Result<&mut Grant, Refusal> {
        let name = group.to_owned();
        self.target_access_mut(target)?
            .groups
            .get_mut(group)
            .ok_or_else(|| Refusal::Invalid(format!("initiator group '{name}' may not use {target}")))
    }

    fn map_group_lun(&mut self, target: &IscsiName, group: &str, lun: Lun, unit: GroupLun) -> Applied {
        if !self.extents.contains_key(&unit.extent) {
            return Err(Refusal::NoSuchExtent { extent: unit.extent });
        }
        self.refuse_importing(unit.extent)?;
        let grant = self.grant_mut(target, group)?;
        let luns = grant.luns.get_or_insert_default();
        match luns.get_mut(&lun) {
            Some(old) if old.extent != unit.extent => {
                return Err(Refusal::LunTaken {
                    target: target.clone(),
                    lun,
                });
            }
            Some(old) if *old == unit => return Ok(Reply::DONE),
            Some(old) => {
                *old = unit;
                self.target_access_mut(target)?.write_changes += 1;
                return Ok(Reply::DONE);
            }
            None => {}
        }
        if let Some((other, _)) = luns.iter().find(|(_, known)| known.extent == unit.extent) {
            return Err(Refusal::Exists {
                what: format!("the extent as LUN {other} of {target} for '{group}'"),
            });
        }
        if luns.len() >= LUNS_MAX {
            return Err(Refusal::Invalid(format!("a target has at most {LUNS_MAX} LUNs")));
        }
        luns.insert(lun, unit);
        grant.lun_changes += 1;
        Ok(Reply::DONE)
    }

    fn set_lun_read_only(&mut self, target: &IscsiName, lun: Lun, read_only: bool) -> Applied {
        let known = self
            .targets
            .get(target)
            .ok_or_else(|| Refusal::NoSuchTarget { name: target.clone() })?;
        if !known.luns.contains_key(&lun) {
            return Err(Refusal::NoSuchLun {
                target: target.clone(),
                lun,
            });
        }
        let access = self.target_access_mut(target)?;
        let changed = if read_only {
            access.read_only.insert(lun)
        } else {
            access.read_only.remove(&lun)
        };
        access.write_changes += u64::from(changed);
        Ok(Reply::DONE)
    }

    /// The group that still shows an extent under a number of its own.
    pub(super) fn shown_to_group(&self, extent: ExtentId) -> Option<(&IscsiName, &str, Lun)> {
        self.access.targets.iter().find_map(|(target, access)| {
            access.groups.iter().find_map(|(group, grant)| {
                let luns: &BTreeMap<Lun, GroupLun> = grant.luns.as_ref()?;
                let (lun, _) = luns.iter().find(|(_, unit)| unit.extent == extent)?;
                Some((target, group.as_str(), *lun))
            })
        })
    }

    /// A LUN of the target's own map is gone, and what was set for it with it.
    pub(super) fn forget_lun(&mut self, target: &IscsiName, lun: Lun) {
        if let Some(access) = self.access.targets.get_mut(target) {
            access.read_only.remove(&lun);
        }
    }
}

fn warnings_of(name: &str, group: &InitiatorGroup) -> Vec<String> {
    let mut warnings = Vec::new();
    if group.initiators.is_empty() && !group.any_initiator {
        warnings.push(format!(
            "initiator group '{name}' has no initiators: nobody belongs to it"
        ));
    }
    if group.any_initiator && group.networks.is_empty() && group.chap.users.is_empty() {
        warnings.push(format!(
            "every initiator belongs to '{name}', from anywhere and without a secret"
        ));
    }
    warnings
}

fn no_group(name: &str) -> Refusal {
    Refusal::Invalid(format!("there is no initiator group '{name}'"))
}

fn too_many(what: &str) -> Refusal {
    Refusal::Invalid(format!("there are too many {what} already"))
}

/// A CHAP name: 1 to 255 bytes without control characters, and without spaces around it.
///
/// # Errors
/// [`Refusal::Invalid`] with the rule.
pub fn check_chap_name(name: &str) -> Result<(), Refusal> {
    let fits = (1..=CHAP_NAME_MAX).contains(&name.len())
        && !name.chars().any(char::is_control)
        && name.trim() == name;
    fits.then_some(()).ok_or_else(|| {
        Refusal::Invalid(format!(
            "a CHAP name has 1 to {CHAP_NAME_MAX} bytes, no control characters, and no spaces at its ends"
        ))
    })
}

#[cfg(test)]
#[path = "access_test.rs"]
mod tests;
