//! Accepts connections, bounds them, checks each request against the web configuration, and shuts down gracefully.
//!
//! The order for a request is: rate limit (429), user (401), size (414, 431), router; then the configured headers are added.

use std::{
    convert::Infallible,
    io, mem,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::{
    BoxError, Router,
    http::{Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};
use tower_service::Service;
use tracing::{debug, warn};

use crate::{
    connections::{Connection, Connections},
    web_config::WebConfig,
};

/// Enough for two round trips and a signature on a slow network.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum number of concurrent requests on one HTTP/2 connection.
const MAX_HTTP2_STREAMS: u32 = 100;
/// How often idle connections are looked for.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The pause after a failed accept, for example without free file descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The type of the first TLS record of a client.
const HANDSHAKE_RECORD: u8 = 0x16;
/// The response of Go's server to plain HTTP on a TLS port.
const PLAIN_HTTP_RESPONSE: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// The limits of a server. The defaults fit an exporter that is scraped by a few Prometheus servers.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time. One more closes the connection that has been idle longest. Default: 512.
    pub max_connections: usize,
    /// Bytes of a request's path and query; beyond it the response is 414. Default: 8 KiB.
    pub max_url_bytes: usize,
    /// Bytes of a request's headers; beyond it the response is 431. Default: 64 KiB.
    pub max_header_bytes: usize,
    /// The time in which a request's head must arrive. It also bounds how long HTTP/1 connections are idle. Default: 30 s.
    pub head_timeout: Duration,
    /// A connection without a request for this time is closed, so it also bounds how long a client may take to read a response.
    /// Prometheus does not repeat a scrape whose HTTP/2 connection is closed at that moment, so choose a time between the common
    /// scrape intervals. Default: 45 s.
    pub idle_timeout: Duration,
    /// The time in which requests in flight may end at shutdown. Default: 4 s.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            max_url_bytes: 8 * 1024,
            max_header_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(45),
            shutdown_timeout: Duration::from_secs(4),
        }
    }
}

/// A server of an axum router.
pub struct Server {
    /// The sockets to accept connections from.
    pub listeners: Vec<TcpListener>,
    /// Answers the requests that the web configuration admits. It may be replaced at any time: requests that are running then end
    /// with the previous one.
    pub router: Arc<ArcSwap<Router>>,
    /// TLS, users, headers and the rate limit.
    pub web_config: Arc<WebConfig>,
    /// Paths that need no user and do not count for the rate limit, such as those of health checks.
    pub open_paths: Vec<String>,
    /// Bounds of connections and requests.
    pub limits: Limits,
}

impl Server {
    /// Serves until `shutdown`. Then no connection is accepted any more, and requests in flight may end.
    pub async fn serve(mut self, shutdown: CancellationToken) {
        let listeners = mem::take(&mut self.listeners);
        let running = Arc::new(RunningServer {
            http: http_builder(&self.limits),
            connections: Connections::new(self.limits.max_connections),
            server: self,
            tasks: TaskTracker::new(),
            shutdown: shutdown.clone(),
        });
        for listener in listeners {
            let accepting = running.clone().accept(listener);
            let accepting = shutdown.clone().run_until_cancelled_owned(accepting);
            running.tasks.spawn(accepting);
        }
        let limits = &running.server.limits;
        let closing = async {
            loop {
                sleep(IDLE_CHECK_INTERVAL).await;
                running.connections.close_idle(limits.idle_timeout);
            }
        };
        shutdown.run_until_cancelled(closing).await;
        running.tasks.close();
        let ended = timeout(limits.shutdown_timeout, running.tasks.wait());
        if ended.await.is_err() {
            warn!("shutdown timed out; aborting in-flight requests");
        }
    }
}

fn http_builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.max_header_bytes);
    // Up to twice the limit the response is 431. Beyond it the stream is refused, which some clients repeat.
    let max_header_list = limits.max_header_bytes.saturating_mul(2);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(max_header_list).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_HTTP2_STREAMS);
    builder
}

/// The state that all connections share.
struct RunningServer {
    server: Server,
    http: Builder<TokioExecutor>,
    connections: Connections,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl RunningServer {
    /// Accepts connections forever.
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept a connection; retrying");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Otherwise the end of a response may wait for the client's acknowledgement.
            let _ = stream.set_nodelay(true);
            let connection = self.connections.add();
            let server = self.clone();
            self.tasks.spawn(async move {
                let close = connection.close.clone();
                let serving = server.serve_connection(stream, connection);
                match close.run_until_cancelled(serving).await {
                    Some(Ok(())) => {}
                    Some(Err(error)) => debug!(%error, "connection failed"),
                    None => debug!("idle connection closed"),
                }
            });
        }
    }

    /// Serves the requests of a connection. From shutdown on, or from the moment its web configuration is replaced, it takes no
    /// new request and ends after the last response.
    async fn serve_connection(
        self: Arc<Self>,
        stream: TcpStream,
        connection: Arc<Connection>,
    ) -> Result<(), BoxError> {
        let active = self.server.web_config.active();
        // The builder does not detect the protocol: it would wait for the first bytes without a timeout.
        let mut http = self.http.clone().http1_only();
        let stream = match &active.tls {
            None => Either::Left(stream),
            Some(tls) => {
                let handshake = timeout(HANDSHAKE_TIMEOUT, handshake(tls.clone().into(), stream));
                let Some(stream) = self.shutdown.run_until_cancelled(handshake).await else {
                    return Ok(());
                };
                let stream = Box::new(stream??);
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    http = self.http.clone().http2_only();
                }
                Either::Right(stream)
            }
        };
        let service = service_fn(|request| {
            let in_flight = connection.start_request();
            let server = self.clone();
            async move {
                let response = server.respond(request).await;
                drop(in_flight);
                Ok::<_, Infallible>(response)
            }
        });
        let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = serving.as_mut() => return ended,
            () = self.shutdown.cancelled() => {}
            () = active.replaced.cancelled() => {}
        }
        serving.as_mut().graceful_shutdown();
        serving.await
    }

    async fn respond(&self, request: Request<Incoming>) -> Response {
        let active = self.server.web_config.active();
        let path = request.uri().path();
        let is_open = self.server.open_paths.iter().any(|open| open == path);
        let limiter = active.rate_limiter.as_ref().filter(|_| !is_open);
        if limiter.is_some_and(|limiter| !limiter.admit(Instant::now())) {
            return (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n").into_response();
        }
        let access = match is_open {
            true => Ok(()),
            false => active.users.check(request.headers()).await,
        };
        let mut response = match access {
            Ok(()) => match refuse_oversized(&request, &self.server.limits) {
                Some(refusal) => refusal.into_response(),
                None => {
                    let mut router = Router::clone(&self.server.router.load());
                    let Ok(response) = router.call(request).await;
                    response
                }
            },
            Err(StatusCode::UNAUTHORIZED) => {
                let challenge = [(header::WWW_AUTHENTICATE, "Basic")];
                (StatusCode::UNAUTHORIZED, challenge, "Unauthorized\n").into_response()
            }
            Err(status) => (
                status,
                "too many password checks at once, try again later\n",
            )
                .into_response(),
        };
        // The headers that the router sets take precedence.
        for (name, value) in &active.headers {
            let entry = response.headers_mut().entry(name);
            entry.or_insert_with(|| value.clone());
        }
        response
    }
}

fn refuse_oversized<B>(request: &Request<B>, limits: &Limits) -> Option<(StatusCode, String)> {
    let url = request.uri().path_and_query();
    let url_bytes = url.map_or(0, |url| url.as_str().len());
    let headers = request.headers().iter();
    let header_bytes: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let (status, what, limit) = if url_bytes > limits.max_url_bytes {
        (StatusCode::URI_TOO_LONG, "URL", limits.max_url_bytes)
    } else if header_bytes > limits.max_header_bytes {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        (status, "header", limits.max_header_bytes)
    } else {
        return None;
    };
    Some((status, format!("the {what} is longer than {limit} bytes\n")))
}

async fn handshake(
    acceptor: TlsAcceptor,
    mut stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first[0] == HANDSHAKE_RECORD || !first[0].is_ascii_uppercase() {
        return acceptor.accept(stream).await;
    }
    // Unread bytes would turn the response into a reset.
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    stream.write_all(PLAIN_HTTP_RESPONSE).await?;
    stream.shutdown().await?;
    let message = "an HTTP request where TLS is expected";
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
