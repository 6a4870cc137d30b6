//! I9, P1, P2, I13: persistent reservations, RESERVE and resets through both portals, over failovers, restarts and switchovers.

use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_drill::error::SenseCode;
use holdfast_iscsi::pdu::{TaskFunction, TaskResult};
use holdfast_tests::cluster::{Demo, holdfast};
use holdfast_tests::hosts::{End, Host, TYPES, for_registrants};
use holdfast_tests::{say, seed};

const SYNC_LIMIT: Duration = Duration::from_secs(60);
const REGISTRATIONS_PREEMPTED: SenseCode = SenseCode::new(0x06, 0x2a, 0x05);
const RESERVATIONS_PREEMPTED: SenseCode = SenseCode::new(0x06, 0x2a, 0x03);
const RESERVATIONS_RELEASED: SenseCode = SenseCode::new(0x06, 0x2a, 0x04);
const RESET: SenseCode = SenseCode::new(0x06, 0x29, 0x03);

async fn demo() -> Result<Demo> {
    let demo = Demo::start_with("64MiB").await?;
    demo.wait_in_sync(SYNC_LIMIT).await?;
    Ok(demo)
}

/// Two hosts through a's portal and b's, and one more through b's.
async fn hosts(demo: &Demo) -> Result<[Host; 3]> {
    Ok([
        Host::new(demo.dial("a")?, 0xa1).await?,
        Host::new(demo.dial("b")?, 0xb1).await?,
        Host::new(demo.dial("b")?, 0xb2).await?,
    ])
}

async fn good(end: Result<End>, what: &str) -> Result<()> {
    let end = end?;
    ensure!(end.is_good(), "{what} came to {end:?}");
    Ok(())
}

/// Nothing is registered afterwards, whatever was before.
async fn clear(host: &mut Host) -> Result<()> {
    host.register().await?;
    good(host.out(3, 0, host.key, 0).await, "CLEAR").await?;
    let (_, keys) = host.keys().await?;
    ensure!(
        keys.is_empty() && host.held().await?.is_none(),
        "left after CLEAR: {keys:x?}"
    );
    Ok(())
}

/// One type from REGISTER to CLEAR, the conflict matrix by reads and writes through both portals. `x` registers first.
async fn one_type([x, y, z]: [&mut Host; 3], kind: u8, others_read: bool) -> Result<()> {
    clear(x).await?;
    let (generation, _) = y.keys().await?;
    x.register().await?;
    y.register().await?;
    ensure!(y.keys().await? == (generation + 2, vec![x.key, y.key]));
    good(x.out(1, kind, x.key, 0).await, "RESERVE").await?;
    let key = if kind >= 7 { 0 } else { x.key };
    for host in [&mut *x, &mut *y, &mut *z] {
        ensure!(
            host.held().await? == Some((key, kind)),
            "type {kind}: {:?}",
            host.held().await?
        );
    }
    ensure!(x.access().await? == (true, true), "type {kind}: the holder");
    let registered = for_registrants(kind);
    let found = y.access().await?;
    ensure!(
        found == (others_read || registered, registered),
        "type {kind}, registered: {found:?}"
    );
    let found = z.access().await?;
    ensure!(
        found == (others_read, false),
        "type {kind}, not registered: {found:?}"
    );
    ensure!(
        x.report(3).await? == z.report(3).await?,
        "both portals tell one story"
    );
    // Another RESERVE, a wrong key, a wrong type.
    let again = y.out(1, kind, y.key, 0).await?;
    ensure!(
        again.is_good() == (kind >= 7),
        "type {kind}: a second RESERVE came to {again:?}"
    );
    ensure!(y.out(2, kind, 0x77, 0).await? == End::Conflict);
    let other = if kind == 1 { 3 } else { 1 };
    let wrong = x.out(2, other, x.key, 0).await?;
    ensure!(
        wrong == End::Sense(SenseCode::new(0x05, 0x26, 0x04)),
        "RELEASE of another type: {wrong:?}"
    );
    for host in [&mut *x, &mut *y, &mut *z] {
        host.attentions().await?;
    }
    good(x.out(2, kind, x.key, 0).await, "RELEASE").await?;
    ensure!(y.held().await?.is_none());
    let told = if registered {
        y.hears(RESERVATIONS_RELEASED).await?
    } else {
        y.attentions().await?
    };
    ensure!(
        told.contains(&RESERVATIONS_RELEASED) == registered,
        "type {kind}: told {told:?}"
    );
    ensure!(z.access().await? == (true, true), "type {kind}: released");
    by_force([x, y], kind, others_read).await
}

/// The other one takes the reservation by force, and the first is cut off wherever it comes in.
async fn by_force([x, y]: [&mut Host; 2], kind: u8, others_read: bool) -> Result<()> {
    good(x.out(1, kind, x.key, 0).await, "RESERVE").await?;
    let victim = if kind >= 7 { 0 } else { x.key };
    good(y.out(5, kind, y.key, victim).await, "PREEMPT AND ABORT").await?;
    let found = x.access().await?;
    ensure!(
        found == (others_read, false),
        "type {kind}: the preempted holder {found:?}"
    );
    let told = x.hears(REGISTRATIONS_PREEMPTED).await?;
    ensure!(
        told.contains(&REGISTRATIONS_PREEMPTED),
        "type {kind}: told {told:?}"
    );
    ensure!(y.access().await? == (true, true) && y.keys().await?.1 == [y.key]);
    x.register().await?;
    good(y.out(3, 0, y.key, 0).await, "CLEAR").await?;
    let told = x.hears(RESERVATIONS_PREEMPTED).await?;
    ensure!(
        told.contains(&RESERVATIONS_PREEMPTED),
        "type {kind}: told {told:?}"
    );
    Ok(())
}

async fn every_type([x, y, z]: &mut [Host; 3]) -> Result<()> {
    for (kind, others_read) in TYPES {
        one_type([&mut *x, &mut *y, &mut *z], kind, others_read).await?;
        one_type([&mut *y, &mut *x, &mut *z], kind, others_read).await?;
    }
    Ok(())
}

fn tell(what: &str, hosts: &[Host]) {
    let slowest: Vec<Duration> = hosts.iter().map(|host| host.slowest).collect();
    let lost: usize = hosts.iter().map(|host| host.lost).sum();
    say(&format!(
        "{what}: slowest commands {slowest:.2?}, {lost} connections lost"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_every_type_and_service_action_through_both_portals() -> Result<()> {
    let demo = demo().await?;
    let mut hosts = hosts(&demo).await?;
    every_type(&mut hosts).await?;
    tell("in peace", &hosts);
    let lost: usize = hosts.iter().map(|host| host.lost).sum();
    ensure!(lost == 0, "{lost} connections lost");
    Ok(())
}

/// P2, with unit attentions retried: planned switchovers all the while. `HOLDFAST_ROUNDS` says how many rounds of all types (1).
#[tokio::test(flavor = "multi_thread")]
async fn p2_every_type_while_the_primary_moves_every_two_seconds() -> Result<()> {
    let demo = demo().await?;
    let mut hosts = hosts(&demo).await?;
    let admin = demo.document_now()?.nodes[0].admin.clone();
    let mover = tokio::spawn(async move {
        let mut moved = 0;
        loop {
            for to in ["b", "a"] {
                tokio::time::sleep(Duration::from_secs(2)).await;
                let done = holdfast(&["switchover", "--all", "--to", to, "--admin", &admin]).await;
                moved += u32::from(done.is_ok_and(|done| done.success().is_ok()));
                say(&format!("{moved} switchovers"));
            }
        }
    });
    for _ in 0..seed::number("HOLDFAST_ROUNDS", 1) {
        every_type(&mut hosts)
            .await
            .map_err(|error| error.context(demo.logs()))?;
    }
    mover.abort();
    tell("with switchovers", &hosts);
    Ok(())
}

const IDENTIFIER_CHANGED: SenseCode = SenseCode::new(0x06, 0x3f, 0x05);
const LABEL: &[u8] = b"accounts, tier 1\0";

/// SET IDENTIFYING INFORMATION of type 02h.
async fn label(host: &mut Host) -> Result<()> {
    let mut set = [0; 16];
    (set[0], set[1], set[9], set[10]) = (0xa4, 0x06, u8::try_from(LABEL.len())?, 2 << 1);
    good(
        host.command(set, None, Some(LABEL.into())).await,
        "SET IDENTIFYING INFORMATION",
    )
    .await
}

/// REPORT IDENTIFYING INFORMATION of type 02h.
async fn has_label(host: &mut Host) -> Result<bool> {
    let mut report = [0; 16];
    (report[0], report[1], report[9], report[10]) = (0xa3, 0x05, 255, 2 << 1);
    let End::Good(data) = host.command(report, Some(255), None).await? else {
        return Ok(false);
    };
    Ok(data.get(4..) == Some(LABEL))
}

/// I9, I13: a fenced host stays fenced, and what a host wrote onto the unit stays there, when the primary dies, when its node
/// comes back, and when all nodes are started anew.
#[tokio::test(flavor = "multi_thread")]
async fn i9_reservations_survive_failover_and_restarts() -> Result<()> {
    let demo = demo().await?;
    let [mut x, mut y, mut z] = hosts(&demo).await?;
    x.register().await?;
    y.register().await?;
    label(&mut x).await?;
    let told = y.hears(IDENTIFIER_CHANGED).await?;
    ensure!(told.contains(&IDENTIFIER_CHANGED), "told {told:?}");
    ensure!(has_label(&mut y).await?, "through the other node");
    good(y.out(1, 5, y.key, 0).await, "RESERVE").await?;
    let before = y.report(3).await?;
    let primary = demo.primary().await?;
    let other = if primary == "a" { "b" } else { "a" };
    demo.kill(&primary)?;
    let mut late = Host::new(demo.dial(other)?, 0xc1).await?;
    ensure!(late.report(3).await? == before, "as it was before the failover");
    ensure!(has_label(&mut late).await?, "after the failover");
    ensure!(late.access().await? == (true, false));
    // Windows and others challenge while a node is being lost.
    late.register().await?;
    good(late.out(4, 5, late.key, x.key).await, "PREEMPT").await?;
    say(&format!(
        "slowest command while {primary} was lost: {:.2?}",
        late.slowest
    ));
    let (generation, keys) = late.keys().await?;
    ensure!(keys == [y.key, late.key], "{keys:x?}");
    demo.restart(&primary).await?;
    demo.wait_in_sync(SYNC_LIMIT).await?;
    ensure!(
        z.access().await? == (true, false),
        "the node that was lost has it too"
    );
    ensure!(x.access().await? == (true, false));
    for name in ["a", "b", "w"] {
        demo.kill(name)?;
    }
    for name in ["a", "b", "w"] {
        demo.restart(name).await?;
    }
    demo.wait_in_sync(SYNC_LIMIT).await?;
    ensure!(
        late.keys().await? == (generation, vec![y.key, late.key]),
        "all were started anew"
    );
    ensure!(y.held().await? == Some((y.key, 5)));
    ensure!(z.access().await? == (true, false) && y.access().await? == (true, true));
    ensure!(has_label(&mut z).await?, "after all were started anew");
    tell("over failover and restarts", &[x, y, z, late]);
    Ok(())
}

/// Windows cluster validation: two nodes, each with a path through both portals, register, challenge and defend.
#[tokio::test(flavor = "multi_thread")]
async fn i9_the_sequence_of_windows_cluster_validation() -> Result<()> {
    let demo = demo().await?;
    let (one, two) = (0x1111_0001, 0x2222_0001);
    let mut paths = Vec::new();
    for key in [one, two] {
        for portal in ["a", "b"] {
            paths.push(Host::new(demo.dial(portal)?, key).await?);
        }
    }
    for path in &mut paths {
        path.register().await?;
    }
    let (_, keys) = paths[3].keys().await?;
    ensure!(
        keys == [one, one, two, two],
        "every path has its registration: {keys:x?}"
    );
    good(paths[0].out(1, 5, one, 0).await, "RESERVE by node 1").await?;
    ensure!(
        paths[2].out(1, 5, two, 0).await? == End::Conflict,
        "node 2 cannot reserve"
    );
    for path in &mut paths {
        ensure!(path.held().await? == Some((one, 5)));
        ensure!(path.access().await? == (true, true), "registrants have access");
    }
    // Defence: node 1 looks whether it still holds it, through its other path.
    good(paths[1].out(6, 0, 0, one).await, "REGISTER AND IGNORE again").await?;
    // Challenge: node 2 takes over while the primary is lost.
    let primary = demo.primary().await?;
    demo.kill(&primary)?;
    let surviving = usize::from(primary == "a");
    good(
        paths[2 + surviving].out(5, 5, two, one).await,
        "PREEMPT AND ABORT by node 2",
    )
    .await?;
    let took = paths[2 + surviving].slowest;
    say(&format!("PREEMPT AND ABORT while {primary} was lost: {took:.2?}"));
    ensure!(
        paths[surviving].access().await? == (true, false),
        "node 1 is fenced"
    );
    demo.restart(&primary).await?;
    demo.wait_in_sync(SYNC_LIMIT).await?;
    ensure!(
        paths[1 - surviving].access().await? == (true, false),
        "on its other path too"
    );
    let (_, keys) = paths[0].keys().await?;
    ensure!(keys == [two, two], "{keys:x?}");
    good(
        paths[3].out(2, 5, two, 0).await,
        "RELEASE by another path of the holder",
    )
    .await?;
    let holder = if paths[2 + surviving].held().await?.is_some() {
        2 + surviving
    } else {
        3
    };
    good(paths[holder].out(3, 0, two, 0).await, "CLEAR").await?;
    ensure!(paths[0].keys().await?.1.is_empty());
    Ok(())
}

/// I13: RESERVE is one for all nodes, and a reset through either portal ends it and is told to everybody.
#[tokio::test(flavor = "multi_thread")]
async fn i13_reserve_and_resets_act_through_every_node() -> Result<()> {
    let demo = demo().await?;
    let [mut x, mut y, mut z] = hosts(&demo).await?;
    let mut reserve = [0; 16];
    reserve[0] = 0x16;
    let mut release = reserve;
    release[0] = 0x17;
    good(x.command(reserve, None, None).await, "RESERVE").await?;
    ensure!(y.command(reserve, None, None).await? == End::Conflict);
    ensure!(y.access().await? == (false, false) && x.access().await? == (true, true));
    ensure!(
        y.command([0; 16], None, None).await? == End::Conflict,
        "TEST UNIT READY"
    );
    good(y.command(release, None, None).await, "another one's RELEASE").await?;
    ensure!(z.access().await? == (false, false));
    let functions = [TaskFunction::LOGICAL_UNIT_RESET, TaskFunction::TARGET_WARM_RESET];
    for function in functions {
        good(x.command(reserve, None, None).await, "RESERVE").await?;
        let answer = y.raw().await?.task_management(function, None).await?;
        ensure!(answer == TaskResult::COMPLETE, "{function:?} came to {answer:?}");
        for host in [&mut x, &mut y, &mut z] {
            ensure!(host.access().await? == (true, true), "{function:?} ends RESERVE");
            let told = host.hears(RESET).await?;
            ensure!(told.contains(&RESET), "{function:?}: told {told:?}");
        }
    }
    // It ends with its nexus.
    good(x.command(reserve, None, None).await, "RESERVE").await?;
    ensure!(y.access().await? == (false, false));
    drop(x);
    let start = std::time::Instant::now();
    while y.access().await? != (true, true) {
        ensure!(
            start.elapsed() < Duration::from_secs(10),
            "its nexus is lost, RESERVE stays"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
