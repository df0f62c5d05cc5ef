//! A web server on loopback that waits for the browser to come back from the authorization server.
//!
//! It answers `GET` of the redirect URI's path. A request that does not belong to this login gets an error page, and the
//! login goes on.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use anyhow::anyhow;
use axum::{
    Router,
    extract::{RawQuery, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::callback_page::CallbackPage;
use crate::oauth::login::{Callback, CallbackError, Login, RedirectUri};

/// How long the last page may take to reach the browser.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

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
                return Err(anyhow!(error).context(format!(
                    "cannot listen on {address} for the browser: free the port, name another registered URI with \
                     --redirect-uri, or use --paste"
                )));
            }
        }
    }
    Ok(listeners)
}

/// The running server.
pub(super) struct CallbackServer {
    callbacks: mpsc::Receiver<Callback>,
    last_page: watch::Sender<Option<CallbackPage>>,
    shutdown: CancellationToken,
    servers: JoinSet<io::Result<()>>,
}

/// What the handler of a request needs.
#[derive(Clone)]
struct CallbackState {
    login: Arc<Login>,
    callbacks: mpsc::Sender<Callback>,
    last_page: watch::Receiver<Option<CallbackPage>>,
}

impl CallbackServer {
    /// Serves on all listeners.
    pub(super) fn start(listeners: Vec<TcpListener>, login: Arc<Login>) -> Self {
        let (callback_sender, callbacks) = mpsc::channel(1);
        let (last_page, page_receiver) = watch::channel(None);
        let router = Router::new().fallback(callback).with_state(CallbackState {
            login,
            callbacks: callback_sender,
            last_page: page_receiver,
        });
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
    pub(super) async fn finish(mut self, page: CallbackPage) {
        self.last_page.send_replace(Some(page));
        self.shutdown.cancel();
        let all_ended = async { while self.servers.join_next().await.is_some() {} };
        // An open connection that sends nothing must not delay the exit.
        let _ = timeout(SHUTDOWN_TIMEOUT, all_ended).await;
    }
}

async fn callback(
    State(mut state): State<CallbackState>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Response {
    if uri.path() != state.login.redirect_uri().path() {
        return StatusCode::NOT_FOUND.into_response();
    }
    // A HEAD request must not use the code.
    if method != Method::GET {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    match state.login.parse_callback(&query.unwrap_or_default()) {
        Ok(callback) => {
            // Browsers may repeat a request: the first one counts, and all get the same page.
            let _ = state.callbacks.try_send(callback);
        }
        Err(error) => {
            if error == CallbackError::WrongState {
                warn!("ignored a callback that belongs to another login");
            }
            return CallbackPage::for_error(error).into_response();
        }
    }
    let page = state.last_page.wait_for(Option::is_some).await;
    let page = page.ok().and_then(|page| page.clone());
    page.map_or(
        StatusCode::GONE.into_response(),
        CallbackPage::into_response,
    )
}
