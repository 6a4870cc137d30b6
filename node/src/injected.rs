//! Failures that a drill has a running node suffer within itself, for as long as the drill lives.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_drill::rehearsal::Failure;
use holdfast_injection::{Disk, Harm};
use holdfast_proto::admin::{HealRequest, InjectRequest};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::admin::{AdminAddress, AdminClient};
use crate::runtime::blow::{Blow, PROCESS};

/// Who asks, in the node's log.
const BY: &str = "holdfast drill";
/// How long a fault lasts that nobody renews, and how often it is renewed.
const LASTS: Duration = Duration::from_secs(20);
const RENEWED_EVERY: Duration = Duration::from_secs(6);

/// What the victim of a failure suffers: sites, and how each is hurt. None for failures that are done to a process from outside.
fn suffered(failure: Failure, replica: &str, peers: &[String]) -> (Vec<String>, Harm) {
    let link = |peer: &str| format!("link:{peer}");
    let slow = Harm::Delay(Failure::SLOWED_BY);
    let disks = || Disk::ALL.map(|disk| format!("disk:{}", disk.name())).to_vec();
    match failure {
        Failure::CutReplication => (vec![link(replica)], Harm::Cut),
        Failure::SlowReplication => (vec![link(replica)], slow),
        Failure::SeverPrimary => (peers.iter().map(|peer| link(peer)).collect(), Harm::Cut),
        Failure::HangPrimary | Failure::HangReplica => (disks(), Harm::Cut),
        Failure::SlowPrimary => (disks(), slow),
        Failure::Switchover
        | Failure::KillPrimary
        | Failure::FreezePrimary
        | Failure::KillReplica
        | Failure::KillWitness => (Vec::new(), Harm::Cut),
    }
}

/// How a node is asked to suffer something at that place for so long.
fn request(site: String, fault: String, lasts: Duration) -> InjectRequest {
    InjectRequest {
        site,
        fault,
        millis: u32::try_from(lasts.as_millis()).unwrap_or(u32::MAX),
        by: BY.to_owned(),
    }
}

/// The faults of a drill. They are renewed until they are healed, or this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Injected {
    renewals: Mutex<JoinSet<()>>,
}

impl Injected {
    /// Has the node at `address`, the failure's victim, suffer it. `peers` are all other nodes, `replica` the one with the other replica.
    ///
    /// # Errors
    /// The node does not answer, or refuses.
    pub(crate) async fn put(
        &self,
        address: &AdminAddress,
        failure: Failure,
        replica: &str,
        peers: &[String],
    ) -> anyhow::Result<()> {
        let (sites, harm) = suffered(failure, replica, peers);
        put_all(address, &sites, harm).await?;
        let address = address.clone();
        let mut renewals = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        renewals.spawn(async move {
            loop {
                sleep(RENEWED_EVERY).await;
                if let Err(error) = put_all(&address, &sites, harm).await {
                    tracing::debug!(%error, "a fault could not be renewed");
                }
            }
        });
        Ok(())
    }

    /// Heals the node at `address`.
    ///
    /// # Errors
    /// The node does not answer. It heals by itself then.
    pub(crate) async fn heal(&self, address: &AdminAddress) -> anyhow::Result<()> {
        let mut renewals = std::mem::take(&mut *self.renewals.lock().unwrap_or_else(PoisonError::into_inner));
        renewals.shutdown().await;
        let request = HealRequest {
            site: String::new(),
            by: BY.to_owned(),
        };
        AdminClient::connect(address).await?.heal(request).await.map(drop)
    }
}

async fn put_all(address: &AdminAddress, sites: &[String], harm: Harm) -> anyhow::Result<()> {
    let mut client = AdminClient::connect(address).await?;
    for site in sites {
        client
            .inject(request(site.clone(), harm.to_string(), LASTS))
            .await?;
    }
    Ok(())
}

/// Has the node at `address` kill or freeze its own process for so long. Nothing heals it earlier: it hears nothing meanwhile.
///
/// # Errors
/// The node does not answer, or refuses.
pub(crate) async fn strike(address: &AdminAddress, blow: Blow, lasts: Duration) -> anyhow::Result<()> {
    let request = request(PROCESS.to_owned(), blow.to_string(), lasts);
    AdminClient::connect(address)
        .await?
        .inject(request)
        .await
        .map(drop)
}
