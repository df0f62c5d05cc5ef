//! HTTP: what is served and how connections are held.
//!
//! | route | answered by |
//! |---|---|
//! | `/metrics` (or `web.telemetry_path`) | [`metrics`] |
//! | `/-/healthy`, `/healthz`, `/-/ready`, `/readyz` | [`health`] |
//! | `/-/reload`, `/config` | [`lifecycle`] |
//! | `/` | [`status`] |
//!
//! Each request first passes the [`toolkit`], then [`Routes`].
//! [`server`] accepts connections and ends them, [`connections`] says which, [`toolkit`] says who may come in. Nothing here
//! asks the API: a scrape waits for the collector at most, and reads what the publisher holds.

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
    http::{HeaderValue, Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tower_service::Service as _;

use self::toolkit::Toolkit;
use crate::{collector, config::Config, oauth::TokenSource, publisher::Publisher};

/// A request's URL may be this long: far more than any `?name[]=` list needs.
const MAX_URL_BYTES: usize = 8 * 1024;
/// All of a request's headers together.
const MAX_HEADER_BYTES: usize = 64 * 1024;

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
    /// Says who may ask.
    pub toolkit: Arc<Toolkit>,
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
    site: Context,
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

    /// Who may ask comes first, then what is too long, then the routes.
    async fn answer(&self, request: Request<Incoming>) -> Response {
        let entry = self.0.load_full();
        let toolkit = &entry.site.app.toolkit;
        toolkit
            .guard(request, |request| entry.answer(request))
            .await
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
            .with_state(site.clone());
        Self { site, router }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response {
        if let Some(refusal) = oversized(&request) {
            return refusal;
        }
        let mut response = self.router.clone().call(request).await.into_response();
        response
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF.clone());
        response
    }
}

fn oversized<B>(request: &Request<B>) -> Option<Response> {
    let url = request
        .uri()
        .path_and_query()
        .map_or(0, |path| path.as_str().len());
    if url > MAX_URL_BYTES {
        let words = format!("a URL may have {MAX_URL_BYTES} bytes here\n");
        return Some((StatusCode::URI_TOO_LONG, words).into_response());
    }
    let headers: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers > MAX_HEADER_BYTES {
        let words = format!("the headers may have {MAX_HEADER_BYTES} bytes here\n");
        return Some((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, words).into_response());
    }
    None
}
