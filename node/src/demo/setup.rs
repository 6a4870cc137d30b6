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
    for address in &addresses {
        connect_when_up(address).await;
    }
    let mut client = AdminClient::connect(&addresses[0]).await?;
    if client.identify().await?.cluster_id.is_empty() || !initialized(&mut client).await {
        crate::cli::init_cluster(CLUSTER, &addresses).await?;
    }
    let status = with_quorum(&mut client).await?;
    match status.extents.iter().find(|extent| extent.name == EXTENT) {
        None => create_lun(layout, &mut client).await?,
        Some(kept) if kept.size_bytes != layout.size.0 => {
            bail!(
                "{} holds an extent of {} bytes: give the same --size, or another --dir",
                layout.dir.display(),
                kept.size_bytes
            )
        }
        // A run that ended between the steps left some of them undone; each is harmless when done already.
        Some(_) if status.targets.iter().all(|target| target.luns.is_empty()) => {
            create_lun(layout, &mut client).await?
        }
        Some(_) => {}
    }
    loop {
        let status = client.status().await?;
        if ready(&status) && portals_listen(layout).await {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn connect_when_up(address: &AdminAddress) -> AdminClient {
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

async fn with_quorum(client: &mut AdminClient) -> anyhow::Result<StatusDocument> {
    loop {
        let status = client.status().await?;
        if status.quorum && status.leader.is_some() && !status.nodes.is_empty() {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn create_lun(layout: &Layout, client: &mut AdminClient) -> anyhow::Result<()> {
    let extent = CreateExtentRequest {
        name: EXTENT.to_owned(),
        size_bytes: layout.size.0,
        block_size: 512,
        replicas: vec!["a".to_owned(), "b".to_owned()],
        preferred: "a".to_owned(),
    };
    client
        .create_extent(extent)
        .await
        .context("cannot create the extent")?;
    client
        .create_target(CreateTargetRequest {
            iqn: TARGET.to_owned(),
        })
        .await
        .context("cannot create the target")?;
    let lun = MapLunRequest {
        iqn: TARGET.to_owned(),
        lun: 0,
        extent: EXTENT.to_owned(),
    };
    client.map_lun(lun).await.context("cannot map the LUN")?;
    Ok(())
}

/// Every node serves, and every replica is in sync.
fn ready(status: &StatusDocument) -> bool {
    status.health == Health::Ok
        && status.quorum
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
