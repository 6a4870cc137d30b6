//! `holdfast extent import`: an image becomes an extent, through a node that is not its primary; broken off it is begun again, and done
//! twice it writes nothing.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use holdfast_drill::ground::{DIR_MARK, LoopDevice};
use holdfast_proto::admin::admin_client::AdminClient;
use holdfast_proto::admin::import_part::Part;
use holdfast_proto::admin::{CreateExtentRequest, ImportData, ImportEnd, ImportHead, ImportPart};
use holdfast_tests::machines::{LONG, Machines, in_sync};
use holdfast_tests::{say, seed, tools};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

const MIB: u64 = 1 << 20;
const TARGET: &str = "iqn.2026-11.example:import";

fn random(rng: &mut StdRng, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    rng.fill(&mut data[..]);
    data
}

/// An image of this size with random bytes in these ranges, and holes elsewhere.
fn image(m: &Machines, rng: &mut StdRng, bytes: u64, ranges: &[(u64, usize)]) -> Result<PathBuf> {
    let path = m.path("image");
    let file = File::create(&path)?;
    file.set_len(bytes)?;
    for (offset, len) in ranges {
        file.write_all_at(&random(rng, *len), *offset)?;
    }
    Ok(path)
}

/// The file of a node's only extent.
fn replica(m: &Machines, node: &str) -> Result<PathBuf> {
    let files = std::fs::read_dir(m.path(node).join("data/extents"))?;
    let mut paths = files.filter_map(Result::ok).map(|file| file.path());
    paths
        .find(|path| path.extension().is_some_and(|end| end == "img"))
        .context("an extent")
}

fn taken(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path)?.blocks() * 512)
}

/// Whether a file begins with the image, and is zeros from there on.
fn is_image(path: &Path, image: &Path) -> Result<bool> {
    let (there, wanted) = (std::fs::read(path)?, std::fs::read(image)?);
    let zeros = there.iter().skip(wanted.len()).all(|byte| *byte == 0);
    Ok(there.len() >= wanted.len() && there[..wanted.len()] == wanted && zeros)
}

/// Replicas apply what is committed a moment later.
async fn until_equal(m: &Machines, image: &Path) -> Result<()> {
    for node in ["a", "b"] {
        let (start, path) = (Instant::now(), replica(m, node)?);
        while !is_image(&path, image)? {
            ensure!(
                start.elapsed() < LONG,
                "{node} is not equal to the image\n{}",
                m.logs()
            );
            sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

async fn import(m: &Machines, node: &str, image: &Path) -> Result<Value> {
    let from = image.to_str().context("a path in UTF-8")?;
    let out = m
        .ask(node, &["extent", "import", "d", "--from", from, "--json"])
        .await?;
    serde_json::from_str(&out).context(out)
}

/// The same into an extent that is there: refused at first, and done once its name is typed again.
async fn import_over(m: &Machines, node: &str, image: &Path) -> Result<Value> {
    let from = image.to_str().context("a path in UTF-8")?;
    let command = ["extent", "import", "d", "--from", from, "--json"];
    let refused = m.refused(node, &command).await?;
    ensure!(
        refused.contains("extent 'd' is there, and differs from the image at byte")
            && refused.contains("--confirm d"),
        "{refused}"
    );
    let other = m
        .refused(node, &[&command[..], &["--confirm", "e"]].concat())
        .await?;
    ensure!(
        other.contains("--confirm e: it is the extent's name again, d"),
        "{other}"
    );
    let out = m.ask(node, &[&command[..], &["--confirm", "d"]].concat()).await?;
    serde_json::from_str(&out).context(out)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_becomes_an_extent_and_a_second_time_nothing_is_written() -> Result<()> {
    let seed = seed::seed("import");
    let mut rng = StdRng::seed_from_u64(seed);
    let m = Machines::trio().await?;
    let bytes = 40 * MIB + 300;
    let ranges = [(0, 70_000), (7 * MIB + 13, 3 << 20), (40 * MIB + 200, 100)];
    let image = image(&m, &mut rng, bytes, &ranges)?;
    let from = image.to_str().context("a path in UTF-8")?;
    let witness = m.refused("w", &["extent", "import", "d", "--from", from]).await?;
    ensure!(witness.contains("ask a data node"), "{witness}");
    // a comes to be its primary: b has everything sent on.
    let done = import(&m, "b", &image).await?;
    say(&format!("{done}"));
    let written = done["written_bytes"].as_u64().context("a number")?;
    ensure!((3 * MIB..4 * MIB).contains(&written), "{done}");
    ensure!(
        done["extent_bytes"] == bytes.next_multiple_of(512) && done["image_bytes"] == bytes,
        "{done}"
    );
    ensure!(
        done["message"]
            .as_str()
            .is_some_and(|text| text.contains("zeros behind the image")),
        "{done}"
    );
    until_equal(&m, &image).await?;
    m.until("b", "both in sync, a serves", |s| {
        in_sync(s) == ["a", "b"] && s.primary() == Some("a")
    })
    .await?;
    for node in ["a", "b"] {
        let taken = taken(&replica(&m, node)?)?;
        ensure!(taken < 6 * MIB, "{node} holds holes: {taken}");
    }
    let again = import(&m, "a", &image).await?;
    ensure!(again["written_bytes"] == 0, "{again}");
    ensure!(
        again["message"]
            .as_str()
            .is_some_and(|text| text.contains("nothing was written")),
        "{again}"
    );
    // What differs is written, and what is zeros in the image becomes zeros.
    let file = File::options().write(true).open(&image)?;
    file.write_all_at(&[1], 20 * MIB)?;
    file.write_all_at(&vec![0; 1 << 20], 8 * MIB)?;
    let changed = import_over(&m, "b", &image).await?;
    let expected = MIB + 4096;
    ensure!(changed["written_bytes"] == expected, "{changed}, not {expected}");
    until_equal(&m, &image).await?;
    // Another size is another image.
    file.set_len(bytes + MIB)?;
    let larger = m.refused("a", &["extent", "import", "d", "--from", from]).await?;
    ensure!(larger.contains("take another name"), "{larger}");
    let block = m
        .refused(
            "a",
            &["extent", "import", "d", "--from", from, "--block-size", "4096"],
        )
        .await?;
    ensure!(block.contains("with blocks of 512 bytes"), "{block}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_and_one_outlives_a_failover() -> Result<()> {
    let seed = seed::seed("import killed");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut m = Machines::trio().await?;
    let bytes = 96 * MIB;
    let image = image(&m, &mut rng, bytes, &[(0, 96 << 20)])?;
    let socket = m.path("b").join("admin.sock");
    let start = async |m: &Machines| -> Result<tokio::process::Child> {
        let mut command = Command::new(tools::holdfast()?);
        command.args(["extent", "import", "d", "--from"]).arg(&image);
        command.arg("--admin").arg(&socket).arg("--json");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn()?;
        let begun = Instant::now();
        while replica(m, "b").and_then(|path| taken(&path)).unwrap_or(0) < 8 * MIB {
            ensure!(begun.elapsed() < LONG, "nothing is written\n{}", m.logs());
            sleep(Duration::from_millis(10)).await;
        }
        Ok(child)
    };
    m.ask("w", &["target", "create", TARGET]).await?;
    let mut child = start(&m).await?;
    // Nobody is shown half an image, whichever node is asked.
    for node in ["a", "w", "b"] {
        let refused = m.refused(node, &["lun", "create", TARGET, "d"]).await?;
        ensure!(refused.contains("in use: an import by node 'b'"), "{refused}");
    }
    child.kill().await?;
    let done = import_over(&m, "b", &image).await?;
    let written = done["written_bytes"].as_u64().context("a number")?;
    say(&format!(
        "killed after {} MiB or more; then {} MiB were written",
        (bytes - written) / MIB,
        written / MIB
    ));
    ensure!(written > 0 && written <= bytes - 8 * MIB, "{done}");
    until_equal(&m, &image).await?;
    ensure!(import(&m, "a", &image).await?["written_bytes"] == 0);
    // Another one, whose primary dies under it.
    m.ask("b", &["extent", "delete", "d", "--confirm", "d"]).await?;
    let start_of_wait = Instant::now();
    while replica(&m, "a").is_ok() || replica(&m, "b").is_ok() {
        ensure!(start_of_wait.elapsed() < LONG, "the files are freed");
        sleep(Duration::from_millis(50)).await;
    }
    let child = start(&m).await?;
    m.kill("a").await?;
    let output = child.wait_with_output().await?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    say(&format!("its primary died under it: {}", out.trim()));
    m.start("a", "data", 0)?;
    m.until("b", "both in sync", |s| in_sync(s) == ["a", "b"]).await?;
    ensure!(import(&m, "b", &image).await?["written_bytes"] == 0);
    until_equal(&m, &image).await?;
    // Done, it is shown at once.
    m.ask("w", &["lun", "create", TARGET, "d"]).await.map(drop)
}

/// A block device has no holes, and a size that only its end tells; where it reads as zeros nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_device_becomes_an_extent() -> Result<()> {
    let seed = seed::seed("import");
    let mut rng = StdRng::seed_from_u64(seed);
    let m = Machines::trio().await?;
    let ground = tempfile::Builder::new()
        .prefix(&format!("{DIR_MARK}{}-", std::process::id()))
        .tempdir()?;
    let made = LoopDevice::make(&ground.path().join("disk"), 9 * MIB + 512);
    let Some(device) = tools::or_left_out(made)? else {
        return Ok(());
    };
    let disk = File::options().write(true).open(device.path())?;
    disk.write_all_at(&random(&mut rng, 70_000), 2 * MIB + 512)?;
    disk.write_all_at(&random(&mut rng, 512), 9 * MIB)?;
    disk.sync_all()?;
    let done = import(&m, "b", device.path()).await?;
    ensure!(
        done["image_bytes"] == 9 * MIB + 512 && done["extent_bytes"] == 9 * MIB + 512,
        "{done}"
    );
    let written = done["written_bytes"].as_u64().context("a number")?;
    ensure!((70_512..96 << 10).contains(&written), "{done}");
    until_equal(&m, device.path()).await?;
    ensure!(import(&m, "a", device.path()).await?["written_bytes"] == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_raw_image_or_in_use_is_refused() -> Result<()> {
    let m = Machines::trio_with("[admin]\ntcp = \"ADMIN\"\nopen_loopback = true\n").await?;
    let image = m.path("image");
    let from = image.to_str().context("a path in UTF-8")?;
    for (magic, name) in [
        (&b"QFI\xfb"[..], "qcow2"),
        (b"KDMV", "vmdk"),
        (b"vhdxfile", "vhdx"),
    ] {
        let mut bytes = vec![0; 1 << 20];
        bytes[..magic.len()].copy_from_slice(magic);
        std::fs::write(&image, bytes)?;
        let refused = m.refused("a", &["extent", "import", "d", "--from", from]).await?;
        ensure!(
            refused.contains(name) && refused.contains("qemu-img convert -O raw"),
            "{refused}"
        );
    }
    let none = m
        .refused("a", &["extent", "import", "d", "--from", "/nothing/here"])
        .await?;
    ensure!(none.contains("cannot read it"), "{none}");
    std::fs::write(&image, [7; 100])?;
    let wrong = m
        .refused("a", &["extent", "import", "bad/name", "--from", from])
        .await;
    ensure!(
        wrong.is_ok() && m.status("a").await?.extents.is_empty(),
        "{wrong:?}"
    );
    // Small images get the least size that an extent has.
    let done = import(&m, "a", &image).await?;
    ensure!(
        done["extent_bytes"] == MIB && done["written_bytes"] == 512,
        "{done}"
    );
    m.ask("a", &["target", "create", TARGET]).await?;
    m.ask("a", &["lun", "create", TARGET, "d"]).await?;
    let equal = import(&m, "b", &image).await?;
    ensure!(equal["written_bytes"] == 0, "{equal}");
    std::fs::write(&image, [8; 100])?;
    let in_use = m.refused("b", &["extent", "import", "d", "--from", from]).await?;
    ensure!(
        in_use.contains(&format!("LUN 0 of {TARGET}")) && in_use.contains("at byte 0"),
        "{in_use}"
    );
    m.ask("a", &["lun", "delete", TARGET, "--lun", "0"]).await?;
    ensure!(import_over(&m, "b", &image).await?["written_bytes"] == 512);
    short_streams(&m).await?;
    // Once for each, with the extent's name; and not for each part of it.
    let start = Instant::now();
    loop {
        let audit = m.ask("a", &["audit", "--last", "100", "--json"]).await?;
        let entries = audit.matches("\"import_extent\"").count();
        ensure!(entries <= 30, "{entries}: {audit}");
        // A node hands its entries to the cluster a moment later.
        if entries >= 4 {
            return Ok(());
        }
        ensure!(start.elapsed() < LONG, "{entries}: {audit}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// A stream as a client of another make may send it; why it is refused.
async fn send(m: &Machines, parts: Vec<Part>) -> Result<String> {
    let mut client = AdminClient::connect(format!("http://{}", m.address(0, 3))).await?;
    let parts = parts.into_iter().map(|part| ImportPart { part: Some(part) });
    let mut told = match client
        .import_extent(tokio_stream::iter(parts.collect::<Vec<_>>()))
        .await
    {
        Ok(told) => told.into_inner(),
        Err(refused) => return Ok(refused.message().to_owned()),
    };
    loop {
        match told.message().await {
            Ok(Some(progress)) if progress.message.is_empty() => {}
            Ok(other) => bail!("it is taken: {other:?}"),
            Err(refused) => return Ok(refused.message().to_owned()),
        }
    }
}

async fn short_streams(m: &Machines) -> Result<()> {
    let head = |image_bytes| {
        let extent = CreateExtentRequest {
            name: "e".into(),
            ..CreateExtentRequest::default()
        };
        Part::Head(ImportHead {
            extent: Some(extent),
            image_bytes,
            replace: true,
        })
    };
    let data = |offset, len| {
        let data = vec![1; len].into();
        Part::Data(ImportData { offset, data })
    };
    let end = |image_bytes| Part::End(ImportEnd { image_bytes });
    let two = 2 * MIB;
    for (parts, word) in [
        (vec![], "begins with what it is"),
        (vec![end(5)], "begins with what it is"),
        (vec![head(0)], "at least one byte"),
        (vec![head(u64::MAX)], "no extent is that large"),
        (vec![head(two), data(0, 512)], "broken off"),
        (
            vec![head(two), data(0, 1 << 20), end(MIB)],
            "ended after 1048576 bytes, though 2097152 were announced",
        ),
        (vec![head(two), data(MIB, 512), data(0, 512)], "in order"),
        (vec![head(two), data(5, 512)], "whole blocks"),
        (vec![head(two), data(0, 100)], "whole blocks"),
        (
            vec![head(two), data(two - 512, 1024)],
            "within the image's 2097152 bytes",
        ),
        (vec![head(two), data(u64::MAX - 511, 512)], "within the image"),
        (vec![head(two), data(0, 0)], "1 to 1048576"),
        (vec![head(two), data(0, (1 << 20) + 512)], "1 to 1048576"),
        (vec![head(two), head(two)], "none"),
    ] {
        let refused = send(m, parts).await?;
        ensure!(
            refused.contains(word) && !refused.contains('\n'),
            "{word}: {refused}"
        );
    }
    Ok(())
}
