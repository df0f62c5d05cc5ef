//! How many requests are let in: a token bucket. Pure: `now` is handed in.

use std::time::{Duration, Instant};

use super::file::RateLimit;

/// Begins full.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: RateLimit,
    /// When it will be full: each request lets in moves it one interval on. In this form nothing has to be counted up.
    full_at: Instant,
}

impl Bucket {
    pub(super) fn new(limit: RateLimit, now: Instant) -> Self {
        Self {
            limit,
            full_at: now,
        }
    }

    /// Whether one more may come in now.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.limit.interval;
        let room = self
            .limit
            .interval
            .checked_mul(self.limit.burst)
            .unwrap_or(Duration::MAX);
        let admitted = full_at - now <= room;
        if admitted {
            self.full_at = full_at;
        }
        admitted
    }
}
