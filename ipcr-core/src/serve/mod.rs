//! The service: one HTTP listener around a running registry.
//!
//! So far it answers `/healthz`. The listener is bound to loopback, and answers only requests whose `Host` is `localhost` or a
//! loopback address (421 otherwise), so that no web page can reach it under another name (DNS rebinding).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kind::ErrorKind;
use crate::limits;
use crate::registry::holder::Holder;

/// Why the service cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is not on loopback.
    #[error("{address} can be reached from other machines")]
    Remote {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened at.
    #[error("listening at {address} failed")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl ServeError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Remote { .. } => ErrorKind::Usage,
            Self::Listen { source, .. } => ErrorKind::of_io(source),
        }
    }
}

/// The service while it runs. Dropping it aborts what is under way; use [`Service::shutdown`] to end it cleanly.
#[derive(Debug)]
#[must_use = "the service ends when it is dropped"]
pub struct Service {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    /// Starts to listen at a loopback address; port 0 means any free one.
    pub async fn start(holder: Arc<dyn Holder>, address: SocketAddr) -> Result<Self, ServeError> {
        if !address.ip().is_loopback() {
            return Err(ServeError::Remote { address });
        }
        let listen = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let stop = CancellationToken::new();
        let (app, stopped) = (router(holder), stop.clone().cancelled_owned());
        let task = tokio::spawn(async move {
            // Errors of single connections end those alone; there are no others.
            let _ = axum::serve(listener, app).with_graceful_shutdown(stopped).await;
        });
        Ok(Self { address, stop, task })
    }

    /// The address with the port in use.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://…`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it: requests under way are answered.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

fn router(holder: Arc<dyn Holder>) -> Router {
    let places = Arc::new(Semaphore::new(limits::HTTP_REQUESTS));
    Router::new()
        .route("/healthz", get(health))
        .with_state(holder)
        .layer(middleware::from_fn_with_state(places, limited))
        .layer(middleware::from_fn(local_only))
}

/// Answers 503 when too much is under way.
async fn limited(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    match places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response(),
    }
}

/// Answers 421 unless the request was meant for this machine.
async fn local_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    match host {
        Some(host) if is_local(host) => next.run(request).await,
        _ => StatusCode::MISDIRECTED_REQUEST.into_response(),
    }
}

/// Whether a `Host` is `localhost` or a loopback address, with or without a port.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What `/healthz` answers.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    running: bool,
    peers: usize,
    received_bytes: u64,
    served_bytes: u64,
}

/// 200 while the node runs, 503 otherwise.
async fn health(State(holder): State<Arc<dyn Holder>>) -> Response {
    let activity = holder.activity().await.unwrap_or_default();
    let (status, code) =
        if activity.running { ("ok", StatusCode::OK) } else { ("down", StatusCode::SERVICE_UNAVAILABLE) };
    let health = Health {
        status,
        running: activity.running,
        peers: activity.peers,
        received_bytes: activity.received_bytes,
        served_bytes: activity.served_bytes,
    };
    (code, axum::Json(health)).into_response()
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn hosts() {
        for host in ["localhost", "LOCALHOST:5050", "127.0.0.1", "127.0.0.1:5050", "127.9.9.9:1", "[::1]:5050", "[::1]"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "evil.test",
            "evil.test:5050",
            "localhost.evil.test",
            "10.0.0.1:5050",
            "",
            ":5050",
            "[::2]:5050",
            "0.0.0.0",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
