//! One command starts a pair that users, scripts and other projects' initiators can read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_drill::disk::Disk;
use holdfast_drill::initiator::Session;
use holdfast_tests::cluster::{self, Demo, Place};
use holdfast_tests::identity::identity;
use holdfast_tests::status::{NodeState, Role};
use holdfast_tests::tools;
use holdfast_types::Lba;

const LIMIT: Duration = Duration::from_secs(30);
const ACTIVE_OPTIMIZED: u8 = 0;
const ACTIVE_NON_OPTIMIZED: u8 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_is_ready_in_ten_seconds_and_says_where() -> Result<()> {
    let demo = Demo::start().await?;
    ensure!(
        demo.ready_after() < Duration::from_secs(10),
        "ready after {:?}",
        demo.ready_after()
    );
    let document = demo.document();
    assert_eq!((document.lun, document.size_bytes), (0, 1 << 30));
    assert!(document.target.starts_with("iqn."));
    let names: Vec<(&str, &str)> = document
        .nodes
        .iter()
        .map(|node| (node.name.as_str(), node.role.as_str()))
        .collect();
    assert_eq!(names, [("a", "data"), ("b", "data"), ("w", "witness")]);
    for name in ["a", "b", "w"] {
        demo.pid(name)?;
    }
    let port =
        |name: &str| -> Result<u16> { Ok(demo.portal(name)?.rsplit(':').next().context("a port")?.parse()?) };
    assert_eq!(port("b")?, port("a")? + 1);
    assert_eq!(demo.document_now()?.target, document.target);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_tells_the_same_status() -> Result<()> {
    let demo = Demo::start().await?;
    demo.wait_in_sync(LIMIT).await?;
    for name in ["a", "b", "w"] {
        let status = demo.status_by(name).await?;
        assert!(status.quorum && status.is_whole(), "{name}: {status:?}");
        assert_eq!(status.nodes.len(), 3);
        assert!(
            status
                .nodes
                .iter()
                .all(|node| node.state == NodeState::Up && node.voter),
            "{name}: {:?}",
            status.nodes
        );
        let witnesses = status.nodes.iter().filter(|node| node.role == Role::Witness);
        assert_eq!(
            witnesses.map(|node| node.name.as_str()).collect::<Vec<_>>(),
            ["w"]
        );
        let extent = &status.extents[0];
        assert_eq!((extent.size_bytes, extent.in_sync.len()), (1 << 30, 2));
        assert!(extent.naa.len() == 32 && extent.naa.starts_with('6') && extent.epoch > 0);
        let groups = &status.targets[0].luns[0].groups;
        let optimized = groups.iter().filter(|group| group.state == "active/optimized");
        let primaries: Vec<&str> = optimized.map(|group| group.node.as_str()).collect();
        assert_eq!(
            (groups.len(), primaries),
            (2, vec![extent.primary.as_deref().context("a primary")?])
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_portals_show_one_logical_unit_behind_two_port_groups() -> Result<()> {
    let demo = Demo::start().await?;
    let (a, b) = (demo.session("a").await?, demo.session("b").await?);
    let (through_a, through_b) = (identity(&a).await?, identity(&b).await?);
    assert_eq!(through_a.product, ("HOLDFAST".to_owned(), "VDISK".to_owned()));
    assert_eq!(
        (&through_a.naa, &through_a.serial),
        (&through_b.naa, &through_b.serial)
    );
    assert_eq!(through_a.naa.len(), 1);
    assert!(
        through_a.naa[0].len() == 16 && through_a.naa[0][0] >> 4 == 6,
        "{:?}",
        through_a.naa
    );
    assert_ne!(
        (through_a.port, through_a.group),
        (through_b.port, through_b.group)
    );
    assert_eq!(a.capacity(), b.capacity());
    assert_eq!(a.capacity().bytes(), 1 << 30);

    let groups = a.port_groups().await?;
    assert_eq!(groups, b.port_groups().await?);
    let mut states: Vec<u8> = groups.iter().map(|group| group.state).collect();
    states.sort_unstable();
    assert_eq!(states, [ACTIVE_OPTIMIZED, ACTIVE_NON_OPTIMIZED]);
    for own in [&through_a, &through_b] {
        let group = groups.iter().find(|group| group.id == own.group);
        assert_eq!(group.context("the port's own group")?.ports, [own.port]);
    }
    a.log_out().await?;
    b.log_out().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_portal_writes_the_other_reads() -> Result<()> {
    let demo = Demo::start().await?;
    let (a, b) = (demo.session("a").await?, demo.session("b").await?);
    for (turn, (writer, reader)) in [(&a, &b), (&b, &a)].into_iter().enumerate() {
        // From one block to more than a burst, so that immediate data, unsolicited data and R2T all take part.
        for blocks in [1_u32, 8, 512, 4096] {
            let fill = u8::try_from(turn * 100 + blocks.trailing_zeros() as usize)?;
            let data = Bytes::from(vec![fill; blocks as usize * 512]);
            let lba = Lba(u64::from(blocks) * 16);
            writer.write(lba, data.clone()).await?;
            assert_eq!(reader.read(lba, blocks).await?, data);
        }
    }
    a.ping().await?;
    let bad = a
        .read(Lba(a.blocks()), 1)
        .await
        .err()
        .and_then(|error| error.sense());
    assert_eq!(
        bad.map(|sense| (sense.key, sense.asc)),
        Some((5, 0x21)),
        "a read behind the end"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_names_the_target_and_both_portals() -> Result<()> {
    let demo = Demo::start().await?;
    for name in ["a", "b"] {
        let found = Session::discover(&demo.dial(name)?).await?;
        let (target, addresses) = found.first().context("a target")?;
        assert_eq!((found.len(), target), (1, &demo.document().target));
        for portal in [demo.portal("a")?, demo.portal("b")?] {
            let is_there = addresses.iter().any(|address| address.starts_with(portal));
            assert!(is_there, "through {name}: {portal} is not among {addresses:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn libiscsi_reads_the_same_unit_through_both_portals() -> Result<()> {
    let (Some(ls), Some(inq), Some(capacity)) = (
        tools::find("iscsi-ls", "libiscsi-bin"),
        tools::find("iscsi-inq", "libiscsi-bin"),
        tools::find("iscsi-readcapacity16", "libiscsi-bin"),
    ) else {
        return Ok(());
    };
    let demo = Demo::start().await?;
    let mut seen = Vec::new();
    for name in ["a", "b"] {
        let (portal, url) = (
            format!("iscsi://{}", demo.portal(name)?),
            demo.url(name)?.to_string(),
        );
        let list = tools::run(&ls, &["-s", portal.as_str()], LIMIT)
            .await?
            .success()?;
        assert!(
            list.contains(&demo.document().target) && list.contains("DIRECT_ACCESS"),
            "{list}"
        );
        let standard = tools::run(&inq, &[url.as_str()], LIMIT).await?.success()?;
        assert!(
            standard.contains("HOLDFAST") && standard.contains("VDISK"),
            "{standard}"
        );
        let size = tools::run(&capacity, &[url.as_str()], LIMIT).await?.success()?;
        assert!(size.contains("1073741824") || size.contains("2097151"), "{size}");
        let serial = tools::run(&inq, &["-e", "1", "-c", "128", url.as_str()], LIMIT)
            .await?
            .success()?;
        let page = tools::run(&inq, &["-e", "1", "-c", "131", url.as_str()], LIMIT)
            .await?
            .success()?;
        let names = lines_behind(&page, "NAA");
        assert!(!names.is_empty(), "{page}");
        seen.push((serial, names, size));
    }
    assert_eq!(seen[0], seen[1], "one logical unit through both portals");
    Ok(())
}

/// Each line with `word` and the one behind it, which shows the designator.
fn lines_behind(text: &str, word: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].contains(word));
    pairs.map(|pair| pair.join(" ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_directory_is_picked_up_again() -> Result<()> {
    let place = Place::new()?;
    let data = Bytes::from(vec![0x5c; 4096]);
    let demo = place.start("64MiB").await?;
    let naa = identity(&demo.session("a").await?).await?.naa;
    demo.session("b").await?.write(Lba(8), data.clone()).await?;
    let pids = ["a", "b", "w"].map(|name| demo.pid(name).map(|pid| pid.as_raw_nonzero().get()));
    ensure!(demo.interrupt().await?.success(), "Ctrl-C ends the demo cleanly");
    for pid in pids {
        let line = std::fs::read(format!("/proc/{}/cmdline", pid?)).unwrap_or_default();
        let dir = place.dir().as_os_str().as_encoded_bytes();
        assert!(
            !line.windows(dir.len()).any(|part| part == dir),
            "a node outlived its demo"
        );
    }

    let demo = place.start("64MiB").await?;
    let session = demo.session("a").await?;
    assert_eq!(session.read(Lba(8), 8).await?, data);
    assert_eq!(identity(&session).await?.naa, naa, "the unit keeps its name");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_and_an_absent_node_are_told_apart() -> Result<()> {
    let wrong = cluster::holdfast(&["status", "--no-such-option"]).await?;
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
    let port = cluster::free_ports()?;
    let absent = cluster::holdfast(&[
        "cluster",
        "init",
        "--name",
        "x",
        "--admin",
        &format!("127.0.0.1:{port}"),
    ])
    .await?;
    assert_eq!(
        (absent.code, absent.out.as_str()),
        (Some(1), ""),
        "{}",
        absent.err
    );
    assert_eq!(
        absent.err.trim().lines().count(),
        1,
        "one line that says what to do: {}",
        absent.err
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_prints_figures_of_a_real_session() -> Result<()> {
    let demo = Demo::start_with("256MiB").await?;
    demo.wait_in_sync(LIMIT).await?;
    let primary = demo.primary().await?;
    let url = demo.url(&primary)?.to_string();
    let arguments = [
        "bench",
        "--url",
        &url,
        "--depth",
        "1,32",
        "--seconds",
        "2",
        "--json",
    ];
    let text = cluster::holdfast(&arguments).await?.success()?;
    let reports: serde_json::Value = serde_json::from_str(&text)?;
    for (index, depth) in [1, 32].into_iter().enumerate() {
        let report = &reports[index];
        let figure = |name: &str| {
            find_number(report, name).with_context(|| format!("a figure called {name} in {text}"))
        };
        assert_eq!(report["depth"].as_u64(), Some(depth), "{text}");
        let (iops, p50, p99) = (figure("iops")?, figure("p50_us")?, figure("p99_us")?);
        assert!(iops > 0.0 && p50 > 0.0 && p50 <= p99, "{text}");
        let line = format!(
            "4 KiB random writes at depth {depth}: {iops:.0} a second, p50 {p50:.0} us, p99 {p99:.0} us"
        );
        holdfast_tests::say(&line);
    }
    Ok(())
}

/// The first number of this name, however deep.
fn find_number(value: &serde_json::Value, name: &str) -> Option<f64> {
    match value {
        serde_json::Value::Object(map) => {
            let here = map.get(name).and_then(serde_json::Value::as_f64);
            here.or_else(|| map.values().find_map(|inner| find_number(inner, name)))
        }
        serde_json::Value::Array(list) => list.iter().find_map(|inner| find_number(inner, name)),
        _ => None,
    }
}
