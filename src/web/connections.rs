//! Which connections are open, and which of them has to go where there are too many or one no longer moves.
//!
//! No crowd may lock a scrape out: one more connection than allowed ends the one that was quiet the longest. What travels
//! over a connection does not belong here. Called by `server`.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

/// All connections of a server.
pub(super) struct Connections {
    most: usize,
    started: Instant,
    open: Mutex<Vec<Arc<Connection>>>,
}

/// One of them.
pub(super) struct Connection {
    started: Instant,
    /// When bytes last came or went, in milliseconds since `started`.
    moved: AtomicU64,
    /// Requests that are being answered, of HTTP/2 several: the client waits for us, not we for the client.
    answering: AtomicUsize,
    end: CancellationToken,
}

impl Connections {
    /// Room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            started: Instant::now(),
            open: Mutex::default(),
        }
    }

    /// Makes room for one more, and notes it until [`Place`] is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let connection = Arc::new(Connection {
            started: self.started,
            moved: AtomicU64::new(0),
            answering: AtomicUsize::new(0),
            end: CancellationToken::new(),
        });
        connection.moves();
        let mut open = self.open();
        while open.len() >= self.most {
            let Some(quietest) = quietest(&open) else {
                break;
            };
            open.swap_remove(quietest).end.cancel();
        }
        open.push(connection.clone());
        Place {
            connections: self.clone(),
            connection,
        }
    }

    /// Ends those on which nothing has moved for so long, unless it is us who keep the client waiting.
    pub(super) fn end_quiet(&self, after: Duration) {
        for connection in self.open().iter() {
            if !connection.answers() && connection.quiet() >= after {
                connection.end.cancel();
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that are being answered come last: a scrape may wait for the first collection.
fn quietest(open: &[Arc<Connection>]) -> Option<usize> {
    let key = |connection: &Connection| {
        (
            connection.answers(),
            connection.moved.load(Ordering::Relaxed),
        )
    };
    (0..open.len()).min_by_key(|index| key(&open[*index]))
}

impl Connection {
    /// From now until what is returned is dropped, a request is being answered.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    /// Ends once the connection has to go.
    pub(super) async fn has_to_go(&self) {
        self.end.cancelled().await;
    }

    fn answers(&self) -> bool {
        self.answering.load(Ordering::Relaxed) > 0
    }

    fn moves(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
    }

    fn quiet(&self) -> Duration {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(moved)
    }
}

/// A connection's place among the open ones.
pub(super) struct Place {
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections
            .open()
            .retain(|other| !Arc::ptr_eq(other, &self.connection));
    }
}

/// While this lives, a request is being answered.
pub(super) struct Answering(Arc<Connection>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.moves();
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that notes when bytes move.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) connection: Arc<Connection>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.connection.moves();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.connection.moves();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(5);

    fn has_to_go(place: &Place) -> bool {
        place.connection.end.is_cancelled()
    }

    #[test]
    fn one_too_many_ends_the_one_that_was_quiet_the_longest() {
        let connections = Arc::new(Connections::new(3));
        let places = [(); 3].map(|()| {
            std::thread::sleep(TICK);
            connections.enter()
        });
        std::thread::sleep(TICK);
        places[0].connection.moves();
        let newest = connections.enter();
        assert_eq!(places.each_ref().map(has_to_go), [false, true, false]);
        assert!(!has_to_go(&newest));
        drop(places);
        assert_eq!(connections.open().len(), 1);
    }

    #[test]
    fn one_that_is_being_answered_goes_last() {
        let connections = Arc::new(Connections::new(2));
        let scraped = connections.enter();
        let answering = scraped.connection.answering();
        std::thread::sleep(TICK);
        let idle = connections.enter();
        let next = connections.enter();
        assert!(has_to_go(&idle) && !has_to_go(&scraped));
        // Once it is answered it counts as quiet from then on.
        std::thread::sleep(TICK);
        drop(answering);
        let _last = connections.enter();
        assert!(has_to_go(&next) && !has_to_go(&scraped));
    }

    #[test]
    fn what_does_not_move_ends_unless_it_waits_for_us() {
        let connections = Arc::new(Connections::new(9));
        let (stalled, waiting) = (connections.enter(), connections.enter());
        let _answering = waiting.connection.answering();
        drop(waiting.connection.answering());
        std::thread::sleep(TICK);
        let moving = connections.enter();
        connections.end_quiet(TICK);
        assert_eq!(
            [stalled, waiting, moving].each_ref().map(has_to_go),
            [true, false, false]
        );
    }
}
