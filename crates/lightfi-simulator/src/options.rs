//! The options of a simulated cloud.

use std::time::Duration;

use super::{faults::Fault, replay::Replay};

/// The options of a simulated cloud.
#[derive(Debug, Clone)]
pub struct Options {
    /// The number of sensors.
    pub sensors: usize,
    /// The seed of the building, the client credentials and the refresh tokens.
    pub seed: u64,
    /// The delay added to every API response.
    pub latency: Duration,
    /// The lifetime of access tokens, in whole seconds.
    pub token_lifetime: Duration,
    /// Whether each refresh returns a new refresh token.
    pub rotate_refresh_tokens: bool,
    /// How long a refresh token stays valid after its rotation.
    pub rotation_grace: Duration,
    /// Redirect URIs allowed in addition to the usual ones, compared exactly.
    pub redirect_uris: Vec<String>,
    /// Whether a login returns a refresh token.
    pub login_gives_refresh_token: bool,
    /// The faults that are on from the start.
    pub faults: Vec<Fault>,
    /// Seconds by which the cloud's clock is ahead. The clock stamps tokens and the `Date` header, but not readings.
    pub clock_skew: f64,
    /// Recorded readings to serve instead of simulated ones.
    pub replay: Option<Replay>,
    /// How the exporter's configuration lists the sensors.
    pub listing: Listing,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sensors: 40,
            seed: 1,
            latency: Duration::ZERO,
            token_lifetime: Duration::from_secs(4 * 3600),
            rotate_refresh_tokens: false,
            // The maximum that Cognito allows.
            rotation_grace: Duration::from_secs(60),
            redirect_uris: Vec::new(),
            login_gives_refresh_token: true,
            faults: Vec::new(),
            clock_skew: 0.0,
            replay: None,
            listing: Listing::default(),
        }
    }
}

/// How the exporter's configuration lists the sensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listing {
    /// The first building's sensors by id, the other buildings and sites as locations, and one sensor both ways.
    #[default]
    Mixed,
    /// Every sensor by its id.
    Sensors,
    /// The base location, which contains everything.
    Locations,
}
