//! The series that must be exposed, computed from the contract and the good replies of each collection.
//!
//! Small and slow. Of the exporter's own code it uses only the types of requests and replies.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::take,
};

use lightfi_exporter::{
    api::{Item, LocationEntry, LocationReply, SensorReply},
    collector::{Job, Reply},
};

use super::world;

const MOTION_TIME: &str = "lightfi_motion_last_event_timestamp_seconds";

/// A configuration.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Configured sensors, with their configured names.
    pub listed: Vec<(&'static str, Option<&'static str>)>,
    /// Configured locations (`base` among them), and whether they are recursive.
    pub roots: Vec<(&'static str, bool)>,
    pub slots: usize,
    pub interval: u64,
    /// Seconds; 0 = never.
    pub stale_after: u64,
    pub reading_timestamps: bool,
    pub drop_battery: bool,
    pub max_series: usize,
}

impl Setup {
    /// Returns the configured name of a sensor, `None` if the sensor is not configured.
    fn listed(&self, id: &str) -> Option<Option<&'static str>> {
        let listed = self.listed.iter().find(|(listed, _)| *listed == id);
        listed.map(|(_, name)| *name)
    }
}

/// The state of one sensor.
#[derive(Debug, Clone, Default)]
struct Known {
    name: Option<String>,
    configured_name: Option<&'static str>,
    path: Option<String>,
    location_id: Option<String>,
    /// The requests whose good replies held it last.
    sources: BTreeSet<String>,
    /// Time and value by variable.
    readings: BTreeMap<String, (f64, f64)>,
    skipped: BTreeMap<&'static str, u32>,
    read: Option<bool>,
    last_success: Option<f64>,
}

/// The good replies of a collection, with the time at which they came.
type Replies = BTreeMap<Job, (Reply, f64)>;

fn location_reply<'a>(replies: &'a Replies, id: &str) -> Option<(&'a LocationReply, f64)> {
    match replies.get(&Job::Location(id.into()))? {
        (Reply::Location(reply), came) => Some((reply, *came)),
        _ => None,
    }
}

fn sensor_reply<'a>(replies: &'a Replies, id: &str) -> Option<(&'a SensorReply, f64)> {
    match replies.get(&Job::Sensor(id.into()))? {
        (Reply::Sensor(reply), came) => Some((reply, *came)),
        _ => None,
    }
}

#[derive(Debug, Default)]
pub struct Model {
    sensors: BTreeMap<String, Known>,
    /// The children in the last good reply of each location.
    children: BTreeMap<String, Vec<String>>,
    /// The account's base location, once known.
    base: Option<String>,
    summary: BTreeMap<&'static str, f64>,
    /// Sensors and readings.
    dropped: (usize, usize),
    /// The replies of the running collection.
    replies: Replies,
}

/// A metric, its label besides those of the sensor, and the value.
type Series<'a> = (&'static str, Option<(&'a str, &'a str)>, f64);

/// The good readings of one sensor in one collection.
#[derive(Default)]
struct Fresh {
    readings: BTreeMap<String, (f64, f64)>,
    skipped: BTreeMap<&'static str, u32>,
}

impl Fresh {
    fn add(&mut self, items: &[Item], now: f64) {
        for item in items {
            let reason = match item {
                Item::Null => "null",
                Item::Malformed => "malformed",
                Item::Reading { time, .. } if *time > now + 3600.0 => "future",
                Item::Reading {
                    var_name,
                    time,
                    value,
                } => {
                    let new = (*time, *value);
                    let known = self.readings.entry(var_name.clone()).or_insert(new);
                    if new.0 >= known.0 {
                        *known = new;
                    }
                    continue;
                }
            };
            *self.skipped.entry(reason).or_default() += 1;
        }
    }
}

/// One placement of a sensor in one collection.
struct Place<'a> {
    path: Vec<String>,
    root: usize,
    location: String,
    source: String,
    found: &'a LocationEntry,
    came: f64,
}

/// The locations that a collection reaches, and the sensors in them, each sensor's best placement first.
struct Walk<'a> {
    children: BTreeMap<String, Vec<String>>,
    failed: BTreeSet<String>,
    places: Vec<Place<'a>>,
}

impl Model {
    /// A new configuration: sensors that it neither lists nor can find leave.
    pub fn reconfigured(&mut self, setup: &Setup) {
        self.replies.clear();
        let mut reachable = BTreeSet::new();
        for (root, recursive) in &setup.roots {
            let mut ahead = vec![(*root).to_owned()];
            if *root == "base" {
                ahead.extend(self.base.clone());
            }
            while let Some(id) = ahead.pop() {
                if *recursive {
                    ahead.extend(self.children.get(&id).cloned().unwrap_or_default());
                }
                reachable.insert(id);
            }
        }
        self.sensors.retain(|id, known| {
            known.sources.retain(|source| reachable.contains(source));
            known.configured_name = setup.listed(id).flatten();
            setup.listed(id).is_some() || !known.sources.is_empty()
        });
        let dropped = self.dropped.0;
        self.drop_excess(setup);
        self.dropped.0 += dropped;
    }

    /// Sensors that are not configured go first, then those with the last ids.
    fn drop_excess(&mut self, setup: &Setup) {
        self.dropped = (0, 0);
        let series = |known: &Known| {
            let of_readings = known.readings.keys().map(|var_name| {
                let values = match var_name.as_str() {
                    "onlineStatus" => 5,
                    "motionEvent" => 2,
                    _ => 1,
                };
                values + usize::from(setup.reading_timestamps)
            });
            4 + of_readings.sum::<usize>()
        };
        while self.sensors.values().map(series).sum::<usize>() > setup.max_series {
            let ids = self.sensors.keys().cloned();
            let last = ids.max_by_key(|id| (setup.listed(id).is_none(), id.clone()));
            let last = last.and_then(|id| self.sensors.remove(&id));
            self.dropped.0 += 1;
            self.dropped.1 += last.map_or(0, |known| known.readings.len());
        }
    }

    pub fn answered(&mut self, job: Job, reply: Reply, now: f64) {
        self.replies.insert(job, (reply, now));
    }

    /// The collection has ended at `now`.
    pub fn collected(&mut self, setup: &Setup, now: f64) {
        let replies = take(&mut self.replies);
        let asks_base = setup.roots.iter().any(|(root, _)| *root == "base");
        let base = location_reply(&replies, "base").and_then(|(reply, _)| reply.id.clone());
        self.base = base.or(self.base.take()).filter(|_| asks_base);
        let walk = self.walk(setup, &replies);
        let known = take(&mut self.sensors);
        let found = walk.places.iter().map(|place| place.found.id.as_str());
        let listed = setup.listed.iter().map(|(id, _)| *id);
        let ids: BTreeSet<&str> = found
            .chain(listed)
            .chain(known.keys().map(String::as_str))
            .collect();
        for id in ids {
            let known = known.get(id).cloned().unwrap_or_default();
            let updated = known.updated(id, setup, &walk, sensor_reply(&replies, id), now);
            self.sensors
                .extend(updated.map(|known| (id.to_owned(), known)));
        }
        self.drop_excess(setup);
        // The base location has two requests and counts once.
        let base = self.base.clone().unwrap_or("base".to_owned());
        let failed = walk.failed.iter().map(|id| match id.as_str() {
            "base" => &base,
            _ => id,
        });
        let failed = failed.collect::<BTreeSet<_>>().len();
        self.children = walk.children;
        let up = !replies.is_empty() || (setup.listed.is_empty() && setup.roots.is_empty());
        let known = self.sensors.values();
        let unread = known.filter(|known| known.read == Some(false)).count();
        self.summary.extend([
            ("lightfi_up", f64::from(up)),
            ("lightfi_collect_sensors_failed", unread as f64),
            ("lightfi_collect_locations_failed", failed as f64),
        ]);
        if up {
            let success = "lightfi_collect_last_success_timestamp_seconds";
            self.summary.insert(success, now);
        }
    }

    fn walk<'a>(&self, setup: &Setup, replies: &'a Replies) -> Walk<'a> {
        let mut walk = Walk {
            children: BTreeMap::new(),
            failed: BTreeSet::new(),
            places: Vec::new(),
        };
        for (root, (id, recursive)) in setup.roots.iter().enumerate() {
            // The request, its location, and the names above.
            let mut ahead = vec![((*id).to_owned(), (*id).to_owned(), Vec::new())];
            if *id == "base" {
                ahead[0].1 = self.base.clone().unwrap_or_default();
                let base = self.base.iter().cloned();
                ahead.extend(base.map(|base| (base.clone(), base, Vec::new())));
            }
            while let Some((source, location, mut path)) = ahead.pop() {
                if !location.is_empty() {
                    path.push(world::location(&location).name.to_owned());
                }
                let reply = location_reply(replies, &source);
                if let Some((reply, came)) = reply {
                    let sensors = reply.sensors.iter();
                    for found in sensors.filter(|it| *recursive || it.parent.is_none()) {
                        let parent = found.parent.as_deref();
                        let below = parent.map(|id| world::location(id).name.to_owned());
                        walk.places.push(Place {
                            path: path.iter().cloned().chain(below).collect(),
                            root,
                            location: parent.unwrap_or(&location).to_owned(),
                            source: source.clone(),
                            found,
                            came,
                        });
                    }
                }
                let children: Vec<String> = match reply {
                    Some((reply, _)) => reply.children.iter().map(|it| it.id.clone()).collect(),
                    None => self.children.get(&source).cloned().unwrap_or_default(),
                };
                if reply.is_none() {
                    walk.failed.insert(source.clone());
                }
                if *recursive {
                    let below = children.iter().cloned();
                    ahead.extend(below.map(|child| (child.clone(), child, path.clone())));
                }
                walk.children.insert(source, children);
            }
        }
        let number = |place: &Place| place.location.parse::<u32>().expect("ids are numbers");
        walk.places
            .sort_by_key(|place| (usize::MAX - place.path.len(), place.root, number(place)));
        walk
    }

    /// Every series of a sensor and of the collection that a scrape at `now` must show, and no other.
    pub fn shown(&self, setup: &Setup, now: f64) -> BTreeMap<String, f64> {
        let mut shown = BTreeMap::new();
        let reasons = ["null", "malformed", "non_finite", "future", "older"];
        let mut skipped = BTreeMap::from(reasons.map(|reason| (reason, 0)));
        for (id, known) in &self.sensors {
            known.show(id, setup, now, &mut shown);
            for (reason, count) in &known.skipped {
                *skipped.get_mut(reason).expect("a known reason") += count;
            }
        }
        for (reason, count) in skipped {
            let labels = BTreeMap::from([("reason", reason)]);
            let series = format!("lightfi_collect_readings_skipped{labels:?}");
            shown.insert(series, f64::from(count));
        }
        let unmapped = shown.keys().any(|it| it.starts_with("lightfi_reading{"));
        let mut collection = BTreeMap::from([
            ("lightfi_up", 0.0),
            ("lightfi_collect_sensors_failed", 0.0),
            ("lightfi_collect_locations_failed", 0.0),
            ("lightfi_collect_sensors", self.sensors.len() as f64),
            ("lightfi_collect_sensors_dropped", self.dropped.0 as f64),
            ("lightfi_collect_readings_dropped", self.dropped.1 as f64),
            ("lightfi_collect_interval_seconds", setup.interval as f64),
            ("lightfi_exporter_unmapped_variables", f64::from(unmapped)),
        ]);
        collection.extend(&self.summary);
        let collection = collection.into_iter();
        shown.extend(collection.map(|(name, value)| (format!("{name}{{}}"), value)));
        shown
    }
}

impl Known {
    /// The state after a collection; `None` if the sensor has left.
    fn updated(
        mut self,
        id: &str,
        setup: &Setup,
        walk: &Walk<'_>,
        own: Option<(&SensorReply, f64)>,
        now: f64,
    ) -> Option<Self> {
        let places = walk.places.iter().filter(|place| place.found.id == id);
        let places: Vec<&Place> = places.collect();
        self.sources.retain(|source| walk.failed.contains(source));
        if places.is_empty() && setup.listed(id).is_none() && self.sources.is_empty() {
            return None;
        }
        let own_name = own.map(|(reply, _)| &reply.name);
        let names = own_name
            .into_iter()
            .chain(places.iter().map(|place| &place.found.name));
        let name = names.flatten().find(|name| !name.is_empty());
        self.name = name.cloned().or(self.name);
        self.configured_name = setup.listed(id).flatten();
        if let Some(best) = places.first() {
            let path = best.path.join(" / ");
            let depth = |path: &str| path.split(" / ").count();
            // Labels do not change only because the deeper location has failed.
            let is_deeper = |known: &String| depth(known) > depth(&path);
            if self.sources.is_empty() || !self.path.as_ref().is_some_and(is_deeper) {
                self.path = Some(path);
                self.location_id = Some(best.location.clone());
            }
        }
        let mut fresh: Option<Fresh> = None;
        let mut sources = BTreeSet::new();
        for place in places {
            let is_first = sources.insert(place.source.clone());
            if let Some(items) = place.found.items.as_ref().filter(|_| is_first) {
                fresh.get_or_insert_default().add(items, place.came);
            }
        }
        self.sources.extend(sources);
        if let Some((reply, came)) = own {
            fresh.get_or_insert_default().add(&reply.items, came);
        }
        self.read = Some(fresh.is_some());
        if let Some(fresh) = fresh {
            self.replace_readings(fresh);
            self.last_success = Some(now);
        }
        Some(self)
    }

    fn replace_readings(&mut self, mut fresh: Fresh) {
        let known = self.readings.get("energyInkWh");
        if let (Some(known), Some(meter)) = (known, fresh.readings.get_mut("energyInkWh"))
            && known.0 > meter.0
        {
            *meter = *known;
            *fresh.skipped.entry("older").or_default() += 1;
        }
        self.readings = fresh.readings;
        self.skipped = fresh.skipped;
    }

    /// Adds every series of the sensor.
    fn show(&self, id: &str, setup: &Setup, now: f64, shown: &mut BTreeMap<String, f64>) {
        let name = self.configured_name.or(self.name.as_deref()).unwrap_or(id);
        let mut put = |metric: &str, more: &[(&str, &str)], value: f64| {
            let mut labels = BTreeMap::from([("sensor_id", id), ("sensor", name)]);
            labels.extend(self.path.as_deref().map(|path| ("location", path)));
            labels.extend(more.iter().copied());
            let twice = shown.insert(format!("{metric}{labels:?}"), value);
            assert_eq!(twice, None);
        };
        let mut stale = 0.0;
        let mut newest = f64::NEG_INFINITY;
        for (var_name, (time, value)) in &self.readings {
            if var_name == "batteryLevelPct" && setup.drop_battery {
                continue;
            }
            if var_name != "onlineStatus" {
                newest = f64::max(newest, *time);
            }
            let series = self.series(var_name, *time, *value, setup, now);
            let is_fresh = series.iter().any(|(metric, ..)| *metric != MOTION_TIME);
            stale += f64::from(!is_fresh);
            if setup.reading_timestamps && !series.is_empty() {
                let label = ("var_name", var_name.as_str());
                put("lightfi_reading_timestamp_seconds", &[label], *time);
            }
            for (metric, label, value) in series {
                put(metric, label.as_slice(), value);
            }
        }
        let model = [("AQ2", "Alpine"), ("LF5", "Sahara"), ("AMP", "X1")];
        let model = model.iter().find(|(prefix, _)| id.starts_with(prefix));
        let model = model.map(|(_, model)| ("model", *model));
        let location_id = self.location_id.as_deref().map(|id| ("location_id", id));
        let info: Vec<_> = model.into_iter().chain(location_id).collect();
        put("lightfi_sensor_info", &info, 1.0);
        put("lightfi_sensor_stale_readings", &[], stale);
        if let Some(read) = self.read {
            put("lightfi_sensor_read_success", &[], f64::from(read));
        }
        if newest.is_finite() {
            put("lightfi_sensor_last_reading_timestamp_seconds", &[], newest);
        }
    }

    /// The series of one reading that are exposed.
    fn series<'a>(
        &self,
        var_name: &'a str,
        time: f64,
        value: f64,
        setup: &Setup,
        now: f64,
    ) -> Vec<Series<'a>> {
        let within = |since: f64, limit: u64| limit == 0 || now <= since + limit as f64;
        let last_success = self.last_success.unwrap_or(f64::NEG_INFINITY);
        let read_recently = within(last_success, setup.stale_after);
        let (metric, label, value, limit) = match var_name {
            "onlineStatus" => {
                let current = match value {
                    1.0 => "online",
                    0.0 => "offline",
                    -1.0 => "rebooting",
                    -2.0 => "retired",
                    _ => "unknown",
                };
                let statuses = ["online", "offline", "rebooting", "retired", "unknown"];
                let series = statuses.map(|status| {
                    let value = f64::from(status == current);
                    ("lightfi_sensor_status", Some(("status", status)), value)
                });
                return series.into_iter().filter(|_| read_recently).collect();
            }
            "temperatureC" => ("lightfi_temperature_celsius", None, value, None),
            "batteryLevelPct" => {
                let limit = Some(14 * 86_400);
                ("lightfi_battery_ratio", None, value / 100.0, limit)
            }
            "energyInkWh" => {
                let joules = value * 3_600_000.0;
                ("lightfi_energy_joules_total", None, joules, Some(86_400))
            }
            "motionEvent" => ("lightfi_motion_activity", None, value, None),
            _ => ("lightfi_reading", Some(("var_name", var_name)), value, None),
        };
        let is_fresh = within(time, limit.unwrap_or(setup.stale_after));
        let mut series = Vec::new();
        series.extend(is_fresh.then_some((metric, label, value)));
        let has_motion_time = var_name == "motionEvent" && read_recently;
        series.extend(has_motion_time.then_some((MOTION_TIME, None, time)));
        series
    }
}
