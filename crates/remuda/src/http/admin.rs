//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Each of them asks the pool's own thread: if that hangs, nothing here says that all is well.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use remuda_engine::{Health, Remote};

use crate::http::metrics;
use crate::http::server::Traffic;

/// How long the pool's thread may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The name by which a scraper says that it takes it.
const OPENMETRICS_NAME: &str = "application/openmetrics-text";

struct Admin {
    remote: Remote,
    /// The calling listener's, and its own.
    traffics: [Arc<Traffic>; 2],
}

/// What the admin listener answers.
pub(super) fn router(remote: Remote, traffics: [Arc<Traffic>; 2]) -> Router {
    let missing =
        || async { plain(StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics, /status\n") };
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .fallback(missing)
        .with_state(Arc::new(Admin { remote, traffics }))
}

impl Admin {
    fn answer(&self, response: Response) -> Response {
        self.traffics[1].answered(response.status());
        response
    }

    async fn health(&self) -> Option<Health> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.remote.health()).await.ok().flatten()
    }

    async fn status(&self) -> Option<serde_json::Value> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.remote.status()).await.ok().flatten()
    }
}

/// Whether the pool's thread goes round.
async fn livez(State(admin): State<Arc<Admin>>) -> Response {
    admin.answer(match admin.health().await {
        Some(_) => plain(StatusCode::OK, "alive\n"),
        None => silent(),
    })
}

/// Whether a job that came now would find a worker.
async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let no = |why| plain(StatusCode::SERVICE_UNAVAILABLE, why);
    admin.answer(match admin.health().await {
        None => silent(),
        Some(Health { accepting: false, .. }) => no("not ready: the pool is draining\n"),
        Some(Health { ready_workers: 0, .. }) => no("not ready: no worker is ready\n"),
        Some(_) => plain(StatusCode::OK, "ready\n"),
    })
}

async fn scrape(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let Some(status) = admin.status().await else { return admin.answer(silent()) };
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let kind = if accept.contains(OPENMETRICS_NAME) { OPENMETRICS } else { PROMETHEUS };
    admin.answer(match metrics::text(status, &admin.traffics) {
        Ok(text) => (no_store(kind), text).into_response(),
        Err(error) => {
            tracing::error!("the metrics can't be written: {error}");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n")
        }
    })
}

async fn status(State(admin): State<Arc<Admin>>) -> Response {
    admin.answer(match admin.status().await {
        Some(status) => (no_store("application/json"), format!("{status}\n")).into_response(),
        None => silent(),
    })
}

fn silent() -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, "the pool does not answer\n")
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, no_store(TEXT), text).into_response()
}

fn no_store(kind: &'static str) -> [(axum::http::HeaderName, &'static str); 2] {
    [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")]
}
