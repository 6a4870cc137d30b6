//! QEMU's block layer as initiator.

use std::time::Duration;

use anyhow::Result;
use holdfast_tests::cluster::Demo;
use holdfast_tests::{say, seed, tools};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const LIMIT: Duration = Duration::from_secs(300);
const IMAGE_BYTES: usize = 512 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_written_through_a_is_read_back_through_b() -> Result<()> {
    let Some(qemu) = tools::find("qemu-img", "qemu-utils") else {
        return Ok(());
    };
    let nobody = "iscsi://127.0.0.1:9/iqn.2026-11.example:none/0";
    let probe = tools::run(&qemu, &["info", nobody], LIMIT)
        .await?
        .err
        .to_lowercase();
    if probe.contains("unknown protocol") || probe.contains("load module") {
        say("left out: qemu-img does not know iSCSI (Debian package qemu-block-extra)");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (image, back) = (dir.path().join("image.raw"), dir.path().join("back.raw"));
    let mut contents = vec![0; IMAGE_BYTES];
    let mut random = StdRng::seed_from_u64(seed::seed("qemu"));
    // A hole in the middle, as images have: QEMU writes it as zeros or unmaps it.
    random.fill_bytes(&mut contents[..IMAGE_BYTES / 4]);
    random.fill_bytes(&mut contents[IMAGE_BYTES / 2..]);
    std::fs::write(&image, &contents)?;

    let demo = Demo::start_with("512MiB").await?;
    let (a, b) = (demo.url("a")?.to_string(), demo.url("b")?.to_string());
    let (image, back_path) = (image.to_string_lossy(), back.to_string_lossy());
    let write = [
        "convert",
        "-n",
        "-f",
        "raw",
        "-O",
        "raw",
        image.as_ref(),
        a.as_str(),
    ];
    tools::run(&qemu, &write, LIMIT).await?.success()?;
    let read = [
        "convert",
        "-f",
        "raw",
        "-O",
        "raw",
        b.as_str(),
        back_path.as_ref(),
    ];
    tools::run(&qemu, &read, LIMIT).await?.success()?;
    assert!(std::fs::read(&back)? == contents, "the image differs");
    Ok(())
}
