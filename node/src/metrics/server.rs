//! `GET /metrics`: beside the admin service on its addresses, and on a listener of its own that can do nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::page::page;
use crate::runtime::Node;

/// Content type of the exposition format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes, to be merged with others.
pub(crate) fn routes(node: Arc<Node>) -> Router {
    Router::new().route("/metrics", get(move || answer(Arc::clone(&node))))
}

async fn answer(node: Arc<Node>) -> impl IntoResponse {
    let (document, facts) = (node.status().await, node.facts().await);
    ([(CONTENT_TYPE, TEXT)], page(&document, &facts))
}

/// Serves the metrics alone, for a monitoring system that may look at everything and change nothing.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) fn serve(node: Arc<Node>, address: SocketAddr) -> anyhow::Result<()> {
    let listener = std::net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .and_then(TcpListener::from_std)
        .with_context(|| format!("cannot listen on {address} (admin.metrics)"))?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes(node)).await {
            tracing::error!(%error, "the metrics' server ended");
        }
    });
    Ok(())
}
