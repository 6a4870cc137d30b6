//! Targets, their LUNs, who may use them, and sessions and reservations there.

use std::sync::Arc;

use axum::extract::State;
use holdfast_proto::admin::admin_server::Admin;
use holdfast_proto::admin::{
    ClearReservationsRequest, CloseSessionRequest, CreateTargetRequest, MapLunRequest,
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Routes;
use super::answer::{Answer, Done, done};
use super::asked::{Asked, At, Body};
use super::extents::Switch;
use super::groups::access;
use crate::admin::Guard;
use crate::admin::access::AccessRequest;

pub(super) fn routes() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(change))
        .routes(routes!(delete))
        .routes(routes!(map))
        .routes(routes!(unmap))
        .routes(routes!(read_only))
        .routes(routes!(clear_reservations))
        .routes(routes!(allow))
        .routes(routes!(deny))
        .routes(routes!(map_of_group))
        .routes(routes!(unmap_of_group))
        .routes(routes!(read_only_of_group))
        .routes(routes!(share))
        .routes(routes!(close_session))
}

/// A target to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTarget {
    /// `iqn.YYYY-MM.reversed.domain:anything`
    iqn: String,
}

/// What changes of a target; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TargetChange {
    /// Whether only initiator groups that are allowed may use it; false opens it to everyone.
    #[serde(default)]
    restricted: Option<bool>,
    /// Most sessions at a time, on each node; 0: no limit.
    #[serde(default)]
    sessions_max: Option<u32>,
    /// Whether a node that drains, leaves or stops sends logins to a node that serves.
    #[serde(default)]
    redirect: Option<bool>,
}

/// What a LUN is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Unit {
    /// The extent's name.
    extent: String,
}

/// What a LUN of a group's own map is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GroupUnit {
    /// The extent's name.
    extent: String,
    /// It can only be read.
    #[serde(default)]
    read_only: bool,
}

/// Creates a target.
#[utoipa::path(post, path = "/v1/targets", tag = "targets", request_body = NewTarget, responses((status = 200, body = Done)))]
async fn create(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    Body(NewTarget { iqn }): Body<NewTarget>,
) -> Answer {
    done(guard.create_target(asked.of(CreateTargetRequest { iqn })).await)
}

/// Changes who may use a target. Takes effect at once.
#[utoipa::path(put, path = "/v1/targets/{target}", tag = "targets", params(("target" = String, Path, description = "Its name (IQN)")),
    request_body = TargetChange, responses((status = 200, body = Done)))]
async fn change(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(target): At<String>,
    Body(change): Body<TargetChange>,
) -> Answer {
    let request = AccessRequest::ChangeTarget {
        target,
        restricted: change.restricted,
        sessions_max: change.sessions_max,
        redirect: change.redirect,
    };
    access(&guard, &asked, request).await
}

/// Removes a target without LUNs.
#[utoipa::path(delete, path = "/v1/targets/{target}", tag = "targets", params(("target" = String, Path, description = "Its name (IQN)")),
    responses((status = 200, body = Done)))]
async fn delete(State(guard): State<Arc<Guard>>, asked: Asked, At(target): At<String>) -> Answer {
    access(&guard, &asked, AccessRequest::DeleteTarget { target }).await
}

/// Maps an extent as a LUN.
#[utoipa::path(put, path = "/v1/targets/{target}/luns/{lun}", tag = "targets",
    params(("target" = String, Path, description = "Its name (IQN)"), ("lun" = u32, Path, description = "0 to 16383")),
    request_body = Unit, responses((status = 200, body = Done)))]
async fn map(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((iqn, lun)): At<(String, u32)>,
    Body(Unit { extent }): Body<Unit>,
) -> Answer {
    done(guard.map_lun(asked.of(MapLunRequest { iqn, lun, extent })).await)
}

/// Takes a LUN away; its extent stays.
#[utoipa::path(delete, path = "/v1/targets/{target}/luns/{lun}", tag = "targets",
    params(("target" = String, Path, description = "Its name (IQN)"), ("lun" = u32, Path, description = "0 to 16383")),
    responses((status = 200, body = Done)))]
async fn unmap(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((target, lun)): At<(String, u32)>,
) -> Answer {
    let group = None;
    access(&guard, &asked, AccessRequest::UnmapLun { target, group, lun }).await
}

/// Says whether a LUN can only be read.
#[utoipa::path(put, path = "/v1/targets/{target}/luns/{lun}/read-only", tag = "targets",
    params(("target" = String, Path, description = "Its name (IQN)"), ("lun" = u32, Path, description = "0 to 16383")),
    request_body = Switch, responses((status = 200, body = Done)))]
async fn read_only(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((target, lun)): At<(String, u32)>,
    Body(Switch { on: read_only }): Body<Switch>,
) -> Answer {
    let request = AccessRequest::SetLunReadOnly {
        target,
        group: None,
        lun,
        read_only,
    };
    access(&guard, &asked, request).await
}

/// Takes every registration and reservation of a LUN away.
#[utoipa::path(delete, path = "/v1/targets/{target}/luns/{lun}/reservations", tag = "targets",
    params(("target" = String, Path, description = "Its name (IQN)"), ("lun" = u32, Path, description = "0 to 16383")),
    responses((status = 200, body = Done)))]
async fn clear_reservations(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((iqn, lun)): At<(String, u32)>,
) -> Answer {
    done(
        guard
            .clear_reservations(asked.of(ClearReservationsRequest { iqn, lun }))
            .await,
    )
}

/// Lets an initiator group use a target. A target that was open to everyone is closed to others by it.
#[utoipa::path(put, path = "/v1/targets/{target}/groups/{group}", tag = "targets",
    params(("target" = String, Path, description = "Its name (IQN)"), ("group" = String, Path, description = "The group's name")),
    responses((status = 200, body = Done)))]
async fn allow(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((target, group)): At<(String, String)>,
) -> Answer {
    access(&guard, &asked, AccessRequest::Allow { target, group }).await
}

/// Lets an initiator group use a target no longer; its sessions there end.
#[utoipa::path(delete, path = "/v1/targets/{target}/groups/{group}", tag = "targets",
    params(("target" = String, Path, description = "Its name (IQN)"), ("group" = String, Path, description = "The group's name")),
    responses((status = 200, body = Done)))]
async fn deny(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((target, group)): At<(String, String)>,
) -> Answer {
    access(&guard, &asked, AccessRequest::Deny { target, group }).await
}

/// Maps an extent in a group's own map, which it sees instead of the target's from then on.
#[utoipa::path(put, path = "/v1/targets/{target}/groups/{group}/luns/{lun}", tag = "targets",
    params(("target" = String, Path, description = "Its name (IQN)"), ("group" = String, Path, description = "The group's name"),
        ("lun" = u32, Path, description = "0 to 16383")),
    request_body = GroupUnit, responses((status = 200, body = Done)))]
async fn map_of_group(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((target, group, lun)): At<(String, String, u32)>,
    Body(GroupUnit { extent, read_only }): Body<GroupUnit>,
) -> Answer {
    let request = AccessRequest::MapGroupLun {
        target,
        group,
        lun,
        extent,
        read_only,
    };
    access(&guard, &asked, request).await
}

/// Takes a LUN out of a group's own map.
#[utoipa::path(delete, path = "/v1/targets/{target}/groups/{group}/luns/{lun}", tag = "targets",
    params(("target" = String, Path, description = "Its name (IQN)"), ("group" = String, Path, description = "The group's name"),
        ("lun" = u32, Path, description = "0 to 16383")),
    responses((status = 200, body = Done)))]
async fn unmap_of_group(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((target, group, lun)): At<(String, String, u32)>,
) -> Answer {
    let group = Some(group);
    access(&guard, &asked, AccessRequest::UnmapLun { target, group, lun }).await
}

/// Says whether a LUN of a group's own map can only be read.
#[utoipa::path(put, path = "/v1/targets/{target}/groups/{group}/luns/{lun}/read-only", tag = "targets",
    params(("target" = String, Path, description = "Its name (IQN)"), ("group" = String, Path, description = "The group's name"),
        ("lun" = u32, Path, description = "0 to 16383")),
    request_body = Switch, responses((status = 200, body = Done)))]
async fn read_only_of_group(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((target, group, lun)): At<(String, String, u32)>,
    Body(Switch { on: read_only }): Body<Switch>,
) -> Answer {
    let request = AccessRequest::SetLunReadOnly {
        target,
        group: Some(group),
        lun,
        read_only,
    };
    access(&guard, &asked, request).await
}

/// Drops a group's own map: it sees the target's LUNs again.
#[utoipa::path(delete, path = "/v1/targets/{target}/groups/{group}/luns", tag = "targets",
    params(("target" = String, Path, description = "Its name (IQN)"), ("group" = String, Path, description = "The group's name")),
    responses((status = 200, body = Done)))]
async fn share(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At((target, group)): At<(String, String)>,
) -> Answer {
    access(&guard, &asked, AccessRequest::ShareLuns { target, group }).await
}

/// Ends a session of this node; the initiator may log in again.
#[utoipa::path(delete, path = "/v1/sessions/{session}", tag = "targets",
    params(("session" = u64, Path, description = "Its id, as /v1/sessions of the same node tells it")),
    responses((status = 200, body = Done)))]
async fn close_session(State(guard): State<Arc<Guard>>, asked: Asked, At(id): At<u64>) -> Answer {
    done(guard.close_session(asked.of(CloseSessionRequest { id })).await)
}
