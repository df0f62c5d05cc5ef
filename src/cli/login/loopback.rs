//! Waits on loopback for the browser that the authorization server sends back, once.
//!
//! `GET` of the redirect URI's path is answered; everything else is 404 or 405. What does not belong to this login gets
//! a page that says so, and the wait goes on.

use std::{io, time::Duration};

use anyhow::anyhow;
use axum::{
    Router,
    extract::{RawQuery, State},
    http::{Method, StatusCode, Uri},
    response::Response,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Unfinished, page};
use crate::oauth::login::{Answer, Login, RedirectUri, Stray};

/// A browser sends its request at once; it may also open connections that it never uses.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// For the last page to reach the browser.
const LAST_PAGE: Duration = Duration::from_secs(2);

/// Visits that may wait while an answer is being redeemed.
const VISITS: usize = 16;

/// Bound to where the browser is sent back to.
pub(super) struct Loopback {
    listeners: Vec<TcpListener>,
    path: String,
}

/// A browser at the right path.
struct Visit {
    query: String,
    page: oneshot::Sender<Response>,
}

/// What every request is handed.
#[derive(Clone)]
struct Door {
    path: String,
    visits: mpsc::Sender<Visit>,
}

impl Loopback {
    /// Binds every address that the browser may try. One that this machine does not have, as IPv6 often, is no loss; one
    /// that somebody else listens on is: the browser might go there.
    pub(super) async fn bind(redirect_uri: &RedirectUri) -> anyhow::Result<Self> {
        let mut listeners = Vec::new();
        let mut missing = None;
        for address in redirect_uri.loopback() {
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(listener),
                Err(error) if is_refusal(&error) => return Err(cannot_listen(&address, error)),
                Err(error) => missing = Some((address, error)),
            }
        }
        match missing {
            Some((address, error)) if listeners.is_empty() => Err(cannot_listen(&address, error)),
            _ => Ok(Self {
                listeners,
                path: redirect_uri.path().to_owned(),
            }),
        }
    }

    /// Waits for the answer to `login`, has `finish` do what it leads to, and shows how that went.
    pub(super) async fn wait(
        self,
        login: &Login,
        patience: Duration,
        finish: impl AsyncFnOnce(Answer) -> Result<(), Unfinished>,
        advice: &str,
    ) -> Result<(), Unfinished> {
        let (sender, mut visits) = mpsc::channel(VISITS);
        let end = CancellationToken::new();
        let mut serving = JoinSet::new();
        let router = Router::new().fallback(enter).with_state(Door {
            path: self.path,
            visits: sender,
        });
        for listener in self.listeners {
            serving.spawn(serve(listener, router.clone(), end.clone()));
        }
        let outcome = match timeout(patience, answer(login, &mut visits)).await {
            Err(_) => Err(Unfinished::TimedOut(patience)),
            Ok((visit, answer)) => {
                let outcome = finish(answer).await;
                show(&outcome, advice, visit);
                // A browser may ask twice, and shows only the last page.
                while let Ok(visit) = visits.try_recv() {
                    match login.answer(&visit.query) {
                        Ok(_) => show(&outcome, advice, visit),
                        Err(stray) => visit.see(page::stray(stray)),
                    }
                }
                outcome
            }
        };
        drop(visits);
        end.cancel();
        while serving.join_next().await.is_some() {}
        outcome
    }
}

impl Visit {
    /// The browser may have gone; the terminal says it too.
    fn see(self, page: Response) {
        let _ = self.page.send(page);
    }
}

/// The first visit that answers `login`; the others are sent away.
async fn answer(login: &Login, visits: &mut mpsc::Receiver<Visit>) -> (Visit, Answer) {
    loop {
        let Some(visit) = visits.recv().await else {
            // Nobody listens any more, so nobody can come.
            return std::future::pending().await;
        };
        match login.answer(&visit.query) {
            Ok(answer) => return (visit, answer),
            Err(stray) => {
                if stray == Stray::WrongState {
                    warn!("ignored a redirect that does not belong to this login");
                }
                visit.see(page::stray(stray));
            }
        }
    }
}

fn show(outcome: &Result<(), Unfinished>, advice: &str, visit: Visit) {
    visit.see(match outcome {
        Ok(()) => page::logged_in(advice),
        Err(error) => page::failed(&error.to_string()),
    });
}

/// The address is there but not to be had.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

fn cannot_listen(address: &std::net::SocketAddr, error: io::Error) -> anyhow::Error {
    anyhow!(error).context(format!(
        "cannot listen on {address} for the browser to come back to: free it, name another registered URI with \
         --redirect-uri, or use --paste"
    ))
}

/// Accepts until `end`; then connections under way have a moment to take their page along.
async fn serve(listener: TcpListener, router: Router, end: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: wait for some to be closed.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            // One request a connection, so that none stays open when this ends.
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A broken connection is the browser's to notice.
            let _ = served.await;
        });
    }
    drop(listener);
    let _ = timeout(LAST_PAGE, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

async fn enter(
    State(door): State<Door>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Response {
    if uri.path() != door.path {
        return page::empty(StatusCode::NOT_FOUND);
    }
    // A look at the head must not spend the code.
    if method != Method::GET {
        return page::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let (page, shown) = oneshot::channel();
    let visit = Visit {
        query: query.unwrap_or_default(),
        page,
    };
    if door.visits.send(visit).await.is_err() {
        return page::over();
    }
    shown.await.unwrap_or_else(|_| page::over())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Purpose, load_text};
    use lightfi_simulator::{Options, Simulator};

    #[tokio::test]
    async fn a_login_that_nobody_ends_has_an_end() {
        let simulator = Simulator::new(Options::default()).unwrap();
        let yaml = simulator.config_yaml("http://127.0.0.1:1");
        let config = load_text(
            "test",
            &yaml,
            &Default::default(),
            std::iter::empty(),
            Purpose::Login,
        );
        let redirect_uri = RedirectUri::parse("http://127.0.0.1:3000").unwrap();
        let login = Login::begin(
            &config.unwrap().config.oauth,
            redirect_uri,
            crate::http::client_builder(rustls::RootCertStore::empty())
                .unwrap()
                .build()
                .unwrap(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let loopback = Loopback {
            listeners: vec![listener],
            path: "/".to_owned(),
        };
        let error = loopback
            .wait(
                &login.unwrap(),
                Duration::from_millis(100),
                async |_| Ok(()),
                "",
            )
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "nobody has logged in within 100ms: run `lightfi-exporter login` again"
        );
        // The port is free again.
        TcpListener::bind(address).await.unwrap();
    }
}
