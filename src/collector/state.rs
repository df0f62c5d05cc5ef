//! What is kept of every sensor from one collection to the next, and the snapshot of it. Pure: replies and `now` come in,
//! snapshots go out. Does not decide what to request. Called by `run` and by the collector.
//!
//! A sensor that fails keeps its readings; one that a good reply no longer holds leaves; names and paths stay until others
//! come.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    discovery::{DiscoveredSensor, LocationCache, LocationWalk, non_empty},
    path::LocationPath,
    queue::{CarriedOver, Job},
    readings::{ParsedReadings, VarNames},
    targets::Targets,
};
use crate::{
    api::SensorReply,
    catalog, config,
    snapshot::{Identity, Sensor, SkippedReadings, Snapshot, Summary, UnixTime},
};

/// The number of series that a sensor has without readings, `lightfi_sensor_info` among them.
const SERIES_WITHOUT_READINGS: usize = 4;

/// Everything that is kept between collections.
#[derive(Debug, Default)]
pub struct SensorRegistry {
    pub(super) var_names: VarNames,
    pub(super) locations: Arc<LocationCache>,
    /// The jobs that the last collection had no answer to.
    pub(super) carried_over: BTreeMap<Job, CarriedOver>,
    pub(super) summary: Summary,
    sensors: BTreeMap<Arc<str>, SensorState>,
}

/// What is kept of one sensor.
#[derive(Debug)]
struct SensorState {
    /// As a snapshot shows it.
    sensor: Sensor,
    /// The API's name, as last seen.
    name: Option<Arc<str>>,
    /// Where it was found last.
    path: LocationPath,
    location_id: Option<Arc<str>>,
    /// The location requests whose replies held it last, each once.
    sources: Vec<Arc<str>>,
    /// The number of readings of the last good read that are over the limit of variables.
    dropped: usize,
}

/// The replies to requests for single sensors, with name and readings; `None` if the request failed.
pub(super) type SensorReplies = HashMap<Arc<str>, Option<(Option<Arc<str>>, ParsedReadings)>>;

impl SensorRegistry {
    /// Returns the registry of an exporter that has not collected yet.
    pub fn new(interval: Duration) -> Self {
        let mut registry = Self::default();
        registry.summary.interval = interval;
        registry
    }

    /// Reads the reply to a sensor's own request.
    pub(super) fn parse(
        &mut self,
        reply: SensorReply,
        now: UnixTime,
    ) -> (Option<Arc<str>>, ParsedReadings) {
        let readings = ParsedReadings::parse(reply.items, now, &mut self.var_names);
        let name = non_empty(reply.name.as_deref());
        (name.map(Arc::from), readings)
    }

    /// Returns whether the last collection requested the sensor itself and found it in no location: then it can be requested
    /// before the locations have answered.
    pub(super) fn was_requested_directly(&self, id: &str) -> bool {
        let state = self.sensors.get(id);
        state.is_some_and(|state| state.sensor.read.is_some() && state.sources.is_empty())
    }

    /// Returns whether a location that held the sensor has failed: then the sensor has failed with it.
    pub(super) fn is_covered_by_failed(&self, id: &str, walk: &LocationWalk) -> bool {
        let state = self.sensors.get(id);
        state.is_some_and(|state| state.sources.iter().any(|source| walk.has_failed(source)))
    }

    /// Takes in all replies of a collection that ended at `now`. `summary` says how it went; what is counted here is added.
    pub(super) fn apply(
        &mut self,
        targets: &Targets,
        mut replies: SensorReplies,
        walk: &LocationWalk,
        summary: Summary,
        now: UnixTime,
    ) {
        let (mut discovered, cache) = walk.finish();
        self.locations = Arc::new(cache);
        for id in discovered.keys().chain(targets.sensors.keys()) {
            if !self.sensors.contains_key(id) {
                self.sensors.insert(id.clone(), SensorState::new(id));
            }
        }
        self.sensors.retain(|id, state| {
            // A location that failed does not say that the sensor has left it.
            state.sources.retain(|source| walk.has_failed(source));
            let (found, configured) = (discovered.remove(id), targets.sensors.get(id));
            let stays = found.is_some() || configured.is_some() || !state.sources.is_empty();
            if stays {
                state.apply_reply(found, replies.remove(id), now);
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
        self.enforce_series_limit(targets);
    }

    /// Removes sensors that would make too many series: those that are not configured first, then from the end by id, so that
    /// the same ones stay each time.
    fn enforce_series_limit(&mut self, targets: &Targets) {
        let series = |state: &SensorState| state.max_series(targets.reading_timestamps);
        let mut total: usize = self.sensors.values().map(series).sum();
        if total > targets.max_series {
            let mut ids: Vec<Arc<str>> = self.sensors.keys().rev().cloned().collect();
            ids.sort_by_key(|id| targets.sensors.contains_key(id));
            for id in ids {
                if total <= targets.max_series {
                    break;
                }
                if let Some(state) = self.sensors.remove(&id) {
                    total -= series(&state);
                    self.summary.sensors_dropped += 1;
                    self.summary.readings_dropped += state.sensor.readings.len();
                }
            }
        }
        self.var_names.remove_unused();
    }

    /// Adapts to other targets: sensors that they neither list nor can find leave, the others get the names they configure.
    pub fn reconfigure(&mut self, targets: &Targets) {
        self.summary.interval = targets.interval;
        let reachable = LocationWalk::reachable(targets.locations.clone(), self.locations.clone());
        self.sensors.retain(|id, state| {
            state.sources.retain(|source| reachable.contains(source));
            let configured = targets.sensors.get(id);
            state.update_identity(configured);
            configured.is_some() || !state.sources.is_empty()
        });
        self.enforce_series_limit(targets);
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
            path: LocationPath::default(),
            location_id: None,
            sources: Vec::new(),
            dropped: 0,
        }
    }

    /// Returns the number of series if no reading is stale.
    fn max_series(&self, reading_timestamps: bool) -> usize {
        let timestamps = usize::from(reading_timestamps);
        let readings = self.sensor.readings.iter();
        let of_readings = readings.map(|it| catalog::max_series(&it.var_name) + timestamps);
        SERIES_WITHOUT_READINGS + of_readings.sum::<usize>()
    }

    /// Takes in what a collection found of the sensor. `sources` are the locations that held it before and have failed.
    fn apply_reply(
        &mut self,
        found: Option<DiscoveredSensor>,
        reply: Option<Option<(Option<Arc<str>>, ParsedReadings)>>,
        now: UnixTime,
    ) {
        let was_requested = found.is_some() || reply.is_some() || !self.sources.is_empty();
        let mut readings = None;
        if let Some(found) = found {
            // The deepest placement wins, also while its location fails: labels do not change because of a failure.
            if self.sources.is_empty() || self.path.depth <= found.path.depth {
                if found.path.depth > 0 {
                    self.path = found.path;
                }
                self.location_id = found.location_id.or(self.location_id.take());
            }
            self.name = found.name.or(self.name.take());
            self.sources
                .retain(|source| !found.sources.contains(source));
            self.sources.extend(found.sources);
            readings = found.readings;
        }
        if let Some((name, own_readings)) = reply.flatten() {
            self.name = name.or(self.name.take());
            readings = Some(own_readings.merge(readings));
        }
        if was_requested {
            self.sensor.read = Some(readings.is_some());
        }
        if let Some(mut parsed) = readings {
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
            configured.location.or_else(|| Some(self.path.text.clone())),
            self.location_id.clone(),
            configured.labels,
        );
        if *self.sensor.identity != identity {
            self.sensor.identity = Arc::new(identity);
        }
    }
}
