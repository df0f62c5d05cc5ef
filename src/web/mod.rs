//! The HTTP routes.
//!
//! | route | answered by |
//! |---|---|
//! | `/metrics` (or `web.telemetry_path`) | [`metrics`] |
//! | `/-/healthy`, `/healthz`, `/-/ready`, `/readyz` | [`health`] |
//! | `/-/reload`, `/config` | [`lifecycle`] |
//! | `/` | [`status`] |
//!
//! The crate `exporter-toolkit` accepts connections, checks who may ask and how large a request is, and then calls the
//! [`router`]. Nothing here asks the API: a scrape waits for the collector at most, and reads what `publisher` holds. `cli` makes
//! the [`AppState`], and a new one on a reload.

mod health;
mod lifecycle;
mod metrics;
mod status;

use std::sync::Arc;

use axum::{
    Extension, Router,
    http::{HeaderValue, Method, StatusCode, header},
    middleware,
    response::Response,
    routing::{get, post},
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{collector, config::Config, oauth::TokenSource, publisher::Publisher};

/// The paths of health checks: they need no user, and no rate limit counts them.
pub const OPEN_PATHS: [&str; 4] = ["/-/healthy", "/healthz", "/-/ready", "/readyz"];

const METHOD_NOT_ALLOWED: (StatusCode, &str) =
    (StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");

/// The state of the routes under one configuration.
#[derive(Clone)]
pub struct AppState {
    /// Holds what is shown.
    pub publisher: Arc<Publisher>,
    /// Makes the collections.
    pub collector: collector::Handle,
    /// Returns the state of the tokens for the status page.
    pub tokens: Arc<TokenSource>,
    /// The requests to reload the configuration.
    pub reloads: mpsc::Sender<Reload>,
    /// The effective configuration.
    pub config: Arc<Config>,
}

/// A request to reload the configuration. The receiver answers with the result, and with the reason of a failure.
pub type Reload = oneshot::Sender<Result<(), String>>;

/// The state as the handlers get it.
type SharedState = Arc<AppState>;

/// Returns the router of a configuration.
pub fn router(state: AppState) -> Router {
    let state = Arc::new(state);
    let max_scrapes = match state.config.web.max_requests {
        0 => Semaphore::MAX_PERMITS,
        limit => limit.min(Semaphore::MAX_PERMITS),
    };
    let scrape = get(metrics::scrape).layer(Extension(Arc::new(Semaphore::new(max_scrapes))));
    Router::new()
        .route("/", get(status::page))
        .route(&state.config.web.telemetry_path, scrape)
        .route("/-/healthy", get(health::healthy))
        .route("/healthz", get(health::healthy))
        .route("/-/ready", get(health::ready))
        .route("/readyz", get(health::ready))
        .route("/-/reload", post(lifecycle::reload))
        .route("/config", get(lifecycle::config))
        .fallback(async |method: Method| match method {
            Method::GET | Method::HEAD => (StatusCode::NOT_FOUND, "404 page not found\n"),
            _ => METHOD_NOT_ALLOWED,
        })
        .method_not_allowed_fallback(async || METHOD_NOT_ALLOWED)
        .layer(middleware::map_response(forbid_content_sniffing))
        .with_state(state)
}

async fn forbid_content_sniffing(mut response: Response) -> Response {
    let nosniff = HeaderValue::from_static("nosniff");
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
