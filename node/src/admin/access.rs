//! Requests about access: what a user typed, made a command of the cluster.

use std::collections::BTreeSet;
use std::fmt;

use holdfast_raft::model::{
    AccessCommand, ChapMutual, ChapScope, ClusterKey, ClusterState, Command, GroupChange, GroupLun, NewGroup,
    SealedSecret, TargetChange, check_name,
};
use holdfast_types::{IscsiName, Lun, Network, Secret};
use serde::{Deserialize, Serialize};
use tonic::Status;
use zeroize::Zeroizing;

/// A secret on its way to the node; shown by nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretText(pub(crate) Zeroizing<String>);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(hidden)")
    }
}

/// A request, as it travels (JSON).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum AccessRequest {
    CreateGroup {
        name: String,
        any_initiator: bool,
        initiators: Vec<String>,
        networks: Vec<String>,
        read_only: bool,
    },
    ChangeGroup {
        name: String,
        any_initiator: Option<bool>,
        add_initiators: Vec<String>,
        remove_initiators: Vec<String>,
        add_networks: Vec<String>,
        remove_networks: Vec<String>,
        read_only: Option<bool>,
    },
    DeleteGroup {
        name: String,
    },
    /// Without a group: of discovery sessions. Without a secret: removed.
    SetUser {
        group: Option<String>,
        user: String,
        secret: Option<SecretText>,
    },
    SetMutual {
        group: Option<String>,
        name: String,
        secret: Option<SecretText>,
    },
    Allow {
        target: String,
        group: String,
    },
    Deny {
        target: String,
        group: String,
    },
    ChangeTarget {
        target: String,
        restricted: Option<bool>,
        sessions_max: Option<u32>,
        #[serde(default)]
        redirect: Option<bool>,
    },
    MapGroupLun {
        target: String,
        group: String,
        lun: u32,
        extent: String,
        read_only: bool,
    },
    UnmapLun {
        target: String,
        group: Option<String>,
        lun: u32,
    },
    ShareLuns {
        target: String,
        group: String,
    },
    SetLunReadOnly {
        target: String,
        group: Option<String>,
        lun: u32,
        read_only: bool,
    },
    DeleteTarget {
        target: String,
    },
    DeleteExtent {
        extent: String,
    },
}

/// Why a request makes no command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Something in it is not as it must be.
    Invalid(String),
    /// What it names is not there.
    Unknown(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Invalid(line) | Self::Unknown(line)) = self;
        f.write_str(line)
    }
}

impl From<String> for Wrong {
    fn from(line: String) -> Self {
        Self::Invalid(line)
    }
}

impl From<Wrong> for Status {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Invalid(line) => Self::invalid_argument(line),
            Wrong::Unknown(line) => Self::not_found(line),
        }
    }
}

type Made = Result<(Command, String), Wrong>;

fn initiators(texts: &[String]) -> Result<BTreeSet<IscsiName>, String> {
    let read =
        |text: &String| IscsiName::of_initiator(text).map_err(|error| format!("initiator '{text}': {error}"));
    texts.iter().map(read).collect()
}

fn networks(texts: &[String]) -> Result<BTreeSet<Network>, String> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|error| format!("{error}")))
        .collect()
}

fn target(text: &str) -> Result<IscsiName, String> {
    text.parse()
        .map_err(|error| format!("'{text}' is no target name: {error}"))
}

fn lun(number: u32) -> Result<Lun, String> {
    u16::try_from(number)
        .ok()
        .and_then(|number| Lun::try_from(number).ok())
        .ok_or_else(|| format!("LUN {number} is not between 0 and 16383"))
}

fn scope(state: &ClusterState, group: Option<String>) -> Result<ChapScope, Wrong> {
    let Some(name) = group else {
        return Ok(ChapScope::Discovery);
    };
    if state.access.groups.contains_key(&name) {
        Ok(ChapScope::Group(name))
    } else {
        Err(Wrong::Unknown(format!(
            "there is no initiator group '{name}'; see 'holdfast initiators list'"
        )))
    }
}

/// Makes a command of a request, and the line that says that it is done.
pub(crate) fn command(state: &ClusterState, key: Option<&ClusterKey>, request: AccessRequest) -> Made {
    let access = |command, message: String| Ok((Command::Access(command), message));
    match request {
        AccessRequest::SetUser { group, user, secret } => set_user(state, key, group, user, secret),
        AccessRequest::SetMutual { group, name, secret } => set_mutual(state, key, group, name, secret),
        AccessRequest::CreateGroup { .. } | AccessRequest::ChangeGroup { .. } => group_command(request),
        AccessRequest::DeleteGroup { name } => {
            let message = format!("Initiator group {name} is gone.");
            access(AccessCommand::DeleteGroup { name }, message)
        }
        AccessRequest::Allow { target: name, group } => {
            let message = format!("Initiator group {group} may use {name}.");
            let target = target(&name)?;
            access(AccessCommand::Allow { target, group }, message)
        }
        AccessRequest::Deny { target: name, group } => {
            let message = format!("Initiator group {group} may not use {name}; its sessions there end.");
            let target = target(&name)?;
            access(AccessCommand::Deny { target, group }, message)
        }
        AccessRequest::ChangeTarget {
            target: name,
            restricted,
            sessions_max,
            redirect,
        } => {
            let change = TargetChange {
                restricted,
                sessions_max,
                redirect,
            };
            let message = format!("Target {name} is changed.");
            let target = target(&name)?;
            access(AccessCommand::ChangeTarget { target, change }, message)
        }
        AccessRequest::DeleteTarget { target: name } => {
            let message = format!("Target {name} is gone.");
            Ok((Command::DeleteTarget { name: target(&name)? }, message))
        }
        AccessRequest::DeleteExtent { extent } => {
            let id = extent_named(state, &extent)?;
            Ok((
                Command::DeleteExtent { extent: id },
                format!("Extent {extent} is gone."),
            ))
        }
        _ => lun_command(state, request),
    }
}

fn group_command(request: AccessRequest) -> Made {
    match request {
        AccessRequest::CreateGroup {
            name,
            any_initiator,
            initiators: names,
            networks: nets,
            read_only,
        } => {
            check_name(&name).map_err(|refusal| refusal.to_string())?;
            let group = NewGroup {
                any_initiator,
                initiators: initiators(&names)?,
                networks: networks(&nets)?,
                read_only,
            };
            let message = format!("Initiator group {name} is there.");
            Ok((
                Command::Access(AccessCommand::CreateGroup { name, group }),
                message,
            ))
        }
        AccessRequest::ChangeGroup {
            name,
            any_initiator,
            add_initiators,
            remove_initiators,
            add_networks,
            remove_networks,
            read_only,
        } => {
            let change = GroupChange {
                any_initiator,
                add_initiators: initiators(&add_initiators)?,
                remove_initiators: initiators(&remove_initiators)?,
                add_networks: networks(&add_networks)?,
                remove_networks: networks(&remove_networks)?,
                read_only,
            };
            let message = format!("Initiator group {name} is changed.");
            Ok((
                Command::Access(AccessCommand::ChangeGroup { name, change }),
                message,
            ))
        }
        _ => Err("not a request about a group".to_owned().into()),
    }
}

fn extent_named(state: &ClusterState, name: &str) -> Result<holdfast_types::ExtentId, Wrong> {
    state
        .extent_named(name)
        .ok_or_else(|| Wrong::Unknown(format!("there is no extent '{name}'; see 'holdfast extent list'")))
}

fn lun_command(state: &ClusterState, request: AccessRequest) -> Made {
    match request {
        AccessRequest::MapGroupLun {
            target: name,
            group,
            lun: number,
            extent,
            read_only,
        } => {
            let unit = GroupLun {
                extent: extent_named(state, &extent)?,
                read_only,
            };
            let message = format!("LUN {number} of {name} is extent {extent} for initiator group {group}.");
            let (target, lun) = (target(&name)?, lun(number)?);
            let command = AccessCommand::MapGroupLun {
                target,
                group,
                lun,
                unit,
            };
            Ok((Command::Access(command), message))
        }
        AccessRequest::UnmapLun {
            target: name,
            group,
            lun: number,
        } => {
            let (target, lun) = (target(&name)?, lun(number)?);
            let message = format!("LUN {number} of {name} is gone.");
            let command = match group {
                Some(group) => Command::Access(AccessCommand::UnmapGroupLun { target, group, lun }),
                None => Command::UnmapLun { target, lun },
            };
            Ok((command, message))
        }
        AccessRequest::ShareLuns { target: name, group } => {
            let message = format!("Initiator group {group} sees the LUNs of {name} itself.");
            let target = target(&name)?;
            Ok((
                Command::Access(AccessCommand::ShareLuns { target, group }),
                message,
            ))
        }
        AccessRequest::SetLunReadOnly {
            target: name,
            group,
            lun: number,
            read_only,
        } => set_lun_read_only(state, &name, group, number, read_only),
        _ => Err("not a request about a LUN".to_owned().into()),
    }
}

fn set_lun_read_only(
    state: &ClusterState,
    name: &str,
    group: Option<String>,
    number: u32,
    read_only: bool,
) -> Made {
    let (target, lun) = (target(name)?, lun(number)?);
    let how = if read_only { "only be read" } else { "be written" };
    let message = format!("LUN {number} of {name} can {how}.");
    let command = match group {
        None => AccessCommand::SetLunReadOnly {
            target,
            lun,
            read_only,
        },
        Some(group) => {
            let luns = state
                .access
                .targets
                .get(&target)
                .and_then(|access| access.groups.get(&group)?.luns.as_ref());
            let unit = luns.and_then(|luns| luns.get(&lun)).ok_or_else(|| {
                Wrong::Unknown(format!(
                    "initiator group '{group}' has no LUN {number} of its own on {name}"
                ))
            })?;
            AccessCommand::MapGroupLun {
                target,
                group,
                lun,
                unit: GroupLun { read_only, ..*unit },
            }
        }
    };
    Ok((Command::Access(command), message))
}

fn no_key() -> String {
    "this node has no cluster key (cluster.key in its directory), so it can seal no secret; ask another node, or copy the file from one"
        .to_owned()
}

/// Checks a secret against those of the other direction, which only the key shows, and seals it.
fn seal(
    key: Option<&ClusterKey>,
    secret: &SecretText,
    place: &str,
    others: &[(&SealedSecret, String)],
) -> Result<SealedSecret, String> {
    let key = key.ok_or_else(no_key)?;
    let secret = Secret::new(secret.0.as_bytes().to_vec()).map_err(|error| error.to_string())?;
    let clashes =
        |(sealed, place): &(&SealedSecret, String)| key.open(sealed, place).as_ref() == Some(&secret);
    if others.iter().any(clashes) {
        return Err("this secret is used in the other direction already: RFC 7143 wants two".to_owned());
    }
    Ok(key.seal(&secret, place, rand::random()))
}

fn set_user(
    state: &ClusterState,
    key: Option<&ClusterKey>,
    group: Option<String>,
    user: String,
    secret: Option<SecretText>,
) -> Made {
    let scope = scope(state, group)?;
    let chap = state.access.chap(&scope);
    let secret = match secret {
        Some(secret) => {
            let mutual = chap.and_then(|chap| chap.mutual.as_ref());
            let others: Vec<_> = mutual
                .map(|mutual| (&mutual.secret, scope.mutual_place(&mutual.name)))
                .into_iter()
                .collect();
            Some(seal(key, &secret, &scope.user_place(&user), &others)?)
        }
        None => None,
    };
    let message = match &secret {
        Some(_) => format!("CHAP user {user} may log in."),
        None => format!("CHAP user {user} is gone; its sessions end."),
    };
    Ok((
        Command::Access(AccessCommand::SetUser { scope, user, secret }),
        message,
    ))
}

fn set_mutual(
    state: &ClusterState,
    key: Option<&ClusterKey>,
    group: Option<String>,
    name: String,
    secret: Option<SecretText>,
) -> Made {
    let scope = scope(state, group)?;
    let mutual = match secret {
        Some(secret) => {
            let users = state.access.chap(&scope).map(|chap| &chap.users);
            let others: Vec<_> = users
                .into_iter()
                .flatten()
                .map(|(user, sealed)| (sealed, scope.user_place(user)))
                .collect();
            let secret = seal(key, &secret, &scope.mutual_place(&name), &others)?;
            Some(ChapMutual {
                name: name.clone(),
                secret,
            })
        }
        None => None,
    };
    let message = match &mutual {
        Some(_) => format!("The target proves itself as {name} to initiators that ask for it."),
        None => "The target does not prove itself any more.".to_owned(),
    };
    Ok((
        Command::Access(AccessCommand::SetMutual { scope, mutual }),
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ClusterKey {
        ClusterKey::from_random([5; 32])
    }

    fn secret(text: &str) -> Option<SecretText> {
        Some(SecretText(Zeroizing::new(text.to_owned())))
    }

    fn user(state: &ClusterState, name: &str, text: &str) -> Made {
        let request = AccessRequest::SetUser {
            group: None,
            user: name.to_owned(),
            secret: secret(text),
        };
        command(state, Some(&key()), request)
    }

    fn mutual(state: &ClusterState, text: &str) -> Made {
        let request = AccessRequest::SetMutual {
            group: None,
            name: "target".to_owned(),
            secret: secret(text),
        };
        command(state, Some(&key()), request)
    }

    #[test]
    fn short_secrets_and_the_same_both_ways_are_refused() {
        let mut state = ClusterState::default();
        assert!(
            user(&state, "u", "elevenbytes")
                .unwrap_err()
                .to_string()
                .contains("12 to 255")
        );
        let (Command::Access(AccessCommand::SetUser { secret, .. }), _) =
            user(&state, "u", "correct horse").unwrap()
        else {
            panic!("another command");
        };
        state
            .access
            .discovery
            .users
            .insert("u".to_owned(), secret.unwrap());
        assert!(
            mutual(&state, "correct horse")
                .unwrap_err()
                .to_string()
                .contains("two")
        );
        let (Command::Access(AccessCommand::SetMutual { mutual, .. }), _) =
            mutual(&state, "battery staple").unwrap()
        else {
            panic!("another command");
        };
        state.access.discovery.mutual = mutual;
        assert!(
            user(&state, "v", "battery staple")
                .unwrap_err()
                .to_string()
                .contains("two")
        );
        user(&state, "v", "correct horse").unwrap();
    }

    #[test]
    fn without_a_key_nothing_is_sealed() {
        let request = AccessRequest::SetUser {
            group: None,
            user: "u".to_owned(),
            secret: secret("correct horse"),
        };
        let error = command(&ClusterState::default(), None, request.clone()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("cluster.key"), "{error}");
        assert!(!format!("{request:?} {error}").contains("horse"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        let state = ClusterState::default();
        let create = |initiators: &[&str], networks: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let request = AccessRequest::CreateGroup {
                name: "hosts".to_owned(),
                any_initiator: false,
                initiators: owned(initiators),
                networks: owned(networks),
                read_only: false,
            };
            command(&state, None, request)
        };
        assert!(create(&["iqn.1991-05.com.microsoft:HOST_1"], &["10.0.0.0/8"]).is_ok());
        assert!(create(&["host"], &[]).unwrap_err().to_string().contains("'host'"));
        assert!(
            create(&[], &["10.0.0.1/8"])
                .unwrap_err()
                .to_string()
                .contains("10.0.0.1/8")
        );
        let request = AccessRequest::UnmapLun {
            target: "iqn.2026-11.example:t".to_owned(),
            group: None,
            lun: 16384,
        };
        assert!(
            command(&state, None, request)
                .unwrap_err()
                .to_string()
                .contains("16383")
        );
    }
}
