//! The sensors and locations to request, and the limits. Made by the collector from the configuration, read by
//! `run` and `registry`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::config::{Config, Location, Sensor};

/// The id under `locations:` that means the account's base location.
pub(super) const BASE_LOCATION: &str = "base";

/// What a collection requests, and its limits.
#[derive(Debug, Clone)]
pub struct CollectionPlan {
    /// The configured sensors by id. They are requested one by one, unless a location's reply covers them.
    pub sensors: BTreeMap<Arc<str>, Sensor>,
    /// The configured locations, whose replies hold all their sensors.
    pub locations: Arc<[Location]>,
    /// The number of requests in flight at most.
    pub max_concurrency: usize,
    /// The effective interval between the starts of two collections.
    pub interval: Duration,
    /// The number of series of all sensors together at most.
    pub max_series: usize,
    /// Whether the time of each reading is a series too.
    pub reading_timestamps: bool,
}

impl CollectionPlan {
    /// Makes the plan of a configuration.
    pub fn new(config: &Config) -> Self {
        let sensors = config.sensors.iter().cloned();
        Self {
            sensors: sensors.map(|sensor| (sensor.id.clone(), sensor)).collect(),
            locations: config.locations.iter().cloned().collect(),
            max_concurrency: config.api.max_concurrency,
            interval: config.effective_interval(),
            max_series: config.collect.max_series,
            reading_timestamps: config.metrics.reading_timestamps,
        }
    }
}
