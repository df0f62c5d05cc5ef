//! What a snapshot shows at a moment: which readings, converted; which are held back; what the sensors and the
//! collection are said to be. How it is spelt is `writer`'s business.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{
    Filter, Format,
    writer::{Type, Writer, push_number},
};
use crate::{
    catalog::{Catalog, Family, Form, Kind, Mapping, Status},
    snapshot::{Reading, Sensor, Skip, Skipped, Snapshot, UnixTime, push_label},
};

/// A snapshot at a moment under a catalogue.
#[derive(Debug)]
pub struct View {
    /// The view holds up to and including this moment; after it a reading is stale. Infinite when none will be.
    pub valid_until: UnixTime,
    snapshot: Arc<Snapshot>,
    catalog: Arc<Catalog>,
    /// By family of the catalogue, then in the snapshot's order.
    families: Vec<Vec<Placed>>,
    /// Each reading that any family shows, in the snapshot's order; kept only where the times are exported.
    timestamps: Vec<Place>,
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

/// Where a reading stands: there are many, so that they are kept small.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Index into [`Snapshot::sensors`].
    sensor: u32,
    /// Index into [`Sensor::readings`].
    reading: u32,
}

/// The same as [`Shown`], for keeping.
#[derive(Debug, Clone, Copy)]
struct Placed {
    place: Place,
    value: f64,
}

/// What a sensor's own families say of its readings.
#[derive(Debug)]
struct Verdict {
    stale: u32,
    last_reading: Option<UnixTime>,
}

/// A body under way. Its text comes in chunks, so that a large one is never held whole for one scrape.
#[derive(Debug, Clone)]
pub struct Rendering {
    view: Arc<View>,
    format: Format,
    filter: Filter,
    /// How many sections are written.
    section: usize,
    /// How many entries of the section under way are.
    entry: usize,
}

/// A part of the body: one family.
#[derive(Debug, Clone, Copy)]
enum Section {
    /// Index into [`View::families`].
    Readings(usize),
    SensorInfo,
    Sensors(&'static SensorFamily),
    ReadingTimestamps,
    Collection(&'static CollectionFamily),
    ReadingsSkipped,
    UnmappedVariables,
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

impl View {
    /// Converts every reading and holds back what is stale at `now`.
    pub fn new(snapshot: Arc<Snapshot>, catalog: Arc<Catalog>, now: UnixTime) -> Self {
        let mut view = Self {
            valid_until: UnixTime::INFINITY,
            families: vec![Vec::new(); catalog.families().len()],
            timestamps: Vec::new(),
            sensors: Vec::with_capacity(snapshot.sensors.len()),
            skipped: Skipped::default(),
            unmapped: 0,
            snapshot: snapshot.clone(),
            catalog: catalog.clone(),
        };
        let mut mappings = ByVariable::new();
        for (sensor, index) in snapshot.sensors.iter().zip(0..) {
            let mut verdict = Verdict {
                stale: 0,
                last_reading: None,
            };
            for (reading, at) in sensor.readings.iter().zip(0..) {
                let mapping = mappings.of(reading, |var_name| catalog.mapping(var_name));
                if let Some(mapping) = *mapping {
                    let place = Place {
                        sensor: index,
                        reading: at,
                    };
                    view.place(place, reading, mapping, now, &mut verdict);
                }
            }
            view.skipped.add(&sensor.skipped);
            view.sensors.push(verdict);
        }
        view.drop_families_of_a_name_taken();
        view.families.iter_mut().for_each(Vec::shrink_to_fit);
        view.timestamps.shrink_to_fit();
        view.unmapped = view.families.last().map_or(0, |unmapped| {
            unmapped
                .iter()
                .map(|placed| &*view.reading(placed.place).var_name)
                .collect::<HashSet<_>>()
                .len()
        });
        view
    }

    /// What is shown.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// How it is shown.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The families of the catalogue that have readings to show, in the order of the exposition.
    pub fn readings(&self) -> impl Iterator<Item = (&Family, impl Iterator<Item = Shown<'_>>)> {
        self.catalog
            .families()
            .iter()
            .zip(&self.families)
            .filter(|(_, shown)| !shown.is_empty())
            .map(|(family, shown)| {
                let shown = shown.iter().map(|placed| Shown {
                    sensor: placed.place.sensor as usize,
                    reading: self.reading(placed.place),
                    value: placed.value,
                });
                (family, shown)
            })
    }

    /// How many readings of the sensor at this index of the snapshot are held back as stale.
    pub fn stale_readings(&self, sensor: usize) -> u32 {
        self.sensors.get(sensor).map_or(0, |verdict| verdict.stale)
    }

    /// The body with the families that `filter` lets through. In OpenMetrics it is not ended: [`super::render_own`] does
    /// that.
    pub fn rendering(self: Arc<Self>, format: Format, filter: Filter) -> Rendering {
        Rendering {
            view: self,
            format,
            filter,
            section: 0,
            entry: 0,
        }
    }

    /// Decides on one reading.
    fn place(
        &mut self,
        place: Place,
        reading: &Reading,
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
        if mapping.measured {
            let newest = verdict.last_reading.unwrap_or(reading.time);
            verdict.last_reading = Some(newest.max(reading.time));
        }
        let fresh = match mapping.form {
            Form::Value | Form::Motion => self.is_fresh(reading.time, mapping.stale_after, now),
            Form::Status => self.is_heard_of(place, now),
        };
        let motion_time = mapping.form == Form::Motion && self.is_heard_of(place, now);
        if fresh {
            self.families[mapping.family].push(Placed { place, value });
        } else {
            verdict.stale += 1;
        }
        if motion_time {
            let value = reading.time;
            self.families[mapping.family + 1].push(Placed { place, value });
        }
        if self.catalog.reading_timestamps && (fresh || motion_time) {
            self.timestamps.push(place);
        }
    }

    /// Neither a state nor the time of a motion grows old by itself: they leave when we no longer hear of the sensor.
    fn is_heard_of(&mut self, place: Place, now: UnixTime) -> bool {
        let last = self.sensor(place).last_success;
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

    fn sensor(&self, place: Place) -> &Sensor {
        &self.snapshot.sensors[place.sensor as usize]
    }

    fn reading(&self, place: Place) -> &Reading {
        &self.sensor(place).readings[place.reading as usize]
    }

    fn labels(&self, place: Place) -> &str {
        self.snapshot.labels().at(place.sensor as usize)
    }

    /// How long the text of everything is, roughly: somewhat more, mostly.
    pub fn estimated_size(&self) -> usize {
        /// Of value, braces and one label of a sample's own.
        const BESIDE_NAME_AND_LABELS: usize = 48;
        /// Metadata, and the families of the collection.
        const ONCE: usize = 16 * 1024;
        let sensors = &self.snapshot.sensors;
        let mean = self.snapshot.labels().size() / sensors.len().max(1);
        let line = |name: &str| name.len() + mean + BESIDE_NAME_AND_LABELS;
        let families = self.catalog.families().iter().zip(&self.families);
        let readings: usize = families
            .map(|(family, shown)| shown.len() * line(&family.name))
            .sum();
        let timestamps = self.timestamps.len() * line(READING_TIMESTAMP.0);
        let fixed = SENSOR_FAMILIES.iter().map(|(name, ..)| *name);
        let fixed: usize = fixed.chain([SENSOR_INFO.0]).map(line).sum();
        readings + timestamps + sensors.len() * fixed + ONCE
    }
}

impl Rendering {
    /// What a chunk of text is filled up to.
    pub const CHUNK: usize = 128 * 1024;
    /// A chunk is full when less than this is left of it: most entries need less.
    const ROOM: usize = 2 * 1024;

    /// Appends the next chunk to `out`, which is best empty and has room for [`Self::CHUNK`]. False: there was none left.
    pub fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        let full = before + Self::CHUNK - Self::ROOM;
        let mut writer = Writer::new(out, self.format, &self.filter).until(full);
        while let Some(section) = self.view.section(self.section) {
            self.entry = self.view.render(section, self.entry, &mut writer);
            if self.entry > 0 {
                return true;
            }
            self.section += 1;
        }
        out.len() > before
    }
}

/// Chunk by chunk.
impl Iterator for Rendering {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::with_capacity(Self::CHUNK);
        self.fill(&mut chunk).then_some(chunk)
    }
}

impl View {
    /// The families, in the order of the exposition.
    fn section(&self, at: usize) -> Option<Section> {
        let readings = (0..self.families.len()).map(Section::Readings);
        let sensors = SENSOR_FAMILIES.iter().map(Section::Sensors);
        let collection = COLLECTION_FAMILIES.iter().map(Section::Collection);
        readings
            .chain([Section::SensorInfo])
            .chain(sensors)
            .chain([Section::ReadingTimestamps])
            .chain(collection)
            .chain([Section::ReadingsSkipped, Section::UnmappedVariables])
            .nth(at)
    }

    /// Writes a section from its entry `from` on, until the writer is full. Yields the entry to go on from; 0 = all are
    /// written.
    fn render(&self, section: Section, from: usize, writer: &mut Writer) -> usize {
        match section {
            Section::Readings(family) => self.render_readings(family, from, writer),
            Section::SensorInfo => {
                let (name, help) = SENSOR_INFO;
                if from == 0 && (self.sensors.is_empty() || !writer.family(name, Type::Info, help))
                {
                    return 0;
                }
                let labels = self.snapshot.labels();
                writer.entries(&self.snapshot.sensors, from, |writer, at, sensor| {
                    writer.sample(name, labels.at(at), sensor.identity.info_labels(), 1.0);
                })
            }
            Section::Sensors(family) => self.render_sensors(family, from, writer),
            Section::ReadingTimestamps => {
                let (name, help) = READING_TIMESTAMP;
                if from == 0
                    && (self.timestamps.is_empty() || !writer.family(name, Type::Gauge, help))
                {
                    return 0;
                }
                let mut labels = ByVariable::new();
                writer.entries(&self.timestamps, from, |writer, _, place| {
                    let reading = self.reading(*place);
                    let label = labels.of(reading, var_name_label);
                    writer.sample(name, self.labels(*place), label, reading.time);
                })
            }
            Section::Collection((name, help, value)) => {
                if let Some(value) = value(self)
                    && writer.family(name, Type::Gauge, help)
                {
                    writer.sample(name, "", "", value);
                }
                0
            }
            Section::ReadingsSkipped => {
                let (name, help) = READINGS_SKIPPED;
                if writer.family(name, Type::Gauge, help) {
                    for skip in Skip::ALL {
                        let mut reason = String::new();
                        push_label(&mut reason, "reason", skip.as_str());
                        writer.sample(name, "", &reason, self.skipped.of(skip).into());
                    }
                }
                0
            }
            Section::UnmappedVariables => {
                let (name, help) = UNMAPPED_VARIABLES;
                if writer.family(name, Type::Gauge, help) {
                    writer.sample(name, "", "", count(self.unmapped));
                }
                0
            }
        }
    }

    fn render_readings(&self, family: usize, from: usize, writer: &mut Writer) -> usize {
        let shown = &self.families[family];
        let family = &self.catalog.families()[family];
        let name = &*family.name;
        let kind = match family.kind {
            Kind::Gauge => Type::Gauge,
            Kind::Counter => Type::Counter,
        };
        if from == 0 && (shown.is_empty() || !writer.family(name, kind, &self.reading_help(family)))
        {
            return 0;
        }
        let Some(var_name) = &family.var_name else {
            let mut labels = ByVariable::new();
            return writer.entries(shown, from, |writer, _, placed| {
                let label = labels.of(self.reading(placed.place), var_name_label);
                writer.sample(name, self.labels(placed.place), label, placed.value);
            });
        };
        let mapping = self.catalog.mapping(var_name);
        if mapping.is_some_and(|mapping| mapping.form == Form::Status) {
            let states = Status::NAMES.map(|state| {
                let mut text = String::new();
                push_label(&mut text, "status", state);
                text
            });
            return writer.entries(shown, from, |writer, _, placed| {
                let present = Status::of(placed.value);
                for (index, state) in states.iter().enumerate() {
                    let value = f64::from(index == present);
                    writer.sample(name, self.labels(placed.place), state, value);
                }
            });
        }
        writer.entries(shown, from, |writer, _, placed| {
            writer.sample(name, self.labels(placed.place), "", placed.value);
        })
    }

    fn render_sensors(
        &self,
        (name, help, value): &SensorFamily,
        from: usize,
        writer: &mut Writer,
    ) -> usize {
        let sensors = &self.snapshot.sensors;
        let mut samples = sensors.iter().zip(&self.sensors);
        let mut has_any = || samples.any(|(sensor, verdict)| value(sensor, verdict).is_some());
        if from == 0 && !(has_any() && writer.family(name, Type::Gauge, help)) {
            return 0;
        }
        let labels = self.snapshot.labels();
        writer.entries(&self.sensors, from, |writer, at, verdict| {
            if let Some(value) = value(&sensors[at], verdict) {
                writer.sample(name, labels.at(at), "", value);
            }
        })
    }

    /// Its last word is the `var_name`, for whoever looks for where a metric comes from.
    fn reading_help(&self, family: &Family) -> String {
        let mut interval = Vec::new();
        push_number(&mut interval, self.snapshot.summary.interval.as_secs_f64());
        let interval = String::from_utf8_lossy(&interval);
        let help = &family.help;
        let cached = format!("{help}; cached and refreshed every collect.interval ({interval}s)");
        match &family.var_name {
            Some(var_name) => format!("{cached}, from {var_name}"),
            None => cached,
        }
    }
}

/// What was found out of variables, by the place in memory that the names of one snapshot share: the same few come again
/// and again.
struct ByVariable<T>(Vec<(*const u8, T)>);

impl<T> ByVariable<T> {
    /// Beyond these, each takes the place of the last.
    const MOST: usize = 32;

    fn new() -> Self {
        Self(Vec::with_capacity(Self::MOST))
    }

    /// What `find` finds of the variable's name, asked once, mostly.
    fn of(&mut self, Reading { var_name, .. }: &Reading, find: impl Fn(&str) -> T) -> &T {
        let place = var_name.as_ptr();
        let met = self.0.iter().position(|(met, _)| *met == place);
        let at = met.unwrap_or_else(|| {
            self.0.truncate(Self::MOST - 1);
            self.0.push((place, find(var_name)));
            self.0.len() - 1
        });
        &self.0[at].1
    }
}

/// The label pair that tells variables of one family apart.
fn var_name_label(var_name: &str) -> String {
    let mut label = String::new();
    push_label(&mut label, "var_name", var_name);
    label
}

#[allow(clippy::cast_precision_loss)] // nobody has 2^53 sensors
fn count(things: usize) -> f64 {
    things as f64
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        catalog::Override,
        snapshot::{Identity, Summary},
    };

    const NOW: UnixTime = 1_716_300_000.0;
    const HOUR: Duration = Duration::from_secs(3600);

    fn catalog() -> Arc<Catalog> {
        catalog_of(BTreeMap::new(), HOUR)
    }

    fn catalog_of(overrides: BTreeMap<String, Override>, stale_after: Duration) -> Arc<Catalog> {
        Arc::new(Catalog::new(&overrides, stale_after, true))
    }

    /// One sensor with readings of (variable, age in seconds, value), last read so many seconds ago.
    fn snapshot(readings: &[(&str, f64, f64)], last_read: Option<f64>) -> Arc<Snapshot> {
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
        Arc::new(Snapshot::new(vec![sensor], Summary::default()))
    }

    fn shown(view: &View) -> Vec<(String, f64)> {
        let families = view.readings();
        families
            .flat_map(|(family, shown)| shown.map(|s| (family.name.to_string(), s.value)))
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
            let view = View::new(snapshot.clone(), catalog.clone(), NOW + age);
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
            let view = View::new(snapshot.clone(), catalog.clone(), now);
            held_back.push(view.stale_readings(0));
            // All that is shown may be shown for as long as the view says.
            assert_eq!(
                shown(&View::new(
                    snapshot.clone(),
                    catalog.clone(),
                    view.valid_until.min(1e12)
                ))
                .len(),
                shown(&view).len()
            );
            now = view.valid_until.next_up();
        }
        assert_eq!(held_back, [1, 2, 3, 4]);
    }

    #[test]
    fn nothing_is_stale_by_a_limit_of_zero() {
        let catalog = catalog_of(BTreeMap::new(), Duration::ZERO);
        let readings = [("temperatureC", 1e9, 21.0), ("onlineStatus", 1e9, 1.0)];
        let snapshot = snapshot(&readings, None);
        let view = View::new(snapshot.clone(), catalog.clone(), NOW);
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
        let catalog = catalog_of(BTreeMap::from([("CO2ppm".to_owned(), own)]), Duration::ZERO);
        let readings = [("CO2ppm", 11.0, 612.0), ("energyInkWh", 86_401.0, 1.0)];
        let snapshot = snapshot(&readings, Some(0.0));
        assert_eq!(
            View::new(snapshot.clone(), catalog.clone(), NOW).stale_readings(0),
            2
        );
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
            let view = View::new(snapshot.clone(), catalog.clone(), NOW);
            assert_eq!(names(&view), expected, "{last_read:?}");
            assert_eq!(view.stale_readings(0), stale, "{last_read:?}");
        }
    }

    #[test]
    fn motion_feeds_two_families() {
        let catalog = catalog();
        let snapshot = snapshot(&[("motionEvent", 30.0, 3.0)], Some(0.0));
        let view = View::new(snapshot.clone(), catalog.clone(), NOW);
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
        let catalog = catalog_of(BTreeMap::from([("motionEvent".to_owned(), drop)]), HOUR);
        let snapshot = snapshot(&[("motionEvent", 7200.0, 3.0)], Some(0.0));
        let view = View::new(snapshot.clone(), catalog.clone(), NOW);
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
        let view = View::new(snapshot.clone(), catalog.clone(), NOW);
        assert_eq!(view.sensors[0].last_reading, Some(NOW - 8000.0));
    }

    #[test]
    fn what_conversion_makes_infinite_is_skipped_and_not_stale() {
        let catalog = catalog();
        let snapshot = snapshot(&[("energyInkWh", 1e6, 1e303)], Some(0.0));
        let view = View::new(snapshot.clone(), catalog.clone(), NOW);
        assert_eq!(names(&view), [""; 0]);
        assert_eq!(view.skipped.of(Skip::NonFinite), 1);
        assert_eq!(view.stale_readings(0), 0);
    }

    #[test]
    fn variables_without_a_metric_count_once_however_many_sensors_send_them() {
        let catalog = catalog();
        let readings = [("PM1", 1.0, 1.0), ("PM10", 1.0, 1.0), ("NOX", 9999.0, 1.0)];
        let both = many(&snapshot(&readings, Some(0.0)), 2);
        assert_eq!(View::new(both, catalog, NOW).unmapped, 2);
    }

    /// So many sensors like the only one of `snapshot`.
    fn many(snapshot: &Snapshot, count: usize) -> Arc<Snapshot> {
        let sensors = vec![snapshot.sensors[0].clone(); count];
        Arc::new(Snapshot::new(sensors, Summary::default()))
    }

    /// 1,000 sensors with every variable there is: several megabytes.
    fn large() -> Arc<View> {
        let readings: Vec<_> = crate::catalog::ROWS
            .iter()
            .map(|row| (row.var_name, 1.0, 0.1))
            .collect();
        let many = many(&snapshot(&readings, Some(0.0)), 1000);
        Arc::new(View::new(many, catalog(), NOW))
    }

    #[test]
    fn the_size_is_guessed_well_enough_to_take_room_once() {
        let of_nothing = many(&snapshot(&[], Some(0.0)), 1000);
        for view in [large(), Arc::new(View::new(of_nothing, catalog(), NOW))] {
            let estimate = view.estimated_size();
            let size: usize = view
                .rendering(Format::OpenMetrics, Filter::default())
                .map(|chunk| chunk.len())
                .sum();
            assert!(
                (size..3 * size).contains(&estimate),
                "{estimate} for {size}"
            );
        }
    }

    #[test]
    fn chunks_are_full_whole_lines_and_no_longer_than_they_may_be() {
        let chunks: Vec<_> = large().rendering(Format::Text, Filter::default()).collect();
        let (last, others) = chunks.split_last().expect("some");
        assert!(others.len() > 10);
        for chunk in others {
            let full = Rendering::CHUNK - Rendering::ROOM..=Rendering::CHUNK;
            assert!(full.contains(&chunk.len()), "{}", chunk.len());
            assert_eq!(chunk.last(), Some(&b'\n'));
        }
        assert!((1..=Rendering::CHUNK).contains(&last.len()));
        let text = String::from_utf8(chunks.concat()).expect("UTF-8");
        let families = text.lines().filter(|line| line.starts_with("# TYPE"));
        let distinct: HashSet<_> = families.clone().collect();
        assert_eq!(distinct.len(), families.count());
        for family in distinct {
            let name = family.split(' ').nth(2).expect("a name");
            let samples = text.matches(&format!("\n{name}{{sensor_id=")).count();
            assert!(
                matches!(samples, 0 | 1000 | 5000 | 15_000),
                "{samples} of {name}"
            );
        }
    }
}
