//! The data plane of a data node.
use super::Identity;
use super::control::Parts;
use crate::config::NodeConfig;
use crate::front::{Backend, Registry};
use crate::status::Seen;
use holdfast_types::{ExtentId, NodeId};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
pub(crate) struct Data;
impl Data {
    pub(super) async fn start(
        _config: &NodeConfig,
        _identity: &Identity,
        _parts: &Parts,
        _registry: Arc<Registry>,
        _tasks: &mut JoinSet<()>,
        _fatal: mpsc::Sender<anyhow::Error>,
    ) -> anyhow::Result<Self> {
        Ok(Self)
    }
    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        todo!()
    }
    pub(super) fn switchover(&self, _extent: ExtentId, _to: NodeId) {}
    pub(super) fn describe(&self, _seen: &mut Seen) {}
    pub(super) async fn stop(&self) {}
}
