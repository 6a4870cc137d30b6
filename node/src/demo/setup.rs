//! What a demo needs before it is ready: a cluster, an extent, a target, a LUN; each made where it is missing.

use std::time::Duration;

use anyhow::{Context, bail};
use holdfast_proto::admin::{CreateExtentRequest, CreateTargetRequest, MapLunRequest};

use super::layout::{CLUSTER, EXTENT, Layout, NODES, TARGET};
use crate::admin::{AdminAddress, AdminClient};
use crate::status::{Health, NodeState, ReplicaState, StatusDocument};

/// Between two looks while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the whole start may take. A pair that was killed under load first settles its logs.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Brings a started demo to the point where every node serves and all replicas are in sync.
pub(super) async fn until_ready(layout: &Layout) -> anyhow::Result<StatusDocument> {
    match tokio::time::timeout(READY_WITHIN, set_up(layout)).await {
        Ok(result) => result,
        Err(_) => bail!(
            "the nodes are not ready after {} s; their node.log say why",
            READY_WITHIN.as_secs()
        ),
    }
}

async fn set_up(layout: &Layout) -> anyhow::Result<StatusDocument> {
    let addresses: Vec<AdminAddress> = (0..NODES.len())
        .map(|index| AdminAddress::Tcp(layout.admin(index)))
        .collect();
    let mut client = connect_when_up(&addresses[0]).await;
    for address in &addresses[1..] {
        connect_when_up(address).await;
    }
    if client.identify().await?.cluster_id.is_empty() || !initialized(&mut client).await {
        crate::cli::init_cluster(CLUSTER, &addresses).await?;
    }
    let status = with_quorum(&mut client).await?;
    for step in missing(&status, layout)? {
        make(step, layout, &mut client).await?;
    }
    loop {
        let status = client.status().await?;
        if ready(&status) && portals_listen(layout).await {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A connection to a node, once it is up.
pub(crate) async fn connect_when_up(address: &AdminAddress) -> AdminClient {
    loop {
        if let Ok(client) = AdminClient::connect(address).await {
            return client;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether the cluster was made: its state has nodes.
async fn initialized(client: &mut AdminClient) -> bool {
    client.status().await.is_ok_and(|status| !status.nodes.is_empty())
}

/// The status once the cluster has a quorum, a leader and its nodes.
pub(crate) async fn with_quorum(client: &mut AdminClient) -> anyhow::Result<StatusDocument> {
    loop {
        let status = client.status().await?;
        if status.quorum && status.leader.is_some() && !status.nodes.is_empty() {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A step on the way to the demo's LUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Extent,
    Target,
    Lun,
}

/// What is not there yet: a run that ended between the steps left the rest of them undone.
fn missing(status: &StatusDocument, layout: &Layout) -> anyhow::Result<Vec<Step>> {
    let extent = status.extents.iter().find(|extent| extent.name == EXTENT);
    if let Some(kept) = extent.filter(|kept| kept.size_bytes != layout.size.0) {
        bail!(
            "{} holds an extent of {} bytes: give the same --size, or another --dir",
            layout.dir.display(),
            kept.size_bytes
        );
    }
    let target = status.targets.iter().find(|target| target.iqn.as_str() == TARGET);
    let is_mapped = target.is_some_and(|target| target.luns.iter().any(|lun| lun.lun == 0));
    let steps = [
        (extent.is_none(), Step::Extent),
        (target.is_none(), Step::Target),
        (!is_mapped, Step::Lun),
    ];
    Ok(steps
        .into_iter()
        .filter_map(|(is_missing, step)| is_missing.then_some(step))
        .collect())
}

async fn make(step: Step, layout: &Layout, client: &mut AdminClient) -> anyhow::Result<()> {
    let iqn = TARGET.to_owned();
    match step {
        Step::Extent => {
            let done = client.create_extent(pair_extent(EXTENT, layout.size.0)).await;
            done.context("cannot create the extent")?;
        }
        Step::Target => {
            let done = client.create_target(CreateTargetRequest { iqn }).await;
            done.context("cannot create the target")?;
        }
        Step::Lun => {
            let extent = EXTENT.to_owned();
            let done = client.map_lun(MapLunRequest { iqn, lun: 0, extent }).await;
            done.context("cannot map the LUN")?;
        }
    }
    Ok(())
}

/// An extent on both data nodes, of which a is preferred.
pub(crate) fn pair_extent(name: &str, size_bytes: u64) -> CreateExtentRequest {
    CreateExtentRequest {
        name: name.to_owned(),
        size_bytes,
        block_size: 512,
        replicas: vec!["a".to_owned(), "b".to_owned()],
        preferred: "a".to_owned(),
        confirmed_reads: false,
        full: false,
        write_cache: false,
        on_devices: false,
    }
}

fn ready(status: &StatusDocument) -> bool {
    status.health == Health::Ok && all_serve(status)
}

/// Every node of a pair with its witness is up, and every replica is in sync.
pub(crate) fn all_serve(status: &StatusDocument) -> bool {
    status.quorum
        && status.nodes.len() == NODES.len()
        && status.nodes.iter().all(|node| node.state == NodeState::Up)
        && !status.extents.is_empty()
        && status.extents.iter().all(|extent| {
            extent.served
                && extent
                    .replicas
                    .iter()
                    .all(|replica| replica.state == ReplicaState::InSync)
        })
}

async fn portals_listen(layout: &Layout) -> bool {
    for index in 0..2 {
        if tokio::net::TcpStream::connect(layout.portal(index))
            .await
            .is_err()
        {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::sample;

    /// A demo killed between two steps asks for the rest only: what is there already would be refused by name.
    #[test]
    fn a_demo_that_was_killed_halfway_makes_only_what_is_missing() {
        let mut status = sample();
        status.extents[0].name = EXTENT.to_owned();
        status.targets[0].iqn = TARGET.parse().unwrap();
        let size = holdfast_types::ByteSize(status.extents[0].size_bytes);
        let layout = Layout::new("/tmp/x".into(), 3260, size).unwrap();
        let steps = |status: &StatusDocument| missing(status, &layout).unwrap();
        assert_eq!(steps(&status), []);
        status.targets[0].luns.clear();
        assert_eq!(steps(&status), [Step::Lun]);
        status.targets.clear();
        assert_eq!(steps(&status), [Step::Target, Step::Lun]);
        status.extents[0].size_bytes += 1 << 20;
        assert!(
            missing(&status, &layout)
                .unwrap_err()
                .to_string()
                .contains("the same --size")
        );
        status.extents.clear();
        assert_eq!(steps(&status), [Step::Extent, Step::Target, Step::Lun]);
    }
}
