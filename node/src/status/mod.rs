//! The cluster at a glance: one document, derived on a node, printed by commands.

mod access;
mod derive;
mod document;
mod links;
mod reservations;
mod text;

pub(crate) use access::{ChapStatus, GroupAccess, chap_text, groups_text};
pub(crate) use derive::{Seen, derive};
pub(crate) use document::{
    ExtentStatus, Health, IsnsStatus, LinkStatus, NodeState, NodeStatus, PortalStatus, ReplicaState,
    ReplicaStatus, ReplicationStatus, ScrubStatus, Secondary, SessionStatus, StatusDocument, TargetStatus,
};
#[cfg(test)]
pub(crate) use reservations::RegistrationStatus;
pub(crate) use reservations::ReservationStatus;
#[cfg(test)]
pub(crate) use text::sample;
pub(crate) use text::{changes, extents_text, nodes_text, summary, takeovers_text, targets_text, text};
