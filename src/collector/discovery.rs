//! Finds sensors by walking the configured locations: which locations to request, and where each sensor was found. Pure: sends
//! nothing, never waits. Called by `run`, and for the result by `registry`.
//!
//! Each location is requested once, however many paths lead to it. Where a sensor is found is decided at the end, from all
//! replies together, so that it never depends on the order of the replies.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    mem::take,
    sync::Arc,
};

use super::{path, plan::BASE_LOCATION, readings::ParsedReadings};
use crate::{
    api::{LocationEntry, LocationReply},
    config,
    snapshot::UnixTime,
};

/// The number of child locations in the replies of one collection at most.
const MAX_CHILD_LOCATIONS: usize = 100_000;
/// How many sensors and items the replies of one collection may hold for each series of `collect.max_series`. A smaller excess
/// is left out at the end of the collection, always the same sensors.
const MAX_SENSORS_AND_ITEMS_PER_SERIES: usize = 2;
/// The number of levels of locations at most; a deeper tree has a loop.
const MAX_DEPTH: usize = 32;

/// The last good reply of each location, for use while the location fails: without the sensors, and with all names that
/// earlier replies had.
pub(super) type LocationCache = HashMap<Arc<str>, Arc<LocationReply>>;

/// The request for one location in this collection.
#[derive(Debug)]
struct LocationRequest {
    /// Whether the children are requested too.
    recursive: bool,
    outcome: LocationOutcome,
    /// The location's reply from this collection, or else the cached one.
    location: Arc<LocationReply>,
    /// The sensors in the reply. The readings are `None` if they are not of the known shape.
    sensors: Vec<(LocationEntry, Option<ParsedReadings>)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum LocationOutcome {
    Pending,
    Failed,
    Answered,
}

/// The result of a collection for one sensor, from its own request and from the locations that hold it.
#[derive(Debug, Default)]
pub(super) struct SensorUpdate {
    pub(super) name: Option<Arc<str>>,
    /// The path of the best placement (the deepest path, then the order in `locations:`, then the smaller id). Empty if the
    /// sensor is in no location.
    pub(super) path: Arc<str>,
    pub(super) location_id: Option<Arc<str>>,
    /// The location requests whose replies hold it.
    pub(super) found_by: Vec<Arc<str>>,
    /// `None` if no reply holds readings of the known shape.
    pub(super) readings: Option<ParsedReadings>,
}

/// The results of a collection by sensor id.
pub(super) type SensorUpdates = BTreeMap<Arc<str>, SensorUpdate>;

/// A path to a location, and the configured location at which it starts.
struct PathFromRoot<'a> {
    path: Arc<str>,
    /// The index in `locations:`.
    root: usize,
    /// The locations above it.
    ancestors: Vec<&'a str>,
}

/// The walk of one collection.
#[derive(Debug)]
pub(super) struct LocationWalk {
    roots: Arc<[config::Location]>,
    cache: Arc<LocationCache>,
    requests: BTreeMap<Arc<str>, LocationRequest>,
    /// Requests that [`Self::take_to_request`] has not returned yet.
    new: Vec<Arc<str>>,
    child_count: usize,
    sensor_and_item_count: usize,
}

impl LocationWalk {
    /// Starts a walk with the configured locations.
    pub(super) fn start(roots: Arc<[config::Location]>, cache: Arc<LocationCache>) -> Self {
        let mut walk = Self {
            roots: roots.clone(),
            cache,
            requests: BTreeMap::new(),
            new: Vec::new(),
            child_count: 0,
            sensor_and_item_count: 0,
        };
        for root in &*roots {
            walk.add_request(&root.id, root.recursive);
        }
        walk
    }

    /// Returns the locations that can be reached, as far as the cache knows them.
    pub(super) fn reachable(
        roots: Arc<[config::Location]>,
        cache: Arc<LocationCache>,
    ) -> HashSet<Arc<str>> {
        let mut walk = Self::start(roots, cache);
        walk.fail_pending();
        walk.requests.into_keys().collect()
    }

    /// Returns the locations that are to be requested since the last call.
    pub(super) fn take_to_request(&mut self) -> Vec<Arc<str>> {
        take(&mut self.new)
    }

    /// Takes in the reply of a location. Returns an error if it exceeds a limit of the collection.
    pub(super) fn apply_reply(
        &mut self,
        id: &str,
        reply: LocationReply,
        max_series: usize,
        now: UnixTime,
    ) -> Result<(), String> {
        let sensor_and_items =
            |sensor: &LocationEntry| 1 + sensor.items.as_ref().map_or(0, Vec::len);
        let sensor_and_item_count =
            self.sensor_and_item_count + reply.sensors.iter().map(sensor_and_items).sum::<usize>();
        let child_count = self.child_count + reply.children.len();
        if sensor_and_item_count > max_series.saturating_mul(MAX_SENSORS_AND_ITEMS_PER_SERIES) {
            return Err(format!(
                "this reply brings the collection over {MAX_SENSORS_AND_ITEMS_PER_SERIES} sensors and readings for each series of \
                 collect.max_series ({max_series}); raise it, or list fewer locations"
            ));
        }
        if child_count > MAX_CHILD_LOCATIONS {
            return Err(format!(
                "this reply brings the collection over {MAX_CHILD_LOCATIONS} child locations; list fewer locations"
            ));
        }
        (self.sensor_and_item_count, self.child_count) = (sensor_and_item_count, child_count);
        if let Some(request) = self.requests.get_mut(id) {
            request.set_answered(reply, now);
        }
        self.add_children(id);
        Ok(())
    }

    /// Marks a location as failed.
    pub(super) fn apply_failure(&mut self, id: &str) {
        if let Some(request) = self.requests.get_mut(id) {
            request.outcome = LocationOutcome::Failed;
        }
        self.add_children(id);
    }

    /// Marks all pending locations as failed, and also those below them that the cache knows, which are added to the new requests
    /// so that `run` reports them.
    pub(super) fn fail_pending(&mut self) {
        let requests = self.requests.iter();
        let pending = requests.filter(|(_, it)| it.outcome == LocationOutcome::Pending);
        let mut pending: Vec<Arc<str>> = pending.map(|(id, _)| id.clone()).collect();
        while let Some(id) = pending.pop() {
            let known = self.new.len();
            self.apply_failure(&id);
            pending.extend_from_slice(&self.new[known..]);
        }
    }

    fn add_request(&mut self, id: &str, recursive: bool) {
        let id: Arc<str> = id.into();
        let request = self.requests.entry(id.clone()).or_insert_with(|| {
            self.new.push(id.clone());
            LocationRequest {
                recursive: false,
                outcome: LocationOutcome::Pending,
                location: self.cache.get(&id).cloned().unwrap_or_default(),
                sensors: Vec::new(),
            }
        });
        if recursive && !request.recursive {
            request.recursive = true;
            self.add_children(&id);
        }
    }

    /// Requests the children of a location that was answered; of one that failed, those it had before.
    fn add_children(&mut self, id: &str) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        if request.outcome == LocationOutcome::Pending {
            return;
        }
        let (location, recursive) = (request.location.clone(), request.recursive);
        if id == BASE_LOCATION
            && let Some(base_id) = &location.id
        {
            self.add_request(base_id, recursive);
        }
        for child in location.children.iter().filter(|_| recursive) {
            self.add_request(&child.id, true);
        }
    }

    /// Returns whether any location but these has neither answered nor failed yet.
    pub(super) fn is_pending_except(&self, retried: &HashSet<Arc<str>>) -> bool {
        let mut requests = self.requests.iter();
        requests.any(|(id, request)| {
            request.outcome == LocationOutcome::Pending && !retried.contains(id)
        })
    }

    /// Returns the sensors in the good replies so far.
    pub(super) fn sensors_in_replies(&self) -> HashSet<&str> {
        let requests = self.requests.values();
        let sensors = requests.flat_map(LocationRequest::counted_sensors);
        sensors.map(|(sensor, _)| &*sensor.id).collect()
    }

    /// Returns whether the location was requested and has no good reply.
    pub(super) fn has_no_good_reply(&self, id: &str) -> bool {
        let request = self.requests.get(id);
        request.is_some_and(|request| request.outcome != LocationOutcome::Answered)
    }

    /// Returns how many locations have no good reply, and how many requests have one.
    pub(super) fn counts(&self) -> (usize, usize) {
        let ids = self.requests.keys();
        let failed: Vec<&Arc<str>> = ids.filter(|id| self.has_no_good_reply(id)).collect();
        let answered = self.requests.len() - failed.len();
        let failed: HashSet<_> = failed.into_iter().map(|id| self.location_id(id)).collect();
        (failed.len(), answered)
    }

    /// Returns the id of the location that a request is about. The base location is requested twice: as `base`, for its id, and
    /// under that id, for its content.
    fn location_id<'a>(&'a self, request_id: &'a str) -> &'a str {
        let base = self.requests.get(BASE_LOCATION);
        match base.and_then(|base| base.location.id.as_deref()) {
            Some(base_id) if request_id == BASE_LOCATION => base_id,
            _ => request_id,
        }
    }

    /// Adds every sensor that was found to `updates`, which hold the sensors' own replies. Returns the cache for the next
    /// collection.
    pub(super) fn place_sensors(&self, updates: &mut SensorUpdates) -> LocationCache {
        let paths = self.paths();
        let mut placements = Vec::new();
        for (request_id, request) in &self.requests {
            for (sensor, readings) in request.counted_sensors() {
                let id = sensor.parent.as_deref();
                let id = id.unwrap_or_else(|| self.location_id(request_id));
                if let Some(from_root) = paths.get(id) {
                    placements.push((id, from_root, request_id, sensor, readings));
                }
            }
        }
        // A placement is one location in which a sensor was found, with the path to it.
        placements.sort_by_key(|(id, from_root, ..)| {
            let number = id.parse().unwrap_or(u64::MAX);
            let depth = path::name_count(&from_root.path);
            (Reverse(depth), from_root.root, number, *id)
        });
        for (id, from_root, request_id, sensor, readings) in placements {
            let found = updates.entry(sensor.id.as_str().into()).or_default();
            // The best placement comes first.
            if found.found_by.is_empty() {
                found.path = from_root.path.clone();
                found.location_id = (id != BASE_LOCATION).then(|| id.into());
            }
            let name = non_empty(sensor.name.as_deref());
            found.name = found.name.take().or_else(|| name.map(Arc::from));
            if !found.found_by.contains(request_id) {
                found.found_by.push(request_id.clone());
            }
            if let Some(readings) = readings {
                found.readings = Some(readings.clone().merge(found.readings.take()));
            }
        }
        let requests = self.requests.iter();
        requests
            .map(|(id, request)| (id.clone(), request.location.clone()))
            .collect()
    }

    /// Returns the path with the most names to each location; of equal ones, the one whose root is listed first.
    fn paths(&self) -> HashMap<&str, PathFromRoot<'_>> {
        let mut children = HashMap::<&str, Vec<&LocationEntry>>::new();
        for (request_id, request) in &self.requests {
            for child in &request.location.children {
                let parent = child.parent.as_deref();
                let parent = parent.unwrap_or_else(|| self.location_id(request_id));
                children.entry(parent).or_default().push(child);
            }
        }
        let mut longest = HashMap::<&str, PathFromRoot<'_>>::new();
        for root in 0..self.roots.len() {
            for (id, found) in self.paths_from(root, &children) {
                let known = longest.get(id);
                if known.is_none_or(|known| {
                    path::name_count(&known.path) < path::name_count(&found.path)
                }) {
                    longest.insert(id, found);
                }
            }
        }
        longest
    }

    /// Returns the path with the most levels below one root to each location.
    fn paths_from<'a>(
        &'a self,
        root: usize,
        children: &HashMap<&'a str, Vec<&'a LocationEntry>>,
    ) -> HashMap<&'a str, PathFromRoot<'a>> {
        let configured = &self.roots[root];
        let id = self.location_id(&configured.id);
        let own_name = || self.name(id).or_else(|| self.name(&configured.id));
        let name = configured.name.as_deref().or_else(own_name);
        let start = PathFromRoot {
            path: name.unwrap_or_default().into(),
            root,
            ancestors: Vec::new(),
        };
        let mut paths = HashMap::from([(id, start)]);
        let mut ahead: Vec<&str> = configured.recursive.then_some(id).into_iter().collect();
        while let Some(id) = ahead.pop() {
            for child in children.get(id).into_iter().flatten() {
                let above = &paths[id];
                let depth = above.ancestors.len() + 1;
                let is_loop = child.id == id || above.ancestors.contains(&&*child.id);
                let known = paths.get(&*child.id);
                let is_longer = known.is_none_or(|known| known.ancestors.len() < depth);
                if !is_longer || is_loop || depth > MAX_DEPTH {
                    continue;
                }
                // The child's own reply may hold a name that its parent's reply does not.
                let name = non_empty(child.name.as_deref()).or_else(|| self.name(&child.id));
                let below = PathFromRoot {
                    path: path::join(&above.path, name.unwrap_or_default()).into(),
                    root,
                    ancestors: above.ancestors.iter().copied().chain([id]).collect(),
                };
                paths.insert(&child.id, below);
                ahead.push(&child.id);
            }
        }
        paths
    }

    /// Returns the name in a location's own reply.
    fn name(&self, id: &str) -> Option<&str> {
        self.requests.get(id)?.location.name.as_deref()
    }
}

impl LocationRequest {
    /// Takes in a good reply. Names that it does not hold are kept.
    fn set_answered(&mut self, mut reply: LocationReply, now: UnixTime) {
        let cached = self.location.clone();
        let children = cached.children.iter();
        let cached_names: HashMap<&str, &Option<String>> =
            children.map(|child| (&*child.id, &child.name)).collect();
        for child in &mut reply.children {
            if non_empty(child.name.as_deref()).is_none() {
                child.name = cached_names.get(&*child.id).copied().cloned().flatten();
            }
        }
        if non_empty(reply.name.as_deref()).is_none() {
            reply.name = cached.name.clone();
        }
        reply.id = reply.id.take().or_else(|| cached.id.clone());
        let sensors = take(&mut reply.sensors).into_iter().map(|mut sensor| {
            let items = sensor.items.take();
            (sensor, items.map(|items| ParsedReadings::parse(items, now)))
        });
        self.sensors = sensors.collect();
        self.location = Arc::new(reply);
        self.outcome = LocationOutcome::Answered;
    }

    /// Returns the sensors in the reply; without recursion, not those that are nested in a child location.
    fn counted_sensors(&self) -> impl Iterator<Item = &(LocationEntry, Option<ParsedReadings>)> {
        let sensors = self.sensors.iter();
        sensors.filter(|(sensor, _)| self.recursive || sensor.parent.is_none())
    }
}

/// Returns `None` for an empty text: to the API it is the same as none.
pub(super) fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}
