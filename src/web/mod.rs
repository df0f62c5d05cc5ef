//! HTTP: what is served and how connections are held.
//!
//! | route | answered by |
//! |---|---|
//! | `/metrics` (or `web.telemetry_path`) | [`metrics`] |
//! | `/-/healthy`, `/healthz`, `/-/ready`, `/readyz` | [`health`] |
//! | `/` | [`landing`] |
//!
//! [`server`] accepts connections and ends them, `connections` says which. Nothing here asks the API: a scrape waits for the collector at most, and
//! reads what the publisher holds.

mod chunks;
mod connections;
mod health;
mod landing;
mod metrics;
pub mod server;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::Semaphore;

use crate::{collector, config, publisher::Publisher, stats::Stats};

/// A request's URL may be this long: far more than any `?name[]=` list needs.
const MAX_URL_BYTES: usize = 8 * 1024;
/// All of a request's headers together.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// What the routes read.
#[derive(Clone)]
pub struct App {
    publisher: Arc<Publisher>,
    collector: collector::Handle,
    stats: Arc<Stats>,
    telemetry_path: Arc<str>,
    /// One permit a scrape; `None` = no limit.
    scrapes: Option<Arc<Semaphore>>,
}

impl App {
    /// What `web` of the configuration says about routes.
    pub fn new(
        web: &config::Web,
        publisher: Arc<Publisher>,
        collector: collector::Handle,
        stats: Arc<Stats>,
    ) -> Self {
        let scrapes = (web.max_requests > 0)
            .then(|| Arc::new(Semaphore::new(web.max_requests.min(Semaphore::MAX_PERMITS))));
        Self {
            publisher,
            collector,
            stats,
            telemetry_path: web.telemetry_path.as_str().into(),
            scrapes,
        }
    }

    /// All routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/", get(landing::page))
            .route(&self.telemetry_path, get(metrics::scrape))
            .route("/-/healthy", get(health::healthy))
            .route("/healthz", get(health::healthy))
            .route("/-/ready", get(health::ready))
            .route("/readyz", get(health::ready))
            .fallback(async || (StatusCode::NOT_FOUND, "404 page not found\n"))
            .method_not_allowed_fallback(async || {
                (
                    StatusCode::METHOD_NOT_ALLOWED,
                    "only GET and HEAD are answered here\n",
                )
            })
            .layer(middleware::from_fn(refuse_oversized))
            .with_state(self)
    }
}

async fn refuse_oversized(request: Request, next: Next) -> Response {
    let url = request
        .uri()
        .path_and_query()
        .map_or(0, |path| path.as_str().len());
    if url > MAX_URL_BYTES {
        return (
            StatusCode::URI_TOO_LONG,
            format!("a URL may have {MAX_URL_BYTES} bytes here\n"),
        )
            .into_response();
    }
    let headers: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers > MAX_HEADER_BYTES {
        let words = format!("the headers may have {MAX_HEADER_BYTES} bytes here\n");
        return (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, words).into_response();
    }
    let mut response = next.run(request).await;
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
