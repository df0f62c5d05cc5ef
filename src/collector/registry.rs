//! The state of every sensor, kept from one collection to the next, and the snapshot of it. Pure: replies and `now` come in,
//! snapshots go out. Does not decide what to request. Called by `run` and by the collector.
//!
//! A sensor that fails keeps its readings. A sensor that a good reply no longer holds leaves. Names and paths stay until other
//! ones replace them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    discovery::{LocationCache, LocationWalk, SensorUpdate, SensorUpdates},
    path,
    plan::CollectionPlan,
    queue::{CarriedOver, Job},
};
use crate::{
    catalog, config,
    snapshot::{Identity, Sensor, SkippedReadings, Snapshot, Summary, UnixTime},
};

/// The series of a sensor besides its readings: `lightfi_sensor_info` and `SENSOR_FAMILIES` of `exposition/view.rs`.
const SERIES_WITHOUT_READINGS: usize = 4;

/// Everything that is kept between collections.
#[derive(Debug, Default)]
pub struct SensorRegistry {
    pub(super) location_cache: Arc<LocationCache>,
    /// The jobs that the last collection had no answer to.
    pub(super) carried_over: BTreeMap<Job, CarriedOver>,
    pub(super) summary: Summary,
    sensors: BTreeMap<Arc<str>, SensorState>,
}

/// The state of one sensor.
#[derive(Debug)]
struct SensorState {
    /// The part that snapshots show.
    sensor: Sensor,
    /// The API's name, as last seen.
    name: Option<Arc<str>>,
    /// The path at which it was found last; may be empty.
    path: Arc<str>,
    location_id: Option<Arc<str>>,
    /// The location requests whose replies held it last, each once.
    found_by: Vec<Arc<str>>,
    /// The number of readings of the last good read that are over the limit of variables.
    dropped: usize,
}

impl SensorRegistry {
    /// Returns the registry of an exporter that has not collected yet.
    pub fn new(interval: Duration) -> Self {
        let mut registry = Self::default();
        registry.summary.interval = interval;
        registry
    }

    /// Returns whether the sensor has been read or has failed before, and no known location holds it: then it is requested
    /// before the locations have answered.
    pub(super) fn is_known_outside_locations(&self, id: &str) -> bool {
        let state = self.sensors.get(id);
        state.is_some_and(|state| state.sensor.read.is_some() && state.found_by.is_empty())
    }

    /// Returns whether a location that held the sensor has no good reply: then the sensor waits for that location, and fails
    /// with it.
    pub(super) fn was_in_location_without_reply(&self, id: &str, walk: &LocationWalk) -> bool {
        let state = self.sensors.get(id);
        state.is_some_and(|state| state.found_by.iter().any(|id| walk.has_no_good_reply(id)))
    }

    /// Takes in the result of a collection that ended at `now`: the replies to the sensors' own requests in `updates`, and the
    /// locations in `walk`. The counts of sensors are added to `summary`.
    pub(super) fn apply(
        &mut self,
        plan: &CollectionPlan,
        mut updates: SensorUpdates,
        walk: &LocationWalk,
        summary: Summary,
        now: UnixTime,
    ) {
        self.location_cache = Arc::new(walk.place_sensors(&mut updates));
        for id in updates.keys().chain(plan.sensors.keys()) {
            if !self.sensors.contains_key(id) {
                self.sensors.insert(id.clone(), SensorState::new(id));
            }
        }
        self.sensors.retain(|id, state| {
            // Locations that failed are kept: the sensor may still be in them.
            state.found_by.retain(|id| walk.has_no_good_reply(id));
            let (update, configured) = (updates.remove(id), plan.sensors.get(id));
            let stays = update.is_some() || configured.is_some() || !state.found_by.is_empty();
            if stays {
                state.apply(update, now);
                state.update_identity(configured);
            }
            stays
        });
        let states = self.sensors.values();
        self.summary = Summary {
            sensors_failed: states.filter(|it| it.sensor.read == Some(false)).count(),
            readings_dropped: self.sensors.values().map(|state| state.dropped).sum(),
            ..summary
        };
        self.enforce_series_limit(plan);
    }

    /// Removes sensors that would make too many series: those that are not configured first, then from the end by id, so that
    /// the same ones stay each time.
    fn enforce_series_limit(&mut self, plan: &CollectionPlan) {
        let series = |state: &SensorState| state.series_if_fresh(plan.reading_timestamps);
        let mut total: usize = self.sensors.values().map(series).sum();
        if total > plan.max_series {
            let mut ids: Vec<Arc<str>> = self.sensors.keys().rev().cloned().collect();
            ids.sort_by_key(|id| plan.sensors.contains_key(id));
            for id in ids {
                if total <= plan.max_series {
                    break;
                }
                if let Some(state) = self.sensors.remove(&id) {
                    total -= series(&state);
                    self.summary.sensors_dropped += 1;
                    self.summary.readings_dropped += state.sensor.readings.len();
                }
            }
        }
    }

    /// Adapts to another plan: sensors that it neither lists nor can find leave, the others get the names that it configures.
    pub fn reconfigure(&mut self, plan: &CollectionPlan) {
        self.summary.interval = plan.interval;
        let reachable =
            LocationWalk::reachable(plan.locations.clone(), self.location_cache.clone());
        self.sensors.retain(|id, state| {
            state.found_by.retain(|id| reachable.contains(id));
            let configured = plan.sensors.get(id);
            state.update_identity(configured);
            configured.is_some() || !state.found_by.is_empty()
        });
        self.enforce_series_limit(plan);
    }

    /// Returns everything that is known now.
    pub fn snapshot(&self) -> Snapshot {
        let sensors = self.sensors.values().map(|state| state.sensor.clone());
        Snapshot {
            sensors: sensors.collect(),
            summary: self.summary,
        }
    }
}

impl SensorState {
    fn new(id: &Arc<str>) -> Self {
        let identity = Identity::new(id.clone(), None, None, None, BTreeMap::new());
        Self {
            sensor: Sensor {
                identity: Arc::new(identity),
                readings: Arc::default(),
                skipped: SkippedReadings::default(),
                read: None,
                last_success: None,
            },
            name: None,
            path: Arc::default(),
            location_id: None,
            found_by: Vec::new(),
            dropped: 0,
        }
    }

    /// Returns the number of series if no reading is stale.
    fn series_if_fresh(&self, reading_timestamps: bool) -> usize {
        let timestamps = usize::from(reading_timestamps);
        let readings = self.sensor.readings.iter();
        let of_readings = readings.map(|it| catalog::max_series(&it.var_name) + timestamps);
        SERIES_WITHOUT_READINGS + of_readings.sum::<usize>()
    }

    /// Takes in the result of a collection. `found_by` are the locations that held the sensor before and have failed.
    fn apply(&mut self, update: Option<SensorUpdate>, now: UnixTime) {
        let was_requested = update.is_some() || !self.found_by.is_empty();
        let update = update.unwrap_or_default();
        // The deepest placement wins, also while its location fails: labels do not change because of a failure.
        if self.found_by.is_empty()
            || path::name_count(&self.path) <= path::name_count(&update.path)
        {
            if !update.path.is_empty() {
                self.path = update.path;
            }
            self.location_id = update.location_id.or(self.location_id.take());
        }
        self.name = update.name.or(self.name.take());
        self.found_by.retain(|id| !update.found_by.contains(id));
        self.found_by.extend(update.found_by);
        if was_requested {
            self.sensor.read = Some(update.readings.is_some());
        }
        if let Some(mut parsed) = update.readings {
            parsed.keep_newer_counters(&self.sensor.readings);
            self.sensor.readings = parsed.readings;
            self.sensor.skipped = parsed.skipped;
            self.dropped = parsed.dropped;
            self.sensor.last_success = Some(now);
        }
        // If the clock was set back, the last success may lie in the future, where it would stay for as long.
        self.sensor.last_success = self.sensor.last_success.map(|at| at.min(now));
    }

    /// Replaces the labels if anything in them has changed.
    fn update_identity(&mut self, configured: Option<&config::Sensor>) {
        let configured = configured.cloned().unwrap_or_default();
        let identity = Identity::new(
            self.sensor.identity.id.clone(),
            configured.name.or_else(|| self.name.clone()),
            configured
                .location
                .or_else(|| Some(path::label(&self.path))),
            self.location_id.clone(),
            configured.labels,
        );
        if *self.sensor.identity != identity {
            self.sensor.identity = Arc::new(identity);
        }
    }
}
