//! Groups, users, LUN maps of groups.

use super::super::access::*;
use super::super::fixture::*;
use super::super::sealed::ClusterKey;
use super::super::{ClusterState, Command, Refusal, Reply};
use holdfast_types::{IscsiName, Lun, Secret};

fn target() -> IscsiName {
    "iqn.2026-11.example:t".parse().unwrap()
}

fn host(number: u8) -> IscsiName {
    format!("iqn.2026-11.example:host{number}").parse().unwrap()
}

fn lun(number: u16) -> Lun {
    number.try_into().unwrap()
}

/// Extents 1 and 2, the first of them LUN 0 of the target.
fn state() -> ClusterState {
    let mut state = led_by_a(2);
    must(&Command::CreateTarget { name: target() }, &mut state);
    let map = Command::MapLun {
        target: target(),
        lun: lun(0),
        extent: extent_id(1),
    };
    must(&map, &mut state);
    state
}

fn access(command: AccessCommand, state: &mut ClusterState) -> Result<Vec<String>, Refusal> {
    match go(&Command::Access(command), state) {
        Reply::Done { warnings } => Ok(warnings),
        Reply::Refused { refusal } => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn create(name: &str, hosts: &[u8]) -> AccessCommand {
    AccessCommand::CreateGroup {
        name: name.to_owned(),
        group: NewGroup {
            initiators: hosts.iter().map(|n| host(*n)).collect(),
            ..NewGroup::default()
        },
    }
}

fn allow(group: &str) -> AccessCommand {
    AccessCommand::Allow {
        target: target(),
        group: group.to_owned(),
    }
}

fn map(group: &str, number: u16, extent: u128, read_only: bool) -> AccessCommand {
    AccessCommand::MapGroupLun {
        target: target(),
        group: group.to_owned(),
        lun: lun(number),
        unit: GroupLun {
            extent: extent_id(extent),
            read_only,
        },
    }
}

/// Applies it twice: the second time changes nothing but the revision.
fn twice(command: &AccessCommand, state: &mut ClusterState) {
    access(command.clone(), state).unwrap();
    let before = state.access.clone();
    access(command.clone(), state).unwrap();
    assert_eq!(state.access, before, "{command:?}");
}

#[test]
fn commands_may_come_twice() {
    let state = &mut state();
    for command in [
        create("hosts", &[1, 2]),
        allow("hosts"),
        map("hosts", 5, 2, false),
        map("hosts", 5, 2, true),
        AccessCommand::SetLunReadOnly {
            target: target(),
            lun: lun(0),
            read_only: true,
        },
        AccessCommand::UnmapGroupLun {
            target: target(),
            group: "hosts".to_owned(),
            lun: lun(5),
        },
        AccessCommand::ShareLuns {
            target: target(),
            group: "hosts".to_owned(),
        },
        AccessCommand::Deny {
            target: target(),
            group: "hosts".to_owned(),
        },
        AccessCommand::DeleteGroup {
            name: "hosts".to_owned(),
        },
    ] {
        twice(&command, state);
    }
}

#[test]
fn a_group_of_that_name_with_other_members_is_kept() {
    let state = &mut state();
    access(create("hosts", &[1]), state).unwrap();
    assert!(matches!(
        access(create("hosts", &[2]), state),
        Err(Refusal::Exists { .. })
    ));
    assert!(state.access.groups["hosts"].initiators.contains(&host(1)));
    assert!(matches!(
        access(create("No", &[]), state),
        Err(Refusal::BadName { .. })
    ));
}

#[test]
fn members_come_and_go() {
    let state = &mut state();
    access(create("hosts", &[1]), state).unwrap();
    let change = GroupChange {
        add_initiators: [host(2)].into(),
        remove_initiators: [host(1)].into(),
        add_networks: ["10.0.0.0/8".parse().unwrap()].into(),
        ..GroupChange::default()
    };
    let command = |change| AccessCommand::ChangeGroup {
        name: "hosts".to_owned(),
        change,
    };
    assert_eq!(access(command(change), state), Ok(vec![]));
    let group = &state.access.groups["hosts"];
    assert_eq!((group.initiators.len(), group.networks.len()), (1, 1));
    assert!(group.initiators.contains(&host(2)));
    let change = GroupChange {
        remove_initiators: [host(2)].into(),
        remove_networks: ["10.0.0.0/8".parse().unwrap()].into(),
        ..GroupChange::default()
    };
    let warnings = access(command(change), state).unwrap().join("; ");
    assert!(
        warnings.contains("nobody belongs") && warnings.contains("from anywhere"),
        "{warnings}"
    );
}

/// Whoever loses the last group must not find the target open to the world.
#[test]
fn a_restricted_target_never_opens_by_itself() {
    let state = &mut state();
    access(create("hosts", &[1]), state).unwrap();
    let warnings = access(allow("hosts"), state).unwrap().join("; ");
    assert!(warnings.contains("was open to everyone"), "{warnings}");
    let warnings = access(
        AccessCommand::DeleteGroup {
            name: "hosts".to_owned(),
        },
        state,
    );
    assert!(warnings.unwrap().join("; ").contains("nobody may use"));
    assert!(state.access.targets[&target()].restricted);
    assert!(state.access.targets[&target()].groups.is_empty());
    let change = TargetChange {
        restricted: Some(false),
        ..TargetChange::default()
    };
    let open = AccessCommand::ChangeTarget {
        target: target(),
        change,
    };
    access(open, state).unwrap();
    assert!(!state.access.targets[&target()].restricted);
}

#[test]
fn a_group_has_numbers_of_its_own() {
    let state = &mut state();
    access(create("hosts", &[1]), state).unwrap();
    assert!(
        access(map("hosts", 0, 2, false), state).is_err(),
        "not allowed to use it yet"
    );
    access(allow("hosts"), state).unwrap();
    access(map("hosts", 0, 2, false), state).unwrap();
    assert!(matches!(
        access(map("hosts", 0, 1, false), state),
        Err(Refusal::LunTaken { .. })
    ));
    assert!(matches!(
        access(map("hosts", 1, 2, false), state),
        Err(Refusal::Exists { .. })
    ));
    assert!(matches!(
        access(map("hosts", 1, 9, false), state),
        Err(Refusal::NoSuchExtent { .. })
    ));
    assert_eq!(state.access.targets[&target()].groups["hosts"].lun_changes, 1);
    // What a group is shown is in use.
    let delete = Command::DeleteExtent { extent: extent_id(2) };
    assert!(matches!(
        refusals(&go(&delete, state)).as_slice(),
        [Refusal::InUse { by, .. }] if by.contains("hosts")
    ));
}

#[test]
fn what_is_set_for_a_lun_or_target_goes_with_it() {
    let state = &mut state();
    let read_only = AccessCommand::SetLunReadOnly {
        target: target(),
        lun: lun(0),
        read_only: true,
    };
    access(read_only.clone(), state).unwrap();
    assert_eq!(state.access.targets[&target()].write_changes, 1);
    let unmap = Command::UnmapLun {
        target: target(),
        lun: lun(0),
    };
    must(&unmap, state);
    assert!(state.access.targets[&target()].read_only.is_empty());
    assert!(matches!(access(read_only, state), Err(Refusal::NoSuchLun { .. })));
    must(&Command::DeleteTarget { name: target() }, state);
    assert!(state.access.targets.is_empty());
}

#[test]
fn users_are_kept_sealed() {
    let state = &mut state();
    let key = ClusterKey::from_random([3; 32]);
    let scope = ChapScope::Group("hosts".to_owned());
    let secret = Secret::new(b"correct horse".to_vec()).unwrap();
    let user = |user: &str, secret| AccessCommand::SetUser {
        scope: scope.clone(),
        user: user.to_owned(),
        secret,
    };
    let sealed = key.seal(&secret, &scope.user_place("u"), [1; 24]);
    assert!(
        access(user("u", Some(sealed.clone())), state).is_err(),
        "no such group"
    );
    access(create("hosts", &[1]), state).unwrap();
    access(user("u", Some(sealed)), state).unwrap();
    for bad in ["", " u", "a\nb", &"x".repeat(256)] {
        assert!(access(user(bad, None), state).is_err(), "{bad:?}");
    }
    let json = serde_json::to_string(&*state).unwrap();
    assert!(!json.contains("horse"), "{json}");
    let read: ClusterState = serde_json::from_str(&json).unwrap();
    assert_eq!(&read, state);
    let kept = &read.access.groups["hosts"].chap.users["u"];
    assert_eq!(key.open(kept, &scope.user_place("u")), Some(secret));
    assert_eq!(key.open(kept, &ChapScope::Discovery.user_place("u")), None);
    access(user("u", None), state).unwrap();
    assert!(state.access.groups["hosts"].chap.users.is_empty());
}

#[test]
fn the_key_is_said_once() {
    let state = &mut state();
    let set = |byte| AccessCommand::SetKey {
        key: ClusterKey::from_random([byte; 32]).id(),
    };
    access(set(1), state).unwrap();
    access(set(1), state).unwrap();
    assert!(access(set(2), state).is_err());
}

/// A state that was written before there was any of this.
#[test]
fn an_older_state_is_open_to_everyone() {
    let mut json = serde_json::to_value(state()).unwrap();
    json.as_object_mut().unwrap().remove("access");
    let read: ClusterState = serde_json::from_value(json).unwrap();
    assert_eq!(read.access, Access::default());
}
