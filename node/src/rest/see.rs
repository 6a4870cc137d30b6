//! What can be seen. All of it is of the status and the settings, so that a script that reads either reads the same.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use holdfast_proto::admin::admin_server::Admin;
use holdfast_proto::admin::{
    AuditLogRequest, CheckRequest, DevicesRequest, EventsRequest, IdentifyRequest, SettingsRequest,
    StatusRequest,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Routes;
use super::answer::{Answer, Json, Problem, document};
use super::asked::{Asked, At};
use crate::admin::{DeviceStatus, Guard};
use crate::check::CheckDocument;
use crate::configuration::Present;
use crate::events::EventsDocument;
use crate::status::{
    ExtentStatus, GroupAccess, IsnsStatus, NodeStatus, PortalStatus, SessionStatus, StatusDocument,
    TargetStatus,
};

pub(super) fn routes() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(check))
        .routes(routes!(identity))
        .routes(routes!(settings))
        .routes(routes!(nodes))
        .routes(routes!(sessions))
        .routes(routes!(portals))
        .routes(routes!(isns))
        .routes(routes!(devices))
        .routes(routes!(configuration))
        .routes(routes!(audit))
        .routes(routes!(events))
        .routes(routes!(extents))
        .routes(routes!(extent))
        .routes(routes!(targets))
        .routes(routes!(target))
        .routes(routes!(groups))
        .routes(routes!(group))
}

/// Who a node is.
#[derive(Debug, Serialize, ToSchema)]
struct Identity {
    name: String,
    /// `data` or `witness`.
    role: String,
    /// Empty until it belongs to a cluster.
    cluster_id: String,
    node_id: u64,
    raft: String,
    heartbeat: String,
    /// Empty at a witness.
    replication: String,
    /// Further ones, in order of preference.
    spare_replication: Vec<String>,
    portals: Vec<String>,
    /// Empty where there is none.
    admin: String,
    version: String,
}

/// A setting of the cluster.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Setting {
    key: String,
    value: String,
    default: String,
    /// Whether somebody has set it.
    set: bool,
    /// What is allowed.
    allowed: String,
    help: String,
}

async fn seen(guard: &Guard, asked: &Asked) -> Result<StatusDocument, Problem> {
    document(guard.status(asked.of(StatusRequest {})).await)
}

fn the_one<T>(mut all: Vec<T>, what: &str, name: &str, is: impl Fn(&T) -> bool) -> Answer<T> {
    let at = all.iter().position(is);
    at.map(|at| Json(all.swap_remove(at)))
        .ok_or_else(|| Problem::new(404, format!("there is no {what} '{name}'")))
}

/// The cluster as this node sees it; answered without a quorum, too.
#[utoipa::path(get, path = "/v1/status", tag = "see", responses((status = 200, body = StatusDocument)))]
async fn status(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<StatusDocument> {
    Ok(Json(seen(&guard, &asked).await?))
}

/// Looks at the whole cluster from every node, as `holdfast cluster check` does: clocks, ways between nodes, disks, hosts. Takes a second,
/// and some more where a node does not answer.
#[utoipa::path(get, path = "/v1/check", tag = "see", responses((status = 200, body = CheckDocument)))]
async fn check(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<CheckDocument> {
    document(guard.check(asked.of(CheckRequest {})).await).map(Json)
}

/// Who this node is.
#[utoipa::path(get, path = "/v1/identity", tag = "see", responses((status = 200, body = Identity)))]
async fn identity(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Identity> {
    let told = guard.identify(asked.of(IdentifyRequest {})).await?.into_inner();
    Ok(Json(Identity {
        name: told.name,
        role: told.role,
        cluster_id: told.cluster_id,
        node_id: told.node_id,
        raft: told.raft,
        heartbeat: told.heartbeat,
        replication: told.replication,
        spare_replication: told.spare_replication,
        portals: told.portals,
        admin: told.admin,
        version: told.version,
    }))
}

/// The settings of the cluster.
#[utoipa::path(get, path = "/v1/settings", tag = "see", responses((status = 200, body = Vec<Setting>)))]
async fn settings(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Vec<Setting>> {
    document(guard.settings(asked.of(SettingsRequest {})).await).map(Json)
}

/// The members.
#[utoipa::path(get, path = "/v1/nodes", tag = "see", responses((status = 200, body = Vec<NodeStatus>)))]
async fn nodes(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Vec<NodeStatus>> {
    Ok(Json(seen(&guard, &asked).await?.nodes))
}

/// Initiators' sessions on this node.
#[utoipa::path(get, path = "/v1/sessions", tag = "see", responses((status = 200, body = Vec<SessionStatus>)))]
async fn sessions(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Vec<SessionStatus>> {
    Ok(Json(seen(&guard, &asked).await?.sessions))
}

/// iSCSI portals.
#[utoipa::path(get, path = "/v1/portals", tag = "see", responses((status = 200, body = Vec<PortalStatus>)))]
async fn portals(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Vec<PortalStatus>> {
    Ok(Json(seen(&guard, &asked).await?.portals))
}

/// iSNS servers that are told of targets and portals.
#[utoipa::path(get, path = "/v1/isns", tag = "see", responses((status = 200, body = Vec<IsnsStatus>)))]
async fn isns(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Vec<IsnsStatus>> {
    Ok(Json(seen(&guard, &asked).await?.isns))
}

/// Block devices of this node.
#[utoipa::path(get, path = "/v1/devices", tag = "see", responses((status = 200, body = Vec<DeviceStatus>)))]
async fn devices(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Vec<DeviceStatus>> {
    document(guard.devices(asked.of(DevicesRequest {})).await).map(Json)
}

/// Everything that is configured, as `holdfast export` writes it and `holdfast apply` takes it: TOML, without secrets.
#[utoipa::path(get, path = "/v1/configuration", tag = "see",
    responses((status = 200, body = String, content_type = "application/toml")))]
async fn configuration(State(guard): State<Arc<Guard>>, asked: Asked) -> Result<Response, Problem> {
    let status = seen(&guard, &asked).await?;
    if !status.quorum {
        let node = &status.answered_by;
        return Err(Problem::new(
            503,
            format!("{node} knows of no quorum: what it knows last may be old"),
        ));
    }
    let settings = document(guard.settings(asked.of(SettingsRequest {})).await)?;
    let present = Present::of(&status, settings).map_err(|line| Problem::new(500, line))?;
    let text = present.configuration.to_toml();
    Ok(([(CONTENT_TYPE, "application/toml; charset=utf-8")], text).into_response())
}

/// How many of the newest somebody wants: `last=N`, where N is at most `most`.
fn newest(query: Option<&str>, most: u32) -> Result<Option<u32>, Problem> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(None);
    };
    let number = query
        .strip_prefix("last=")
        .and_then(|number| number.parse().ok())
        .filter(|number| (1..=most).contains(number));
    let wrong = || {
        Problem::new(
            400,
            format!("behind the '?' there may be last=N, and N is 1 to {most}"),
        )
    };
    number.ok_or_else(wrong).map(Some)
}

/// What this node has recorded, as `holdfast events --json` prints it.
#[utoipa::path(get, path = "/v1/events", tag = "see",
    params(("last" = Option<u32>, Query, description = "How many at most, the newest ones: 1 to 100000; default 50")),
    responses((status = 200, body = Object)))]
async fn events(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    RawQuery(query): RawQuery,
) -> Answer<EventsDocument> {
    let last = newest(query.as_deref(), 100_000)?.unwrap_or(50);
    let all = false;
    document(guard.events(asked.of(EventsRequest { last, all })).await).map(Json)
}

/// A call that changed something, or was to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct AuditEntry {
    id: u64,
    /// When it was answered: milliseconds since 1970.
    at: u64,
    /// The node that was asked.
    node: String,
    who: String,
    /// An address, or `socket`.
    from: String,
    method: String,
    /// What was asked for, without secrets.
    request: String,
    /// `done`, or why not.
    outcome: String,
}

/// The newest calls that changed something or were to, of all nodes, oldest first.
#[utoipa::path(get, path = "/v1/audit", tag = "see",
    params(("last" = Option<u32>, Query, description = "How many at most: 1 to 10000; default 100")),
    responses((status = 200, body = Vec<AuditEntry>)))]
async fn audit(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    RawQuery(query): RawQuery,
) -> Answer<Vec<AuditEntry>> {
    let last = newest(query.as_deref(), 10_000)?.unwrap_or_default();
    document(guard.audit_log(asked.of(AuditLogRequest { last })).await).map(Json)
}

/// Extents, with their replicas and reservations.
#[utoipa::path(get, path = "/v1/extents", tag = "extents", responses((status = 200, body = Vec<ExtentStatus>)))]
async fn extents(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Vec<ExtentStatus>> {
    Ok(Json(seen(&guard, &asked).await?.extents))
}

/// One extent.
#[utoipa::path(get, path = "/v1/extents/{extent}", tag = "extents", params(("extent" = String, Path, description = "Its name")),
    responses((status = 200, body = ExtentStatus)))]
async fn extent(State(guard): State<Arc<Guard>>, asked: Asked, At(name): At<String>) -> Answer<ExtentStatus> {
    let all = seen(&guard, &asked).await?.extents;
    the_one(all, "extent", &name, |extent| extent.name == name)
}

/// Targets, with their LUNs.
#[utoipa::path(get, path = "/v1/targets", tag = "targets", responses((status = 200, body = Vec<TargetStatus>)))]
async fn targets(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Vec<TargetStatus>> {
    Ok(Json(seen(&guard, &asked).await?.targets))
}

/// One target.
#[utoipa::path(get, path = "/v1/targets/{target}", tag = "targets", params(("target" = String, Path, description = "Its name (IQN)")),
    responses((status = 200, body = TargetStatus)))]
async fn target(State(guard): State<Arc<Guard>>, asked: Asked, At(name): At<String>) -> Answer<TargetStatus> {
    let all = seen(&guard, &asked).await?.targets;
    the_one(all, "target", &name, |target| target.iqn.as_str() == name)
}

/// Initiator groups.
#[utoipa::path(get, path = "/v1/groups", tag = "groups", responses((status = 200, body = Vec<GroupAccess>)))]
async fn groups(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer<Vec<GroupAccess>> {
    Ok(Json(seen(&guard, &asked).await?.access.groups))
}

/// One initiator group.
#[utoipa::path(get, path = "/v1/groups/{group}", tag = "groups", params(("group" = String, Path, description = "Its name")),
    responses((status = 200, body = GroupAccess)))]
async fn group(State(guard): State<Arc<Guard>>, asked: Asked, At(name): At<String>) -> Answer<GroupAccess> {
    let all = seen(&guard, &asked).await?.access.groups;
    the_one(all, "initiator group", &name, |group| group.name == name)
}
