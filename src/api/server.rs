//! The API's listener.

use super::endpoints;
use super::guard::Gate;
use crate::decision::topology::Endpoint;
use crate::runtime::handle::Handle;
use crate::runtime::metrics::Metrics;
use std::io;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why the API could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("failed to listen on {address} for the API: {source}; is another watcher running?")]
    Listen {
        /// Where.
        address: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// The listener broke.
    #[error("failed to serve the API: {0}")]
    Serve(#[from] io::Error),
    /// No HTTP client could be made, so nothing could be passed on to the leader.
    #[error("failed to prepare the connection to other watchers: {0}")]
    Client(#[from] reqwest::Error),
}

/// Listens on `address` and serves the API of the watcher behind `handle` until cancelled.
pub async fn serve(
    handle: Handle,
    metrics: Metrics,
    address: Endpoint,
    cancellation: CancellationToken,
) -> Result<(), ServeError> {
    let listener = TcpListener::bind((address.host.as_str(), address.port))
        .await
        .map_err(|source| ServeError::Listen { address, source })?;
    serve_on(handle, metrics, listener, cancellation).await
}

/// Serves only `/metrics` and `/healthz`, as a proxy does, until cancelled.
pub async fn serve_metrics(
    registry: prometheus::Registry,
    address: Endpoint,
    cancellation: CancellationToken,
) -> Result<(), ServeError> {
    let render = move || {
        let families = registry.gather();
        let text = prometheus::TextEncoder::new().encode_to_string(&families);
        std::future::ready(text.unwrap_or_default())
    };
    let router = axum::Router::new()
        .route("/metrics", axum::routing::get(render))
        .route("/healthz", axum::routing::get(|| std::future::ready("ok\n")));
    let listener = TcpListener::bind((address.host.as_str(), address.port))
        .await
        .map_err(|source| ServeError::Listen { address, source })?;
    let stopped = cancellation.clone();
    axum::serve(Gate::new(listener), router)
        .with_graceful_shutdown(async move { stopped.cancelled().await })
        .await?;
    Ok(())
}

/// Like [`serve`], on a listener that is already bound.
pub async fn serve_on(
    handle: Handle,
    metrics: Metrics,
    listener: TcpListener,
    cancellation: CancellationToken,
) -> Result<(), ServeError> {
    let router = endpoints::router(handle, metrics)?;
    let stopped = cancellation.clone();
    let served = axum::serve(Gate::new(listener), router)
        .with_graceful_shutdown(async move { stopped.cancelled().await });
    let grace = async {
        cancellation.cancelled().await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    };
    // A client that never closes its connection must not keep the process from ending.
    tokio::select! {
        ended = async { served.await } => ended.map_err(ServeError::Serve),
        () = grace => Ok(()),
    }
}
