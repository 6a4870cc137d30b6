//! Two nodes without a witness: allowed, and told plainly what that means.

use anyhow::Result;
use holdfast_tests::cluster;
use holdfast_tests::nodes::DataNode;

#[tokio::test(flavor = "multi_thread")]
async fn cluster_init_of_two_voters_says_that_nothing_fails_over_by_itself() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let base = cluster::free_ports()?;
    let a = DataNode::start("a", dir.path(), base, 0)?;
    let b = DataNode::start("b", dir.path(), base, 1)?;
    let done = a
        .insist(&["cluster", "init", "--name", "pair", "--member", &b.admin()])
        .await?;
    let said = format!("{}{}", done.out, done.err);
    assert!(said.contains("nothing will fail over by itself"), "{said}");
    Ok(())
}
