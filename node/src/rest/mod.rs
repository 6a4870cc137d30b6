//! The REST interface, `/v1/…`, beside gRPC on the same addresses. Each handler makes a request of the admin service and hands it to
//! [`Guard`], so that who may do what, every check and every refusal are the same; nothing is decided here. The document that describes it
//! (`/v1/openapi.json`) is made of the handlers.

mod answer;
mod asked;
mod cluster;
mod extents;
mod groups;
mod see;
mod targets;
mod trouble;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi as Document, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use crate::admin::Guard;
use answer::{PROBLEM_JSON, Problem};
use asked::Asked;

/// The head of the document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Holdfast",
        description = "Administration of a Holdfast cluster. Requests are the same as those of the commands and of gRPC, with the same \
                       checks and roles. Errors are problem documents (RFC 9457)."
    ),
    components(schemas(Problem))
)]
struct Head;

type Routes = OpenApiRouter<Arc<Guard>>;

/// What any request may be answered with.
const PROBLEMS: [(&str, &str); 6] = [
    ("400", "The request is wrong; the detail says what is allowed."),
    (
        "401",
        "The connection does not say who asks, or the API token opens nothing.",
    ),
    ("403", "Whoever asks has a role that may not."),
    ("404", "There is no such thing."),
    ("409", "The cluster refuses, as things are."),
    (
        "503",
        "The node knows of no quorum, or belongs to no cluster yet.",
    ),
];

/// What generated clients call an operation: unique, and the same in every release.
fn id(method: &str, path: &str) -> String {
    let words = path
        .split(['/', '{', '}', '-'])
        .filter(|word| !matches!(*word, "" | "v1"));
    words.fold(method.to_owned(), |id, word| id + "_" + word)
}

fn add_problems(operation: &mut Operation) {
    for (status, text) in PROBLEMS {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let problem = ResponseBuilder::new()
            .description(text)
            .content(PROBLEM_JSON, content)
            .build();
        let all = &mut operation.responses.responses;
        all.insert(status.to_owned(), problem.into());
    }
}

fn all() -> (Router<Arc<Guard>>, Document) {
    let routes: Routes = OpenApiRouter::with_openapi(Head::openapi())
        .merge(see::routes())
        .merge(extents::routes())
        .merge(targets::routes())
        .merge(groups::routes())
        .merge(cluster::routes())
        .merge(trouble::routes());
    let (router, mut document) = routes.split_for_parts();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("api_token", SecurityScheme::Http(bearer));
    // A token may be shown; without one the connection says who asks.
    let token = SecurityRequirement::new("api_token", Vec::<String>::new());
    document.security = Some(vec![SecurityRequirement::default(), token]);
    for (path, item) in &mut document.paths.paths {
        let operations = [
            ("get", &mut item.get),
            ("post", &mut item.post),
            ("put", &mut item.put),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                operation.operation_id = Some(id(method, path));
                add_problems(operation);
            }
        }
    }
    (router, document)
}

async fn unknown() -> Problem {
    Problem::new(
        404,
        "there is nothing at this path; /v1/openapi.json says what there is",
    )
}

async fn wrong_method() -> Problem {
    Problem::new(405, "this path has other methods; /v1/openapi.json says which")
}

/// Has whoever comes to these routes judged as one who wants to see the status.
pub(crate) fn for_who_may_see(routes: Router, guard: Arc<Guard>) -> Router {
    routes.route_layer(axum::middleware::from_fn(
        move |asked: Asked, request: Request, next: Next| {
            let guard = Arc::clone(&guard);
            async move {
                match guard.may_see(&asked.head, &asked.connection).await {
                    Ok(()) => next.run(request).await,
                    Err(refused) => Problem::from(refused).into_response(),
                }
            }
        },
    ))
}

/// The routes, to be merged with others.
pub(crate) fn routes(guard: Arc<Guard>) -> Router {
    let (router, document) = all();
    // It cannot fail: the document is made of texts and numbers.
    let text: Arc<str> = document.to_json().unwrap_or_default().into();
    let describe = move || {
        let text = Arc::clone(&text);
        async move { ([(CONTENT_TYPE, "application/json")], text.to_string()).into_response() }
    };
    router
        .route("/v1/openapi.json", get(describe))
        .route("/v1", any(unknown))
        .route("/v1/{*rest}", any(unknown))
        .method_not_allowed_fallback(wrong_method)
        .with_state(guard)
}

#[cfg(test)]
#[path = "rest_test.rs"]
mod tests;
