//! A LightFi cloud made up in memory: the vendor's token endpoint and API in front of a simulated building, or of
//! recorded readings. It serves `demo`, `simulate`, the tests and the benchmarks.
//!
//! Written from what is known of the vendor's API and from nothing of the exporter's: it shares no type with the client
//! that talks to it, as one typo would then satisfy both sides. Started by `cli` and by tests.
//!
//! - `world`: what every sensor reports at any moment, a pure function of (seed, time); `building` says who stands
//!   where, `people` who is in, `climate` what air and light they are in, `motion` what a motion sensor counts, `chance`
//!   is the luck of all of them; an [`Item`] is a reading as it is sent;
//! - `replay`: recorded readings instead;
//! - `tokens`: the identity provider; `authorize`: its page where a person logs in; `faults`: what goes wrong on purpose, `broken`: what is
//!   answered then;
//! - `routes`: HTTP; `listing`: the configuration that makes an exporter use it.

mod authorize;
mod broken;
mod building;
mod chance;
mod climate;
mod faults;
mod item;
mod listing;
mod motion;
mod people;
mod replay;
mod routes;
mod tokens;
mod world;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde::Serialize;
use tokio::{net::TcpListener, task::JoinSet};

pub use faults::{Fault, FaultError, FaultKind};
pub use item::Item;
pub use listing::Listing;
pub use replay::{Replay, ReplayError};

use broken::Connection;
use building::Building;
use faults::Faults;
use tokens::{Policy, Tokens};
pub use world::World;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many sensors there are.
    pub sensors: usize,
    /// Another seed is another building, with another client and other tokens.
    pub seed: u64,
    /// Added to every answer of the API.
    pub latency: Duration,
    /// Of access tokens; whole seconds.
    pub token_lifetime: Duration,
    /// Whether each refresh gives a new refresh token.
    pub rotate_refresh_tokens: bool,
    /// How long a refresh token stays good after it gave a new one.
    pub rotation_grace: Duration,
    /// Where a login may send its code besides the usual places, compared literally.
    pub redirect_uris: Vec<String>,
    /// Whether a login gives a refresh token, which a client may be set up not to get.
    pub login_gives_refresh_token: bool,
    /// Faults that are on from the start.
    pub faults: Vec<Fault>,
    /// How wrong the cloud's clock is. It stamps tokens and the `Date` header; readings carry the sensors' time.
    pub clock_skew: ClockSkew,
    /// Recorded readings instead of simulated ones.
    pub replay: Option<Replay>,
    /// How [`Simulator::config_yaml`] names the sensors.
    pub listing: Listing,
}

impl Default for Options {
    /// As `demo` and `simulate` run it when nothing is asked for.
    fn default() -> Self {
        Self {
            sensors: 40,
            seed: 1,
            latency: Duration::ZERO,
            token_lifetime: Duration::from_secs(4 * 3600),
            rotate_refresh_tokens: false,
            // What Cognito allows at most.
            rotation_grace: Duration::from_secs(60),
            redirect_uris: Vec::new(),
            login_gives_refresh_token: true,
            faults: Vec::new(),
            clock_skew: ClockSkew::default(),
            replay: None,
            listing: Listing::default(),
        }
    }
}

/// How far a clock is from the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockSkew {
    /// It shows a time that is still to come.
    Ahead(Duration),
    /// It shows a time that has passed.
    Behind(Duration),
}

impl Default for ClockSkew {
    fn default() -> Self {
        Self::Ahead(Duration::ZERO)
    }
}

impl ClockSkew {
    fn seconds(self) -> f64 {
        match self {
            Self::Ahead(by) => by.as_secs_f64(),
            Self::Behind(by) => -by.as_secs_f64(),
        }
    }
}

/// Why there is nothing to simulate.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// Zero sensors.
    #[error("a simulated building needs at least one sensor")]
    NoSensors,
    /// A fault of a sensor or location that is not there.
    #[error(
        "fault {0}: there is no sensor or location of that id; the ids follow from the seed and the number of sensors"
    )]
    UnknownSensor(Fault),
    /// No key to sign tokens with.
    #[error("cannot make a key to sign tokens with")]
    NoKey,
}

/// The requests answered so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Token requests that gave a token.
    pub token_granted: usize,
    /// Token requests that gave none.
    pub token_refused: usize,
    /// Of `/sensors/{id}`, whatever the answer.
    pub sensor: usize,
    /// Of `/locations/{id}/`, whatever the answer.
    pub location: usize,
    /// Of `/locations`, whatever the answer.
    pub base_location: usize,
    /// Of `/openapi.json`.
    pub openapi: usize,
    /// Those of the three API routes above that were answered 401.
    pub unauthorized: usize,
    /// The most requests of the three API routes that were under way at once.
    pub max_in_flight: usize,
}

/// A simulated cloud. Clones are handles of the same one.
#[derive(Clone)]
pub struct Simulator(Arc<Cloud>);

/// What all requests share.
struct Cloud {
    source: Source,
    tokens: Tokens,
    redirect_uris: Vec<String>,
    faults: Faults,
    latency: Duration,
    skew: f64,
    listing: Listing,
    counters: Counters,
    /// By sensor: the bits of the Unix time at which it was served last; 0 before the first. Readings being a function
    /// of time, that is enough to tell what was served.
    served_at: Box<[AtomicU64]>,
}

/// Where readings come from.
enum Source {
    World(World),
    Replay {
        replay: Replay,
        building: Building,
        start: f64,
    },
}

impl Source {
    fn building(&self) -> &Building {
        match self {
            Self::World(world) => &world.building,
            Self::Replay { building, .. } => building,
        }
    }

    fn readings(&self, sensor: usize, now: f64) -> Vec<Item> {
        match self {
            Self::World(world) => world.readings(sensor, now),
            Self::Replay { replay, start, .. } => replay.readings(sensor, *start, now),
        }
    }
}

#[derive(Default)]
struct Counters {
    token_granted: AtomicUsize,
    token_refused: AtomicUsize,
    sensor: AtomicUsize,
    location: AtomicUsize,
    base_location: AtomicUsize,
    openapi: AtomicUsize,
    unauthorized: AtomicUsize,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
}

impl Simulator {
    /// Builds the building and makes a key; a replay begins now.
    pub fn new(options: Options) -> Result<Self, SimulatorError> {
        let source = match options.replay {
            Some(replay) => Source::Replay {
                building: Building::recorded(replay.sensors()),
                replay,
                // A whole second, so that times keep the digits that were recorded.
                start: unix_now().floor(),
            },
            None if options.sensors == 0 => return Err(SimulatorError::NoSensors),
            None => Source::World(World::new(options.seed, options.sensors)),
        };
        let building = source.building();
        let unknown = |fault: &&Fault| !fault.is_of(building);
        if let Some(fault) = options.faults.iter().find(unknown) {
            return Err(SimulatorError::UnknownSensor(fault.clone()));
        }
        let policy = Policy {
            lifetime: options.token_lifetime,
            rotate: options.rotate_refresh_tokens,
            grace: options.rotation_grace,
            login_gives_refresh_token: options.login_gives_refresh_token,
        };
        Ok(Self(Arc::new(Cloud {
            tokens: Tokens::new(options.seed, policy).map_err(|_| SimulatorError::NoKey)?,
            redirect_uris: options.redirect_uris,
            faults: Faults::new(options.faults),
            latency: options.latency,
            skew: options.clock_skew.seconds(),
            listing: options.listing,
            counters: Counters::default(),
            served_at: building.sensors.iter().map(|_| AtomicU64::new(0)).collect(),
            source,
        })))
    }

    /// All routes of the cloud; see `routes`.
    pub fn router(&self) -> Router {
        routes::router(self.0.clone())
    }

    /// Serves until `shutdown`, then drops every connection at once: requests under way get no answer.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let router = self.router();
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => return Ok(()),
                // Ended connections are forgotten as they end.
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(_) => {
                    // Out of file descriptors, most likely: wait for some to be closed.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // Answers are small and complete: there is nothing to wait for.
            let _ = stream.set_nodelay(true);
            let connection = Connection::of(&stream);
            let router = router.clone().layer(Extension(connection));
            let service = TowerToHyperService::new(router);
            connections.spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // A broken connection is the client's to notice.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    /// One complete configuration of an exporter that uses this cloud where it is served at `base_url`.
    pub fn config_yaml(&self, base_url: &str) -> String {
        let refresh_token = self.0.tokens.newest_refresh_token();
        let building = self.0.source.building();
        let Cloud {
            listing, tokens, ..
        } = &*self.0;
        listing::yaml(*listing, building, tokens, &refresh_token, base_url)
    }

    /// The ids of all sensors.
    pub fn sensors(&self) -> Vec<String> {
        let sensors = &self.0.source.building().sensors;
        sensors.iter().map(|sensor| sensor.id.clone()).collect()
    }

    /// Switches a fault on or off, from the next request on.
    pub fn set_fault(&self, fault: &Fault, on: bool) {
        self.0.faults.set(fault, on);
    }

    /// As if a person had logged in anew: every refresh token given so far is refused from now on; the new one is
    /// returned.
    pub fn replace_refresh_token(&self) -> String {
        self.0.tokens.replace_refresh_token()
    }

    /// The refresh token that was given last.
    pub fn newest_refresh_token(&self) -> String {
        self.0.tokens.newest_refresh_token()
    }

    /// The requests answered so far.
    pub fn requests(&self) -> Requests {
        self.0.requests()
    }

    /// What was last served of a sensor, by either route; empty when nothing was.
    pub fn served(&self, sensor_id: &str) -> Vec<Item> {
        let sensor = self.0.source.building().sensor(sensor_id);
        sensor.map_or_else(Vec::new, |sensor| self.0.served(sensor))
    }

    /// What the cloud holds of a sensor at a time in Unix seconds; empty for an unknown sensor.
    pub fn readings(&self, sensor_id: &str, now: f64) -> Vec<Item> {
        let sensor = self.0.source.building().sensor(sensor_id);
        sensor.map_or_else(Vec::new, |sensor| self.0.source.readings(sensor, now))
    }
}

impl Cloud {
    /// The cloud's own clock.
    fn now(&self) -> f64 {
        unix_now() + self.skew
    }

    /// Readings of a sensor to be sent now.
    fn serve_readings(&self, sensor: usize, now: f64) -> Vec<Item> {
        self.served_at[sensor].store(now.to_bits(), Ordering::Relaxed);
        self.source.readings(sensor, now)
    }

    fn served(&self, sensor: usize) -> Vec<Item> {
        match self.served_at[sensor].load(Ordering::Relaxed) {
            0 => Vec::new(),
            bits => self.source.readings(sensor, f64::from_bits(bits)),
        }
    }

    fn requests(&self) -> Requests {
        let get = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Requests {
            token_granted: get(&counters.token_granted),
            token_refused: get(&counters.token_refused),
            sensor: get(&counters.sensor),
            location: get(&counters.location),
            base_location: get(&counters.base_location),
            openapi: get(&counters.openapi),
            unauthorized: get(&counters.unauthorized),
            max_in_flight: get(&counters.max_in_flight),
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// The true time: readings are stamped with it.
fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_cannot_be_simulated_says_why() {
        let error = |options| Simulator::new(options).err().unwrap().to_string();
        let none = Options {
            sensors: 0,
            ..Options::default()
        };
        assert_eq!(
            error(none),
            "a simulated building needs at least one sensor"
        );
        let strange = Options {
            faults: vec!["hang=AQ2-0".parse().unwrap()],
            ..Options::default()
        };
        assert_eq!(
            error(strange),
            "fault hang=AQ2-0: there is no sensor or location of that id; the ids follow from the seed and the number of sensors"
        );
    }
}
