//! What is answered: JSON, or a problem document.

use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use holdfast_proto::admin::{Document as DocumentMessage, Done as DoneMessage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Code, Status};
use utoipa::ToSchema;

/// RFC 9457.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request changed nothing (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status says what kind it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// One line: what is wrong, and what to do.
    detail: String,
}

impl Problem {
    pub(super) fn new(status: u16, detail: impl Into<String>) -> Self {
        let known = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            kind: "about:blank",
            title: known.canonical_reason().unwrap_or_default().to_owned(),
            status: known.as_u16(),
            detail: detail.into(),
        }
    }
}

/// The one place where the service's codes become those of HTTP.
impl From<Status> for Problem {
    fn from(refused: Status) -> Self {
        let status = match refused.code() {
            Code::InvalidArgument | Code::OutOfRange => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => 409,
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => 503,
            Code::Unimplemented => 501,
            _ => 500,
        };
        Self::new(status, refused.message())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, body(&self, PROBLEM_JSON)).into_response()
    }
}

fn body(value: &impl Serialize, kind: &'static str) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], bytes).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        body(&self.0, "application/json")
    }
}

/// What a handler answers.
pub(super) type Answer<T = Done> = Result<Json<T>, Problem>;

/// It is done, or was so already.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// For people.
    message: String,
    /// What a person should know about it.
    warnings: Vec<String>,
}

/// The answer to what was done.
pub(super) fn done(answer: Result<tonic::Response<DoneMessage>, Status>) -> Answer {
    let DoneMessage { message, warnings } = answer?.into_inner();
    Ok(Json(Done { message, warnings }))
}

/// The answer of what tells a document.
pub(super) fn document<T: DeserializeOwned>(
    answer: Result<tonic::Response<DocumentMessage>, Status>,
) -> Result<T, Problem> {
    let text = answer?.into_inner().json;
    serde_json::from_str(&text).map_err(|error| Problem::new(500, error.to_string()))
}
