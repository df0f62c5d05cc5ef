//! The open connections, their number and their idle time. When the limit is reached, the connection that has been idle longest
//! is closed, so that no crowd of clients can lock a scrape out. Called by `server`.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
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
    /// Requests that the service has not answered yet. With HTTP/2 there may be several.
    in_flight: usize,
    /// When the connection was accepted, or its last request was answered.
    last: Instant,
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
                in_flight: 0,
                last: Instant::now(),
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
        lock(&self.open).push(Arc::downgrade(&connection));
        connection
    }

    /// Closes the connections that have had no request in flight for `timeout`.
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
        let mut all = lock(&self.open);
        let mut open: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        open.retain(|connection| !connection.close.is_cancelled());
        *all = open.iter().map(Arc::downgrade).collect();
        open
    }
}

impl Connection {
    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn start_request(self: &Arc<Self>) -> InFlightGuard {
        self.activity().in_flight += 1;
        InFlightGuard(self.clone())
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        lock(&self.activity)
    }
}

/// While this exists, a request of the connection is in flight.
pub(crate) struct InFlightGuard(Arc<Connection>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut activity = self.0.activity();
        activity.in_flight -= 1;
        activity.last = Instant::now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        drop(open[0].start_request());
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
