//! The open connections, their number and their idle time. When the limit is reached, the connection that has been idle longest
//! is closed, so that no crowd of clients can lock a scrape out. Called by `server`.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

/// All connections of a server.
pub(crate) struct Connections {
    max: usize,
    open: Mutex<Vec<Weak<Connection>>>,
}

/// One connection. It counts as open until it is dropped.
pub(crate) struct Connection {
    activity: Mutex<Activity>,
    /// Cancelled when the connection must end.
    pub(crate) close: CancellationToken,
}

struct Activity {
    /// When bytes were last received or sent.
    last: Instant,
    /// Requests that the service has not answered yet. With HTTP/2 there may be several.
    in_flight: usize,
}

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        let open = Mutex::default();
        Self { max, open }
    }

    /// Adds a connection. If there are too many, the one that has been idle longest is closed, and those with a request in
    /// flight come last: a scrape may wait for its data.
    pub(crate) fn add(&self) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            activity: Mutex::new(Activity {
                last: Instant::now(),
                in_flight: 0,
            }),
            close: CancellationToken::new(),
        });
        let open = self.open();
        if open.len() >= self.max {
            let key = |other: &&Arc<Connection>| {
                let activity = other.activity();
                (activity.in_flight > 0, activity.last)
            };
            if let Some(longest_idle) = open.iter().min_by_key(key) {
                longest_idle.close.cancel();
            }
        }
        self.lock().push(Arc::downgrade(&connection));
        connection
    }

    /// Closes the connections on which nothing has moved for `timeout`, except where the client waits for a response.
    pub(crate) fn close_idle(&self, timeout: Duration) {
        for connection in self.open() {
            let activity = connection.activity();
            if activity.in_flight == 0 && activity.last.elapsed() >= timeout {
                connection.close.cancel();
            }
        }
    }

    /// Returns the open connections and forgets the others.
    fn open(&self) -> Vec<Arc<Connection>> {
        let mut all = self.lock();
        let mut open: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        open.retain(|connection| !connection.close.is_cancelled());
        *all = open.iter().map(Arc::downgrade).collect();
        open
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn start_request(self: &Arc<Self>) -> InFlightGuard {
        self.activity().in_flight += 1;
        InFlightGuard(self.clone())
    }

    fn touch(&self) {
        self.activity().last = Instant::now();
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While this exists, a request of the connection is in flight.
pub(crate) struct InFlightGuard(Arc<Connection>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.touch();
        self.0.activity().in_flight -= 1;
    }
}

/// A stream that records when bytes are received or sent.
pub(crate) struct IdleTrackedStream {
    pub(crate) stream: TcpStream,
    pub(crate) connection: Arc<Connection>,
}

impl IdleTrackedStream {
    fn record(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.connection.touch();
        }
        written
    }
}

impl AsyncRead for IdleTrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.connection.touch();
        }
        polled
    }
}

impl AsyncWrite for IdleTrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.record(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.record(polled)
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
    use std::thread::sleep;

    use super::*;

    const TICK: Duration = Duration::from_millis(5);

    fn is_closed(connection: &Arc<Connection>) -> bool {
        connection.close.is_cancelled()
    }

    #[test]
    fn one_connection_too_many_closes_the_one_that_was_idle_longest() {
        let connections = Connections::new(3);
        let open = [(); 3].map(|()| {
            sleep(TICK);
            connections.add()
        });
        sleep(TICK);
        open[0].touch();
        let newest = connections.add();
        assert_eq!(open.each_ref().map(is_closed), [false, true, false]);
        assert!(!is_closed(&newest));
        drop(open);
        assert_eq!(connections.open().len(), 1);
    }

    #[test]
    fn a_connection_with_a_request_in_flight_is_closed_last() {
        let connections = Connections::new(2);
        let scraped = connections.add();
        let request = scraped.start_request();
        sleep(TICK);
        let idle = connections.add();
        let next = connections.add();
        assert!(is_closed(&idle) && !is_closed(&scraped));
        // After its response it counts as idle from now on.
        sleep(TICK);
        drop(request);
        let _last = connections.add();
        assert!(is_closed(&next) && !is_closed(&scraped));
    }

    #[test]
    fn idle_connections_are_closed_unless_the_client_waits_for_a_response() {
        let connections = Connections::new(9);
        let (stalled, waiting) = (connections.add(), connections.add());
        let _request = waiting.start_request();
        drop(waiting.start_request());
        sleep(TICK);
        let active = connections.add();
        connections.close_idle(TICK);
        let closed = [stalled, waiting, active].each_ref().map(is_closed);
        assert_eq!(closed, [true, false, false]);
    }
}
