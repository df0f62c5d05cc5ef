//! The state of the cloud that all requests share. Made by `simulator`, used by `routes`.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    building::Building, faults::Faults, options::Options, reading::Reading, replay::Replay,
    tokens::Tokens, world::World,
};

/// The requests answered so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Token requests that returned a token.
    pub token_granted: usize,
    /// Token requests that returned an error.
    pub token_refused: usize,
    /// Requests for a sensor.
    pub sensor: usize,
    /// Requests for a location.
    pub location: usize,
    /// Requests for the base location.
    pub base_location: usize,
    /// Requests of the three kinds above that were answered 401.
    pub unauthorized: usize,
}

/// The source of readings.
pub(super) enum Source {
    Simulated(World),
    Recorded {
        replay: Replay,
        building: Building,
        start: f64,
    },
}

pub(super) struct Cloud {
    pub(super) source: Source,
    pub(super) tokens: Tokens,
    pub(super) faults: Faults,
    pub(super) options: Options,
    requests: Mutex<Requests>,
    /// The time of the last response that contained a sensor, by its index.
    served_at: Mutex<HashMap<usize, f64>>,
}

impl Cloud {
    pub(super) fn new(source: Source, options: Options) -> Self {
        Self {
            source,
            tokens: Tokens::new(&options),
            faults: Faults::new(options.faults.clone()),
            options,
            requests: Mutex::default(),
            served_at: Mutex::default(),
        }
    }

    pub(super) fn building(&self) -> &Building {
        match &self.source {
            Source::Simulated(world) => world.building(),
            Source::Recorded { building, .. } => building,
        }
    }

    /// Returns the time of the cloud's own clock, which may be wrong.
    pub(super) fn now(&self) -> f64 {
        unix_now() + self.options.clock_skew
    }

    /// Returns the present readings of a sensor and remembers when they were sent.
    pub(super) fn serve_readings(&self, sensor: usize) -> Vec<Reading> {
        let now = unix_now();
        let mut served_at = self
            .served_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        served_at.insert(sensor, now);
        drop(served_at);
        self.readings(sensor, now)
    }

    /// Returns the readings of a sensor that were sent last.
    pub(super) fn served(&self, sensor: usize) -> Vec<Reading> {
        let served_at = self
            .served_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let time = served_at.get(&sensor).copied();
        time.map_or_else(Vec::new, |time| self.readings(sensor, time))
    }

    pub(super) fn requests(&self) -> Requests {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Requests)) {
        count(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn readings(&self, sensor: usize, now: f64) -> Vec<Reading> {
        match &self.source {
            Source::Simulated(world) => world.readings(sensor, now),
            Source::Recorded { replay, start, .. } => replay.readings(sensor, *start, now),
        }
    }
}

/// Returns the true time, which stamps readings.
pub(super) fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
