//! Making a cluster out of nodes.

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use holdfast_proto::admin::{Done, Identity, InitializeRequest};
use holdfast_raft::model::ClusterKey;

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
