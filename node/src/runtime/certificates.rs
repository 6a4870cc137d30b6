//! Which generations of certificates this node takes and shows: as the committed state says, and until that is known here as
//! `certificates.json` in the node's directory does. The file is stable before the node says that it has taken a step of a rotation, so no
//! restart takes it back to certificates that nobody else takes any more.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_raft::consensus::Control;
use holdfast_raft::model::{AdminCommand, ClusterId, ClusterKey, ClusterState};
use holdfast_trust::{Generations, Trust};
use holdfast_types::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::kept;

/// Version of the file.
const FORMAT: u32 = 1;
/// Before a step that nobody has committed is proposed again, or a file that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    generations: Generations,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("certificates.json")
}

/// What is kept in `dir`; the first generation alone where nothing is.
pub(super) fn load(dir: &Path) -> anyhow::Result<Generations> {
    let path = path(dir);
    let Some(bytes) = kept::read(&path)? else {
        return Ok(Generations::default());
    };
    let remedy = "copy that of another node, and start this one anew";
    let kept: Kept = kept::parse(&path, &bytes, FORMAT, remedy)?;
    Ok(kept.generations)
}

/// Keeps it, stable when this returns.
pub(super) fn store(dir: &Path, generations: &Generations) -> anyhow::Result<()> {
    let kept = Kept {
        format: FORMAT,
        generations: generations.clone(),
    };
    kept::replace(&path(dir), kept::PRIVATE, &serde_json::to_vec(&kept)?)
}

/// The ids of the cluster: the present one, and those that it had before takeovers. Its certificates name all of them, so that a node that
/// was left behind is told so by a member whom it can still recognize (T1).
pub(super) fn ids(cluster: ClusterId, state: &ClusterState) -> Vec<u128> {
    let before = state.takeovers.iter().map(|takeover| takeover.order.before.0);
    let mut ids = vec![cluster.0];
    ids.extend(before.filter(|id| *id != cluster.0));
    ids
}

/// What goes into certificates, and where it is kept.
pub(super) struct Keeper {
    pub(super) me: NodeId,
    pub(super) cluster: ClusterId,
    pub(super) dir: PathBuf,
    pub(super) trust: Arc<Trust>,
    pub(super) key: watch::Receiver<Option<ClusterKey>>,
    /// What the file says.
    pub(super) kept: Generations,
}

impl Keeper {
    /// Has certificates follow what `state` says, once that is stable here. A state from before a step that the file has is left alone.
    pub(super) async fn follow(&mut self, state: &ClusterState) -> anyhow::Result<()> {
        let wanted = state.certificates.generations();
        if state.is_initialized() && wanted != self.kept && !is_behind(&wanted, &self.kept) {
            let (dir, fresh) = (self.dir.clone(), wanted.clone());
            // The disk may hang, and others go on meanwhile.
            tokio::task::spawn_blocking(move || store(&dir, &fresh)).await??;
            self.kept = wanted;
        }
        let key = self.key.borrow().as_ref().map(ClusterKey::to_trust);
        let key = key.unwrap_or_else(|| self.trust.key());
        self.trust.renew(&ids(self.cluster, state), &key, &self.kept)?;
        Ok(())
    }

    /// Follows every newer state, and says so to the cluster where a rotation waits for it.
    pub(super) async fn run(mut self, control: Control) {
        let mut states = control.watch();
        let mut key = self.key.clone();
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            let said = match self.follow(&state).await {
                Ok(()) => self.say(&control, &state).await,
                Err(error) => {
                    tracing::error!("the certificates stay as they are: {error:#}");
                    false
                }
            };
            let wait = async {
                if said {
                    std::future::pending().await
                } else {
                    tokio::time::sleep(AGAIN).await;
                }
            };
            tokio::select! {
                changed = states.changed() => if changed.is_err() {
                    return;
                },
                // A repeated init brought another one. Whoever gives keys outlives this task.
                Ok(()) = key.changed() => {}
                () = wait => {}
            }
        }
    }

    /// Whether nothing is left to say.
    async fn say(&self, control: &Control, state: &ClusterState) -> bool {
        if state.node(self.me).is_none() {
            return true;
        }
        let Some((number, stage)) = state.awaits_certificates_of(self.me) else {
            return true;
        };
        let node = self.me;
        let command = AdminCommand::CertificatesTaken { node, number, stage };
        control.propose(command.into()).await.is_ok()
    }
}

/// Whether `wanted` is a step before `kept`: a state that is not caught up yet.
fn is_behind(wanted: &Generations, kept: &Generations) -> bool {
    order(wanted) < order(kept)
}

/// Steps of rotations in their order: (n), (n and the next), (the next and n), (the next).
fn order(generations: &Generations) -> (u64, u8) {
    let present = generations.present.number;
    match &generations.also {
        None => (present, 0),
        Some(next) if next.number > present => (present, 1),
        Some(last) => (last.number, 2),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_trust::Generation;

    use super::*;

    fn generations(present: u64, also: Option<u64>) -> Generations {
        let generation = |number| Generation {
            number,
            salt: format!("salt {number}"),
        };
        Generations {
            present: generation(present),
            also: also.map(generation),
        }
    }

    #[test]
    fn steps_come_in_order_and_are_kept() {
        let steps = [
            generations(1, None),
            generations(1, Some(2)),
            generations(2, Some(1)),
            generations(2, None),
            generations(2, Some(3)),
        ];
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), Generations::default());
        for (at, step) in steps.iter().enumerate() {
            store(dir.path(), step).unwrap();
            assert_eq!(load(dir.path()).unwrap(), *step);
            assert!(steps[..at].iter().all(|before| is_behind(before, step)));
            assert!(steps[at..].iter().all(|after| !is_behind(after, step)));
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        for (text, word) in [
            ("{", "damaged"),
            ("{\"format\":2}", "newer"),
            ("{\"format\":1}", "damaged"),
        ] {
            std::fs::write(path(dir.path()), text).unwrap();
            let error = format!("{:#}", load(dir.path()).unwrap_err());
            assert!(error.contains(word) && !error.contains('\n'), "{error}");
        }
    }
}
