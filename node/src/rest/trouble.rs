//! What is for bad days, and for rehearsing them: takeover, accepted loss of data, devices that go, faults of drills. All of it concerns
//! the very node that is asked.

use std::sync::Arc;

use axum::extract::State;
use holdfast_proto::admin::admin_server::Admin;
use holdfast_proto::admin::{
    AcceptDataLossRequest, HealRequest, InjectRequest, RemoveDeviceRequest, TakeoverRequest,
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Routes;
use super::answer::{Answer, Done, Json, document, done};
use super::asked::{Asked, At, Body};
use crate::admin::{Guard, TakeoverPlan};

pub(super) fn routes() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(takeover))
        .routes(routes!(accept_data_loss))
        .routes(routes!(remove_device))
        .routes(routes!(inject))
        .routes(routes!(heal))
        .routes(routes!(heal_all))
}

/// A takeover without a quorum.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Takeover {
    /// Every other node is off, and will stay off until its directory is emptied. False: only the plan.
    #[serde(default)]
    confirm_peer_is_down: bool,
}

/// Whether a loss is accepted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Loss {
    /// False: only what would be lost.
    #[serde(default)]
    confirmed: bool,
}

/// A fault of a drill.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Fault {
    /// `link:NODE`, `link:NODE:in`, `link:NODE:out`, `disk:NAME` or `process`.
    site: String,
    /// `cut`, `delay=50ms`, `slow=1048576` (bytes a second) or `lose=10` (percent); of a process `kill` or `freeze`.
    fault: String,
    /// 1 to 60000.
    millis: u32,
}

/// Plans a takeover of the cluster by this node alone; confirmed, the node starts anew a moment after the answer and carries it out.
#[utoipa::path(post, path = "/v1/takeover", tag = "trouble", request_body = Takeover, responses((status = 200, body = TakeoverPlan)))]
async fn takeover(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    Body(Takeover {
        confirm_peer_is_down: confirmed,
    }): Body<Takeover>,
) -> Answer<TakeoverPlan> {
    let by = guard.who(&asked.head, &asked.connection).await;
    document(guard.takeover(asked.of(TakeoverRequest { confirmed, by })).await).map(Json)
}

/// Has the replica of this node count as whole, where no whole one is left.
#[utoipa::path(post, path = "/v1/extents/{extent}/accept-data-loss", tag = "trouble",
    params(("extent" = String, Path, description = "Its name")), request_body = Loss, responses((status = 200, body = Done)))]
async fn accept_data_loss(
    State(guard): State<Arc<Guard>>,
    asked: Asked,
    At(extent): At<String>,
    Body(Loss { confirmed }): Body<Loss>,
) -> Answer {
    let by = guard.who(&asked.head, &asked.connection).await;
    let request = AcceptDataLossRequest {
        extent,
        by,
        confirmed,
    };
    done(guard.accept_data_loss(asked.of(request)).await)
}

/// Takes a block device from this node, if no extent needs it. One that is gone with an extent on it takes `holdfast device remove`.
#[utoipa::path(delete, path = "/v1/devices/{device}", tag = "trouble", params(("device" = String, Path, description = "Its id")),
    responses((status = 200, body = Done)))]
async fn remove_device(State(guard): State<Arc<Guard>>, asked: Asked, At(device): At<String>) -> Answer {
    let confirm = String::new();
    let request = RemoveDeviceRequest { device, confirm };
    done(guard.remove_device(asked.of(request)).await)
}

/// Has this node suffer a fault for a while.
#[utoipa::path(post, path = "/v1/faults", tag = "trouble", request_body = Fault, responses((status = 200, body = Done)))]
async fn inject(State(guard): State<Arc<Guard>>, asked: Asked, Body(wanted): Body<Fault>) -> Answer {
    let Fault { site, fault, millis } = wanted;
    let by = guard.who(&asked.head, &asked.connection).await;
    let request = InjectRequest {
        site,
        fault,
        millis,
        by,
    };
    done(guard.inject(asked.of(request)).await)
}

/// Heals what a place of this node suffers.
#[utoipa::path(delete, path = "/v1/faults/{site}", tag = "trouble", params(("site" = String, Path, description = "As it was named")),
    responses((status = 200, body = Done)))]
async fn heal(State(guard): State<Arc<Guard>>, asked: Asked, At(site): At<String>) -> Answer {
    let by = guard.who(&asked.head, &asked.connection).await;
    done(guard.heal(asked.of(HealRequest { site, by })).await)
}

/// Heals all that this node suffers.
#[utoipa::path(delete, path = "/v1/faults", tag = "trouble", responses((status = 200, body = Done)))]
async fn heal_all(State(guard): State<Arc<Guard>>, asked: Asked) -> Answer {
    let (site, by) = (String::new(), guard.who(&asked.head, &asked.connection).await);
    done(guard.heal(asked.of(HealRequest { site, by })).await)
}
