//! Ten thousand connections that never log in: the node keeps its memory, its process and everybody else's access.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_tests::cluster::Demo;
use holdfast_tests::{say, seed};
use holdfast_types::Lba;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// More than that a node may not grow by: what it keeps of connections that have not logged in has a bound, whatever their number.
const GROWTH_MAX: u64 = 128 << 20;
/// Of the connections as many stay open on this side; the node has given up older ones long before.
const KEPT: usize = 2048;

/// A Login Request's header with C bit: its text goes on in the next one (RFC 7143, 11.12).
fn login_header(text: u32) -> [u8; 48] {
    let mut header = [0; 48];
    header[0] = 0x43;
    header[1] = 0x44;
    header[5..8].copy_from_slice(&text.to_be_bytes()[1..]);
    header[8..14].copy_from_slice(&[0x80, 0x48, 0x46, 0, 0xff, 0xff]);
    header
}

/// Resident memory of a process in bytes.
fn resident(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_logins_cost_nobody_else_anything() -> Result<()> {
    let many = usize::try_from(seed::number("HOLDFAST_HALF_OPEN", 10_000))?;
    let demo = Demo::start_with("64MiB").await?;
    let (bystander, portal) = (demo.session("a").await?, demo.portal("a")?.to_owned());
    let pid = demo.pid("a")?;
    let data = Bytes::from(vec![0x2f; 4096]);
    bystander.write(Lba(0), data.clone()).await?;
    let before = resident(pid.as_raw_nonzero().get())?;
    let mut streams = std::collections::VecDeque::new();
    let mut peak = before;
    let began = Instant::now();
    for number in 0..many {
        let mut stream = TcpStream::connect(&portal).await?;
        // Who says nothing, who stops in the header, and who sends as much text as is taken and then stops.
        let text = [&login_header(8192)[..], &[b'x'; 8192]].concat();
        let bytes: &[u8] = match number % 3 {
            0 => &[],
            1 => &text[..20],
            _ => &text,
        };
        let _ = stream.write_all(bytes).await;
        streams.push_back(stream);
        if streams.len() > KEPT {
            streams.pop_front();
        }
        if number % 500 == 0 {
            // Slow senders: a byte more for each.
            for stream in &mut streams {
                let _ = stream.try_write(b"x");
            }
            bystander.write(Lba(8), data.clone()).await?;
            peak = peak.max(resident(pid.as_raw_nonzero().get())?);
        }
    }
    let newcomer = tokio::time::timeout(Duration::from_secs(20), demo.session("a"))
        .await
        .context("nobody can log in beside them")??;
    newcomer.write(Lba(16), data.clone()).await?;
    assert_eq!(bystander.read(Lba(16), 8).await?, data);
    peak = peak.max(resident(pid.as_raw_nonzero().get())?);
    ensure!(demo.pid("a")? == pid, "the node is the same process");
    ensure!(
        peak - before < GROWTH_MAX,
        "the node has grown by {} MiB",
        (peak - before) >> 20
    );
    say(&format!(
        "{many} half-open logins in {:.1} s; the node's memory went from {} to {} MiB at most",
        began.elapsed().as_secs_f64(),
        before >> 20,
        peak >> 20
    ));
    Ok(())
}
