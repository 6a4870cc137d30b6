//! `holdfast export` and `holdfast apply` on whole clusters: a configuration goes from one to another, and stays when it is applied again.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_tests::cluster::Demo;
use holdfast_tests::tools::{self, Finished};
use holdfast_tests::{say, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(120);
const SYNC_LIMIT: Duration = Duration::from_secs(90);
const SECRET: &str = "correct-horse";
const HOST: &str = "iqn.2026-11.example:host";

/// Everything that can be configured, beside what a demo has.
const STORE: &str = r#"
format = 1
[settings]
lease-time = "700ms"
failback-after = "off"
[[discovery.user]]
name = "scout"
secret_file = "secret"
[[group]]
name = "hosts"
initiators = ["iqn.2026-11.example:host"]
networks = ["127.0.0.0/8"]
[[group.user]]
name = "host"
secret_file = "secret"
[group.mutual]
name = "store"
secret_file = "other"
[[group]]
name = "readers"
any_initiator = true
networks = ["192.0.2.0/24"]
read_only = true
[[extent]]
name = "vm1"
size = "8MiB"
preferred = "b"
thin = false
write_cache = true
[[extent]]
name = "vm2"
size = "4MiB"
block_size = 4096
replicas = ["a"]
secondary = "standby"
confirmed_reads = true
[[target]]
iqn = "iqn.2026-11.example:store"
max_sessions = 8
redirect = true
[[target.lun]]
lun = 0
extent = "vm1"
[[target.lun]]
lun = 300
extent = "vm2"
read_only = true
[[target.group]]
name = "hosts"
[[target.group]]
name = "readers"
[[target.group.lun]]
lun = 1
extent = "vm2"
"#;

async fn holdfast(demo: &Demo, node: &str, arguments: &[&str]) -> Result<Finished> {
    let arguments = [arguments, &["--admin", demo.admin(node)?]].concat();
    tools::run(&tools::holdfast()?, &arguments, LIMIT).await
}

async fn export(demo: &Demo, node: &str) -> Result<String> {
    holdfast(demo, node, &["export"]).await?.success()
}

/// What every node exports, once all of them have applied what was committed.
async fn export_of_all(demo: &Demo) -> Result<String> {
    let began = Instant::now();
    loop {
        let text = export(demo, "a").await?;
        if export(demo, "b").await? == text && export(demo, "w").await? == text {
            return Ok(text);
        }
        ensure!(began.elapsed() < LIMIT, "the nodes' exports differ:\n{text}");
    }
}

/// A file in `dir`, by its path.
fn file(dir: &Path, name: &str, text: &str) -> Result<String> {
    let path = dir.join(name);
    std::fs::write(&path, text)?;
    Ok(path.to_str().context("a path in UTF-8")?.to_owned())
}

/// The document is carried out; what it was refused without `--yes`, and what is said the second time.
async fn applied_twice(demo: &Demo, document: &str) -> Result<()> {
    let before = export_of_all(demo).await?;
    let refused = holdfast(demo, "a", &["apply", document]).await?;
    ensure!(
        refused.code == Some(1)
            && refused.err.contains("add --yes")
            && refused.out.contains("create extent vm1: size 8MiB"),
        "{refused:?}"
    );
    ensure!(
        export_of_all(demo).await? == before,
        "something was done without a yes"
    );
    let done = holdfast(demo, "b", &["apply", document, "--yes"])
        .await?
        .success()?;
    ensure!(
        done.contains("create LUN 300 of") && done.contains("changes."),
        "{done}"
    );
    let after = export_of_all(demo).await?;
    let again = holdfast(demo, "a", &["apply", document]).await?.success()?;
    ensure!(again.ends_with("Nothing is to change.\n"), "{again}");
    let json = holdfast(demo, "a", &["apply", document, "--yes", "--json"])
        .await?
        .success()?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    ensure!(
        json["done"] == true && json["changes"] == serde_json::json!([]) && json["steps"] == 0,
        "{json}"
    );
    ensure!(
        export_of_all(demo).await? == after,
        "the second time something was done"
    );
    Ok(())
}

/// A cluster is made from a document and written down; another one becomes the same by that, and its exports are the same bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_goes_from_one_cluster_to_another() -> Result<()> {
    let dir = tempfile::tempdir()?;
    file(dir.path(), "secret", &format!("{SECRET}\n"))?;
    file(dir.path(), "other", "another-secret\n")?;
    let document = file(dir.path(), "store.toml", STORE)?;
    let first = {
        let demo = Demo::start_with("64MiB").await?;
        applied_twice(&demo, &document).await?;
        let text = export_of_all(&demo).await?;
        ensure!(
            !text.contains(SECRET) && !text.contains("another-secret"),
            "{text}"
        );
        let out = dir.path().join("export.toml").display().to_string();
        holdfast(&demo, "w", &["export", "--output", &out])
            .await?
            .success()?;
        ensure!(
            std::fs::read_to_string(&out)? == text,
            "--output writes something else"
        );
        let own = holdfast(&demo, "b", &["apply", &out]).await?.success()?;
        ensure!(own == "Nothing is to change.\n", "{own}");
        bad_documents(&demo, dir.path()).await?;
        ensure!(
            export_of_all(&demo).await? == text,
            "a bad document changed something"
        );
        text
    };
    let demo = Demo::start_with("64MiB").await?;
    let bare = file(dir.path(), "bare.toml", &first)?;
    let refused = holdfast(&demo, "a", &["apply", &bare, "--yes"]).await?;
    let lines: Vec<&str> = refused.err.lines().collect();
    ensure!(
        refused.code == Some(1)
            && lines.len() == 3
            && lines.iter().all(|line| line.contains("secret_file = \"FILE\"")),
        "secrets are missing: {refused:?}"
    );
    let with_secrets: String = first
        .lines()
        .map(|line| match line.split_once("  # its secret stays") {
            Some((name, _)) if name.contains("store") => format!("{name}\nsecret_file = \"other\"\n"),
            Some((name, _)) => format!("{name}\nsecret_file = \"secret\"\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let document = file(dir.path(), "whole.toml", &with_secrets)?;
    applied_twice(&demo, &document).await?;
    let second = export_of_all(&demo).await?;
    ensure!(second == first, "another configuration: {second}\n---\n{first}");
    secret_holds(&demo).await?;
    let served = demo.wait_for("a primary of every extent", SYNC_LIMIT, |status| {
        status.quorum && status.extents.iter().all(|extent| extent.primary.is_some())
    });
    served.await.map(drop)
}

/// The secrets that were given in files let the host in, where there is a tool to try it with.
async fn secret_holds(demo: &Demo) -> Result<()> {
    let Some(inq) = tools::find("iscsi-inq", "libiscsi-bin") else {
        return Ok(());
    };
    for (user, comes_in) in [("host%correct-horse@", true), ("host%wrong-horse-12@", false)] {
        let url = format!("iscsi://{user}{}/iqn.2026-11.example:store/0", demo.portal("b")?);
        let tried = tools::run(&inq, &["-i", HOST, &url], LIMIT).await?;
        ensure!((tried.code == Some(0)) == comes_in, "{user}: {tried:?}");
    }
    Ok(())
}

/// None of these changes anything; the line says what is wrong.
async fn bad_documents(demo: &Demo, dir: &Path) -> Result<()> {
    let target = "[[target]]\niqn = \"iqn.2026-11.example:store\"\n";
    let cases = [
        ("format = 2".to_owned(), "format = 2: this release reads format 1"),
        ("format = 1\nextends = 1".to_owned(), "unknown field `extends`"),
        ("format = 1\n[[target]]\niqn = \"store\"".to_owned(), "target store: iqn:"),
        (
            "format = 1\n[[extent]]\nname = \"x\"\nsize = \"8MiB\"\nreplicas = [\"a\", \"z\"]".to_owned(),
            "extent x: replicas: there is no node 'z'; the data nodes are a, b",
        ),
        (
            "format = 1\n[[extent]]\nname = \"x\"\nsize = \"8388609\"".to_owned(),
            "extent x: size = 8388609: it is a multiple of the block size",
        ),
        (
            "format = 1\n[[extent]]\nname = \"vm1\"\nsize = \"2MiB\"".to_owned(),
            "extent vm1: size = 2MiB: it has 8MiB, and an extent only grows",
        ),
        (
            // The first extent could be made; the second one's fault is found before.
            "format = 1\n[[extent]]\nname = \"x\"\nsize = \"8MiB\"\n[[extent]]\nname = \"x\"\nsize = \"8MiB\"".to_owned(),
            "extent: 'x' is there twice",
        ),
        (
            format!("format = 1\n{target}[[target.lun]]\nlun = 0\nextent = \"vm2\""),
            "lun 0: extent = 'vm2': it stands for vm1",
        ),
        (
            "format = 1\n[[discovery.user]]\nname = \"new\"\nsecret_file = \"missing\"".to_owned(),
            "CHAP user new of discovery: secret_file = 'missing': cannot read",
        ),
    ];
    for (text, wanted) in cases {
        let path = file(dir, "bad.toml", &text)?;
        let refused = holdfast(demo, "a", &["apply", &path, "--yes"]).await?;
        ensure!(
            refused.code == Some(1) && refused.err.contains(wanted) && refused.err.lines().count() == 1,
            "{text}: {refused:?}"
        );
    }
    Ok(())
}

/// A document with many groups and extents.
fn many() -> String {
    let group = |n| format!("[[group]]\nname = \"g{n}\"\ninitiators = [\"iqn.2026-11.example:h{n}\"]\n");
    let extent = |n| format!("[[extent]]\nname = \"e{n}\"\nsize = \"1MiB\"\n");
    let lun = |n| format!("[[target.lun]]\nlun = {n}\nextent = \"e{n}\"\nread_only = true\n");
    let all = |one: &dyn Fn(u32) -> String| (0..20).map(one).collect::<String>();
    let target = "[[target]]\niqn = \"iqn.2026-11.example:many\"\nrestricted = true\n";
    format!("format = 1\n{}{}{target}{}", all(&group), all(&extent), all(&lun))
}

/// Starts `apply`, kills it after so many requests are answered, and says whether it had not ended yet.
async fn killed_after(demo: &Demo, document: &str, requests: usize) -> Result<bool> {
    let mut child = Command::new(tools::holdfast()?)
        .args(["apply", document, "--yes", "--admin", demo.admin("a")?])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = child.stdout.take().context("standard output is piped")?;
    let mut lines = BufReader::new(out).lines();
    let mut answered = 0;
    while answered < requests {
        let Some(line) = lines.next_line().await? else {
            break;
        };
        let is_difference = ["create ", "change ", "delete ", "not in "]
            .iter()
            .any(|start| line.starts_with(start));
        answered += usize::from(!is_difference);
    }
    child.start_kill()?;
    Ok(!child.wait().await?.success())
}

/// `kill -9` in the middle, several times: what was done stays, and the next one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_apply_that_is_killed_is_completed_by_the_next_one() -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed::seed("apply"));
    let dir = tempfile::tempdir()?;
    let document = file(dir.path(), "many.toml", &many())?;
    let demo = Demo::start_with("64MiB").await?;
    for _ in 0..4 {
        let requests = random.random_range(1..12);
        ensure!(
            killed_after(&demo, &document, requests).await?,
            "it had ended already"
        );
        say(&format!("killed after {requests} requests"));
    }
    let difference = holdfast(&demo, "b", &["apply", &document]).await?;
    let left = difference
        .out
        .lines()
        .filter(|line| line.starts_with("create "))
        .count();
    ensure!(
        difference.code == Some(1) && (1..61).contains(&left),
        "{difference:?}"
    );
    holdfast(&demo, "b", &["apply", &document, "--yes"])
        .await?
        .success()?;
    let again = holdfast(&demo, "b", &["apply", &document]).await?.success()?;
    ensure!(again.ends_with("Nothing is to change.\n"), "{again}");
    let text = export_of_all(&demo).await?;
    ensure!(text.matches("read_only = true").count() == 20, "{text}");
    demo.wait_in_sync(SYNC_LIMIT).await.map(drop)
}
