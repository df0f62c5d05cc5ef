//! HTTP: what is served and how connections are held.
//!
//! | route | answered by |
//! |---|---|
//! | `/metrics` (or `web.telemetry_path`) | [`metrics`] |
//! | `/-/healthy`, `/healthz`, `/-/ready`, `/readyz` | [`health`] |
//! | `/-/reload`, `/config` | [`lifecycle`] |
//! | `/` | [`status`] |
//!
//! The crate `exporter-toolkit` accepts connections and checks each request before it calls [`Routes`]. Nothing here asks the API:
//! a scrape waits for the collector at most, and reads what the publisher holds.

mod health;
mod lifecycle;
mod metrics;
mod status;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    http::{HeaderValue, Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tower_service::Service;

use crate::{collector, config::Config, oauth::TokenSource, publisher::Publisher};

/// The paths of health checks: they need no user, and no rate limit counts them.
pub const OPEN_PATHS: [&str; 4] = ["/-/healthy", "/healthz", "/-/ready", "/readyz"];

static NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

const METHOD_NOT_ALLOWED: (StatusCode, &str) =
    (StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");

/// What the routes read, whatever the configuration.
#[derive(Clone)]
pub struct App {
    /// Holds what is shown.
    pub publisher: Arc<Publisher>,
    /// Makes collections.
    pub collector: collector::Handle,
    /// For the status page.
    pub tokens: Arc<TokenSource>,
    /// To whoever loads the configuration again.
    pub reloads: mpsc::Sender<Reload>,
}

/// Asks for a reload; what is sent back is the result, with the reason of a failure.
pub type Reload = oneshot::Sender<Result<(), String>>;

/// What the routes read: the application, and what one configuration says of them. Shared, as each request takes one.
type Context = Arc<Site>;

/// Everything that is served under one configuration.
pub struct Site {
    app: App,
    telemetry_path: String,
    /// One permit a scrape; `None` = no limit.
    scrapes: Option<Arc<Semaphore>>,
    lifecycle: bool,
    config: lifecycle::Effective,
}

impl App {
    /// Everything under `config`.
    pub fn site(&self, config: &Config) -> Site {
        let web = &config.web;
        let limit = web.max_requests.min(Semaphore::MAX_PERMITS);
        Site {
            app: self.clone(),
            telemetry_path: web.telemetry_path.clone(),
            scrapes: (limit > 0).then(|| Arc::new(Semaphore::new(limit))),
            lifecycle: web.enable_lifecycle,
            config: lifecycle::Effective::of(config),
        }
    }
}

/// What is served: each request takes what is in force at its moment.
#[derive(Clone)]
pub struct Routes(Arc<ArcSwap<Entry>>);

/// Where the requests under one configuration come in.
struct Entry {
    router: Router,
}

impl Routes {
    /// Begins with this.
    pub fn new(site: Site) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Entry::of(site))))
    }

    /// Requests from now on are answered by this.
    pub fn replace(&self, site: Site) {
        self.0.store(Arc::new(Entry::of(site)));
    }
}

impl Service<Request<Incoming>> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let entry = self.0.load_full();
        Box::pin(async move { Ok(entry.answer(request).await) })
    }
}

impl Entry {
    fn of(site: Site) -> Self {
        let site = Arc::new(site);
        let router = Router::new()
            .route("/", get(status::page))
            .route(&site.telemetry_path, get(metrics::scrape))
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
            .with_state(site);
        Self { router }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response {
        let mut response = self.router.clone().call(request).await.into_response();
        response
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF.clone());
        response
    }
}
