//! Renders any snapshot in both formats and parses it with the strict parser of the tests: every series comes back once, and
//! the formats agree.
#![no_main]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lightfi_exporter::{
    catalog::Catalog,
    exposition::{Filter, Format, View, render_self_metrics},
    snapshot::{Identity, Reading, Sensor, SkippedReadings, Snapshot, Summary},
};

#[path = "../../tests/it/exposition/parser.rs"]
mod parser;

const NOW: f64 = 1_716_300_000.0;

#[derive(Arbitrary, Debug)]
struct Fuzzed<'a> {
    sensors: BTreeMap<&'a str, FuzzedSensor<'a>>,
    reading_timestamps: bool,
    stale_after: u16,
}

#[derive(Arbitrary, Debug)]
struct FuzzedSensor<'a> {
    name: Option<&'a str>,
    location: Option<&'a str>,
    location_id: Option<&'a str>,
    note: &'a str,
    /// By variable: age in seconds, and value.
    readings: BTreeMap<&'a str, (u16, f64)>,
    read: Option<bool>,
}

fuzz_target!(|fuzzed: Fuzzed| {
    let snapshot = snapshot(&fuzzed);
    let stale_after = Duration::from_secs(fuzzed.stale_after.into());
    let catalog = Catalog::new(&BTreeMap::new(), stale_after, fuzzed.reading_timestamps);
    let view = View::new(snapshot.clone(), catalog.into(), NOW);
    let [text, openmetrics] = Format::ALL.map(|format| read_back(&view, format));
    assert_eq!(text, openmetrics, "the formats differ in their series");
    for sensor in &snapshot.sensors {
        let info = text.iter().filter(|(name, labels, _)| {
            name == "lightfi_sensor_info"
                && *labels["sensor_id"] == *sensor.identity.id
                && labels.get("note")
                    == sensor
                        .identity
                        .labels
                        .get("note")
                        .filter(|note| !note.is_empty())
                && labels.get("location").map(String::as_str) == sensor.identity.location.as_deref()
        });
        assert_eq!(info.count(), 1, "{:?}", sensor.identity);
    }
    // Without an age limit every reading is exposed. Only unmapped ones are compared: the others are scaled.
    if stale_after.is_zero() {
        for (sensor, reading) in
            readings(&snapshot).filter(|(_, reading)| is_unmapped(&reading.var_name))
        {
            let shown = text.iter().any(|(name, labels, value)| {
                name == "lightfi_reading"
                    && *labels["sensor_id"] == *sensor.identity.id
                    && labels.get("var_name").map_or("", String::as_str) == &*reading.var_name
                    // Adding zero makes a negative zero positive, as it is exposed.
                    && *value == (reading.value + 0.0).to_bits()
            });
            assert!(shown, "{reading:?} of {:?}", sensor.identity);
        }
    }
});

fn readings(snapshot: &Snapshot) -> impl Iterator<Item = (&Sensor, &Reading)> {
    let sensors = snapshot.sensors.iter();
    sensors.flat_map(|sensor| sensor.readings.iter().map(move |reading| (sensor, reading)))
}

fn is_unmapped(var_name: &str) -> bool {
    !lightfi_exporter::catalog::ROWS
        .iter()
        .any(|row| row.var_name == var_name)
}

/// Snapshots as a collector can make them: ids are not empty, values are finite.
fn snapshot(fuzzed: &Fuzzed) -> Arc<Snapshot> {
    let text = |text: Option<&str>| text.map(Arc::from);
    let named = fuzzed.sensors.iter().filter(|(id, _)| !id.is_empty());
    let sensors = named.map(|(id, sensor)| Sensor {
        identity: Arc::new(Identity::new(
            (*id).into(),
            text(sensor.name),
            text(sensor.location),
            text(sensor.location_id),
            BTreeMap::from([("note".to_owned(), sensor.note.to_owned())]),
        )),
        readings: (sensor.readings.iter())
            .filter(|(_, (_, value))| value.is_finite())
            .map(|(var_name, (age, value))| Reading {
                var_name: (*var_name).to_owned().into(),
                time: NOW - f64::from(*age),
                value: *value,
            })
            .collect(),
        skipped: SkippedReadings::default(),
        read: sensor.read,
        last_success: sensor.read.map(|_| NOW - 5.0),
    });
    let summary = Summary {
        up: true,
        ..Summary::default()
    };
    Snapshot {
        sensors: sensors.collect(),
        summary,
    }
    .into()
}

/// Returns name, labels and the bits of the value of every series.
type Series = BTreeSet<(String, BTreeMap<String, String>, u64)>;

fn read_back(view: &View, format: Format) -> Series {
    let all = Filter::default();
    let mut body = String::new();
    view.render(format, &all, &mut |chunk| body.push_str(chunk));
    body.push_str(&render_self_metrics(&[], format, &all));
    let families = parser::parse(&body, format).unwrap_or_else(|error| panic!("{error}\n{body}"));
    let samples = families.into_iter().flat_map(|family| family.samples);
    samples
        .map(|sample| (sample.name, sample.labels, sample.value.to_bits()))
        .collect()
}
