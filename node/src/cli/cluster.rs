//! Making a cluster out of nodes.

use anyhow::{Context, ensure};
use clap::Subcommand;
use holdfast_proto::admin::{Done, Identity, InitializeRequest};

use super::objects::print_done;
use super::{Out, block_on};
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
}

/// `holdfast cluster …`
pub(super) fn run(command: ClusterCommand, admin: &AdminAddress, out: Out) -> anyhow::Result<()> {
    let ClusterCommand::Init { name, members } = command;
    let mut addresses = vec![admin.clone()];
    addresses.extend(members);
    let done = block_on(init(&name, &addresses))?;
    print_done(&done, out)
}

/// Adopts every node into one cluster and initializes it through the first. What was done before is kept, so that it can be
/// repeated after a crash in the middle: ids are given in the order of the addresses, and a node that has one keeps it.
pub(crate) async fn init(name: &str, addresses: &[AdminAddress]) -> anyhow::Result<Done> {
    let mut clients = Vec::new();
    let mut identities: Vec<Identity> = Vec::new();
    for address in addresses {
        let mut client = AdminClient::connect(address).await?;
        let identity = client.identify().await?;
        ensure!(
            !identities.iter().any(|other| other.name == identity.name),
            "two of the nodes are called '{}': names are unique in a cluster (or the same node was named twice)",
            identity.name
        );
        clients.push(client);
        identities.push(identity);
    }
    let cluster_id = cluster_id(&identities)?;
    let mut next_id = identities
        .iter()
        .map(|identity| identity.node_id)
        .max()
        .unwrap_or(0)
        + 1;
    let mut members = Vec::new();
    for (client, identity) in clients.iter_mut().zip(&identities) {
        let id = if identity.node_id == 0 {
            next_id
        } else {
            identity.node_id
        };
        next_id += u64::from(identity.node_id == 0);
        let adopted = client
            .adopt(&cluster_id, id)
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
        [first, second, ..] => anyhow::bail!(
            "node '{}' and node '{}' belong to different clusters already; a node changes clusters only with an empty directory",
            first.name,
            second.name
        ),
    }
}
