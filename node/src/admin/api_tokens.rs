//! API tokens as they are shown: without their secrets, and without what is kept of these.

use holdfast_raft::model::ApiToken;
use holdfast_trust::AdminRole;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ApiTokenStatus {
    pub(crate) name: String,
    /// What its owner may do.
    #[schema(value_type = String)]
    pub(crate) role: AdminRole,
    /// When it was made, in seconds since 1970.
    pub(crate) created_unix_seconds: u64,
    /// Seconds since 1970 after which it opens nothing; `null`: until it is revoked.
    pub(crate) expires_unix_seconds: Option<u64>,
}

impl ApiTokenStatus {
    /// What may be seen of it.
    pub(crate) fn of(token: &ApiToken) -> Self {
        Self {
            name: token.name.clone(),
            role: token.role,
            created_unix_seconds: token.created,
            expires_unix_seconds: token.expires,
        }
    }
}
