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
//! [`SwappableRouter`]. Nothing here asks the API: a scrape waits for the collector at most, and reads what `publisher` holds.
//! `cli` makes the [`AppState`] and replaces it on a reload.

mod health;
mod lifecycle;
mod metrics;
mod status;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    middleware,
    response::Response,
    routing::{future::RouteFuture, get, post},
};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tower_service::Service;

use crate::{collector, config::Config, oauth::TokenSource, publisher::Publisher};

/// The paths of health checks: they need no user, and no rate limit counts them.
pub const OPEN_PATHS: [&str; 4] = ["/-/healthy", "/healthz", "/-/ready", "/readyz"];

const METHOD_NOT_ALLOWED: (StatusCode, &str) =
    (StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");

/// What the routes need under one configuration.
#[derive(Clone)]
pub struct AppState {
    /// Holds what is shown.
    pub publisher: Arc<Publisher>,
    /// Makes the collections.
    pub collector: collector::Handle,
    /// Where the status page gets the state of the tokens.
    pub tokens: Arc<TokenSource>,
    /// The requests to reload the configuration.
    pub reloads: mpsc::Sender<Reload>,
    /// The effective configuration.
    pub config: Arc<Config>,
    /// One permit per running scrape.
    scrapes: Arc<Semaphore>,
}

/// A request to reload the configuration. The receiver answers with the result, and with the reason of a failure.
pub type Reload = oneshot::Sender<Result<(), String>>;

/// The state as the handlers get it.
type SharedState = Arc<AppState>;

impl AppState {
    /// Returns the state under a configuration.
    pub fn new(
        publisher: Arc<Publisher>,
        collector: collector::Handle,
        tokens: Arc<TokenSource>,
        reloads: mpsc::Sender<Reload>,
        config: &Config,
    ) -> Self {
        let max_scrapes = match config.web.max_requests {
            0 => Semaphore::MAX_PERMITS,
            limit => limit.min(Semaphore::MAX_PERMITS),
        };
        Self {
            publisher,
            collector,
            tokens,
            reloads,
            config: Arc::new(config.clone()),
            scrapes: Arc::new(Semaphore::new(max_scrapes)),
        }
    }

    /// Returns the state after a reload.
    pub fn reloaded(&self, tokens: Arc<TokenSource>, config: &Config) -> Self {
        let (publisher, collector) = (self.publisher.clone(), self.collector.clone());
        Self::new(publisher, collector, tokens, self.reloads.clone(), config)
    }
}

/// The router of the current configuration. Requests that are running when it is replaced end with the previous one.
#[derive(Clone)]
pub struct SwappableRouter(Arc<ArcSwap<Router>>);

impl SwappableRouter {
    /// Returns a router that answers with this state.
    pub fn new(state: AppState) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(router(state))))
    }

    /// Answers requests from now on with another state.
    pub fn replace(&self, state: AppState) {
        self.0.store(Arc::new(router(state)));
    }
}

impl Service<Request<Incoming>> for SwappableRouter {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        Router::clone(&self.0.load()).call(request)
    }
}

fn router(state: AppState) -> Router {
    let state = Arc::new(state);
    Router::new()
        .route("/", get(status::page))
        .route(&state.config.web.telemetry_path, get(metrics::scrape))
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
