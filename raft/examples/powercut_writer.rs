//! A single-node control plane for power-cut tests.
//!
//! `powercut_writer DIR` proposes numbered commands for ever and prints the number of each one that was acknowledged, one per line,
//! flushed. `powercut_writer DIR --verify N` opens the directory and exits 0 if everything acknowledged up to number N is in the applied
//! state.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use holdfast_raft::consensus::{Config, Control, InitializeError};
use holdfast_raft::model::{ClusterId, Command, Init, NewNode, NodeAddresses, Reply, Role};
use holdfast_trust::{Generations, Key, Trust};
use holdfast_types::{IscsiName, NodeId};

const CLUSTER: ClusterId = ClusterId(0x70_77_72);
const NODE: NodeId = NodeId(1);
/// A node alone leads at once; a busy machine may take a while.
const LIMIT: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *arguments.as_slice() {
        [dir] => runtime.block_on(write(dir)),
        [dir, "--verify", number] => runtime.block_on(verify(dir, number)),
        _ => Err("usage: powercut_writer DIR [--verify N]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Failure) -> ExitCode {
    eprintln!("powercut_writer: {error}");
    ExitCode::FAILURE
}

fn name(number: u64) -> Result<IscsiName, Failure> {
    Ok(format!("iqn.2026-11.example:t{number}").parse()?)
}

/// Opens the directory; `fresh` when it may be empty.
async fn open(dir: &str, fresh: bool) -> Result<Control, Failure> {
    let trust = Trust::new(NODE, &[CLUSTER.0], &Key::new([7; 32]), &Generations::default())?;
    let config = Config {
        // Small, so that cuts hit snapshots and purges too.
        snapshot_after: 200,
        expect_log: !fresh,
        ..Config::new(dir, CLUSTER, NODE, trust)
    };
    let control = Control::start(config, Arc::new(|_| {}), Arc::new(|_| {})).await?;
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    if fresh {
        match control.initialize(BTreeMap::from([(NODE, nowhere)])).await {
            Ok(()) | Err(InitializeError::AlreadyInitialized) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(control)
}

async fn write(dir: &str) -> Result<(), Failure> {
    let control = open(dir, true).await?;
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let init = Command::Init(Init {
        name: "powercut".into(),
        id: CLUSTER,
        nodes: vec![NewNode {
            id: NODE,
            name: "a".into(),
            role: Role::Data,
            addresses: NodeAddresses {
                raft: nowhere,
                replication: Some(nowhere),
                spare_replication: Vec::new(),
                admin: Some(nowhere),
                heartbeat: nowhere,
                portals: vec![nowhere],
            },
        }],
    });
    control.propose(init).await?;
    let mut output = std::io::stdout().lock();
    let first = control.state().targets.len() as u64;
    for number in first.. {
        let reply = control
            .propose(Command::CreateTarget { name: name(number)? })
            .await?;
        if reply != Reply::DONE {
            return Err(format!("command {number}: {reply:?}").into());
        }
        writeln!(output, "{number}")?;
        output.flush()?;
    }
    Ok(())
}

async fn verify(dir: &str, number: &str) -> Result<(), Failure> {
    let number: u64 = number.parse()?;
    let control = open(dir, false).await?;
    let index = control.read_index().await?;
    if !control.wait_applied(index, LIMIT).await {
        return Err(format!("entry {index} is not applied").into());
    }
    let state = control.state();
    for number in 0..=number {
        if !state.targets.contains_key(&name(number)?) {
            return Err(format!("command {number} was acknowledged and is gone").into());
        }
    }
    control.shutdown().await;
    Ok(())
}
