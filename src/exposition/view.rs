//! The samples that a snapshot has at one moment: converted readings without the stale ones, and the state of the sensors and
//! of the last collection. Their format belongs to `writer`. `publisher` makes a [`View`] of each snapshot; the status page
//! reads the same view.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{
    Filter, Format,
    writer::{Type, Writer},
};
use crate::{
    catalog::{Catalog, Family, Form, Kind, Mapping, Status},
    snapshot::{
        Reading, Sensor, SkipReason, SkippedReadings, Snapshot, Summary, UnixTime, push_label,
    },
};

/// The samples of a snapshot at one moment under one catalog.
#[derive(Debug)]
pub struct View {
    /// The view is right up to and including this time, at which its next reading becomes stale. Infinite if none will.
    pub valid_until: UnixTime,
    snapshot: Arc<Snapshot>,
    catalog: Arc<Catalog>,
    /// The samples of each family of the catalog, in the order of the snapshot.
    families: Vec<Vec<SampleRef>>,
    /// The times of all exposed readings; empty unless `metrics.reading_timestamps` is on.
    timestamps: Vec<SampleRef>,
    /// One per sensor of the snapshot.
    sensors: Vec<SensorStats>,
    /// The readings skipped in all sensors, including those that conversion made non-finite.
    skipped: SkippedReadings,
    /// The number of distinct variables exposed as `lightfi_reading`.
    unmapped_variables: usize,
}

/// An exposed reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShownReading<'a> {
    /// Index into [`Snapshot::sensors`].
    pub sensor: usize,
    /// The reading from the API.
    pub reading: &'a Reading,
    /// The value in the unit of the metric; for a status, the number from the API.
    pub value: f64,
}

/// A sample and the reading it comes from. There are many of these, so they are small.
#[derive(Debug, Clone, Copy)]
struct SampleRef {
    /// Index into [`Snapshot::sensors`].
    sensor: u32,
    /// Index into [`Sensor::readings`].
    reading: u32,
    value: f64,
}

/// Facts about the readings of a sensor, for the families with one sample per sensor.
#[derive(Debug, Default)]
struct SensorStats {
    stale: u32,
    last_reading: Option<UnixTime>,
}

/// Name and HELP of a family.
type Description = (&'static str, &'static str);

const SENSOR_INFO: Description = ("lightfi_sensor_info", "Sensor metadata; always 1");

/// A family with at most one sample per sensor.
type SensorFamily = (
    &'static str,
    &'static str,
    fn(&Sensor, &SensorStats) -> Option<f64>,
);

#[rustfmt::skip] // a table
const SENSOR_FAMILIES: &[SensorFamily] = &[
    ("lightfi_sensor_read_success",
        "1 if the last API request for this sensor succeeded, else 0; independent of the state of the device",
        |sensor, _| sensor.read.map(f64::from)),
    ("lightfi_sensor_stale_readings",
        "Readings of this sensor that are not exposed because they are stale",
        |_, stats| Some(stats.stale.into())),
    ("lightfi_sensor_last_reading_timestamp_seconds",
        "Unix time of the newest measurement of this sensor, stale or not",
        |_, stats| stats.last_reading),
];

const READING_TIMESTAMP: Description = (
    "lightfi_reading_timestamp_seconds",
    "Unix time of the exposed reading, by var_name",
);

/// A family with at most one sample and no labels.
type CollectionFamily = (
    &'static str,
    &'static str,
    fn(&View, &Summary) -> Option<f64>,
);

#[rustfmt::skip] // a table
const COLLECTION_FAMILIES: &[CollectionFamily] = &[
    ("lightfi_up",
        "1 if the last collection had a valid access token and at least one successful request, or needed none, else 0",
        |_, summary| Some(summary.up.into())),
    ("lightfi_collect_duration_seconds", "Duration of the last collection",
        |_, summary| Some(summary.duration.as_secs_f64())),
    ("lightfi_collect_last_success_timestamp_seconds",
        "Unix time at which the last successful collection (lightfi_up 1) ended",
        |_, summary| summary.last_success),
    ("lightfi_collect_sensors", "Known sensors, configured or found in a location",
        |view, _| Some(view.snapshot.sensors.len() as f64)),
    ("lightfi_collect_sensors_failed", "Sensors that the last collection could not read",
        |_, summary| Some(summary.sensors_failed as f64)),
    ("lightfi_collect_locations_failed", "Locations that the last collection could not read",
        |_, summary| Some(summary.locations_failed as f64)),
    ("lightfi_collect_sensors_dropped", "Sensors left out because collect.max_series was reached",
        |_, summary| Some(summary.sensors_dropped as f64)),
    ("lightfi_collect_readings_dropped",
        "Readings left out because collect.max_series was reached or a sensor has too many variables",
        |_, summary| Some(summary.readings_dropped as f64)),
    ("lightfi_collect_interval_seconds", "Effective collection interval",
        |_, summary| Some(summary.interval.as_secs_f64())),
    ("lightfi_exporter_unmapped_variables",
        "Variables without a metric of their own, exposed as lightfi_reading",
        |view, _| Some(view.unmapped_variables as f64)),
];

const READINGS_SKIPPED: Description = (
    "lightfi_collect_readings_skipped",
    "Readings skipped in the last collection, by reason",
);

impl View {
    /// Converts the readings of a snapshot and leaves out those that are stale at `now`.
    pub fn new(snapshot: Arc<Snapshot>, catalog: Arc<Catalog>, now: UnixTime) -> Self {
        let mut view = Self {
            valid_until: UnixTime::INFINITY,
            families: vec![Vec::new(); catalog.families().len()],
            timestamps: Vec::new(),
            sensors: Vec::with_capacity(snapshot.sensors.len()),
            skipped: SkippedReadings::default(),
            unmapped_variables: 0,
            snapshot: snapshot.clone(),
            catalog: catalog.clone(),
        };
        for (sensor_index, sensor) in (0..).zip(&snapshot.sensors) {
            let mut stats = SensorStats::default();
            for (reading_index, reading) in (0..).zip(sensor.readings.iter()) {
                if let Some(mapping) = catalog.mapping(&reading.var_name) {
                    let at = (sensor_index, reading_index);
                    view.add(at, sensor, reading, mapping, now, &mut stats);
                }
            }
            view.skipped.add(&sensor.skipped);
            view.sensors.push(stats);
        }
        // The lists are kept for as long as the snapshot.
        view.families.iter_mut().for_each(Vec::shrink_to_fit);
        view.timestamps.shrink_to_fit();
        let unmapped = view.families.last().into_iter().flatten();
        let unmapped: HashSet<&str> = unmapped
            .map(|sample| &*view.reading(sample).var_name)
            .collect();
        view.unmapped_variables = unmapped.len();
        view
    }

    /// Returns the snapshot.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Returns the catalog.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Returns the families of the catalog that have exposed readings, in the order of the exposition.
    pub fn readings(
        &self,
    ) -> impl Iterator<Item = (&Family, impl Iterator<Item = ShownReading<'_>>)> {
        let families = self.catalog.families().iter().zip(&self.families);
        families
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(family, samples)| {
                let shown = samples.iter().map(|sample| ShownReading {
                    sensor: sample.sensor as usize,
                    reading: self.reading(sample),
                    value: sample.value,
                });
                (family, shown)
            })
    }

    /// Returns how many readings of the sensor with this index are stale.
    pub fn stale_readings(&self, sensor: usize) -> u32 {
        self.sensors.get(sensor).map_or(0, |stats| stats.stale)
    }

    /// Renders the families that `filter` allows, and hands them to `sink` in chunks of whole lines.
    pub fn render(&self, format: Format, filter: &Filter, sink: &mut dyn FnMut(&str)) {
        let mut writer = Writer::new(format, filter, sink);
        for (family, samples) in self.catalog.families().iter().zip(&self.families) {
            self.render_readings(&mut writer, family, samples);
        }
        self.render_sensors(&mut writer);
        let (name, help) = READING_TIMESTAMP;
        if !self.timestamps.is_empty() && writer.family(name, Type::Gauge, help) {
            self.render_by_variable(&mut writer, name, &self.timestamps);
        }
        self.render_collection(&mut writer);
        writer.finish();
    }

    /// Adds one reading to the families it feeds.
    fn add(
        &mut self,
        (sensor_index, reading_index): (u32, u32),
        sensor: &Sensor,
        reading: &Reading,
        mapping: Mapping,
        now: UnixTime,
        stats: &mut SensorStats,
    ) {
        let sample = |value| SampleRef {
            sensor: sensor_index,
            reading: reading_index,
            value,
        };
        let value = match mapping.form {
            Form::Value | Form::Motion => mapping.scale.apply(reading.value),
            Form::Status => reading.value,
        };
        if !value.is_finite() {
            self.skipped.count(SkipReason::NonFinite);
            return;
        }
        if mapping.measured {
            let newest = stats.last_reading.unwrap_or(reading.time);
            stats.last_reading = Some(newest.max(reading.time));
        }
        let fresh = match mapping.form {
            Form::Value | Form::Motion => self.is_fresh(reading.time, mapping.stale_after, now),
            Form::Status => self.was_read_recently(sensor, now),
        };
        let motion_time = mapping.form == Form::Motion && self.was_read_recently(sensor, now);
        if fresh {
            self.families[mapping.family].push(sample(value));
        } else {
            stats.stale += 1;
        }
        if motion_time {
            self.families[mapping.family + 1].push(sample(reading.time));
        }
        if self.catalog.reading_timestamps && (fresh || motion_time) {
            self.timestamps.push(sample(reading.time));
        }
    }

    /// Status and motion time do not expire by their age; they are dropped when the sensor has not been read recently.
    fn was_read_recently(&mut self, sensor: &Sensor, now: UnixTime) -> bool {
        let last_success = sensor.last_success.unwrap_or(UnixTime::NEG_INFINITY);
        self.is_fresh(last_success, self.catalog.default_stale_after, now)
    }

    /// Returns whether `since` is within the limit, and remembers when it will not be any more. Both come from the same
    /// sum, so that they agree to the last bit.
    fn is_fresh(&mut self, since: UnixTime, limit: Option<Duration>, now: UnixTime) -> bool {
        let Some(limit) = limit else { return true };
        let until = since + limit.as_secs_f64();
        let fresh = now <= until;
        if fresh {
            self.valid_until = self.valid_until.min(until);
        }
        fresh
    }

    fn reading(&self, sample: &SampleRef) -> &Reading {
        &self.snapshot.sensors[sample.sensor as usize].readings[sample.reading as usize]
    }

    fn labels(&self, sample: &SampleRef) -> &str {
        self.snapshot.sensors[sample.sensor as usize]
            .identity
            .series_labels()
    }

    fn render_readings(&self, writer: &mut Writer, family: &Family, samples: &[SampleRef]) {
        let name = &*family.name;
        let kind = match family.kind {
            Kind::Gauge => Type::Gauge,
            Kind::Counter => Type::Counter,
        };
        if samples.is_empty() || !writer.family(name, kind, &reading_help(family)) {
            return;
        }
        let Some(var_name) = &family.var_name else {
            return self.render_by_variable(writer, name, samples);
        };
        let mapping = self.catalog.mapping(var_name);
        if mapping.is_some_and(|mapping| mapping.form == Form::Status) {
            return self.render_statuses(writer, name, samples);
        }
        for sample in samples {
            writer.sample(name, self.labels(sample), "", sample.value);
        }
    }

    fn render_by_variable(&self, writer: &mut Writer, name: &str, samples: &[SampleRef]) {
        let mut var_name = String::new();
        for sample in samples {
            var_name.clear();
            push_label(&mut var_name, "var_name", &self.reading(sample).var_name);
            writer.sample(name, self.labels(sample), &var_name, sample.value);
        }
    }

    fn render_statuses(&self, writer: &mut Writer, name: &str, samples: &[SampleRef]) {
        let statuses = Status::NAMES.map(|status| format!("status=\"{status}\""));
        for sample in samples {
            let current = Status::of(sample.value);
            for (index, status) in statuses.iter().enumerate() {
                let value = f64::from(index == current);
                writer.sample(name, self.labels(sample), status, value);
            }
        }
    }

    fn render_sensors(&self, writer: &mut Writer) {
        let sensors = &self.snapshot.sensors;
        let (name, help) = SENSOR_INFO;
        if !sensors.is_empty() && writer.family(name, Type::Info, help) {
            for Sensor { identity, .. } in sensors {
                writer.sample(name, identity.series_labels(), identity.info_labels(), 1.0);
            }
        }
        for (name, help, value) in SENSOR_FAMILIES {
            let sensors = sensors.iter().zip(&self.sensors);
            let mut samples = sensors
                .filter_map(|(sensor, stats)| Some((&sensor.identity, value(sensor, stats)?)))
                .peekable();
            if samples.peek().is_some() && writer.family(name, Type::Gauge, help) {
                for (identity, value) in samples {
                    writer.sample(name, identity.series_labels(), "", value);
                }
            }
        }
    }

    fn render_collection(&self, writer: &mut Writer) {
        for (name, help, value) in COLLECTION_FAMILIES {
            if let Some(value) = value(self, &self.snapshot.summary)
                && writer.family(name, Type::Gauge, help)
            {
                writer.sample(name, "", "", value);
            }
        }
        let (name, help) = READINGS_SKIPPED;
        if writer.family(name, Type::Gauge, help) {
            for skip in SkipReason::ALL {
                let reason = format!("reason=\"{}\"", skip.as_str());
                writer.sample(name, "", &reason, self.skipped.of(skip).into());
            }
        }
    }
}

/// Returns HELP of a family of readings. Its last word is the `var_name` that the readings come from.
fn reading_help(family: &Family) -> String {
    let help = format!(
        "{}; cached and refreshed every collect.interval",
        family.help
    );
    match &family.var_name {
        Some(var_name) => format!("{help}, from {var_name}"),
        None => help,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::snapshot::Identity;

    const NOW: UnixTime = 1_716_300_000.0;

    /// A view, one hour being the limit, of one sensor with readings of (variable, age in seconds).
    fn view(readings: &[(&'static str, f64)], now: UnixTime) -> View {
        let reading = |(var_name, age): &(&'static str, f64)| Reading {
            var_name: (*var_name).into(),
            time: NOW - age,
            value: 21.0,
        };
        let identity = Identity::new("AQ2-1".into(), None, None, None, BTreeMap::new());
        let sensor = Sensor {
            identity: identity.into(),
            readings: readings.iter().map(reading).collect(),
            skipped: SkippedReadings::default(),
            read: Some(true),
            last_success: Some(NOW),
        };
        let snapshot = Snapshot {
            sensors: vec![sensor],
            summary: Summary::default(),
        };
        let catalog = Catalog::new(&BTreeMap::new(), Duration::from_secs(3600), false);
        View::new(snapshot.into(), catalog.into(), now)
    }

    #[test]
    fn a_reading_is_stale_when_older_than_its_limit_and_not_before() {
        for (age, stale) in [(0.0, 0), (3600.0, 0), (3600.001, 1)] {
            let view = view(&[("temperatureC", age)], NOW);
            assert_eq!(view.stale_readings(0), stale, "{age}");
            assert_eq!(view.readings().count(), 1 - stale as usize, "{age}");
        }
    }

    #[test]
    fn a_view_is_valid_until_its_next_reading_becomes_stale() {
        let readings = [
            ("temperatureC", 100.25),
            ("relativeHumidity", 200.0),
            ("batteryLevelPct", 7200.0),
            ("CO2ppm", 4000.0),
        ];
        let mut now = NOW;
        let mut stale = Vec::new();
        while now.is_finite() {
            let current = view(&readings, now);
            stale.push(current.stale_readings(0));
            let last = view(&readings, current.valid_until.min(1e12));
            assert_eq!(last.stale_readings(0), current.stale_readings(0));
            now = current.valid_until.next_up();
        }
        assert_eq!(stale, [1, 2, 3, 4]);
    }
}
