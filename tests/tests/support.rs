//! `holdfast support`: an archive of a node that answers, and of one that does not, without a secret in it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use holdfast_tests::machines::Machines;
use tokio::process::Command;

const SECRET: &str = "open-sesame-4711";

/// What an archive holds: the files below its one folder.
async fn unpack(m: &Machines, archive: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let to = m.path(&format!("unpacked-{}", rand::random::<u32>()));
    std::fs::create_dir_all(&to)?;
    let done = Command::new("tar")
        .arg("xzf")
        .arg(archive)
        .arg("-C")
        .arg(&to)
        .output()
        .await?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let top = std::fs::read_dir(&to)?.next().context("a folder")??.path();
    let mut files = BTreeMap::new();
    for dir in [top.clone(), top.join("machine")] {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_file() {
                let name = path.strip_prefix(&top)?.display().to_string();
                files.insert(name, std::fs::read(&path)?);
            }
        }
    }
    Ok(files)
}

fn has(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

fn all_there(files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let text = |name: &str| {
        let bytes = files.get(name).with_context(|| format!("{name} is missing"))?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(bytes).into_owned())
    };
    for (name, part) in [
        ("status.json", "\"answered_by\": \"b\""),
        ("status.txt", "EXTENT"),
        ("events.json", "\"recorded_by\": \"b\""),
        ("audit.json", "\"method\": \"join\""),
        ("settings.json", "lease-time"),
        ("configuration.toml", "hosts"),
        ("metrics.txt", "# TYPE holdfast_"),
        ("check.json", "\"lines\""),
        ("node.toml", "name = \"b\""),
        ("machine/kernel.txt", "Linux"),
        ("README.txt", "no secrets"),
    ] {
        let found = text(name)?;
        ensure!(found.contains(part), "{name} has no '{part}': {found}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_has_what_happened_and_no_secret_and_needs_no_node_that_answers() -> Result<()> {
    let mut m = Machines::trio().await?;
    m.ask("a", &["extent", "create", "d", "--size", "16MiB"]).await?;
    m.ask(
        "a",
        &[
            "initiators",
            "create",
            "hosts",
            "--initiator",
            "iqn.2026-11.example:h",
        ],
    )
    .await?;
    let secret = m.path("secret");
    std::fs::write(&secret, SECRET)?;
    let secret_file = secret.to_str().context("a path in UTF-8")?;
    m.ask(
        "a",
        &[
            "auth",
            "create",
            "u",
            "--group",
            "hosts",
            "--secret-file",
            secret_file,
        ],
    )
    .await?;
    let archive = m.path("b.tar.gz");
    let file = archive.to_str().context("a path in UTF-8")?;
    let config = m.path("b.toml");
    let config = config.to_str().context("a path in UTF-8")?;
    let told = m.ask("b", &["support", file, "--config", config]).await?;
    ensure!(told.contains("no secrets, and no data"), "{told}");
    let files = unpack(&m, &archive).await?;
    all_there(&files).with_context(|| told.clone())?;
    let key = std::fs::read_to_string(m.path("b").join("cluster.key"))?;
    let words: Vec<&str> = key.split_whitespace().filter(|word| word.len() >= 32).collect();
    ensure!(!words.is_empty(), "cluster.key has no key");
    for (name, bytes) in &files {
        ensure!(!has(bytes, SECRET), "{name} has the CHAP secret");
        ensure!(
            !words.iter().any(|word| has(bytes, word)),
            "{name} has the cluster's key"
        );
    }
    let again = m.refused("b", &["support", file]).await?;
    ensure!(again.contains("is there already"), "{again}");
    // At the worst of times: the node is gone, and its machine is looked at all the same.
    m.kill("b").await?;
    std::fs::remove_file(&archive)?;
    let socket = m.path("b").join("admin.sock");
    let socket = socket.to_str().context("a path in UTF-8")?;
    let words = ["support", file, "--config", config, "--admin", socket];
    let told = holdfast_tests::cluster::holdfast(&words).await?.success()?;
    ensure!(told.contains("missing: all that the node tells"), "{told}");
    let files = unpack(&m, &archive).await?;
    ensure!(
        files.contains_key("node.toml") && files.contains_key("machine/kernel.txt"),
        "{told}"
    );
    Ok(())
}
