//! Settings, members, iSNS servers, and what lets nodes and administrators in.

use std::sync::Arc;

use axum::extract::State;
use holdfast_proto::admin::admin_server::Admin;
use holdfast_proto::admin::change_request::Change;
use holdfast_proto::admin::{
    ApiTokensRequest, CertificateRequest, ChangeRequest, CreateApiTokenRequest, Drain, IsnsServer,
    JoinRequest, Leave, ReaddressRequest, RevokeApiToken, RotateCertificates, SetSetting, TokenRequest,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Routes;
use super::answer::{Answer, Done, Json, document, done};
use super::asked::{Asked, At, Body, SecretBody};
use crate::admin::{ApiTokenStatus, Guard};

pub(super) fn routes() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(set))
        .routes(routes!(unset))
        .routes(routes!(drain))
        .routes(routes!(undrain))
        .routes(routes!(leave))
        .routes(routes!(tell_isns))
        .routes(routes!(forget_isns))
        .routes(routes!(rotate_certificates))
        .routes(routes!(certificate))
        .routes(routes!(create_api_token))
        .routes(routes!(api_tokens))
        .routes(routes!(revoke_api_token))
        .routes(routes!(join_token))
        .routes(routes!(join))
        .routes(routes!(readdress))
}

/// The value of a setting.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewValue {
    /// As `holdfast cluster set` takes it, for example `90s`, `50MiB` or `off`.
    value: String,
}

/// How a node leaves.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Leaving {
    /// Its replicas are given up wherever another one is in sync.
    #[serde(default)]
    drop_replicas: bool,
}

/// Whose certificate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Owner {
    /// `viewer`, `operator` or `admin`; `none`, where an API token decides.
    role: String,
    /// How its owner is called in refusals and logs: 1 to 32 of a-z, 0-9 and -.
    name: String,
}

/// A certificate. It is kept nowhere else.
#[derive(Serialize, ToSchema)]
struct Certificate {
    /// Certificate, private key and the authority's certificate.
    pem: String,
}

/// An API token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewApiToken {
    /// 1 to 32 of a-z, 0-9 and -.
    name: String,
    /// `viewer`, `operator` or `admin`.
    role: String,
    /// 1 to 3650; until it is revoked, where it is left out.
    #[serde(default)]
    valid_days: Option<u32>,
}

/// An API token. It is kept nowhere else.
#[derive(Serialize, ToSchema)]
struct ApiToken {
    /// For `Authorization: Bearer`.
    token: String,
    /// Seconds since 1970; `null`: until it is revoked.
    expires_unix_seconds: Option<u64>,
}

/// How long a token is good.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewJoinToken {
    /// 60 to 604,800; a day where it is left out.
    #[serde(default)]
    valid_seconds: Option<u32>,
}

/// A token that lets one node join, once.
#[derive(Serialize, ToSchema)]
struct JoinToken {
    token: String,
    valid_seconds: u32,
}

/// How this node joins a cluster.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Joining {
    /// Of a member.
    token: String,
    /// The member whose place it takes.
    #[serde(default)]
    replaces: Option<String>,
    /// Joins although packets that are sent do not pass on the way to a member, or its answers take too long.
    #[serde(default)]
    force: bool,
}

/// Asks for a change of one thing.
pub(super) async fn change(guard: &Guard, asked: &Asked, change: Change) -> Answer {
    let change = Some(change);
    done(guard.change(asked.of(ChangeRequest { change })).await)
}

/// Changes a setting.
#[utoipa::path(put, path = "/v1/settings/{setting}", tag = "cluster", params(("setting" = String, Path, description = "Its key")),
    request_body = NewValue, responses((status = 200, body = Done)))]
async fn set(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(key): At<String>,
    Body(NewValue { value }): Body<NewValue>,
) -> Answer {
    change(&guard, &asked, Change::Setting(SetSetting { key, value })).await
}

/// Sets a setting back to its default.
#[utoipa::path(delete, path = "/v1/settings/{setting}", tag = "cluster", params(("setting" = String, Path, description = "Its key")),
    responses((status = 200, body = Done)))]
async fn unset(State(guard): State<Arc<Guard>>, asked: Asked, At(key): At<String>) -> Answer {
    let value = String::new();
    change(&guard, &asked, Change::Setting(SetSetting { key, value })).await
}

async fn draining(guard: &Guard, asked: &Asked, node: String, draining: bool) -> Answer {
    change(guard, asked, Change::Drain(Drain { node, draining })).await
}

/// Moves all extents away from a node, planned, and brings none back to it.
#[utoipa::path(put, path = "/v1/nodes/{node}/drain", tag = "cluster", params(("node" = String, Path, description = "Its name")),
    responses((status = 200, body = Done)))]
async fn drain(State(guard): State<Arc<Guard>>, asked: Asked, At(node): At<String>) -> Answer {
    draining(&guard, &asked, node, true).await
}

/// Lets a drained node take extents again.
#[utoipa::path(delete, path = "/v1/nodes/{node}/drain", tag = "cluster", params(("node" = String, Path, description = "Its name")),
    responses((status = 200, body = Done)))]
async fn undrain(State(guard): State<Arc<Guard>>, asked: Asked, At(node): At<String>) -> Answer {
    draining(&guard, &asked, node, false).await
}

/// Takes a node out of the cluster.
#[utoipa::path(post, path = "/v1/nodes/{node}/leave", tag = "cluster", params(("node" = String, Path, description = "Its name")),
    request_body = Leaving, responses((status = 200, body = Done)))]
async fn leave(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(node): At<String>,
    Body(Leaving { drop_replicas }): Body<Leaving>,
) -> Answer {
    change(&guard, &asked, Change::Leave(Leave { node, drop_replicas })).await
}

/// Has an iSNS server told of all targets and portals.
#[utoipa::path(put, path = "/v1/isns/{server}", tag = "cluster", params(("server" = String, Path, description = "ADDRESS:PORT")),
    responses((status = 200, body = Done)))]
async fn tell_isns(State(guard): State<Arc<Guard>>, asked: Asked, At(server): At<String>) -> Answer {
    let told = true;
    change(&guard, &asked, Change::IsnsServer(IsnsServer { server, told })).await
}

/// Has an iSNS server told nothing any more.
#[utoipa::path(delete, path = "/v1/isns/{server}", tag = "cluster", params(("server" = String, Path, description = "ADDRESS:PORT")),
    responses((status = 200, body = Done)))]
async fn forget_isns(State(guard): State<Arc<Guard>>, asked: Asked, At(server): At<String>) -> Answer {
    let told = false;
    change(&guard, &asked, Change::IsnsServer(IsnsServer { server, told })).await
}

/// Replaces the certificates of nodes and administrators, and their authority; the rotation goes on behind the answer.
#[utoipa::path(post, path = "/v1/certificates/rotation", tag = "cluster", responses((status = 200, body = Done)))]
async fn rotate_certificates(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer {
    change(&guard, &asked, Change::RotateCertificates(RotateCertificates {})).await
}

/// Makes a certificate for an administrator, good until the next rotation.
#[utoipa::path(post, path = "/v1/certificates", tag = "cluster", request_body = Owner, responses((status = 200, body = Certificate)))]
async fn certificate(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    Body(Owner { role, name }): Body<Owner>,
) -> Answer<Certificate> {
    let reply = guard
        .certificate(asked.of(CertificateRequest { role, name }))
        .await?;
    let pem = reply.into_inner().pem;
    Ok(Json(Certificate { pem }))
}

/// Makes an API token; it is shown here, and never again.
#[utoipa::path(post, path = "/v1/api-tokens", tag = "cluster", request_body = NewApiToken, responses((status = 200, body = ApiToken)))]
async fn create_api_token(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    Body(NewApiToken {
        name,
        role,
        valid_days,
    }): Body<NewApiToken>,
) -> Answer<ApiToken> {
    let valid_days = valid_days.unwrap_or_default();
    let request = CreateApiTokenRequest {
        name,
        role,
        valid_days,
    };
    let reply = guard.create_api_token(asked.of(request)).await?.into_inner();
    Ok(Json(ApiToken {
        token: reply.token,
        expires_unix_seconds: (reply.expires > 0).then_some(reply.expires),
    }))
}

/// The API tokens, without their secrets.
#[utoipa::path(get, path = "/v1/api-tokens", tag = "cluster", responses((status = 200, body = Vec<ApiTokenStatus>)))]
async fn api_tokens(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Vec<ApiTokenStatus>> {
    document(guard.api_tokens(asked.of(ApiTokensRequest {})).await).map(Json)
}

/// Takes an API token back: it opens nothing any more.
#[utoipa::path(delete, path = "/v1/api-tokens/{name}", tag = "cluster", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = Done)))]
async fn revoke_api_token(State(guard): State<Arc<Guard>>, asked: Asked, At(name): At<String>) -> Answer {
    change(&guard, &asked, Change::RevokeApiToken(RevokeApiToken { name })).await
}

/// Makes a token that lets one node join, once.
#[utoipa::path(post, path = "/v1/join-tokens", tag = "cluster", request_body = NewJoinToken, responses((status = 200, body = JoinToken)))]
async fn join_token(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    Body(NewJoinToken { valid_seconds }): Body<NewJoinToken>,
) -> Answer<JoinToken> {
    let valid_seconds = valid_seconds.unwrap_or_default();
    let reply = guard
        .token(asked.of(TokenRequest { valid_seconds }))
        .await?
        .into_inner();
    let token = reply.token;
    let valid_seconds = reply.valid_seconds;
    Ok(Json(JoinToken { token, valid_seconds }))
}

/// Has the cluster know where the node that is asked listens, after its `node.toml` was changed and it was restarted.
#[utoipa::path(post, path = "/v1/readdress", tag = "cluster", responses((status = 200, body = Done)))]
async fn readdress(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer {
    done(guard.readdress(asked.of(ReaddressRequest {})).await)
}

/// Lets this node, which belongs to no cluster yet, join one.
#[utoipa::path(post, path = "/v1/join", tag = "cluster", request_body = Joining, responses((status = 200, body = Done)))]
async fn join(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    SecretBody(Joining {
        token,
        replaces,
        force,
    }): SecretBody<Joining>,
) -> Answer {
    let replaces = replaces.unwrap_or_default();
    let request = JoinRequest {
        token,
        replaces,
        force,
    };
    done(guard.join(asked.of(request)).await)
}
