//! HTTP: what is served and how connections are held.
//!
//! | route | answered by |
//! |---|---|
//! | `/metrics` (or `web.telemetry_path`) | [`metrics`] |
//! | `/-/healthy`, `/healthz`, `/-/ready`, `/readyz` | [`health`] |
//! | `/-/reload`, `/config` | [`lifecycle`] |
//! | `/` | [`status`] |
//!
//! [`server`] accepts connections and ends them, [`connections`] says which, [`toolkit`] says who may come in. Nothing here
//! asks the API: a scrape waits for the collector at most, and reads what the publisher holds.

mod chunks;
mod connections;
mod health;
mod lifecycle;
mod metrics;
pub mod server;
mod status;
pub mod toolkit;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::toolkit::Toolkit;
use crate::{
    collector,
    config::{self, Config},
    oauth::TokenSource,
    publisher::{Publisher, Tails},
};

/// A request's URL may be this long: far more than any `?name[]=` list needs.
const MAX_URL_BYTES: usize = 8 * 1024;
/// All of a request's headers together.
const MAX_HEADER_BYTES: usize = 64 * 1024;

const METHOD_NOT_ALLOWED: (StatusCode, &str) =
    (StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");

/// What the routes read, whatever the configuration.
#[derive(Clone)]
pub struct App {
    /// Holds what is shown.
    pub publisher: Arc<Publisher>,
    /// Ends every body.
    pub tails: Arc<Tails>,
    /// Makes collections.
    pub collector: collector::Handle,
    /// For the status page.
    pub tokens: Arc<TokenSource>,
    /// To whoever loads the configuration again.
    pub reloads: mpsc::Sender<Reload>,
    /// Says who may ask.
    pub toolkit: Arc<Toolkit>,
}

/// Asks for a reload; what is sent back is the result, with the reason of a failure.
pub type Reload = oneshot::Sender<Result<(), String>>;

/// What the routes read: the application, and what one configuration says of them.
#[derive(Clone)]
struct Context {
    app: App,
    telemetry_path: Arc<str>,
    /// One permit a scrape; `None` = no limit.
    scrapes: Option<Arc<Semaphore>>,
    lifecycle: bool,
    /// For `/config`: the effective configuration, without secrets.
    config: Arc<str>,
}

impl App {
    /// All routes under `config`.
    pub fn router(&self, config: &Config) -> Router {
        let web = &config.web;
        let limit = web.max_requests.min(Semaphore::MAX_PERMITS);
        let context = Context {
            app: self.clone(),
            telemetry_path: web.telemetry_path.as_str().into(),
            scrapes: (limit > 0).then(|| Arc::new(Semaphore::new(limit))),
            lifecycle: web.enable_lifecycle,
            config: config::to_yaml(config).into(),
        };
        Router::new()
            .route("/", get(status::page))
            .route(&web.telemetry_path, get(metrics::scrape))
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
            .layer(middleware::from_fn(refuse_oversized))
            .layer(middleware::from_fn_with_state(
                self.toolkit.clone(),
                Toolkit::guard,
            ))
            .with_state(context)
    }
}

/// The routes of the configuration in force: each request takes those of its moment.
#[derive(Clone)]
pub struct Routes(Arc<ArcSwap<Router>>);

impl Routes {
    /// Begins with these.
    pub fn new(router: Router) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(router)))
    }

    /// Requests from now on are answered by these.
    pub fn replace(&self, router: Router) {
        self.0.store(Arc::new(router));
    }

    fn current(&self) -> Router {
        Router::clone(&self.0.load())
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
