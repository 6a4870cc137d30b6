//! The committed cluster state and the commands that change it.
//!
//! Everything here is pure: [`ClusterState::apply`] is a function of the state, the entry's log index and the command, so every node
//! that applied the same entries holds the same state. Commands are stored in the Raft log as JSON; field names are therefore part of
//! the disk format, and whatever is added later carries `#[serde(default)]`.

mod access;
mod admin;
mod api_tokens;
mod apply;
mod apply_access;
mod apply_sets;
mod apply_unit;
mod audit;
mod cache;
mod certificates;
mod command;
mod importing;
mod members;
mod name;
mod placement;
mod reply;
mod sealed;
mod settings;
mod state;
mod takeover;
mod view;

pub use holdfast_alua::SecondaryAccess;

pub use access::{
    Access, AccessCommand, CHAP_NAME_MAX, Chap, ChapMutual, ChapScope, Grant, GroupChange, GroupLun,
    InitiatorGroup, NewGroup, TargetAccess, TargetChange,
};
pub use admin::AdminCommand;
pub use api_tokens::{API_TOKENS_MAX, ApiSecret, ApiToken};
pub use apply_access::check_chap_name;
pub use apply_unit::{AnsweredCall, AnsweredCalls, UnitCall};
pub use audit::{AUDIT_BATCH_MAX, AUDIT_MAX, AUDIT_TEXT_MAX, Audit, AuditChunk, AuditEntry};
pub use cache::WriteCache;
pub use certificates::{Certificates, Rotation, RotationStage};
pub use command::{Candidate, Command, ExtentStamp, Init, Move, NewExtent, NewNode};
pub use importing::Importing;
pub use members::{Join, Token, Used};
pub use name::{NAME_MAX, check_name};
pub use placement::ExtentChange;
pub use reply::{ItemOutcome, ItemResult, Refusal, Reply};
pub use sealed::{ClusterKey, KeyId, SealedSecret};
pub use settings::{LongerLease, SettingKey, Settings, Spec, Unit};
pub use state::{
    ClusterId, ClusterIdentity, ClusterState, Extent, Node, NodeAddresses, Role, STATE_FORMAT, Target,
    VoterSet,
};
pub use takeover::{
    AcceptedLoss, Fate, LeftBehind, LossAccepted, OutOfReach, Takeover, TakeoverOrder, follow_tail,
};
pub use view::{LuView, Share};

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod prop_test;
#[cfg(test)]
mod sets_test;
