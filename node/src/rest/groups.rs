//! Initiator groups, and CHAP users of groups and of discovery.

use std::sync::Arc;

use axum::extract::State;
use holdfast_proto::admin::AccessRequest as AccessMessage;
use holdfast_proto::admin::admin_server::Admin;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Routes;
use super::answer::{Answer, Done, Problem, done};
use super::asked::{Asked, At, Body, SecretBody};
use crate::admin::Guard;
use crate::admin::access::{AccessRequest, SecretText};

pub(super) fn routes() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(change))
        .routes(routes!(delete))
        .routes(routes!(set_user))
        .routes(routes!(delete_user))
        .routes(routes!(set_mutual))
        .routes(routes!(delete_mutual))
        .routes(routes!(set_discovery_user))
        .routes(routes!(delete_discovery_user))
        .routes(routes!(set_discovery_mutual))
        .routes(routes!(delete_discovery_mutual))
}

/// An initiator group to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewGroup {
    /// Letters, digits, `-`, `.` and `_`.
    name: String,
    /// Any initiator belongs to it, whatever its name.
    #[serde(default)]
    any_initiator: bool,
    /// Names of initiators that belong to it.
    #[serde(default)]
    initiators: Vec<String>,
    /// Networks that they have to come from, as `10.1.0.0/16`; none: anywhere.
    #[serde(default)]
    networks: Vec<String>,
    /// They may only read.
    #[serde(default)]
    read_only: bool,
}

/// What changes of a group; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GroupChange {
    /// Whether any initiator belongs to it.
    #[serde(default)]
    any_initiator: Option<bool>,
    /// Initiators that come.
    #[serde(default)]
    add_initiators: Vec<String>,
    /// Initiators that go.
    #[serde(default)]
    remove_initiators: Vec<String>,
    /// Networks that come.
    #[serde(default)]
    add_networks: Vec<String>,
    /// Networks that go.
    #[serde(default)]
    remove_networks: Vec<String>,
    /// Whether they may only read.
    #[serde(default)]
    read_only: Option<bool>,
}

/// The secret of a CHAP user. No answer ever has it in it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserSecret {
    /// 12 to 255 bytes.
    #[schema(value_type = String)]
    secret: SecretText,
}

/// As whom the target proves itself.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Mutual {
    /// CHAP name.
    name: String,
    /// 12 to 255 bytes.
    #[schema(value_type = String)]
    secret: SecretText,
}

/// Asks for a change of who may use what.
pub(super) async fn access(guard: &Guard, asked: &Asked, request: AccessRequest) -> Answer {
    #[cfg(test)]
    super::tests::note(&request);
    let json =
        serde_json::to_string(&request).map_err(|_| Problem::new(500, "the request cannot be passed on"))?;
    done(guard.change_access(asked.of(AccessMessage { json })).await)
}

/// Creates an initiator group.
#[utoipa::path(post, path = "/v1/groups", tag = "groups", request_body = NewGroup, responses((status = 200, body = Done)))]
async fn create(State(guard): State<Arc<Guard>>, asked: Asked, Body(new): Body<NewGroup>) -> Answer {
    let request = AccessRequest::CreateGroup {
        name: new.name,
        any_initiator: new.any_initiator,
        initiators: new.initiators,
        networks: new.networks,
        read_only: new.read_only,
    };
    access(&guard, &asked, request).await
}

/// Changes who belongs to a group. Takes effect at once: who does not belong to it any more is logged out.
#[utoipa::path(put, path = "/v1/groups/{group}", tag = "groups", params(("group" = String, Path, description = "Its name")),
    request_body = GroupChange, responses((status = 200, body = Done)))]
async fn change(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(name): At<String>,
    Body(change): Body<GroupChange>,
) -> Answer {
    let request = AccessRequest::ChangeGroup {
        name,
        any_initiator: change.any_initiator,
        add_initiators: change.add_initiators,
        remove_initiators: change.remove_initiators,
        add_networks: change.add_networks,
        remove_networks: change.remove_networks,
        read_only: change.read_only,
    };
    access(&guard, &asked, request).await
}

/// Removes a group; its sessions end.
#[utoipa::path(delete, path = "/v1/groups/{group}", tag = "groups", params(("group" = String, Path, description = "Its name")),
    responses((status = 200, body = Done)))]
async fn delete(State(guard): State<Arc<Guard>>, asked: Asked, At(name): At<String>) -> Answer {
    access(&guard, &asked, AccessRequest::DeleteGroup { name }).await
}

async fn user(
    guard: &Guard,
    asked: &Asked,
    group: Option<String>,
    user: String,
    secret: Option<SecretText>,
) -> Answer {
    access(guard, asked, AccessRequest::SetUser { group, user, secret }).await
}

async fn mutual(
    guard: &Guard,
    asked: &Asked,
    group: Option<String>,
    name: String,
    secret: Option<SecretText>,
) -> Answer {
    access(guard, asked, AccessRequest::SetMutual { group, name, secret }).await
}

/// Sets a CHAP user of a group and its secret; the same again changes the secret.
#[utoipa::path(put, path = "/v1/groups/{group}/users/{user}", tag = "groups",
    params(("group" = String, Path, description = "The group's name"), ("user" = String, Path, description = "CHAP name")),
    request_body = UserSecret, responses((status = 200, body = Done)))]
async fn set_user(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((group, name)): At<(String, String)>,
    SecretBody(UserSecret { secret }): SecretBody<UserSecret>,
) -> Answer {
    user(&guard, &asked, Some(group), name, Some(secret)).await
}

/// Removes a CHAP user of a group; its sessions end.
#[utoipa::path(delete, path = "/v1/groups/{group}/users/{user}", tag = "groups",
    params(("group" = String, Path, description = "The group's name"), ("user" = String, Path, description = "CHAP name")),
    responses((status = 200, body = Done)))]
async fn delete_user(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((group, name)): At<(String, String)>,
) -> Answer {
    user(&guard, &asked, Some(group), name, None).await
}

/// Sets the name and secret with which the target proves itself to a group's initiators that ask for it.
#[utoipa::path(put, path = "/v1/groups/{group}/mutual", tag = "groups",
    params(("group" = String, Path, description = "The group's name")), request_body = Mutual, responses((status = 200, body = Done)))]
async fn set_mutual(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(group): At<String>,
    SecretBody(Mutual { name, secret }): SecretBody<Mutual>,
) -> Answer {
    mutual(&guard, &asked, Some(group), name, Some(secret)).await
}

/// The target does not prove itself to a group's initiators any more.
#[utoipa::path(delete, path = "/v1/groups/{group}/mutual", tag = "groups",
    params(("group" = String, Path, description = "The group's name")), responses((status = 200, body = Done)))]
async fn delete_mutual(State(guard): State<Arc<Guard>>, asked: Asked, At(group): At<String>) -> Answer {
    mutual(&guard, &asked, Some(group), String::new(), None).await
}

/// Sets a CHAP user of discovery sessions and its secret.
#[utoipa::path(put, path = "/v1/discovery/users/{user}", tag = "groups", params(("user" = String, Path, description = "CHAP name")),
    request_body = UserSecret, responses((status = 200, body = Done)))]
async fn set_discovery_user(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(name): At<String>,
    SecretBody(UserSecret { secret }): SecretBody<UserSecret>,
) -> Answer {
    user(&guard, &asked, None, name, Some(secret)).await
}

/// Removes a CHAP user of discovery sessions.
#[utoipa::path(delete, path = "/v1/discovery/users/{user}", tag = "groups", params(("user" = String, Path, description = "CHAP name")),
    responses((status = 200, body = Done)))]
async fn delete_discovery_user(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(name): At<String>,
) -> Answer {
    user(&guard, &asked, None, name, None).await
}

/// Sets the name and secret with which the target proves itself in discovery sessions that ask for it.
#[utoipa::path(put, path = "/v1/discovery/mutual", tag = "groups", request_body = Mutual, responses((status = 200, body = Done)))]
async fn set_discovery_mutual(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    SecretBody(Mutual { name, secret }): SecretBody<Mutual>,
) -> Answer {
    mutual(&guard, &asked, None, name, Some(secret)).await
}

/// The target does not prove itself in discovery sessions any more.
#[utoipa::path(delete, path = "/v1/discovery/mutual", tag = "groups", responses((status = 200, body = Done)))]
async fn delete_discovery_mutual(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer {
    mutual(&guard, &asked, None, String::new(), None).await
}
