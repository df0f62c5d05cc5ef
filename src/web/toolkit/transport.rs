//! One connection, from its first byte to the protocol that is spoken on it.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::Toolkit;
use crate::web::connections::Watched;

/// What a connection comes in by.
type Wire = Watched<TcpStream>;

/// Two round trips and a signature, on the worst of networks.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A TLS connection begins with a record of this type.
const HANDSHAKE_RECORD: u8 = 0x16;
/// To somebody who speaks HTTP where TLS is expected, in the words of Go's server.
const PLEASE_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
    Client sent an HTTP request to an HTTPS server.\n";

/// What is spoken on a connection.
pub(in crate::web) enum Accepted {
    Plain(Wire),
    Http1(Box<TlsStream<Wire>>, CancellationToken),
    Http2(Box<TlsStream<Wire>>, CancellationToken),
}

impl Toolkit {
    /// Shakes hands where that is asked for; in the connection's own task.
    pub(in crate::web) async fn accept(&self, stream: Wire) -> io::Result<Accepted> {
        let front = match &self.live.load().tls {
            None => return Ok(Accepted::Plain(stream)),
            Some(front) => front.again(),
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&front.serving.config));
        let handshake = async {
            let mut first = [0];
            stream.stream.peek(&mut first).await?;
            if first[0] != HANDSHAKE_RECORD && first[0].is_ascii_uppercase() {
                return refuse_plain(stream).await;
            }
            acceptor.accept(stream).await
        };
        let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")
        })??;
        let stream = Box::new(stream);
        Ok(if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            Accepted::Http2(stream, front.replaced)
        } else {
            Accepted::Http1(stream, front.replaced)
        })
    }
}

async fn refuse_plain(mut stream: Wire) -> io::Result<TlsStream<Wire>> {
    // Bytes left unread would make of the answer a reset.
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    stream.write_all(PLEASE_TLS).await?;
    stream.shutdown().await?;
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "an HTTP request where TLS is expected",
    ))
}
