//! Listeners and connections: bound, bounded, timed, and ended in good order.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Routes,
    connections::{Connections, Watched},
};

/// A request's head must have come by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What is buffered of a request's head at most; what is allowed is less, and checked with the request.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Connections at once, so that no crowd takes all file descriptors.
const MAX_CONNECTIONS: usize = 512;
/// A connection on which nothing moves for so long is ended: a client that does not read its answer keeps a place among
/// `web.max_requests`. Idle ones end at [`HEAD_TIMEOUT`].
const STALLED: Duration = Duration::from_secs(60);
/// How often they are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);
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
pub async fn serve(listeners: Vec<TcpListener>, routes: Routes, shutdown: CancellationToken) {
    let connections = Arc::new(Connections::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    // No detection of HTTP/2 on plain text: it waits for a first byte without a time-out.
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    let accepting = listeners
        .iter()
        .map(|listener| accept(listener, &connections, &graceful, &server, &routes));
    tokio::select! {
        _ = futures_util::future::join_all(accepting) => {}
        () = end_stalled(&connections) => {}
        () = shutdown.cancelled() => {}
    }
    drop(listeners);
    if tokio::time::timeout(GRACE, graceful.shutdown())
        .await
        .is_err()
    {
        warn!("requests still in flight are cut off");
    }
}

/// Takes connections from one listener for ever.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Connections>,
    graceful: &GracefulShutdown,
    server: &http1::Builder,
    routes: &Routes,
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
        let place = connections.enter();
        let stream = TokioIo::new(Watched {
            stream,
            connection: place.connection.clone(),
        });
        let connection = place.connection.clone();
        let routes = routes.clone();
        let service = service_fn(move |request| {
            let answering = connection.answering();
            let answer = TowerToHyperService::new(routes.current()).call(request);
            async move {
                let answer = answer.await;
                drop(answering);
                answer
            }
        });
        let served = graceful.watch(server.serve_connection(stream, service));
        tokio::spawn(async move {
            tokio::select! {
                ended = served => if let Err(error) = ended {
                    debug!(%error, "connection ended badly");
                },
                () = place.connection.has_to_go() => debug!("quiet connection ended"),
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
