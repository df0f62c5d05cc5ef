//! The wall clock. Only the edges of the program read it; decisions take `now` as a value.

use std::time::SystemTime;

/// Returns the seconds since 1970, and 0 before: then each reading counts as one of the future, which is reported.
pub fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
