//! Three data nodes: an extent on all of them, and one on two.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_drill::initiator::{Dial, Session};
use holdfast_drill::multipath::{MultiPath, Patience};
use holdfast_tests::cluster;
use holdfast_tests::nodes::DataNode;
use holdfast_tests::status::Status;
use holdfast_types::Lba;

const LIMIT: Duration = Duration::from_secs(60);
const TARGET: &str = "iqn.2026-11.io.holdfast:three";

fn dial(node: &DataNode, lun: u16, number: u16) -> Result<Dial> {
    let url = format!("iscsi://{}/{TARGET}/{lun}", node.portal()).parse()?;
    Ok(Dial::new(
        url,
        "iqn.2026-11.io.holdfast.tests:three".parse()?,
        number,
    ))
}

fn whole(status: &Status) -> bool {
    let members = |name: &str| {
        let extent = status.extents.iter().find(|extent| extent.name == name)?;
        extent.primary.as_ref()?;
        Some(extent.in_sync.clone())
    };
    status.quorum
        && members("all").is_some_and(|set| set == ["a", "b", "c"])
        && members("two").is_some_and(|set| set == ["b", "c"])
}

fn primary(status: &Status, name: &str) -> Result<String> {
    let extent = status.extents.iter().find(|extent| extent.name == name);
    extent
        .and_then(|extent| extent.primary.clone())
        .context("a primary")
}

async fn disk(nodes: &[DataNode], lun: u16) -> Result<MultiPath<Session>> {
    let dials = (1..)
        .zip(nodes)
        .map(|(number, node)| dial(node, lun, lun * 10 + number));
    Ok(MultiPath::connect(dials.collect::<Result<Vec<_>>>()?, Patience::default()).await?)
}

fn block(fill: u8) -> Bytes {
    Bytes::from(vec![fill; 4096])
}

#[tokio::test(flavor = "multi_thread")]
async fn three_data_nodes_keep_two_and_three_replicas_through_the_loss_of_each() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let base = [cluster::free_ports()?, cluster::free_ports()?];
    let mut nodes = [
        DataNode::start("a", dir.path(), base[0], 0)?,
        DataNode::start("b", dir.path(), base[0], 1)?,
        DataNode::start("c", dir.path(), base[1], 0)?,
    ];
    let [b, c] = [nodes[1].admin(), nodes[2].admin()];
    let a = &nodes[0];
    a.insist(&[
        "cluster", "init", "--name", "three", "--member", &b, "--member", &c,
    ])
    .await?;
    a.insist(&[
        "extent",
        "create",
        "all",
        "--size",
        "32MiB",
        "--replicas",
        "a,b,c",
    ])
    .await?;
    a.insist(&["extent", "create", "two", "--size", "32MiB", "--replicas", "b,c"])
        .await?;
    a.insist(&["target", "create", TARGET]).await?;
    a.insist(&["lun", "create", TARGET, "all", "--lun", "0"]).await?;
    a.insist(&["lun", "create", TARGET, "two", "--lun", "1"]).await?;
    a.wait_for("all replicas in sync", LIMIT, whole).await?;
    // Node a has no replica of LUN 1: its path to it is in standby.
    let disks = [disk(&nodes, 0).await?, disk(&nodes[1..], 1).await?];
    let mut fill = 0;
    for lost in 0..nodes.len() {
        for disk in &disks {
            fill += 1;
            disk.write(Lba(8 * u64::from(fill)), block(fill)).await?;
        }
        nodes[lost].kill().await?;
        for disk in &disks {
            fill += 1;
            disk.write(Lba(8 * u64::from(fill)), block(fill)).await?;
        }
        let other = &nodes[(lost + 1) % 3];
        let name = ["a", "b", "c"][lost];
        let moved = |status: &Status| {
            let left = |set: &[String]| !set.iter().any(|node| node == name);
            status.extents.iter().all(|extent| left(&extent.in_sync))
        };
        let status = other
            .wait_for("the lost node out of the sets", LIMIT, moved)
            .await?;
        for extent in ["all", "two"] {
            ensure!(primary(&status, extent)? != name, "{name} is lost");
        }
        nodes[lost].restart()?;
        nodes[lost]
            .wait_for("all replicas in sync again", LIMIT, whole)
            .await?;
    }
    read_all(&nodes, fill).await
}

/// Every acknowledged write, through every node.
async fn read_all(nodes: &[DataNode], fill: u8) -> Result<()> {
    for (number, node) in (100..).zip(nodes) {
        let luns = if number == 100 { 0..1 } else { 0..2 };
        for lun in luns {
            // A node that has just come back opens its portal a moment after it says that it is in sync.
            let session: MultiPath<Session> =
                MultiPath::connect(vec![dial(node, lun, number + lun * 10)?], Patience::default()).await?;
            let written = (1..=fill).filter(|index| u16::from(index % 2 == 0) == lun);
            for index in written {
                let found = session.read(Lba(8 * u64::from(index)), 8).await?;
                ensure!(found == block(index), "block {index} through {}", node.portal());
            }
        }
    }
    Ok(())
}
