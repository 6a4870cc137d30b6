//! Extents: created, changed, moved, compared and deleted.

use std::sync::Arc;

use axum::extract::State;
use holdfast_proto::admin::admin_server::Admin;
use holdfast_proto::admin::change_request::Change;
use holdfast_proto::admin::{
    CreateExtentRequest, ResizeExtent, ScrubExtentRequest, SetConfirmedReadsRequest, SetExtent, SetReplicas,
    SetWriteCacheRequest, SwitchoverRequest,
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Routes;
use super::answer::{Answer, Done, done};
use super::asked::{Asked, At, Body};
use super::cluster::change;
use super::groups::access;
use crate::admin::Guard;
use crate::admin::access::AccessRequest;

pub(super) fn routes() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(delete))
        .routes(routes!(resize))
        .routes(routes!(rename))
        .routes(routes!(prefer))
        .routes(routes!(secondary))
        .routes(routes!(replicas))
        .routes(routes!(confirmed_reads))
        .routes(routes!(write_cache))
        .routes(routes!(scrub))
        .routes(routes!(switchover))
}

/// An extent to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewExtent {
    /// Letters, digits, `-`, `.` and `_`.
    name: String,
    /// A whole number of blocks.
    size_bytes: u64,
    /// 512 (the default) or 4096.
    #[serde(default = "block_size")]
    block_size: u32,
    /// Names of data nodes; none: all of them.
    #[serde(default)]
    replicas: Vec<String>,
    /// The node that is its primary to start with; none: the first replica.
    #[serde(default)]
    preferred: Option<String>,
    /// All of its space is allocated now.
    #[serde(default)]
    full: bool,
    /// It lies on block devices that were given to the nodes of its replicas; `full` follows.
    #[serde(default)]
    on_devices: bool,
    /// Reads wait until the other replicas have confirmed that this is still the primary.
    #[serde(default)]
    confirmed_reads: bool,
    /// Writes are acknowledged before they are stable.
    #[serde(default)]
    write_cache: bool,
}

const fn block_size() -> u32 {
    512
}

/// A size.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Size {
    /// A whole number of blocks; it never gets smaller.
    size_bytes: u64,
}

/// A name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewName {
    /// Letters, digits, `-`, `.` and `_`.
    name: String,
}

/// Where it is when all is well.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Preferred {
    /// A node's name; `none` for nobody.
    node: String,
}

/// How nodes other than the primary show it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SecondaryAccess {
    /// `non-optimized` or `standby`.
    access: String,
}

/// Where its replicas are to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Replicas {
    /// Names of data nodes.
    nodes: Vec<String>,
}

/// A switch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    /// What from now on.
    pub(super) on: bool,
}

/// Whether writes are acknowledged from memory.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WriteCache {
    /// What from now on.
    on: bool,
    /// With `on` false: what is only in the memory of replicas that do not come back is given up.
    #[serde(default)]
    lost: bool,
}

/// A planned switchover.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Switchover {
    /// Names of extents; none: all of them.
    #[serde(default)]
    extents: Vec<String>,
    /// The node that becomes their primary.
    to: String,
}

async fn set(guard: &Guard, asked: &Asked, set: SetExtent) -> Answer {
    change(guard, asked, Change::SetExtent(set)).await
}

/// Creates an extent.
#[utoipa::path(post, path = "/v1/extents", tag = "extents", request_body = NewExtent, responses((status = 200, body = Done)))]
async fn create(State(guard): State<Arc<Guard>>, asked: Asked, Body(new): Body<NewExtent>) -> Answer {
    let request = CreateExtentRequest {
        name: new.name,
        size_bytes: new.size_bytes,
        block_size: new.block_size,
        replicas: new.replicas,
        preferred: new.preferred.unwrap_or_default(),
        confirmed_reads: new.confirmed_reads,
        full: new.full,
        write_cache: new.write_cache,
        on_devices: new.on_devices,
    };
    done(guard.create_extent(asked.of(request)).await)
}

/// Deletes an extent that is no LUN, with its data, on all nodes. Nothing asks again.
#[utoipa::path(delete, path = "/v1/extents/{extent}", tag = "extents", params(("extent" = String, Path, description = "Its name")),
    responses((status = 200, body = Done)))]
async fn delete(State(guard): State<Arc<Guard>>, asked: Asked, At(extent): At<String>) -> Answer {
    access(&guard, &asked, AccessRequest::DeleteExtent { extent }).await
}

/// Makes an extent larger, while it is in use.
#[utoipa::path(put, path = "/v1/extents/{extent}/size", tag = "extents", params(("extent" = String, Path, description = "Its name")),
    request_body = Size, responses((status = 200, body = Done)))]
async fn resize(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(name): At<String>,
    Body(Size { size_bytes }): Body<Size>,
) -> Answer {
    change(
        &guard,
        &asked,
        Change::ResizeExtent(ResizeExtent { name, size_bytes }),
    )
    .await
}

/// Gives an extent another name.
#[utoipa::path(put, path = "/v1/extents/{extent}/name", tag = "extents", params(("extent" = String, Path, description = "Its name")),
    request_body = NewName, responses((status = 200, body = Done)))]
async fn rename(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(name): At<String>,
    Body(new): Body<NewName>,
) -> Answer {
    let new_name = new.name;
    set(
        &guard,
        &asked,
        SetExtent {
            name,
            new_name,
            ..SetExtent::default()
        },
    )
    .await
}

/// Says where an extent is when all is well.
#[utoipa::path(put, path = "/v1/extents/{extent}/preferred", tag = "extents",
    params(("extent" = String, Path, description = "Its name")), request_body = Preferred, responses((status = 200, body = Done)))]
async fn prefer(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(name): At<String>,
    Body(Preferred { node: preferred }): Body<Preferred>,
) -> Answer {
    set(
        &guard,
        &asked,
        SetExtent {
            name,
            preferred,
            ..SetExtent::default()
        },
    )
    .await
}

/// Says how nodes other than its primary show an extent.
#[utoipa::path(put, path = "/v1/extents/{extent}/secondary", tag = "extents",
    params(("extent" = String, Path, description = "Its name")), request_body = SecondaryAccess, responses((status = 200, body = Done)))]
async fn secondary(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(name): At<String>,
    Body(SecondaryAccess { access: secondary }): Body<SecondaryAccess>,
) -> Answer {
    set(
        &guard,
        &asked,
        SetExtent {
            name,
            secondary,
            ..SetExtent::default()
        },
    )
    .await
}

/// Moves replicas: new ones are resynchronized first, and only then others go.
#[utoipa::path(put, path = "/v1/extents/{extent}/replicas", tag = "extents",
    params(("extent" = String, Path, description = "Its name")), request_body = Replicas, responses((status = 200, body = Done)))]
async fn replicas(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(name): At<String>,
    Body(Replicas { nodes }): Body<Replicas>,
) -> Answer {
    change(&guard, &asked, Change::SetReplicas(SetReplicas { name, nodes })).await
}

/// Switches confirmed reads of an extent.
#[utoipa::path(put, path = "/v1/extents/{extent}/confirmed-reads", tag = "extents",
    params(("extent" = String, Path, description = "Its name")), request_body = Switch, responses((status = 200, body = Done)))]
async fn confirmed_reads(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(extent): At<String>,
    Body(Switch { on }): Body<Switch>,
) -> Answer {
    let request = SetConfirmedReadsRequest { extent, on };
    done(guard.set_confirmed_reads(asked.of(request)).await)
}

/// Switches write-back of an extent; off is answered once all that was acknowledged is stable.
#[utoipa::path(put, path = "/v1/extents/{extent}/write-cache", tag = "extents",
    params(("extent" = String, Path, description = "Its name")), request_body = WriteCache, responses((status = 200, body = Done)))]
async fn write_cache(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(extent): At<String>,
    Body(WriteCache { on, lost }): Body<WriteCache>,
) -> Answer {
    let request = SetWriteCacheRequest { extent, on, lost };
    done(guard.set_write_cache(asked.of(request)).await)
}

/// Has an extent's replicas compared in the background; answered when that has begun.
#[utoipa::path(post, path = "/v1/extents/{extent}/scrub", tag = "extents",
    params(("extent" = String, Path, description = "Its name")), responses((status = 200, body = Done)))]
async fn scrub(State(guard): State<Arc<Guard>>, asked: Asked, At(extent): At<String>) -> Answer {
    let relayed = false;
    let request = ScrubExtentRequest { extent, relayed };
    done(guard.scrub_extent(asked.of(request)).await)
}

/// Moves extents to another node, planned; answered when all of them are there.
#[utoipa::path(post, path = "/v1/switchover", tag = "extents", request_body = Switchover, responses((status = 200, body = Done)))]
async fn switchover(State(guard): State<Arc<Guard>>, asked: Asked, Body(wanted): Body<Switchover>) -> Answer {
    let Switchover { extents, to } = wanted;
    done(
        guard
            .switchover(asked.of(SwitchoverRequest { extents, to }))
            .await,
    )
}
