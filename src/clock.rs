//! What time it is. For those at the edges, who hand it on: what decides takes `now` as a value.

use std::time::SystemTime;

/// Seconds since 1970. A clock before that says 0: each reading then is one of the future, which is told.
pub fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
