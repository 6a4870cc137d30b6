//! Switching write-back of an extent on and off (W5).

use std::time::Duration;

use anyhow::bail;
use holdfast_raft::model::{Command, Extent, Reply};
use holdfast_types::ExtentId;

use super::Running;

/// How long it may take until everything that was acknowledged is stable.
const STABLE_WITHIN: Duration = Duration::from_secs(30);

impl Running {
    /// Has writes of an extent answered before they are stable, or no longer. Off is done once everything that was answered is stable on
    /// every member of the in-sync set; with `lost` at once, whatever is not.
    ///
    /// # Errors
    /// The cluster refuses, or no primary has said in time that all is stable: writes are not answered early any more, all the same.
    pub(crate) async fn set_write_cache(&self, extent: ExtentId, on: bool, lost: bool) -> anyhow::Result<()> {
        let command = Command::SetWriteCache { extent, on, lost };
        if let Reply::Refused { refusal } = self.propose(command).await? {
            return Err(refusal.into());
        }
        if on {
            return Ok(());
        }
        let mut watch = self.watch();
        let stable = watch.wait_for(|state| {
            let found = state.extents.get(&extent);
            let over = |found: &Extent| found.cache.since.is_some() || !found.cache.is_in_force();
            found.is_none_or(over)
        });
        match tokio::time::timeout(STABLE_WITHIN, stable).await {
            Ok(Ok(state)) => {
                let on = state
                    .extents
                    .get(&extent)
                    .is_some_and(|found| found.cache.since.is_some());
                if on {
                    bail!("somebody else has switched the write cache on again");
                }
                Ok(())
            }
            Ok(Err(_)) => bail!("the node stops"),
            Err(_) => bail!(
                "no write is acknowledged early any more, but for {} s nobody has said that all earlier ones are stable: \
                 ask again once every replica is in sync ('holdfast status' says what is waited for)",
                STABLE_WITHIN.as_secs()
            ),
        }
    }
}
