//! What a monitoring system reads from real nodes: on the admin service's addresses, and on a listener that can do nothing else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_tests::cluster::{Demo, free_ports, holdfast};
use holdfast_tests::nodes::DataNode;
use holdfast_types::Lba;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

const LIMIT: Duration = Duration::from_secs(20);

/// Status and body of an HTTP/1.1 request, as any scraper makes it.
async fn request(mut stream: impl AsyncRead + AsyncWrite + Unpin, line: &str) -> Result<(u16, String)> {
    let text = format!("{line} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut answer)).await??;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a body")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    ensure!(
        status != 200
            || head
                .to_lowercase()
                .contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    Ok((status, body.to_owned()))
}

async fn page(address: &str) -> Result<String> {
    let (status, body) = request(TcpStream::connect(address).await?, "GET /metrics").await?;
    ensure!(status == 200, "{status}: {body}");
    Ok(body)
}

/// The only sample that begins so.
fn value(page: &str, sample: &str) -> Result<f64> {
    let found = page
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    Ok(found
        .with_context(|| format!("no {sample} in\n{page}"))?
        .parse()?)
}

#[tokio::test]
async fn every_node_tells_how_the_cluster_is_and_what_commands_cost() -> Result<()> {
    let demo = Demo::start().await?;
    let primary = demo.primary().await?;
    let before = page(demo.admin(&primary)?).await?;
    let session = demo.session(&primary).await?;
    for lba in 0..10 {
        session.write(Lba(lba * 8), Bytes::from(vec![7; 4096])).await?;
    }
    let after = page(demo.admin(&primary)?).await?;
    let name = demo.status().await?.extents[0].name.clone();
    let writes = format!("holdfast_extent_operation_seconds_count{{extent=\"{name}\",operation=\"write\"}}");
    ensure!(
        value(&before, &writes).unwrap_or(0.0) + 10.0 <= value(&after, &writes)?,
        "{after}"
    );
    let bytes = format!("holdfast_extent_transferred_bytes_total{{extent=\"{name}\",operation=\"write\"}}");
    ensure!(value(&after, &bytes)? >= 40960.0);
    ensure!(value(&after, "holdfast_cluster_quorum")? == 1.0);
    ensure!(value(&after, "holdfast_lease_left_seconds")? > 0.0);
    ensure!(value(&after, "holdfast_journal_capacity_bytes")? > 0.0);
    ensure!(
        value(
            &after,
            &format!("holdfast_extent_primary{{extent=\"{name}\",node=\"{primary}\"}}")
        )? == 1.0
    );
    // A witness has no extents of its own, and knows of all the same.
    let witness = page(demo.admin("w")?).await?;
    ensure!(
        value(
            &witness,
            &format!("holdfast_extent_in_sync_replicas{{extent=\"{name}\"}}")
        )? == 2.0
    );
    ensure!(!witness.contains("holdfast_journal_capacity_bytes"));
    // On the socket for root and the group as well, beside the commands that change things.
    let socket = UnixStream::connect(Path::new(&demo.dir()).join(&primary).join("admin.sock")).await?;
    ensure!(request(socket, "GET /metrics").await?.0 == 200);

    demo.kill("w")?;
    let down = async || {
        value(
            &page(demo.admin(&primary)?).await?,
            "holdfast_node_up{node=\"w\"}",
        )
    };
    let began = Instant::now();
    while down().await? != 0.0 {
        ensure!(began.elapsed() < LIMIT, "a witness that was killed is still up");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_listener_of_its_own_tells_metrics_and_takes_no_command() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = DataNode::start("a", dir.path(), free_ports()?, 0)?;
    let began = Instant::now();
    while TcpStream::connect(node.metrics()).await.is_err() {
        ensure!(began.elapsed() < LIMIT, "{}", node.log());
        sleep(Duration::from_millis(50)).await;
    }
    let text = page(&node.metrics()).await?;
    ensure!(
        value(&text, "holdfast_cluster_quorum")? == 0.0,
        "it belongs to no cluster yet: {text}"
    );
    for (line, wanted) in [("GET /", 404), ("POST /metrics", 405), ("DELETE /metrics", 405)] {
        let (status, body) = request(TcpStream::connect(node.metrics()).await?, line).await?;
        ensure!(status == wanted, "{line}: {status} {body}");
    }
    let refused = holdfast(&["status", "--admin", &node.metrics()]).await?;
    ensure!(refused.code == Some(1), "a command got through: {}", refused.out);
    Ok(())
}
