//! Failures that a drill has a running node suffer within itself, for as long as the drill lives.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_drill::rehearsal::Failure;
use holdfast_injection::Disk;
use holdfast_proto::admin::{HealRequest, InjectRequest};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::admin::{AdminAddress, AdminClient};

/// Who asks, in the node's log.
const BY: &str = "holdfast drill";
/// How long a fault lasts that nobody renews, and how often it is renewed.
const LASTS: Duration = Duration::from_secs(20);
const RENEWED_EVERY: Duration = Duration::from_secs(6);

/// What the victim of a failure suffers: sites, each of which is cut. None for failures that are done to it from outside.
fn sites(failure: Failure, replica: &str, peers: &[String]) -> Vec<String> {
    let link = |peer: &str| format!("link:{peer}");
    match failure {
        Failure::CutReplication => vec![link(replica)],
        Failure::SeverPrimary => peers.iter().map(|peer| link(peer)).collect(),
        Failure::HangPrimary | Failure::HangReplica => {
            let disks = Disk::ALL.into_iter();
            disks.map(|disk| format!("disk:{}", disk.name())).collect()
        }
        Failure::Switchover
        | Failure::KillPrimary
        | Failure::FreezePrimary
        | Failure::KillReplica
        | Failure::KillWitness => Vec::new(),
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
        let sites = sites(failure, replica, peers);
        put_all(address, &sites).await?;
        let address = address.clone();
        let mut renewals = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        renewals.spawn(async move {
            loop {
                sleep(RENEWED_EVERY).await;
                if let Err(error) = put_all(&address, &sites).await {
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

async fn put_all(address: &AdminAddress, sites: &[String]) -> anyhow::Result<()> {
    let mut client = AdminClient::connect(address).await?;
    for site in sites {
        let request = InjectRequest {
            site: site.clone(),
            fault: "cut".to_owned(),
            millis: u32::try_from(LASTS.as_millis()).unwrap_or(u32::MAX),
            by: BY.to_owned(),
        };
        client.inject(request).await?;
    }
    Ok(())
}
