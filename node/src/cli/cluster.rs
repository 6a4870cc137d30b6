//! Making a cluster out of nodes.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use holdfast_proto::admin::change_request::Change;
use holdfast_proto::admin::{
    CertificateRequest, Done, Drain, Identity, InitializeRequest, JoinRequest, Leave, RotateCertificates,
    SetSetting,
};
use holdfast_raft::model::ClusterKey;
use holdfast_trust::AdminRole;

use super::objects::print_done;
use super::usage::number;
use super::{Out, block_on, new_file};
use crate::admin::{AdminAddress, AdminClient};

/// `holdfast cluster …`
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Make one cluster out of running nodes that belong to none yet. Safe to repeat.
    Init {
        /// Name of the cluster.
        #[arg(long)]
        name: String,
        /// Admin address of each other node (the one named by --admin is always a member); repeat it.
        #[arg(long = "member", value_name = "ADDRESS")]
        members: Vec<AdminAddress>,
    },
    /// Show the settings of the cluster.
    Show,
    /// Change a setting; 'holdfast cluster show' lists them.
    Set {
        /// Which.
        key: String,
        /// Its new value, for example 90s, 50MiB or off.
        value: String,
    },
    /// Set a setting back to its default.
    Unset {
        /// Which.
        key: String,
    },
    /// List the members.
    Members,
    /// Make a token that lets one node join, once.
    Token {
        /// For how many seconds it is good.
        #[arg(long, default_value_t = 86_400, value_name = "SECONDS", value_parser = number::<u32>(60, 604_800))]
        valid: u32,
    },
    /// Replace the certificates with which nodes prove to each other who they are, and their authority. No connection is lost, nothing is
    /// restarted. Safe to repeat.
    RotateCertificates,
    /// Make a certificate with which the TCP admin ports of all members may be used (--certificate), until the next rotation.
    Certificate {
        /// The file to write, for its owner alone.
        file: PathBuf,
        /// What its owner may do: viewer, operator or admin; none, where an API token decides.
        #[arg(long, default_value_t = AdminRole::Admin)]
        role: AdminRole,
        /// How its owner is called in refusals and logs: a-z, 0-9 and -. Default: as the role.
        #[arg(long)]
        name: Option<String>,
    },
    /// Let the node named by --admin join a cluster. Safe to repeat.
    Join {
        /// What 'holdfast cluster token' printed on a member; - reads it from standard input.
        token: String,
        /// The member whose place it takes, dead or alive: its replicas move here, and it leaves.
        #[arg(long, value_name = "NODE")]
        replace: Option<String>,
        /// Join although packets that are sent do not pass on the way to a member, or its answers take too long. Members that are up must
        /// be reached all the same.
        #[arg(long)]
        force: bool,
    },
    /// Look at the whole cluster from every node: clocks, ways between nodes, packet sizes, disks, room, hosts. Ends with 1 where anything
    /// is not ok.
    Check,
    /// Tell the cluster that the node named by --admin listens elsewhere: where its node.toml says, after that was changed and the node was
    /// restarted. Safe to repeat.
    Readdress,
    /// Take a node out of the cluster. Safe to repeat.
    Leave {
        /// Which.
        node: String,
        /// Give its replicas up wherever another one is in sync.
        #[arg(long)]
        drop_replicas: bool,
    },
    /// Go on alone with the node named by --admin when no other node is left: as a new incarnation of the cluster, which refuses the others
    /// for ever. Without --confirm-peer-is-down it prints what it would do.
    Takeover {
        /// Every other node is off, and will stay off until its directory is emptied. If one of them still serves, the cluster is split in
        /// two, and what one half acknowledges the other never has.
        #[arg(long)]
        confirm_peer_is_down: bool,
    },
    /// Move all extents away from a node, planned, and bring none back to it.
    Drain {
        /// Which.
        node: String,
    },
    /// Let a drained node take extents again.
    Undrain {
        /// Which.
        node: String,
    },
}

/// `holdfast cluster …`
pub(super) fn run(command: ClusterCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let change = match command {
        ClusterCommand::Init { name, members } => {
            let mut addresses = vec![admin.clone()];
            addresses.extend(members);
            return print_done(&block_on(init(&name, &addresses))?, out);
        }
        ClusterCommand::Show => return show(admin, out),
        ClusterCommand::Takeover { confirm_peer_is_down } => {
            return super::takeover::takeover(confirm_peer_is_down, admin, out);
        }
        ClusterCommand::Members => return members(admin, out),
        ClusterCommand::Token { valid } => return token(valid, admin, out),
        ClusterCommand::Certificate { file, role, name } => {
            return certificate(&file, role, name, admin, out);
        }
        ClusterCommand::RotateCertificates => Change::RotateCertificates(RotateCertificates {}),
        ClusterCommand::Join {
            token,
            replace,
            force,
        } => return join(token, replace, force, admin, out),
        ClusterCommand::Check => return check(admin, out),
        ClusterCommand::Readdress => {
            let moved = block_on(async { AdminClient::connect(admin).await?.readdress().await })?;
            return print_done(&moved, out);
        }
        ClusterCommand::Set { key, value } => Change::Setting(SetSetting { key, value }),
        ClusterCommand::Unset { key } => Change::Setting(SetSetting {
            key,
            value: String::new(),
        }),
        ClusterCommand::Drain { node } => Change::Drain(Drain { node, draining: true }),
        ClusterCommand::Undrain { node } => Change::Drain(Drain {
            node,
            draining: false,
        }),
        ClusterCommand::Leave { node, drop_replicas } => Change::Leave(Leave { node, drop_replicas }),
    };
    super::objects::change(change, admin, out)
}

fn show(admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let settings = block_on(async { AdminClient::connect(admin).await?.settings().await })?;
    let rows = settings.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |row: &serde_json::Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let mut lines = vec![format!(
        "{:<16}{:<12}{:<12}{}",
        "SETTING", "VALUE", "DEFAULT", "WHAT IT IS"
    )];
    for row in rows {
        let (key, value, default) = (text(row, "key"), text(row, "value"), text(row, "default"));
        lines.push(format!(
            "{key:<16}{value:<12}{default:<12}{}; {}",
            text(row, "help"),
            text(row, "allowed")
        ));
    }
    out.answer(&settings, &lines.join("\n"))
}

fn members(admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let status = block_on(async { AdminClient::connect(admin).await?.status().await })?;
    let text = crate::status::nodes_text(&status) + &crate::status::takeovers_text(&status);
    out.answer(&status.nodes, &text)
}

fn token(valid: u32, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let reply = block_on(async { AdminClient::connect(admin).await?.token(valid).await })?;
    let document = serde_json::json!({"token": reply.token, "valid_seconds": reply.valid_seconds});
    let text = format!(
        "{}\n\nOn the machine that is to join, within {} minutes and once: holdfast cluster join TOKEN",
        reply.token,
        reply.valid_seconds / 60
    );
    out.answer(&document, &text)
}

fn certificate(
    file: &Path,
    role: AdminRole,
    name: Option<String>,
    admin: &AdminAddress,
    out: Out,
) -> anyhow::Result<()> {
    new_file::must_be_new(file)?;
    let name = name.unwrap_or_else(|| role.to_string());
    let request = CertificateRequest {
        role: role.to_string(),
        name: name.clone(),
    };
    let pem = block_on(async { AdminClient::connect(admin).await?.certificate(request).await })?;
    let pem = zeroize::Zeroizing::new(pem);
    new_file::write(file, pem.as_bytes())?;
    let document = serde_json::json!({"file": file, "role": role, "name": name});
    let text = format!(
        "{} is written. Whoever has it is {role} '{name}' of the cluster: holdfast --certificate {} --admin ADDRESS:PORT status",
        file.display(),
        file.display()
    );
    out.answer(&document, &text)
}

/// A token of `-` is read from standard input, where nobody sees it in a list of processes.
fn join(
    token: String,
    replace: Option<String>,
    force: bool,
    admin: &AdminAddress,
    out: Out,
) -> anyhow::Result<()> {
    let token = match token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin())?.trim().to_owned(),
        _ => token,
    };
    let replaces = replace.unwrap_or_default();
    let request = JoinRequest {
        token,
        replaces,
        force,
    };
    let done = block_on(async { AdminClient::connect(admin).await?.join(request).await })?;
    print_done(&done, out)
}

/// What is not ok is an error of the command, so that its exit status says so.
fn check(admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let document = block_on(async { AdminClient::connect(admin).await?.check().await })?;
    out.answer(&document, &document.text())?;
    match document.trouble() {
        Some(trouble) => bail!("not everything is as it should be: {trouble}"),
        None => Ok(()),
    }
}

/// Adopts every node into one cluster and initializes it through the first. What was done before is kept, so that it can be
/// repeated after a crash in the middle: ids are given in the order of the addresses, and a node that has one keeps it. Once the cluster
/// is made nobody is given an id any more (L8).
pub(crate) async fn init(name: &str, addresses: &[AdminAddress]) -> anyhow::Result<Done> {
    let mut clients = Vec::new();
    let mut identities: Vec<Identity> = Vec::new();
    let mut made = false;
    for address in addresses {
        let mut client = AdminClient::connect(address).await?;
        let identity = client.identify().await?;
        ensure!(
            !identities.iter().any(|other| other.name == identity.name),
            "two of the nodes are called '{}': names are unique in a cluster (or the same node was named twice)",
            identity.name
        );
        made |= identity.node_id != 0 && !client.status().await?.nodes.is_empty();
        clients.push(client);
        identities.push(identity);
    }
    let cluster_id = cluster_id(&identities)?;
    let ids = node_ids(&identities, made)?;
    let key = ClusterKey::from_random(rand::random());
    let mut members = Vec::new();
    for ((client, identity), id) in clients.iter_mut().zip(&identities).zip(ids) {
        let adopted = client
            .adopt(&cluster_id, id, &key)
            .await
            .with_context(|| format!("node '{}'", identity.name))?;
        members.push(adopted);
    }
    let request = InitializeRequest {
        cluster_name: name.to_owned(),
        cluster_id,
        members,
    };
    let first = clients.first_mut().context("a cluster needs at least one node")?;
    first.initialize(request).await
}

/// Every node's id. A node without one in a cluster that is made may be a member whose directory was lost: under its old id it would
/// vote without what it had promised and stored (L8).
fn node_ids(identities: &[Identity], made: bool) -> anyhow::Result<Vec<u64>> {
    let known = identities.iter().map(|identity| identity.node_id);
    let mut last = known.clone().max().unwrap_or(0);
    if let Some(fresh) = identities.iter().find(|identity| made && identity.node_id == 0) {
        bail!(
            "the cluster is made already, and node '{}' has no part in it: a member whose directory was lost comes back only as a new one",
            fresh.name
        );
    }
    let id = |id| {
        if id == 0 {
            last += 1;
            last
        } else {
            id
        }
    };
    Ok(known.map(id).collect())
}

/// The cluster that some of the nodes belong to already (a repeated init), or a new one.
fn cluster_id(identities: &[Identity]) -> anyhow::Result<String> {
    let mut known: Vec<&Identity> = identities
        .iter()
        .filter(|identity| !identity.cluster_id.is_empty())
        .collect();
    known.dedup_by(|a, b| a.cluster_id == b.cluster_id);
    match known.as_slice() {
        [] => Ok(holdfast_raft::model::ClusterId(rand::random()).to_string()),
        [one] => Ok(one.cluster_id.clone()),
        [first, second, ..] => bail!(
            "node '{}' and node '{}' belong to different clusters already; a node changes clusters only with an empty directory",
            first.name,
            second.name
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities(ids: [u64; 3]) -> Vec<Identity> {
        let names = ["a", "b", "w"];
        let identity = |(node_id, name): (u64, &str)| Identity {
            name: name.to_owned(),
            node_id,
            ..Identity::default()
        };
        ids.into_iter().zip(names).map(identity).collect()
    }

    #[test]
    fn a_repeated_init_keeps_ids_and_gives_what_is_missing() {
        for (before, after) in [
            ([0, 0, 0], [1, 2, 3]),
            ([1, 0, 0], [1, 2, 3]),
            ([0, 2, 1], [3, 2, 1]),
        ] {
            assert_eq!(node_ids(&identities(before), false).unwrap(), after);
        }
        assert_eq!(node_ids(&identities([1, 2, 3]), true).unwrap(), [1, 2, 3]);
    }

    /// A witness installed anew gave its old id away: the largest one is that of the others plus one again.
    #[test]
    fn l8_a_lost_member_is_not_adopted_under_its_old_id() {
        let error = node_ids(&identities([1, 2, 0]), true).unwrap_err().to_string();
        assert!(error.contains("node 'w'") && error.contains("new one"), "{error}");
    }
}
