//! What may be shown, worked out anew from the contract: which answers came in a collection, and what follows from them.
//!
//! Small and slow, and of the exporter's own it uses only the words of requests and replies.

use std::collections::{BTreeMap, BTreeSet};

use lightfi_exporter::{
    api::{Item, LocationEntry},
    collector::{Job, Reply},
};

/// A configuration.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Listed sensors, with the names that the configuration gives them.
    pub listed: Vec<(&'static str, Option<&'static str>)>,
    /// Listed locations (`base` among them), with whether they are recursive.
    pub roots: Vec<(&'static str, bool)>,
    pub slots: usize,
    pub interval: u64,
    /// Seconds; 0 = never.
    pub stale_after: u64,
    pub reading_timestamps: bool,
    pub drop_battery: bool,
    pub max_series: usize,
}

/// What is known of one sensor.
#[derive(Debug, Clone, Default)]
struct Known {
    name: Option<String>,
    configured_name: Option<&'static str>,
    path: Option<String>,
    location_id: Option<String>,
    /// Where good replies held it last, as far as nobody has said that it left.
    sources: BTreeSet<String>,
    readings: BTreeMap<String, (f64, f64)>,
    skipped: BTreeMap<&'static str, u32>,
    read: Option<bool>,
    last_success: Option<f64>,
}

#[derive(Debug, Default)]
pub struct Model {
    sensors: BTreeMap<String, Known>,
    /// By location: the children that its last good reply told of.
    children: BTreeMap<String, Vec<String>>,
    /// The account's base location, once told.
    base: Option<String>,
    summary: BTreeMap<&'static str, f64>,
    /// Sensors and readings.
    dropped: (usize, usize),
    /// Answers of the collection under way that were good, with the time at which they came.
    good: BTreeMap<Job, (Reply, f64)>,
}

/// Good readings of one sensor in one collection.
#[derive(Default)]
struct Fresh {
    readings: BTreeMap<String, (f64, f64)>,
    skipped: BTreeMap<&'static str, u32>,
}

impl Fresh {
    fn add(&mut self, items: &[Item], now: f64) {
        for item in items {
            let mut skip = |reason| *self.skipped.entry(reason).or_default() += 1;
            match item {
                Item::Null => skip("null"),
                Item::Malformed => skip("malformed"),
                Item::Reading { time, .. } if *time > now + 3600.0 => skip("future"),
                Item::Reading {
                    var_name,
                    time,
                    value,
                } => {
                    let known = self
                        .readings
                        .entry(var_name.to_string())
                        .or_insert((*time, *value));
                    if *time >= known.0 {
                        *known = (*time, *value);
                    }
                }
            }
        }
    }
}

/// One place of a sensor in one collection; the greatest is the best.
struct Place<'a> {
    path: Vec<String>,
    root: usize,
    location: String,
    source: String,
    found: &'a LocationEntry,
    came: f64,
}

impl Model {
    /// A new configuration: sensors that it neither lists nor can find leave.
    pub fn reconfigured(&mut self, setup: &Setup) {
        self.good.clear();
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
            let listed = setup.listed.iter().find(|(listed, _)| listed == id);
            known.configured_name = listed.and_then(|(_, name)| *name);
            listed.is_some() || !known.sources.is_empty()
        });
        let dropped = self.dropped.0;
        self.drop_excess(setup);
        self.dropped.0 += dropped;
    }

    /// Sensors that are not listed go first, then those with the last ids.
    fn drop_excess(&mut self, setup: &Setup) {
        self.dropped = (0, 0);
        let series = |known: &Known| {
            let of_time = usize::from(setup.reading_timestamps);
            let of_reading = |name: &String| match name.as_str() {
                "onlineStatus" => 5,
                "motionEvent" => 2,
                _ => 1,
            };
            let readings = known.readings.keys();
            4 + readings
                .map(|name| of_reading(name) + of_time)
                .sum::<usize>()
        };
        while self.sensors.values().map(series).sum::<usize>() > setup.max_series {
            let is_listed = |id: &str| setup.listed.iter().any(|(listed, _)| *listed == id);
            let last = self
                .sensors
                .keys()
                .max_by_key(|id| (!is_listed(id), (*id).clone()));
            let last = last.expect("none make no series").clone();
            let readings = self
                .sensors
                .remove(&last)
                .map_or(0, |known| known.readings.len());
            self.dropped = (self.dropped.0 + 1, self.dropped.1 + readings);
        }
    }

    pub fn answered(&mut self, job: Job, reply: Reply, now: f64) {
        self.good.insert(job, (reply, now));
    }

    /// A collection that has come to its end.
    pub fn collected(&mut self, setup: &Setup, now: f64) {
        let good = std::mem::take(&mut self.good);
        let reply = |id: &str| match good.get(&Job::Location(id.into())) {
            Some((Reply::Location(reply), came)) => Some((reply, *came)),
            _ => None,
        };
        let asks_base = setup.roots.iter().any(|(root, _)| *root == "base");
        if asks_base {
            let told = reply("base").and_then(|(reply, _)| reply.id.clone());
            self.base = told.or(self.base.take());
        } else {
            self.base = None;
        }
        let known_children = std::mem::take(&mut self.children);
        let children = |id: &str| match reply(id) {
            Some((reply, _)) => reply
                .children
                .iter()
                .map(|child| child.id.clone())
                .collect(),
            None => known_children.get(id).cloned().unwrap_or_default(),
        };
        let mut visited = BTreeSet::new();
        let mut places = Vec::new();
        for (order, (root, recursive)) in setup.roots.iter().enumerate() {
            let mut ahead = vec![((*root).to_owned(), (*root).to_owned(), Vec::new())];
            if *root == "base" {
                ahead[0].1 = self.base.clone().unwrap_or_default();
                let base = self.base.iter().cloned();
                ahead.extend(base.map(|base| (base.clone(), base, Vec::new())));
            }
            while let Some((source, location, above)) = ahead.pop() {
                visited.insert(source.clone());
                let name = |id: &str| super::world::location(id).name.to_owned();
                let path: Vec<String> = if location.is_empty() {
                    Vec::new()
                } else {
                    above.into_iter().chain([name(&location)]).collect()
                };
                if let Some((reply, came)) = reply(&source) {
                    let counted = |found: &&LocationEntry| *recursive || found.parent.is_none();
                    for found in reply.sensors.iter().filter(counted) {
                        places.push(Place {
                            path: path
                                .iter()
                                .cloned()
                                .chain(found.parent.as_deref().map(name))
                                .collect(),
                            root: order,
                            location: found.parent.as_deref().unwrap_or(&location).to_owned(),
                            source: source.clone(),
                            found,
                            came,
                        });
                    }
                }
                if *recursive {
                    let below = children(&source).into_iter();
                    ahead.extend(below.map(|child| (child.clone(), child, path.clone())));
                }
            }
        }
        let number = |place: &Place| place.location.parse::<u32>().expect("ids are numbers");
        places.sort_by_key(|place| (usize::MAX - place.path.len(), place.root, number(place)));

        let has_failed = |source: &String| visited.contains(source) && reply(source).is_none();
        let ids: BTreeSet<String> = self
            .sensors
            .keys()
            .cloned()
            .chain(places.iter().map(|place| place.found.id.clone()))
            .chain(setup.listed.iter().map(|(id, _)| (*id).to_owned()))
            .collect();
        for id in ids {
            let found: Vec<&Place> = places.iter().filter(|place| place.found.id == id).collect();
            let listed = setup.listed.iter().find(|(listed, _)| *listed == id);
            let own = match good.get(&Job::Sensor(id.as_str().into())) {
                Some((Reply::Sensor(reply), came)) => Some((reply, *came)),
                _ => None,
            };
            let mut known = self.sensors.remove(&id).unwrap_or_default();
            known.sources.retain(has_failed);
            if found.is_empty() && listed.is_none() && known.sources.is_empty() {
                continue;
            }
            let some = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
            let told = found.iter().find_map(|place| some(&place.found.name));
            let told = own.and_then(|(reply, _)| some(&reply.name)).or(told);
            known.name = told.or(known.name);
            known.configured_name = listed.and_then(|(_, name)| *name);
            let depth = |path: &str| path.split(" / ").count();
            if let Some(best) = found.first() {
                let path = best.path.join(" / ");
                // Its labels do not change only because the deeper place cannot be seen.
                let hidden = !known.sources.is_empty()
                    && known
                        .path
                        .as_deref()
                        .is_some_and(|known| depth(known) > depth(&path));
                if !hidden {
                    known.path = Some(path);
                    known.location_id = Some(best.location.clone());
                }
            }
            known
                .sources
                .extend(found.iter().map(|place| place.source.clone()));

            let mut fresh: Option<Fresh> = None;
            let mut sources = BTreeSet::new();
            for place in &found {
                if let (Some(items), true) = (&place.found.items, sources.insert(&place.source)) {
                    fresh.get_or_insert_default().add(items, place.came);
                }
            }
            if let Some((reply, came)) = own {
                fresh.get_or_insert_default().add(&reply.items, came);
            }
            known.read = Some(fresh.is_some());
            if let Some(Fresh {
                mut readings,
                mut skipped,
            }) = fresh
            {
                let held = known.readings.get("energyInkWh");
                if let (Some(held), Some(meter)) = (held, readings.get_mut("energyInkWh"))
                    && held.0 > meter.0
                {
                    *meter = *held;
                    *skipped.entry("older").or_default() += 1;
                }
                known.readings = readings;
                known.skipped = skipped;
                known.last_success = Some(now);
            }
            self.sensors.insert(id, known);
        }
        self.drop_excess(setup);
        let base = self.base.clone().unwrap_or("base".to_owned());
        let failed: BTreeSet<_> = visited
            .iter()
            .filter(|id| reply(id).is_none())
            .map(|id| if id == "base" { &base } else { id })
            .collect();
        self.children = visited
            .iter()
            .map(|id| (id.clone(), children(id)))
            .collect();
        let up = !good.is_empty() || (setup.listed.is_empty() && setup.roots.is_empty());
        let unread = self
            .sensors
            .values()
            .filter(|known| known.read == Some(false));
        self.summary.insert("lightfi_up", f64::from(up));
        self.summary
            .insert("lightfi_collect_sensors_failed", unread.count() as f64);
        self.summary
            .insert("lightfi_collect_locations_failed", failed.len() as f64);
        if up {
            let success = "lightfi_collect_last_success_timestamp_seconds";
            self.summary.insert(success, now);
        }
    }

    /// Every series of a sensor and of the collection that a scrape at `now` must show, and no other.
    pub fn shown(&self, setup: &Setup, now: f64) -> BTreeMap<String, f64> {
        let mut shown = BTreeMap::new();
        let mut skipped: BTreeMap<&str, u32> =
            ["null", "malformed", "non_finite", "future", "older"]
                .map(|reason| (reason, 0))
                .into();
        let mut unmapped = 0.0;
        for (id, known) in &self.sensors {
            let location = known.path.as_deref();
            let name = known
                .configured_name
                .or(known.name.as_deref())
                .unwrap_or(id);
            let labels = move |more: &[(&str, &str)]| {
                let mut labels = BTreeMap::from([("sensor_id", id.as_str()), ("sensor", name)]);
                labels.extend(location.map(|location| ("location", location)));
                labels.extend(more.iter().copied());
                format!("{labels:?}")
            };
            let mut put = |name: &str, more: &[(&str, &str)], value: f64| {
                let twice = shown.insert(format!("{name}{}", labels(more)), value);
                assert_eq!(twice, None);
            };
            let mut stale = 0.0;
            let mut newest = f64::NEG_INFINITY;
            let within = |since: f64, limit: u64| limit == 0 || now <= since + limit as f64;
            let heard_of = within(
                known.last_success.unwrap_or(f64::NEG_INFINITY),
                setup.stale_after,
            );
            for (var_name, (time, value)) in &known.readings {
                let (metric, value, limit) = match var_name.as_str() {
                    "temperatureC" => ("lightfi_temperature_celsius", *value, setup.stale_after),
                    "batteryLevelPct" if setup.drop_battery => continue,
                    "batteryLevelPct" => ("lightfi_battery_ratio", value / 100.0, 14 * 86_400),
                    "energyInkWh" => ("lightfi_energy_joules_total", value * 3_600_000.0, 86_400),
                    "motionEvent" => ("lightfi_motion_activity", *value, setup.stale_after),
                    "onlineStatus" => {
                        let state = match *value {
                            1.0 => "online",
                            0.0 => "offline",
                            -1.0 => "rebooting",
                            -2.0 => "retired",
                            _ => "unknown",
                        };
                        for status in ["online", "offline", "rebooting", "retired", "unknown"] {
                            let value = f64::from(status == state);
                            if heard_of {
                                put("lightfi_sensor_status", &[("status", status)], value);
                            }
                        }
                        stale += f64::from(!heard_of);
                        if heard_of && setup.reading_timestamps {
                            let name = "lightfi_reading_timestamp_seconds";
                            put(name, &[("var_name", var_name)], *time);
                        }
                        continue;
                    }
                    _ => ("lightfi_reading", *value, setup.stale_after),
                };
                newest = newest.max(*time);
                let fresh = within(*time, limit);
                let of_variable = [("var_name", var_name.as_str())];
                let is_reading = metric == "lightfi_reading";
                if fresh {
                    put(metric, if is_reading { &of_variable } else { &[] }, value);
                    unmapped = f64::max(unmapped, f64::from(is_reading));
                } else {
                    stale += 1.0;
                }
                let motion_time = var_name == "motionEvent" && heard_of;
                if motion_time {
                    put("lightfi_motion_last_event_timestamp_seconds", &[], *time);
                }
                if setup.reading_timestamps && (fresh || motion_time) {
                    put("lightfi_reading_timestamp_seconds", &of_variable, *time);
                }
            }
            let model = match id.split_once('-') {
                Some(("AQ2", _)) => Some("Alpine"),
                Some(("LF5", _)) => Some("Sahara"),
                Some(("AMP", _)) => Some("X1"),
                _ => None,
            };
            let mut more: Vec<_> = model.map(|model| ("model", model)).into_iter().collect();
            more.extend(known.location_id.as_deref().map(|id| ("location_id", id)));
            put("lightfi_sensor_info", &more, 1.0);
            put("lightfi_sensor_stale_readings", &[], stale);
            if let Some(read) = known.read {
                put("lightfi_sensor_read_success", &[], f64::from(read));
            }
            if newest.is_finite() {
                put("lightfi_sensor_last_reading_timestamp_seconds", &[], newest);
            }
            for (reason, count) in &known.skipped {
                *skipped.get_mut(reason).expect("a known reason") += count;
            }
        }
        for (reason, count) in skipped {
            let labels = BTreeMap::from([("reason", reason)]);
            let series = format!("lightfi_collect_readings_skipped{labels:?}");
            shown.insert(series, f64::from(count));
        }
        let none = BTreeMap::<&str, &str>::new();
        let mut collection = self.summary.clone();
        collection.entry("lightfi_up").or_default();
        collection
            .entry("lightfi_collect_sensors_failed")
            .or_default();
        collection
            .entry("lightfi_collect_locations_failed")
            .or_default();
        collection.insert("lightfi_collect_sensors", self.sensors.len() as f64);
        collection.insert("lightfi_collect_sensors_dropped", self.dropped.0 as f64);
        collection.insert("lightfi_collect_readings_dropped", self.dropped.1 as f64);
        collection.insert("lightfi_collect_interval_seconds", setup.interval as f64);
        collection.insert("lightfi_exporter_unmapped_variables", unmapped);
        shown.extend(
            collection
                .into_iter()
                .map(|(name, value)| (format!("{name}{none:?}"), value)),
        );
        shown
    }
}
