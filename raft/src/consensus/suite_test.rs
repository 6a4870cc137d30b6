//! openraft's own storage suite, on a journal, a sled directory and snapshots in a fresh directory for each of its tests.

use std::path::Path;
use std::sync::Arc;

use holdfast_types::NodeId;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::kind::Kind;
use super::log::LogStore;
use super::machine::StateMachine;
use super::recover::{Place, recover};
use crate::model::ClusterId;

pub(crate) fn place(dir: &Path) -> Place {
    Place {
        dir: dir.to_owned(),
        cluster: ClusterId(7),
        node: NodeId(1),
        expect_log: false,
    }
}

struct Fresh;

impl StoreBuilder<Kind, LogStore, StateMachine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Kind>> {
        let dir = tempfile::tempdir().unwrap();
        let found = recover(&place(dir.path())).unwrap();
        found.log.write_head().await.unwrap();
        let log = found.log.clone();
        Ok((dir, log, StateMachine::new(found, Arc::new(|_| {}))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_storage_suite_of_openraft_passes() {
    Suite::test_all(Fresh).await.unwrap();
}
