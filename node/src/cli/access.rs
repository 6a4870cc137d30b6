//! Initiator groups, CHAP users, sessions and portals.

use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{ArgGroup, Args, Subcommand};
use holdfast_types::{IscsiName, SECRET_BYTES_MAX};
use serde::Serialize;
use zeroize::Zeroizing;

use super::objects::print_done;
use super::usage::number;
use super::{Out, block_on};
use crate::admin::access::{AccessRequest, SecretText};
use crate::admin::{AdminAddress, AdminClient};
use crate::status::{StatusDocument, chap_text, groups_text};

/// `holdfast initiators …`
#[derive(Debug, Subcommand)]
pub(super) enum InitiatorsCommand {
    /// Create an initiator group: who may use the targets that it is allowed to.
    Create {
        /// Name: letters, digits, '-', '.' and '_'.
        name: String,
        /// Initiators that belong to it, by name.
        #[arg(long = "initiator", value_delimiter = ',', value_name = "IQN,…")]
        initiators: Vec<String>,
        /// Any initiator belongs to it, whatever its name.
        #[arg(long)]
        any_initiator: bool,
        /// Networks that they have to come from, as 10.1.0.0/16 or 2001:db8::/32; default: anywhere.
        #[arg(long = "network", value_delimiter = ',', value_name = "CIDR,…")]
        networks: Vec<String>,
        /// They may only read.
        #[arg(long)]
        read_only: bool,
    },
    /// Change who belongs to a group, and which targets it may use. Takes effect at once: who may not be there any more is logged out.
    Change(GroupChangeArgs),
    /// List all groups.
    List,
    /// Show one group.
    Show {
        /// Its name.
        name: String,
    },
    /// Remove a group. Its sessions end; targets that only it might use stay closed.
    Delete {
        /// Its name.
        name: String,
    },
}

/// Arguments of `holdfast initiators change`.
#[derive(Debug, Args)]
pub(super) struct GroupChangeArgs {
    /// The group's name.
    name: String,
    /// Initiators that come.
    #[arg(long, value_delimiter = ',', value_name = "IQN,…")]
    add_initiator: Vec<String>,
    /// Initiators that go.
    #[arg(long, value_delimiter = ',', value_name = "IQN,…")]
    remove_initiator: Vec<String>,
    /// Whether any initiator belongs to it.
    #[arg(long, value_name = "true|false")]
    any_initiator: Option<bool>,
    /// Networks that come.
    #[arg(long, value_delimiter = ',', value_name = "CIDR,…")]
    add_network: Vec<String>,
    /// Networks that go.
    #[arg(long, value_delimiter = ',', value_name = "CIDR,…")]
    remove_network: Vec<String>,
    /// Whether they may only read.
    #[arg(long, value_name = "true|false")]
    read_only: Option<bool>,
    /// Targets that the group may use from now on. A target that was open to everyone is closed to others by it.
    #[arg(long, value_delimiter = ',', value_name = "TARGET,…")]
    allow: Vec<IscsiName>,
    /// Targets that it may not use any more.
    #[arg(long, value_delimiter = ',', value_name = "TARGET,…")]
    deny: Vec<IscsiName>,
}

/// Whose CHAP users.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").required(true))]
pub(super) struct Scope {
    /// Those of this initiator group.
    #[arg(long, group = "scope", value_name = "NAME")]
    group: Option<String>,
    /// Those of discovery sessions.
    #[arg(long, group = "scope")]
    discovery: bool,
}

/// `holdfast auth …`
#[derive(Debug, Subcommand)]
pub(super) enum AuthCommand {
    /// Set a CHAP user and its secret, which is read from standard input or a file: 12 to 255 bytes. The same again changes the secret.
    Create {
        /// CHAP name.
        user: String,
        #[command(flatten)]
        scope: Scope,
        /// The target's own name and secret, with which it proves itself to initiators that ask (mutual CHAP).
        #[arg(long)]
        mutual: bool,
        /// File with the secret in its first line; default: standard input.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// List CHAP users. Secrets are never shown.
    List,
    /// Remove a CHAP user. Its sessions end.
    Delete {
        /// CHAP name.
        user: String,
        #[command(flatten)]
        scope: Scope,
        /// The target's own name.
        #[arg(long)]
        mutual: bool,
    },
}

/// `holdfast session …`
#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// List the sessions of the node that is asked.
    List,
    /// End sessions of the node that is asked. Their initiators may log in again.
    Close {
        /// Ids, as `session list` shows them.
        #[arg(required = true, value_parser = number::<u64>(1, u64::MAX))]
        ids: Vec<u64>,
    },
}

/// `holdfast portal …`
#[derive(Debug, Subcommand)]
pub(super) enum PortalCommand {
    /// List the portals of all nodes.
    List,
}

fn change(admin: &AdminAddress, requests: &[AccessRequest], out: Out) -> anyhow::Result<()> {
    let done = block_on(async {
        let mut client = AdminClient::connect(admin).await?;
        let mut all = holdfast_proto::admin::Done::default();
        for request in requests {
            let done = client.change_access(request).await?;
            if !all.message.is_empty() {
                all.message.push(' ');
            }
            all.message.push_str(&done.message);
            all.warnings.extend(done.warnings);
        }
        Ok(all)
    })?;
    print_done(&done, out)
}

/// One request to a node about access.
pub(super) fn change_one(admin: &AdminAddress, request: AccessRequest, out: Out) -> anyhow::Result<()> {
    change(admin, &[request], out)
}

fn status(admin: &AdminAddress) -> anyhow::Result<StatusDocument> {
    block_on(async { AdminClient::connect(admin).await?.status().await })
}

/// `holdfast initiators …`
pub(super) fn initiators(command: InitiatorsCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    match command {
        InitiatorsCommand::Create {
            name,
            initiators,
            any_initiator,
            networks,
            read_only,
        } => {
            let request = AccessRequest::CreateGroup {
                name,
                any_initiator,
                initiators,
                networks,
                read_only,
            };
            change_one(admin, request, out)
        }
        InitiatorsCommand::Change(args) => change(admin, &group_changes(args)?, out),
        InitiatorsCommand::List => {
            let groups = status(admin)?.access.groups;
            out.answer(&groups, &groups_text(&groups))
        }
        InitiatorsCommand::Show { name } => {
            let groups = status(admin)?.access.groups;
            let group = groups
                .into_iter()
                .find(|group| group.name == name)
                .with_context(|| format!("there is no initiator group '{name}'"))?;
            out.answer(&group, &groups_text(std::slice::from_ref(&group)))
        }
        InitiatorsCommand::Delete { name } => change_one(admin, AccessRequest::DeleteGroup { name }, out),
    }
}

fn group_changes(args: GroupChangeArgs) -> anyhow::Result<Vec<AccessRequest>> {
    let members = args.any_initiator.is_some()
        || args.read_only.is_some()
        || [
            &args.add_initiator,
            &args.remove_initiator,
            &args.add_network,
            &args.remove_network,
        ]
        .iter()
        .any(|list| !list.is_empty());
    let group = || args.name.clone();
    let allow = args.allow.iter().map(|target| AccessRequest::Allow {
        target: target.to_string(),
        group: group(),
    });
    let deny = args.deny.iter().map(|target| AccessRequest::Deny {
        target: target.to_string(),
        group: group(),
    });
    let mut requests: Vec<AccessRequest> = allow.chain(deny).collect();
    if members {
        requests.insert(
            0,
            AccessRequest::ChangeGroup {
                name: args.name.clone(),
                any_initiator: args.any_initiator,
                add_initiators: args.add_initiator,
                remove_initiators: args.remove_initiator,
                add_networks: args.add_network,
                remove_networks: args.remove_network,
                read_only: args.read_only,
            },
        );
    }
    ensure!(!requests.is_empty(), "say what is to change; see --help");
    Ok(requests)
}

/// The first line of a file or of standard input.
pub(super) fn read_secret(file: Option<&PathBuf>) -> anyhow::Result<SecretText> {
    // One more than any secret has, and its line end: what is longer is refused by the node.
    let limit = u64::try_from(SECRET_BYTES_MAX + 3).unwrap_or(u64::MAX);
    let mut line = Zeroizing::new(String::new());
    match file {
        Some(path) => {
            let file =
                std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            std::io::BufReader::new(file.take(limit))
                .read_line(&mut line)
                .with_context(|| format!("cannot read {}", path.display()))?;
        }
        None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                eprint_prompt();
            }
            std::io::BufReader::new(stdin.take(limit))
                .read_line(&mut line)
                .context("cannot read the secret from standard input")?;
        }
    }
    let secret = line.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        bail!("no secret is given: it is read from standard input, or from --secret-file");
    }
    Ok(SecretText(Zeroizing::new(secret.to_owned())))
}

fn eprint_prompt() {
    use std::io::Write;
    // Nobody to tell is no reason to stop.
    let _ = write!(std::io::stderr(), "Secret (12 to 255 bytes, shown as you type): ");
}

/// What `auth list` prints.
#[derive(Serialize)]
struct Users<'a> {
    discovery: &'a crate::status::ChapStatus,
    groups: Vec<GroupUsers<'a>>,
}

#[derive(Serialize)]
struct GroupUsers<'a> {
    group: &'a str,
    #[serde(flatten)]
    chap: &'a crate::status::ChapStatus,
}

/// `holdfast auth …`
pub(super) fn auth(command: AuthCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let request = |user, group, mutual, secret| {
        if mutual {
            AccessRequest::SetMutual {
                group,
                name: user,
                secret,
            }
        } else {
            AccessRequest::SetUser { group, user, secret }
        }
    };
    match command {
        AuthCommand::Create {
            user,
            scope,
            mutual,
            secret_file,
        } => {
            let secret = read_secret(secret_file.as_ref())?;
            change_one(admin, request(user, scope.group, mutual, Some(secret)), out)
        }
        AuthCommand::Delete { user, scope, mutual } => {
            change_one(admin, request(user, scope.group, mutual, None), out)
        }
        AuthCommand::List => {
            let access = status(admin)?.access;
            let users = Users {
                discovery: &access.discovery,
                groups: access
                    .groups
                    .iter()
                    .map(|group| GroupUsers {
                        group: &group.name,
                        chap: &group.chap,
                    })
                    .collect(),
            };
            let mut text = format!("discovery: {}\n", chap_text(&access.discovery));
            for group in &access.groups {
                text.push_str(&format!("group {}: {}\n", group.name, chap_text(&group.chap)));
            }
            out.answer(&users, &text)
        }
    }
}

/// `holdfast session …`
pub(super) fn session(command: SessionCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    match command {
        SessionCommand::List => {
            let sessions = status(admin)?.sessions;
            let mut text = String::new();
            for session in &sessions {
                let target = session.target.as_deref().unwrap_or("discovery");
                let group = session
                    .group
                    .as_ref()
                    .map_or_else(String::new, |group| format!(", group {group}"));
                let user = session
                    .user
                    .as_ref()
                    .map_or_else(String::new, |user| format!(", CHAP user {user}"));
                text.push_str(&format!(
                    "{}  {} from {} to {target} at {}{group}{user}\n",
                    session.id, session.initiator, session.peer, session.portal
                ));
            }
            if sessions.is_empty() {
                text.push_str("No sessions on this node.\n");
            }
            out.answer(&sessions, &text)
        }
        SessionCommand::Close { ids } => {
            let done = block_on(async {
                let mut client = AdminClient::connect(admin).await?;
                let mut messages = Vec::new();
                for id in ids {
                    messages.push(client.close_session(id).await?.message);
                }
                Ok(holdfast_proto::admin::Done {
                    message: messages.join(" "),
                    warnings: Vec::new(),
                })
            })?;
            print_done(&done, out)
        }
    }
}

/// `holdfast portal …`
pub(super) fn portal(command: &PortalCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let PortalCommand::List = command;
    let portals = status(admin)?.portals;
    let mut text = String::new();
    for portal in &portals {
        text.push_str(&format!(
            "{}  group {} on {}\n",
            portal.address, portal.group, portal.node
        ));
    }
    out.answer(&portals, &text)
}
