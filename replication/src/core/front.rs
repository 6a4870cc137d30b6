//! Commands of initiators: held, carried out, forwarded, aborted.

use holdfast_types::NodeId;

use super::api::{LinkId, OpId};

/// An open command: of this node, or forwarded by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum OpKey {
    Local(OpId),
    Remote { node: NodeId, link: LinkId, op: OpId },
}
