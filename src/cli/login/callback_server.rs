//! A web server on loopback that waits for the browser to come back from the authorization server.
//!
//! It answers `GET` of the redirect URI's path. A request that does not belong to this login gets an error page, and the
//! login goes on. Pages are plain text: they need no escaping, load nothing, and repeat nothing of their URL.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use anyhow::anyhow;
use axum::{
    Router,
    extract::State,
    http::{HeaderName, Method, StatusCode, Uri, header},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::oauth::login::{Callback, CallbackError, Login, RedirectUri};

/// How long the last page may take to reach the browser.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The headers of all pages. Their URL contains the code.
const HEADERS: [(HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// The status of a page and its text.
pub(super) type Page = (StatusCode, String);

/// Binds all addresses at which the browser may arrive. One that another process listens on is an error, because the
/// browser might go there.
pub(super) async fn bind(redirect_uri: &RedirectUri) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in redirect_uri.loopback_addresses() {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            // Next to the IPv4 address, an IPv6 address that this machine does not have is not needed.
            Err(error) if !listeners.is_empty() && error.kind() != ErrorKind::AddrInUse => {}
            Err(error) => {
                return Err(anyhow!(
                    "cannot listen on {address} for the browser's request: {error}; free the port, name another \
                     registered URI with --redirect-uri, or use --paste"
                ));
            }
        }
    }
    Ok(listeners)
}

/// The running server.
pub(super) struct CallbackServer {
    callbacks: mpsc::Receiver<Callback>,
    last_page: watch::Sender<Option<Page>>,
    shutdown: CancellationToken,
    servers: JoinSet<io::Result<()>>,
}

/// The state of the handler.
#[derive(Clone)]
struct CallbackState {
    login: Arc<Login>,
    callbacks: mpsc::Sender<Callback>,
    last_page: watch::Receiver<Option<Page>>,
}

impl CallbackServer {
    /// Serves on all listeners.
    pub(super) fn start(listeners: Vec<TcpListener>, login: Arc<Login>) -> Self {
        let (callback_sender, callbacks) = mpsc::channel(1);
        let (last_page, page_receiver) = watch::channel(None);
        let state = CallbackState {
            login,
            callbacks: callback_sender,
            last_page: page_receiver,
        };
        let answer = async |state, method, uri| {
            let (status, text) = page(state, method, uri).await;
            (status, HEADERS, text)
        };
        let router = Router::new().fallback(answer).with_state(state);
        let shutdown = CancellationToken::new();
        let mut servers = JoinSet::new();
        for listener in listeners {
            let server = axum::serve(listener, router.clone())
                .with_graceful_shutdown(shutdown.clone().cancelled_owned());
            servers.spawn(server.into_future());
        }
        Self {
            callbacks,
            last_page,
            shutdown,
            servers,
        }
    }

    /// Waits for the first request that belongs to the login; `None` once the server has ended.
    pub(super) async fn callback(&mut self) -> Option<Callback> {
        self.callbacks.recv().await
    }

    /// Shows the browser how the login ended, and ends the server.
    pub(super) async fn finish(mut self, page: Page) {
        self.last_page.send_replace(Some(page));
        self.shutdown.cancel();
        let all_ended = async { while self.servers.join_next().await.is_some() {} };
        // An open connection that sends nothing must not delay the exit.
        let _ = timeout(SHUTDOWN_TIMEOUT, all_ended).await;
    }
}

/// Returns the page for a request. If it belongs to the login, waits until the login has ended.
async fn page(State(mut state): State<CallbackState>, method: Method, uri: Uri) -> Page {
    if uri.path() != state.login.redirect_uri().path() {
        return (StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
    }
    // A HEAD request must not use the code.
    if method != Method::GET {
        let error = "method not allowed\n";
        return (StatusCode::METHOD_NOT_ALLOWED, error.to_owned());
    }
    match state.login.parse_callback(uri.query().unwrap_or_default()) {
        Ok(callback) => {
            // Browsers may repeat a request: the first one counts, and all get the same page.
            let _ = state.callbacks.try_send(callback);
        }
        Err(error) => {
            if error == CallbackError::WrongState {
                warn!("ignored a callback that belongs to another login");
            }
            let text = format!(
                "Login not accepted: {error}. Open the address that lightfi-exporter printed, and log in there.\n"
            );
            return (StatusCode::BAD_REQUEST, text);
        }
    }
    let page = state.last_page.wait_for(Option::is_some).await;
    let page = page.ok().and_then(|page| page.clone());
    page.unwrap_or((StatusCode::GONE, "the login has ended\n".to_owned()))
}
