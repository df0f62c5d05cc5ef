//! What a snapshot shows at a moment: which readings, converted; which are held back; what the sensors and the
//! collection are said to be. How it is spelt is `writer`'s business.

use std::{collections::HashSet, time::Duration};

use super::{
    Filter, Format,
    writer::{Type, Writer, push_number},
};
use crate::{
    catalog::{Catalog, Family, Form, Kind, Mapping, Status, is_measured},
    snapshot::{Reading, Sensor, Skip, Skipped, Snapshot, UnixTime, push_label},
};

/// A snapshot at a moment under a catalogue.
#[derive(Debug)]
pub struct View<'a> {
    /// The view holds up to and including this moment; after it a reading is stale. Infinite when none will be.
    pub valid_until: UnixTime,
    snapshot: &'a Snapshot,
    catalog: &'a Catalog,
    /// By family of the catalogue, then in the snapshot's order.
    families: Vec<Vec<Shown<'a>>>,
    /// Each reading that any family shows, in the snapshot's order; kept only where the times are exported.
    timestamps: Vec<(usize, &'a Reading)>,
    /// One per sensor of the snapshot.
    sensors: Vec<Verdict>,
    /// Over all sensors, with what conversion made non-finite.
    skipped: Skipped,
    /// Distinct variables without a metric of their own.
    unmapped: usize,
}

/// One reading in one family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown<'a> {
    /// Index into [`Snapshot::sensors`].
    pub sensor: usize,
    /// As the API gave it.
    pub reading: &'a Reading,
    /// In the metric's unit; of a status, the API's number.
    pub value: f64,
}

/// What a sensor's own families say of its readings.
#[derive(Debug, Clone, Copy, Default)]
struct Verdict {
    stale: u32,
    last_reading: Option<UnixTime>,
}

/// A family with at most one sample per sensor.
type SensorFamily = (
    &'static str,
    &'static str,
    fn(&Sensor, &Verdict) -> Option<f64>,
);

const SENSOR_INFO: (&str, &str) = (
    "lightfi_sensor_info",
    "Everything known of a sensor that does not change with its readings, always 1",
);

const SENSOR_FAMILIES: &[SensorFamily] = &[
    (
        "lightfi_sensor_read_success",
        "Whether the last API read that covered this sensor succeeded; says nothing of the device itself",
        |sensor, _| sensor.read.map(f64::from),
    ),
    (
        "lightfi_sensor_stale_readings",
        "Readings of this sensor held back because they are stale",
        |_, verdict| Some(verdict.stale.into()),
    ),
    (
        "lightfi_sensor_last_reading_timestamp_seconds",
        "Unix time of the newest reading the sensor measured, even when it is held back as stale",
        |_, verdict| verdict.last_reading,
    ),
];

const READING_TIMESTAMP: (&str, &str) = (
    "lightfi_reading_timestamp_seconds",
    "Unix time at which the reading shown was measured, by var_name",
);

/// A family with at most one sample, without labels.
type CollectionFamily = (&'static str, &'static str, fn(&View) -> Option<f64>);

const COLLECTION_FAMILIES: &[CollectionFamily] = &[
    (
        "lightfi_up",
        "Whether the last collection had a good token and at least one request succeeded, or it needed none",
        |view| Some(view.snapshot.summary.up.into()),
    ),
    (
        "lightfi_collect_duration_seconds",
        "How long the last collection took",
        |view| Some(view.snapshot.summary.duration.as_secs_f64()),
    ),
    (
        "lightfi_collect_last_success_timestamp_seconds",
        "Unix time at which the last collection with lightfi_up 1 ended",
        |view| view.snapshot.summary.last_success,
    ),
    (
        "lightfi_collect_sensors",
        "Sensors known, listed or found in a location",
        |view| Some(count(view.snapshot.sensors.len())),
    ),
    (
        "lightfi_collect_sensors_failed",
        "Sensors that the last collection could not read",
        |view| Some(count(view.snapshot.summary.sensors_failed)),
    ),
    (
        "lightfi_collect_locations_failed",
        "Locations that the last collection could not read",
        |view| Some(count(view.snapshot.summary.locations_failed)),
    ),
    (
        "lightfi_collect_sensors_dropped",
        "Sensors left out because collect.max_series was reached",
        |view| Some(count(view.snapshot.summary.sensors_dropped)),
    ),
    (
        "lightfi_collect_readings_dropped",
        "Readings left out because collect.max_series was reached or one sensor has too many variables",
        |view| Some(count(view.snapshot.summary.readings_dropped)),
    ),
    (
        "lightfi_collect_interval_seconds",
        "Interval between collections in force: collect.interval, or longer where the rate limit asks for it",
        |view| Some(view.snapshot.summary.interval.as_secs_f64()),
    ),
];

const READINGS_SKIPPED: (&str, &str) = (
    "lightfi_collect_readings_skipped",
    "Readings in the replies that this snapshot was made of that are not shown, by reason",
);

const UNMAPPED_VARIABLES: (&str, &str) = (
    "lightfi_exporter_unmapped_variables",
    "Variables without a metric of their own, shown as lightfi_reading",
);

impl<'a> View<'a> {
    /// Converts every reading and holds back what is stale at `now`.
    pub fn new(snapshot: &'a Snapshot, catalog: &'a Catalog, now: UnixTime) -> Self {
        let mut view = Self {
            valid_until: UnixTime::INFINITY,
            snapshot,
            catalog,
            families: vec![Vec::new(); catalog.families().len()],
            timestamps: Vec::new(),
            sensors: Vec::with_capacity(snapshot.sensors.len()),
            skipped: Skipped::default(),
            unmapped: 0,
        };
        for (index, sensor) in snapshot.sensors.iter().enumerate() {
            let mut verdict = Verdict::default();
            for reading in sensor.readings.iter() {
                if let Some(mapping) = catalog.mapping(&reading.var_name) {
                    view.place(index, reading, mapping, now, &mut verdict);
                }
            }
            view.skipped.add(&sensor.skipped);
            view.sensors.push(verdict);
        }
        view.drop_families_of_a_name_taken();
        view.unmapped = view.families.last().map_or(0, |unmapped| {
            unmapped
                .iter()
                .map(|shown| &*shown.reading.var_name)
                .collect::<HashSet<_>>()
                .len()
        });
        view
    }

    /// The families of the catalogue that have readings to show, in the order of the exposition.
    pub fn readings(&self) -> impl Iterator<Item = (&'a Family, &[Shown<'a>])> {
        self.catalog
            .families()
            .iter()
            .zip(self.families.iter().map(Vec::as_slice))
            .filter(|(_, shown)| !shown.is_empty())
    }

    /// How many readings of the sensor at this index of the snapshot are held back as stale.
    pub fn stale_readings(&self, sensor: usize) -> u32 {
        self.sensors.get(sensor).map_or(0, |verdict| verdict.stale)
    }

    /// Appends the families that `filter` lets through. In OpenMetrics the body is not ended: [`super::render_own`]
    /// does that.
    pub fn render(&self, format: Format, filter: &Filter, out: &mut Vec<u8>) {
        if filter.is_everything() {
            out.reserve(self.estimated_size());
        }
        let mut writer = Writer::new(out, format, filter);
        self.render_readings(&mut writer);
        self.render_sensors(&mut writer);
        self.render_collection(&mut writer);
    }

    /// Decides on one reading.
    fn place(
        &mut self,
        index: usize,
        reading: &'a Reading,
        mapping: Mapping,
        now: UnixTime,
        verdict: &mut Verdict,
    ) {
        let value = match mapping.form {
            Form::Value | Form::Motion => mapping.scale.apply(reading.value),
            Form::Status => reading.value,
        };
        if !value.is_finite() {
            self.skipped.count(Skip::NonFinite);
            return;
        }
        if is_measured(&reading.var_name) {
            let newest = verdict.last_reading.unwrap_or(reading.time);
            verdict.last_reading = Some(newest.max(reading.time));
        }
        let fresh = match mapping.form {
            Form::Value | Form::Motion => self.is_fresh(reading.time, mapping.stale_after, now),
            Form::Status => self.is_heard_of(index, now),
        };
        let motion_time = mapping.form == Form::Motion && self.is_heard_of(index, now);
        let shown = Shown {
            sensor: index,
            reading,
            value,
        };
        if fresh {
            self.families[mapping.family].push(shown);
        } else {
            verdict.stale += 1;
        }
        if motion_time {
            let value = reading.time;
            self.families[mapping.family + 1].push(Shown { value, ..shown });
        }
        if self.catalog.reading_timestamps && (fresh || motion_time) {
            self.timestamps.push((index, reading));
        }
    }

    /// Neither a state nor the time of a motion grows old by itself: they leave when we no longer hear of the sensor.
    fn is_heard_of(&mut self, index: usize, now: UnixTime) -> bool {
        let last = self.snapshot.sensors[index].last_success;
        let limit = self.catalog.default_stale_after;
        self.is_fresh(last.unwrap_or(UnixTime::NEG_INFINITY), limit, now)
    }

    /// Stale is what is older than its limit. What is not yet bounds how long this view holds, by the same sum, so that
    /// the two never disagree by a rounding.
    fn is_fresh(&mut self, since: UnixTime, limit: Option<Duration>, now: UnixTime) -> bool {
        let Some(limit) = limit else { return true };
        let until = since + limit.as_secs_f64();
        let fresh = now <= until;
        if fresh {
            self.valid_until = self.valid_until.min(until);
        }
        fresh
    }

    /// `config` refuses a name that is taken. Were one to get through, a family twice would cost Prometheus more than
    /// the second variable is worth.
    fn drop_families_of_a_name_taken(&mut self) {
        let mut names = HashSet::new();
        for (family, shown) in self.catalog.families().iter().zip(&mut self.families) {
            if !names.insert(&family.name) {
                shown.clear();
            }
        }
    }

    fn render_readings(&self, writer: &mut Writer) {
        let mut interval = Vec::new();
        push_number(&mut interval, self.snapshot.summary.interval.as_secs_f64());
        let interval = String::from_utf8_lossy(&interval);
        for (family, shown) in self.readings() {
            let help = reading_help(family, &interval);
            let kind = match family.kind {
                Kind::Gauge => Type::Gauge,
                Kind::Counter => Type::Counter,
            };
            if writer.family(&family.name, kind, &help) {
                self.render_family(writer, family, shown);
            }
        }
    }

    fn render_family(&self, writer: &mut Writer, family: &Family, shown: &[Shown]) {
        let Some(var_name) = &family.var_name else {
            return self.render_by_var_name(
                writer,
                &family.name,
                shown.iter().map(|s| (s.sensor, s.reading, s.value)),
            );
        };
        let mapping = self.catalog.mapping(var_name);
        if mapping.is_some_and(|mapping| mapping.form == Form::Status) {
            let states = Status::NAMES.map(|state| {
                let mut text = String::new();
                push_label(&mut text, "status", state);
                text
            });
            for shown in shown {
                let labels = self.labels(shown.sensor);
                let present = Status::of(shown.value);
                for (index, state) in states.iter().enumerate() {
                    let value = f64::from(index == present);
                    writer.sample(&family.name, labels, state, value);
                }
            }
        } else {
            for shown in shown {
                writer.sample(&family.name, self.labels(shown.sensor), "", shown.value);
            }
        }
    }

    fn render_by_var_name<'r>(
        &self,
        writer: &mut Writer,
        name: &str,
        samples: impl Iterator<Item = (usize, &'r Reading, f64)>,
    ) {
        let mut label = String::new();
        for (sensor, reading, value) in samples {
            label.clear();
            push_label(&mut label, "var_name", &reading.var_name);
            writer.sample(name, self.labels(sensor), &label, value);
        }
    }

    fn render_sensors(&self, writer: &mut Writer) {
        let sensors = || self.snapshot.sensors.iter().zip(&self.sensors);
        let (name, help) = SENSOR_INFO;
        if !self.sensors.is_empty() && writer.family(name, Type::Info, help) {
            for (sensor, _) in sensors() {
                writer.sample(name, sensor.identity.info_labels(), "", 1.0);
            }
        }
        for (name, help, value) in SENSOR_FAMILIES {
            let mut samples = sensors()
                .filter_map(|(sensor, verdict)| {
                    Some((sensor.identity.series_labels(), value(sensor, verdict)?))
                })
                .peekable();
            if samples.peek().is_some() && writer.family(name, Type::Gauge, help) {
                for (labels, value) in samples {
                    writer.sample(name, labels, "", value);
                }
            }
        }
        let (name, help) = READING_TIMESTAMP;
        if !self.timestamps.is_empty() && writer.family(name, Type::Gauge, help) {
            let samples = self.timestamps.iter();
            let samples = samples.map(|(sensor, reading)| (*sensor, *reading, reading.time));
            self.render_by_var_name(writer, name, samples);
        }
    }

    fn render_collection(&self, writer: &mut Writer) {
        for (name, help, value) in COLLECTION_FAMILIES {
            if let Some(value) = value(self)
                && writer.family(name, Type::Gauge, help)
            {
                writer.sample(name, "", "", value);
            }
        }
        let (name, help) = READINGS_SKIPPED;
        if writer.family(name, Type::Gauge, help) {
            for skip in Skip::ALL {
                let mut reason = String::new();
                push_label(&mut reason, "reason", skip.as_str());
                writer.sample(name, "", &reason, self.skipped.of(skip).into());
            }
        }
        let (name, help) = UNMAPPED_VARIABLES;
        if writer.family(name, Type::Gauge, help) {
            writer.sample(name, "", "", count(self.unmapped));
        }
    }

    fn labels(&self, sensor: usize) -> &str {
        self.snapshot.sensors[sensor].identity.series_labels()
    }

    /// Somewhat more than the body of everything, so that the buffer need not grow and be copied.
    fn estimated_size(&self) -> usize {
        /// Of value, braces and one label of a sample's own.
        const BESIDE_NAME_AND_LABELS: usize = 48;
        /// Metadata, and the families of the collection.
        const ONCE: usize = 16 * 1024;
        let line = |name: &str, labels: &str| name.len() + labels.len() + BESIDE_NAME_AND_LABELS;
        let readings: usize = self
            .readings()
            .map(|(family, shown)| {
                let lines = shown
                    .iter()
                    .map(|s| line(&family.name, self.labels(s.sensor)));
                lines.sum::<usize>()
            })
            .sum();
        let (timestamp, _) = READING_TIMESTAMP;
        let timestamps = self.timestamps.iter();
        let timestamps: usize = timestamps
            .map(|(s, _)| line(timestamp, self.labels(*s)))
            .sum();
        let sensors: usize = self
            .snapshot
            .sensors
            .iter()
            .map(|sensor| {
                let identity = &sensor.identity;
                let fixed = SENSOR_FAMILIES.iter();
                let fixed: usize = fixed
                    .map(|(name, ..)| line(name, identity.series_labels()))
                    .sum();
                fixed + line(SENSOR_INFO.0, identity.info_labels())
            })
            .sum();
        readings + timestamps + sensors + ONCE
    }
}

/// Its last word is the `var_name`, for whoever looks for where a metric comes from.
fn reading_help(family: &Family, interval: &str) -> String {
    let help = &family.help;
    let cached = format!("{help}; cached and refreshed every collect.interval ({interval}s)");
    match &family.var_name {
        Some(var_name) => format!("{cached}, from {var_name}"),
        None => cached,
    }
}

#[allow(clippy::cast_precision_loss)] // nobody has 2^53 sensors
fn count(things: usize) -> f64 {
    things as f64
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{catalog::Override, snapshot::Identity};

    const NOW: UnixTime = 1_716_300_000.0;
    const HOUR: Duration = Duration::from_secs(3600);

    fn catalog() -> Catalog {
        Catalog::new(&BTreeMap::new(), HOUR, false)
    }

    /// One sensor with readings of (variable, age in seconds, value), last read so many seconds ago.
    fn snapshot(readings: &[(&str, f64, f64)], last_read: Option<f64>) -> Snapshot {
        let identity = Identity::new("AQ2-1".into(), None, None, None, BTreeMap::new());
        let reading = |(var_name, age, value): &(&str, f64, f64)| Reading {
            var_name: (*var_name).into(),
            time: NOW - age,
            value: *value,
        };
        let sensor = Sensor {
            identity: Arc::new(identity),
            readings: readings.iter().map(reading).collect(),
            skipped: Skipped::default(),
            read: Some(true),
            last_success: last_read.map(|age| NOW - age),
        };
        Snapshot {
            sensors: vec![sensor],
            ..Snapshot::default()
        }
    }

    fn shown(view: &View) -> Vec<(String, f64)> {
        let families = view.readings();
        families
            .flat_map(|(family, shown)| shown.iter().map(|s| (family.name.to_string(), s.value)))
            .collect()
    }

    fn names(view: &View) -> Vec<String> {
        shown(view).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_reading_is_stale_when_older_than_its_limit_and_not_before() {
        let catalog = catalog();
        let snapshot = snapshot(&[("temperatureC", 0.0, 21.0)], Some(0.0));
        for (age, fresh) in [(0.0, true), (3600.0, true), (3600.001, false)] {
            let view = View::new(&snapshot, &catalog, NOW + age);
            assert_eq!(!shown(&view).is_empty(), fresh, "{age}");
            assert_eq!(view.stale_readings(0), u32::from(!fresh), "{age}");
        }
    }

    #[test]
    fn a_view_holds_until_its_next_reading_is_stale() {
        let catalog = catalog();
        let readings = [
            ("temperatureC", 100.25, 21.0),
            ("relativeHumidity", 200.0, 50.0),
            ("batteryLevelPct", 7200.0, 50.0),
            ("CO2ppm", 4000.0, 612.0),
        ];
        let snapshot = snapshot(&readings, Some(0.0));
        let mut now = NOW;
        let mut held_back = Vec::new();
        while now.is_finite() {
            let view = View::new(&snapshot, &catalog, now);
            held_back.push(view.stale_readings(0));
            // All that is shown may be shown for as long as the view says.
            assert_eq!(
                shown(&View::new(&snapshot, &catalog, view.valid_until.min(1e12))).len(),
                shown(&view).len()
            );
            now = view.valid_until.next_up();
        }
        assert_eq!(held_back, [1, 2, 3, 4]);
    }

    #[test]
    fn nothing_is_stale_by_a_limit_of_zero() {
        let catalog = Catalog::new(&BTreeMap::new(), Duration::ZERO, false);
        let readings = [("temperatureC", 1e9, 21.0), ("onlineStatus", 1e9, 1.0)];
        let snapshot = snapshot(&readings, None);
        let view = View::new(&snapshot, &catalog, NOW);
        assert_eq!(
            names(&view),
            ["lightfi_temperature_celsius", "lightfi_sensor_status"]
        );
        assert_eq!(view.valid_until, UnixTime::INFINITY);
    }

    #[test]
    fn a_limit_in_the_table_or_of_a_variables_own_stands_when_the_general_one_is_off() {
        let own = Override {
            stale_after: Some(Duration::from_secs(10)),
            ..Override::default()
        };
        let catalog = Catalog::new(
            &BTreeMap::from([("CO2ppm".to_owned(), own)]),
            Duration::ZERO,
            false,
        );
        let readings = [("CO2ppm", 11.0, 612.0), ("energyInkWh", 86_401.0, 1.0)];
        let snapshot = snapshot(&readings, Some(0.0));
        assert_eq!(View::new(&snapshot, &catalog, NOW).stale_readings(0), 2);
    }

    #[test]
    fn status_and_motion_time_leave_when_the_sensor_is_not_heard_of() {
        let catalog = catalog();
        let readings = [("motionEvent", 1e6, 3.0), ("onlineStatus", 1e6, -2.0)];
        let both = [
            "lightfi_motion_last_event_timestamp_seconds",
            "lightfi_sensor_status",
        ];
        for (last_read, expected, stale) in [
            (Some(3600.0), &both[..], 1),
            (Some(3600.5), &[], 2),
            (None, &[], 2),
        ] {
            let snapshot = snapshot(&readings, last_read);
            let view = View::new(&snapshot, &catalog, NOW);
            assert_eq!(names(&view), expected, "{last_read:?}");
            assert_eq!(view.stale_readings(0), stale, "{last_read:?}");
        }
    }

    #[test]
    fn motion_feeds_two_families() {
        let catalog = catalog();
        let snapshot = snapshot(&[("motionEvent", 30.0, 3.0)], Some(0.0));
        let view = View::new(&snapshot, &catalog, NOW);
        let expected = [
            ("lightfi_motion_activity".to_owned(), 3.0),
            (
                "lightfi_motion_last_event_timestamp_seconds".to_owned(),
                NOW - 30.0,
            ),
        ];
        assert_eq!(shown(&view), expected);
    }

    #[test]
    fn a_dropped_variable_is_neither_shown_nor_stale_nor_news_of_the_sensor() {
        let drop = Override {
            drop: true,
            ..Override::default()
        };
        let catalog = Catalog::new(
            &BTreeMap::from([("motionEvent".to_owned(), drop)]),
            HOUR,
            true,
        );
        let snapshot = snapshot(&[("motionEvent", 7200.0, 3.0)], Some(0.0));
        let view = View::new(&snapshot, &catalog, NOW);
        assert_eq!(names(&view), [""; 0]);
        assert_eq!(view.stale_readings(0), 0);
        assert_eq!(view.sensors[0].last_reading, None);
    }

    #[test]
    fn the_last_reading_is_what_the_sensor_measured_itself_stale_or_not() {
        let catalog = catalog();
        let readings = [
            ("onlineStatus", 1.0, 1.0),
            ("BACnetReads", 2.0, 1.0),
            ("temperatureC", 9000.0, 21.0),
            ("PM10", 8000.0, 21.0),
        ];
        let snapshot = snapshot(&readings, Some(0.0));
        let view = View::new(&snapshot, &catalog, NOW);
        assert_eq!(view.sensors[0].last_reading, Some(NOW - 8000.0));
    }

    #[test]
    fn what_conversion_makes_infinite_is_skipped_and_not_stale() {
        let catalog = catalog();
        let snapshot = snapshot(&[("energyInkWh", 1e6, 1e303)], Some(0.0));
        let view = View::new(&snapshot, &catalog, NOW);
        assert_eq!(names(&view), [""; 0]);
        assert_eq!(view.skipped.of(Skip::NonFinite), 1);
        assert_eq!(view.stale_readings(0), 0);
    }

    #[test]
    fn variables_without_a_metric_count_once_however_many_sensors_send_them() {
        let catalog = catalog();
        let mut both = snapshot(
            &[("PM1", 1.0, 1.0), ("PM10", 1.0, 1.0), ("NOX", 9999.0, 1.0)],
            Some(0.0),
        );
        both.sensors.push(both.sensors[0].clone());
        assert_eq!(View::new(&both, &catalog, NOW).unmapped, 2);
    }

    #[test]
    fn the_buffer_is_taken_once() {
        let catalog = Catalog::new(&BTreeMap::new(), HOUR, true);
        let readings: Vec<_> = crate::catalog::ROWS
            .iter()
            .map(|row| (row.var_name, 1.0, 0.1))
            .collect();
        let mut many = snapshot(&readings, Some(0.0));
        many.sensors = vec![many.sensors[0].clone(); 1000];
        let view = View::new(&many, &catalog, NOW);
        let mut out = Vec::new();
        view.render(Format::OpenMetrics, &Filter::default(), &mut out);
        let estimate = view.estimated_size();
        assert!(
            (out.len()..2 * out.len()).contains(&estimate),
            "{estimate} for {}",
            out.len()
        );
    }
}
