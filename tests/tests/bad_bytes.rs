//! What strangers send to the iSCSI port costs their own connection only.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_tests::cluster::Demo;
use holdfast_tests::{say, seed};
use holdfast_types::Lba;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A Login Request's header up to the lengths (RFC 7143, 11.12): immediate, operational stage, to the full feature phase.
fn login_header(data_bytes: u32) -> [u8; 48] {
    let mut header = [0; 48];
    header[0] = 0x43;
    header[1] = 0x87;
    header[5..8].copy_from_slice(&data_bytes.to_be_bytes()[1..]);
    header[8..14].copy_from_slice(&[0x80, 0x48, 0x46, 0, 0xff, 0xff]);
    header
}

/// Sends bytes and waits until the target hangs up. What it answers before that does not matter.
async fn is_hung_up(portal: &str, bytes: &[u8], limit: Duration) -> Result<bool> {
    let mut stream = TcpStream::connect(portal).await?;
    // A target that hangs up early resets the connection under the writer.
    let _ = stream.write_all(bytes).await;
    let mut sink = vec![0; 4096];
    let end = async { while matches!(stream.read(&mut sink).await, Ok(count) if count > 0) {} };
    Ok(timeout(limit, end).await.is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_huge_lengths_and_half_logins_cost_their_own_connection_only() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(30);
    let demo = Demo::start_with("64MiB").await?;
    let (bystander, portal) = (demo.session("a").await?, demo.portal("a")?);
    let pid = demo.pid("a")?;
    let data = Bytes::from(vec![0x17; 4096]);
    let mut random = StdRng::seed_from_u64(seed::seed("bad bytes"));

    let mut garbage = vec![0; 64 << 10];
    for length in [1, 47, 48, 49, 500, garbage.len()] {
        random.fill_bytes(&mut garbage[..length]);
        let mut stream = TcpStream::connect(portal).await?;
        let _ = stream.write_all(&garbage[..length]).await;
        bystander
            .write(Lba(0), data.clone())
            .await
            .with_context(|| format!("beside {length} bytes of garbage"))?;
    }
    // A text that no initiator sends, long enough to be a whole header.
    let http = [b"GET / HTTP/1.1\r\nHost: ".as_slice(), &[b'x'; 64], b"\r\n\r\n"].concat();
    ensure!(
        is_hung_up(portal, &http, LIMIT).await?,
        "a stranger is hung up on"
    );

    // 16 MiB - 1 of login text, announced and not sent: refused by its length alone, nothing is waited for or buffered.
    ensure!(
        is_hung_up(portal, &login_header(0x00ff_ffff), LIMIT).await?,
        "a huge PDU is hung up on"
    );
    bystander.read(Lba(0), 8).await?;

    // Logins that stop in the middle: in the header, in the text, after half of a negotiation. They stay open beside the others.
    let mut half_open = Vec::new();
    let text = b"InitiatorName=iqn.2026-11.example:half\0SessionType=Discovery\0";
    let whole = [&login_header(u32::try_from(text.len())?)[..], text, &[0; 3]].concat();
    for cut in (0..40).map(|index| index * whole.len() / 40) {
        let mut stream = TcpStream::connect(portal).await?;
        stream.write_all(&whole[..cut]).await?;
        half_open.push(stream);
    }
    let newcomer = demo.session("a").await?;
    newcomer.write(Lba(8), data.clone()).await?;
    assert_eq!(bystander.read(Lba(8), 8).await?, data);
    assert_eq!(demo.pid("a")?, pid, "the node is the same process");
    ensure!(demo.status_by("a").await?.quorum, "the node serves on");
    say(&format!(
        "{} half-open logins stood beside the newcomer",
        half_open.len()
    ));
    Ok(())
}
