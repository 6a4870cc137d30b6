//! Requests to a node that carry a plan out.

use holdfast_proto::admin::change_request::Change;
use holdfast_proto::admin::{
    CreateExtentRequest, CreateTargetRequest, MapLunRequest, SetConfirmedReadsRequest, SetWriteCacheRequest,
};

use crate::admin::access::{AccessRequest, SecretText};

/// One request: what the command of the same name asks for. Each changes nothing the second time.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    CreateExtent(CreateExtentRequest),
    ConfirmedReads(SetConfirmedReadsRequest),
    WriteCache(SetWriteCacheRequest),
    CreateTarget(CreateTargetRequest),
    MapLun(MapLunRequest),
    Change(Change),
    Access(AccessRequest),
    /// A CHAP secret, which is read from a file only where it is asked for.
    Secret(SecretPlace),
}

/// Whose secret, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SecretPlace {
    /// `None`: discovery.
    pub(crate) group: Option<String>,
    /// CHAP name.
    pub(crate) name: String,
    /// The target's own one.
    pub(crate) mutual: bool,
    /// Relative to the document.
    pub(crate) file: String,
}

impl SecretPlace {
    /// The request that puts a secret there.
    pub(crate) fn request(&self, secret: SecretText) -> AccessRequest {
        let (group, name, secret) = (self.group.clone(), self.name.clone(), Some(secret));
        if self.mutual {
            AccessRequest::SetMutual { group, name, secret }
        } else {
            let user = name;
            AccessRequest::SetUser { group, user, secret }
        }
    }
}
