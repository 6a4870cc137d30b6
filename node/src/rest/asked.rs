//! What a request brings: who asks, what its path names, and its body.

use axum::body::to_bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use tonic::Extensions;
use tonic::metadata::MetadataMap;

use super::answer::Problem;

/// Longest body in bytes.
pub(super) const BODY_MAX: usize = 1 << 20;

/// The connection that a request came by, and its head: what a request of the service is judged by.
pub(super) struct Asked {
    pub(super) head: MetadataMap,
    pub(super) connection: Extensions,
}

impl Asked {
    /// The same connection's request of the service.
    pub(super) fn of<T>(&self, message: T) -> tonic::Request<T> {
        tonic::Request::from_parts(self.head.clone(), self.connection.clone(), message)
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Self {
            head: MetadataMap::from_headers(parts.headers.clone()),
            connection: parts.extensions.clone(),
        })
    }
}

/// What the path names.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        path.map(|Path(named)| Self(named))
            .map_err(|error| Problem::new(400, format!("the path cannot be read: {}", error.body_text())))
    }
}

async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Option<serde_json::Error>> {
    let bytes = to_bytes(request.into_body(), BODY_MAX).await.map_err(|_| None)?;
    let bytes = if bytes.is_empty() { &b"{}"[..] } else { &bytes[..] };
    serde_json::from_slice(bytes).map_err(Some)
}

fn too_long() -> Problem {
    Problem::new(
        413,
        format!("the body was broken off, or has more than {BODY_MAX} bytes"),
    )
}

/// A JSON body; an empty one counts as `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        read(request).await.map(Self).map_err(|error| match error {
            Some(error) => Problem::new(400, format!("the body is not what is expected here: {error}")),
            None => too_long(),
        })
    }
}

/// A JSON body with a secret in it: what is wrong with it is not told in detail, as that may quote it.
pub(super) struct SecretBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for SecretBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        read(request).await.map(Self).map_err(|error| match error {
            Some(_) => Problem::new(
                400,
                "the body is not what is expected here; see /v1/openapi.json for its fields",
            ),
            None => too_long(),
        })
    }
}
