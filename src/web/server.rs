//! Listeners and connections: bound, bounded, timed, and ended in good order.

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    Routes,
    connections::{Connection, Connections, Watched},
    toolkit::{Toolkit, transport::Accepted},
};

/// A request's head must have come by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What is buffered of a request's head at most; what is allowed is less, and checked with the request.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Requests at once on one connection of HTTP/2.
const MAX_STREAMS: u32 = 100;
/// Connections at once, so that no crowd takes all file descriptors.
const MAX_CONNECTIONS: usize = 512;
/// A connection on which nothing moves for so long is ended: a client that does not read its answer keeps a place among
/// `web.max_requests`. Idle ones of HTTP/1 end at [`HEAD_TIMEOUT`]. No common scrape interval falls between this and this
/// with [`LOOK_EVERY`]: Prometheus does not repeat a scrape of HTTP/2 that is cut off at its beginning.
const STALLED: Duration = Duration::from_secs(45);
/// How often they are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Scrapes in flight at the end have this long; the contract is 5 s from the signal to the exit.
const GRACE: Duration = Duration::from_secs(4);
/// After a failed accept (no descriptors left, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// Binds one `web.listen_address`; without a host on all addresses, IPv6 and IPv4.
pub async fn bind(address: &str) -> io::Result<Vec<TcpListener>> {
    if let Some(port) = address.strip_prefix(':') {
        let port = port
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a port"))?;
        let listener =
            listen((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                // A machine without IPv6.
                _ => listen((Ipv4Addr::UNSPECIFIED, port).into()),
            });
        return Ok(vec![listener?]);
    }
    tokio::net::lookup_host(address)
        .await?
        .map(listen)
        .collect()
}

/// Takes over the sockets that systemd bound. The error says what its unit has to change.
pub fn inherit(mut sockets: ListenFd) -> Result<Vec<TcpListener>, String> {
    if sockets.len() == 0 {
        return Err("no socket activation file descriptors found: start it by a systemd socket unit, or leave \
                    the flag out to listen on web.listen_address"
            .to_owned());
    }
    (0..sockets.len())
        .map(|index| take(&mut sockets, index))
        .collect()
}

fn take(sockets: &mut ListenFd, index: usize) -> Result<TcpListener, String> {
    let wrong = |error: io::Error| {
        format!(
            "{error}: set ListenStream of the socket unit to a port, or to an IP address and a port"
        )
    };
    let Some(socket) = sockets.take_tcp_listener(index).map_err(wrong)? else {
        return Err(format!("socket {index} was taken before"));
    };
    if !SockRef::from(&socket).is_listener().map_err(wrong)? {
        return Err(
            "a connection was handed over in place of a listening socket: set Accept=no in the socket unit"
                .to_owned(),
        );
    }
    socket.set_nonblocking(true).map_err(wrong)?;
    TcpListener::from_std(socket).map_err(wrong)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // "all addresses" means both families; one named IPv6 address is only that.
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves until `shutdown`, then takes no new connections and lets requests in flight end.
pub async fn serve(
    listeners: Vec<TcpListener>,
    routes: Routes,
    toolkit: Arc<Toolkit>,
    shutdown: CancellationToken,
) {
    let open = Arc::new(Connections::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    // No detection of HTTP/2 on plain text: it waits for a first byte without a time-out.
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_concurrent_streams(MAX_STREAMS);
    let server = Server {
        http1,
        http2,
        routes,
        toolkit,
        shutdown: shutdown.clone(),
    };
    let accepting = listeners
        .iter()
        .map(|listener| accept(listener, &open, &connections, &server));
    tokio::select! {
        _ = futures_util::future::join_all(accepting) => {}
        () = end_stalled(&open) => {}
        () = shutdown.cancelled() => {}
    }
    drop(listeners);
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait())
        .await
        .is_err()
    {
        warn!("requests still in flight are cut off");
    }
}

/// Takes connections from one listener for ever.
async fn accept(
    listener: &TcpListener,
    open: &Arc<Connections>,
    connections: &TaskTracker,
    server: &Server,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without it the tail of an answer may wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let place = open.enter();
        let server = server.clone();
        connections.spawn(async move {
            let connection = place.connection.clone();
            let stream = Watched {
                stream,
                connection: connection.clone(),
            };
            tokio::select! {
                ended = server.connection(stream, &connection) => if let Err(error) = ended {
                    debug!(%error, "connection ended badly");
                },
                () = connection.has_to_go() => debug!("quiet connection ended"),
            }
        });
    }
}

/// Ends what does not move any more, for ever.
async fn end_stalled(connections: &Connections) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        connections.end_quiet(STALLED);
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct Server {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    routes: Routes,
    toolkit: Arc<Toolkit>,
    shutdown: CancellationToken,
}

impl Server {
    /// Serves one to its end.
    async fn connection(
        self,
        stream: Watched<TcpStream>,
        watched: &Arc<Connection>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let accepted = tokio::select! {
            accepted = self.toolkit.accept(stream) => accepted?,
            () = self.shutdown.cancelled() => return Ok(()),
        };
        let routes = self.routes;
        let watched = watched.clone();
        let service = service_fn(move |request| {
            let answering = watched.answering();
            let routes = routes.clone();
            async move {
                let answer = routes.answer(request).await;
                drop(answering);
                Ok::<_, Infallible>(answer)
            }
        });
        let shutdown = &self.shutdown;
        match accepted {
            Accepted::Plain(stream) => {
                let never = CancellationToken::new();
                let connection = self.http1.serve_connection(TokioIo::new(stream), service);
                until(connection, shutdown, &never).await?;
            }
            Accepted::Http1(stream, replaced) => {
                let connection = self.http1.serve_connection(TokioIo::new(stream), service);
                until(connection, shutdown, &replaced).await?;
            }
            Accepted::Http2(stream, replaced) => {
                let connection = self.http2.serve_connection(TokioIo::new(stream), service);
                until(connection, shutdown, &replaced).await?;
            }
        }
        Ok(())
    }
}

/// Drives a connection; from either signal on it takes no new request and ends with the last answer.
async fn until<C: GracefulConnection>(
    connection: C,
    shutdown: &CancellationToken,
    replaced: &CancellationToken,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = shutdown.cancelled() => {}
        () = replaced.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
