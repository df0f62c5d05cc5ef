//! The text that Prometheus reads: golden files, and arbitrary texts and numbers through a parser that shares no code with
//! the writer. `UPDATE_GOLDEN=1` rewrites the golden files.

#![allow(clippy::unwrap_used, clippy::panic)]

pub(crate) mod parser;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use lightfi_exporter::{
    catalog::{Catalog, Override},
    exposition::{Filter, Format, View, render_self_metrics},
    snapshot::{
        Identity, Reading, Sensor, SkipReason, SkippedReadings, Snapshot, Summary, UnixTime,
    },
};
use parser::{Family, parse};
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use proptest::prelude::*;

const NOW: UnixTime = 1_716_300_000.0;
const HOUR: Duration = Duration::from_secs(3600);

fn catalog() -> Arc<Catalog> {
    Catalog::new(&BTreeMap::new(), HOUR, false).into()
}

fn identity(id: &str, name: &str, location: &str, labels: &[(&str, &str)]) -> Arc<Identity> {
    let some = |text: &str| Some(text.into());
    let labels = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let location_id = some(if location.is_empty() { "" } else { "1234" });
    Arc::new(Identity::new(
        id.into(),
        some(name),
        some(location),
        location_id,
        labels.collect(),
    ))
}

/// A sensor read a few seconds ago, with readings of (variable, age in seconds, value).
fn sensor(identity: Arc<Identity>, readings: &[(&str, f64, f64)]) -> Sensor {
    let reading = |(var_name, age, value): &(&str, f64, f64)| Reading {
        var_name: (*var_name).to_owned().into(),
        time: NOW - age,
        value: *value,
    };
    Sensor {
        identity,
        readings: readings.iter().map(reading).collect(),
        skipped: SkippedReadings::default(),
        read: Some(true),
        last_success: Some(NOW - 5.0),
    }
}

fn snapshot(sensors: Vec<Sensor>) -> Snapshot {
    let summary = Summary {
        up: true,
        duration: Duration::from_millis(420),
        last_success: Some(NOW - 5.0),
        interval: Duration::from_secs(60),
        ..Summary::default()
    };
    Snapshot { sensors, summary }
}

/// A whole response without metrics of the exporter itself.
fn body(snapshot: &Snapshot, catalog: &Arc<Catalog>, format: Format) -> String {
    let all = Filter::default();
    let view = View::new(snapshot.clone().into(), catalog.clone(), NOW);
    let mut text = String::new();
    view.render(format, &all, &mut |chunk| text.push_str(chunk));
    text + &render_self_metrics(&[], format, &all)
}

/// Checks that both responses are well-formed, hold the same series, and equal their golden files.
fn golden(case: &str, snapshot: &Snapshot, catalog: &Arc<Catalog>) {
    let bodies = Format::ALL.map(|format| body(snapshot, catalog, format));
    assert_golden(case, &bodies);
}

fn assert_golden(case: &str, bodies: &[String; 2]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut series = Vec::new();
    for (body, format) in bodies.iter().zip(Format::ALL) {
        let families =
            parse(body, format).unwrap_or_else(|e| panic!("{case} {format:?}: {e}\n{body}"));
        series.push(all_series(&families));
        let file = folder.join(match format {
            Format::Text => format!("{case}.prom"),
            Format::OpenMetrics => format!("{case}.om"),
        });
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, body).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            *body == expected,
            "{} is not what is exposed now; UPDATE_GOLDEN=1 accepts this:\n{body}",
            file.display()
        );
    }
    assert_eq!(
        series[0], series[1],
        "{case}: the formats differ in their series"
    );
}

fn all_series(families: &[Family]) -> BTreeSet<String> {
    let samples = families.iter().flat_map(|family| &family.samples);
    samples.map(|sample| format!("{sample:?}")).collect()
}

/// Checks the golden file of one sensor.
fn golden_sensor(case: &str, identity: Arc<Identity>, readings: &[(&str, f64, f64)]) {
    let snapshot = snapshot(vec![sensor(identity, readings)]);
    golden(case, &snapshot, &catalog());
}

#[test]
fn gateway_and_meter_readings_match_the_golden_files() {
    let readings = [
        ("clientsWiFi", 20.0, 42.0),
        ("clientsBLE", 20.0, 17.0),
        ("BACnetReads", 20.0, 10.0),
        ("onlineStatus", 86_400.0, 1.0),
    ];
    let gateway = identity("LF-0A1B2C3D4E5F", "Gateway 3", "HQ / Floor 3", &[]);
    golden_sensor("model_base", gateway, &readings);
    let readings = [("energyInkWh", 20.0, 2000.1), ("onlineStatus", 20.0, -1.0)];
    let meter = identity("LF-0A1B2C3D4E60", "Main meter", "HQ", &[]);
    golden_sensor("meter", meter, &readings);
}

#[test]
fn readings_of_air_and_light_match_the_golden_files() {
    let readings = [
        ("CO2ppm", 30.5, 612.0),
        ("VOCppb", 30.5, 1000.0),
        ("particulateMatter", 30.5, 10.5),
        ("pressuremBar", 30.5, 1013.25),
        ("temperatureC", 30.5, 21.4),
        ("relativeHumidity", 30.5, 57.0),
        ("onlineStatus", 86_400.0, 1.0),
    ];
    let labels = [("desk", "12"), ("side", "north")];
    let sahara = identity("LF5-0A1B2C3D4E5F", "Boardroom", "HQ / Floor 3", &labels);
    golden_sensor("model_sahara", sahara, &readings);
    let readings = [
        ("CO2ppm", 120.0, 850.0),
        ("temperatureC", 120.0, -0.5),
        ("relativeHumidity", 120.0, 50.0),
        ("illuminanceArb", 120.0, 20.0),
        ("batteryLevelPct", 10.0 * 86_400.0, 90.0),
        ("onlineStatus", 60.0, 1.0),
    ];
    let alpine = identity("AQ2-FE753C0D7ADF", "", "", &[]);
    golden_sensor("model_alpine", alpine, &readings);
    let readings = [
        ("temperatureC", 120.0, -40.0),
        ("relativeHumidity", 120.0, 100.0),
        ("batteryLevelPct", 120.0, 0.0),
        ("onlineStatus", 60.0, 0.0),
    ];
    let hoth = identity("MS1-FE753C0D7ADF", "Cold store", "Site B / Cellar", &[]);
    golden_sensor("model_hoth", hoth, &readings);
}

#[test]
fn motion_readings_match_the_golden_files() {
    let readings = [
        ("motionEvent", 90.0, 7.0),
        ("occSignatures", 30.0, 2.0),
        ("batteryLevelPct", 30.0, 57.0),
        ("onlineStatus", 60.0, 1.0),
    ];
    let door = identity("AMP-FE753C0D7ADF", "Door", "HQ / Floor 1", &[]);
    golden_sensor("model_x1", door, &readings);
}

#[test]
fn unknown_variables() {
    let readings = [
        ("PM1", 30.0, 4.5),
        ("PM10", 30.0, 12.0),
        ("NOX", 30.0, 1.0),
        ("", 30.0, 2.0),
        ("say \"hi\"\\\n😀", 30.0, 3.0),
        ("CO2ppm", 30.0, 612.0),
        ("onlineStatus", 30.0, 7.0),
    ];
    let hall = identity("HAL-FE753C0D7ADF", "Hall", "HQ", &[]);
    let noise = identity("XY9-000000000001", "", "", &[]);
    let sensors = vec![
        sensor(hall, &readings),
        sensor(noise, &[("PM1", 30.0, 5.0)]),
    ];
    golden("unknown_variables", &snapshot(sensors), &catalog());
}

#[test]
fn skipped_readings_are_counted() {
    // The collector only counts what is null or malformed; conversion can make more readings non-finite.
    let mut skipped = SkippedReadings::default();
    for skip in [
        SkipReason::Null,
        SkipReason::Null,
        SkipReason::NonFinite,
        SkipReason::Malformed,
        SkipReason::Future,
        SkipReason::Older,
    ] {
        skipped.count(skip);
    }
    let readings = [("pressuremBar", 30.0, 1e307), ("temperatureC", 60.0, 21.0)];
    let some = Sensor {
        skipped,
        ..sensor(identity("AQ2-000000000001", "Some", "HQ", &[]), &readings)
    };
    let none = Sensor {
        skipped,
        ..sensor(identity("AQ2-000000000002", "None", "HQ", &[]), &[])
    };
    golden(
        "nulls_and_non_finite",
        &snapshot(vec![some, none]),
        &catalog(),
    );
}

#[test]
fn hostile_names_are_escaped() {
    let names = [
        "say \"hi\"",
        "back\\slash\\",
        "two\nlines\r\n",
        "😀 Besprechungsraum Zürich 会議室",
        "",
        "twin",
        "twin",
        "\\n\\\"{},= # EOF",
        "\u{1}\u{7f}\u{2028}\u{feff}",
    ];
    let sensors = names.into_iter().enumerate().map(|(index, name)| {
        let id = format!("AQ2-{index:012X}");
        let identity = identity(&id, name, name, &[("note", name)]);
        sensor(identity, &[("temperatureC", 30.0, 21.0), (name, 30.0, 1.0)])
    });
    golden("hostile_names", &snapshot(sensors.collect()), &catalog());
}

#[test]
fn stale_readings() {
    let day = 86_400.0;
    let old = identity("AMP-000000000001", "Quiet", "HQ", &[]);
    let old = sensor(
        old,
        &[
            ("temperatureC", 3600.5, 21.0),
            ("relativeHumidity", 3600.0, 50.0),
            ("motionEvent", 7200.0, 3.0),
            ("energyInkWh", 2.0 * 3600.0, 10.0),
            ("batteryLevelPct", 15.0 * day, 90.0),
            ("onlineStatus", 30.0 * day, 1.0),
            ("PM1", 2.0 * day, 1.0),
        ],
    );
    let silent = Sensor {
        last_success: Some(NOW - 3601.0),
        read: Some(false),
        ..sensor(
            identity("AMP-000000000002", "Not read recently", "HQ", &[]),
            &[("motionEvent", 30.0, 3.0), ("onlineStatus", 30.0, 1.0)],
        )
    };
    golden("stale_readings", &snapshot(vec![old, silent]), &catalog());
}

#[test]
fn failing_sensor() {
    let failing = Sensor {
        read: Some(false),
        last_success: Some(NOW - 300.0),
        ..sensor(
            identity("AQ2-000000000001", "Failing", "HQ", &[]),
            &[("temperatureC", 320.0, 21.0)],
        )
    };
    let never = Sensor {
        read: Some(false),
        last_success: None,
        ..sensor(identity("AQ2-000000000002", "Never read", "", &[]), &[])
    };
    let new = Sensor {
        read: None,
        last_success: None,
        ..sensor(identity("AQ2-000000000003", "New", "", &[]), &[])
    };
    let mut snapshot = snapshot(vec![failing, never, new]);
    snapshot.summary.sensors_failed = 2;
    snapshot.summary.locations_failed = 1;
    golden("failing_sensor", &snapshot, &catalog());
}

#[test]
fn the_exposition_before_the_first_collection_matches_the_golden_files() {
    let mut snapshot = Snapshot::default();
    snapshot.summary.interval = Duration::from_secs(60);
    golden("first_moments", &snapshot, &catalog());
}

#[test]
fn overridden_variables_and_reading_timestamps_match_the_golden_files() {
    let named = |name: &str| Override {
        name: Some(name.to_owned()),
        ..Override::default()
    };
    let overrides = BTreeMap::from([
        (
            "PM10".to_owned(),
            Override {
                help: Some("Coarse dust, \"PM10\" \\ PM₁₀".to_owned()),
                scale: Some(0.5),
                ..named("pm10_ugm3")
            },
        ),
        ("energyInkWh".to_owned(), named("meter_joules")),
        ("irSignatures".to_owned(), named("people")),
        (
            "BACnetReads".to_owned(),
            Override {
                drop: true,
                ..Override::default()
            },
        ),
        (
            "temperatureC".to_owned(),
            Override {
                stale_after: Some(Duration::from_secs(10)),
                ..Override::default()
            },
        ),
    ]);
    let readings = [
        ("PM10", 30.0, 24.0),
        ("PM1", 30.5, 24.0),
        ("energyInkWh", 30.0, 1.0),
        ("occSignatures", 30.0, 2.0),
        ("BACnetReads", 1.0, 2.0),
        ("temperatureC", 30.0, 2.0),
        ("motionEvent", 30.0, 2.0),
        ("onlineStatus", 30.0, 1.0),
    ];
    let mut snapshot = snapshot(vec![sensor(
        identity("LF5-000000000001", "One", "HQ", &[]),
        &readings,
    )]);
    snapshot.summary.interval = Duration::from_millis(75_500);
    golden(
        "overrides",
        &snapshot,
        &Catalog::new(&overrides, HOUR, true).into(),
    );
}

#[test]
fn the_exporters_own_metrics_match_the_golden_files() {
    let registry = Registry::new();
    let info = Gauge::with_opts(
        Opts::new("a_build_info", "Say \"what\" \\ built it")
            .const_label("version", "1.0 \"x\"\\\n"),
    );
    let info = info.unwrap();
    info.set(1.0);
    registry.register(Box::new(info)).unwrap();
    let requests = IntCounterVec::new(
        Opts::new("a_requests_total", "Requests"),
        &["route", "reason"],
    )
    .unwrap();
    requests.with_label_values(&["sensor", "timeout"]).inc_by(3);
    requests.with_label_values(&["sensor", "connect"]);
    registry.register(Box::new(requests)).unwrap();
    let seconds = IntCounterVec::new(Opts::new("a_seconds_total", "Seconds"), &[]).unwrap();
    seconds
        .with_label_values(&[] as &[&str])
        .inc_by(9_007_199_254_740_993);
    registry.register(Box::new(seconds)).unwrap();
    let buckets = vec![0.025, 1.0, 10.0];
    let duration = Histogram::with_opts(
        HistogramOpts::new("a_duration_seconds", "Duration")
            .buckets(buckets)
            .const_label("route", "sensor"),
    )
    .unwrap();
    for seconds in [0.01, 0.5, 1.0, 11.5] {
        duration.observe(seconds);
    }
    registry.register(Box::new(duration)).unwrap();
    let families = registry.gather();
    let all = Filter::default();
    let bodies = Format::ALL.map(|format| render_self_metrics(&families, format, &all));
    assert_golden("own", &bodies);
}

/// Any text, rich in characters that the formats escape.
fn any_text() -> impl Strategy<Value = String> {
    let special = proptest::sample::select(vec![
        '\\', '"', '\n', '\r', '\t', ',', '{', '}', '=', ' ', '#', 'n', '\0',
    ]);
    let c = prop_oneof![3 => any::<char>(), 2 => special];
    proptest::collection::vec(c, 0..12).prop_map(|chars| chars.into_iter().collect())
}

fn any_finite() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    prop_oneof![
        POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO,
        (-10_000_000_i64..10_000_000).prop_map(|thousandths| thousandths as f64 / 1000.0),
        any::<i64>().prop_map(|whole| whole as f64),
    ]
}

/// Name, location, label, and readings by variable.
type AnySensor = (String, String, String, BTreeMap<String, f64>, f64);

fn any_sensor() -> impl Strategy<Value = AnySensor> {
    let readings = proptest::collection::btree_map(any_text(), any_finite(), 0..4);
    (any_text(), any_text(), any_text(), readings, any_finite())
}

fn labels_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let present = pairs.iter().filter(|(_, value)| !value.is_empty());
    present
        .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
        .collect()
}

proptest! {
    #[test]
    fn any_text_and_any_number_come_back(sensors in proptest::collection::vec(any_sensor(), 0..4)) {
        let mut expected = BTreeSet::new();
        let mut known = Vec::new();
        for (index, (name, location, note, readings, temperature)) in sensors.iter().enumerate() {
            let id = format!("AQ2-{index:012X}");
            let own = [
                ("sensor_id", id.as_str()),
                ("sensor", if name.is_empty() { &id } else { name }),
                ("location", location),
            ];
            let mut expect = |name: &str, more: &[(&str, &str)], value: f64| {
                let sample = parser::Sample { name: name.to_owned(), labels: labels_of(&[&own, more].concat()), value };
                expected.insert(format!("{sample:?}"));
            };
            let location_id = if location.is_empty() { "" } else { "1234" };
            expect("lightfi_sensor_info", &[("model", "Alpine"), ("location_id", location_id), ("note", note)], 1.0);
            // Adding zero makes a negative zero positive, as it is exposed.
            expect("lightfi_temperature_celsius", &[], *temperature + 0.0);
            let mut given = vec![("temperatureC", 30.0, *temperature)];
            for (var_name, value) in readings {
                let var_name: &str = var_name;
                expect("lightfi_reading", &[("var_name", var_name)], *value + 0.0);
                given.push((var_name, 30.0, *value));
            }
            known.push(sensor(identity(&id, name, location, &[("note", note)]), &given));
        }
        let snapshot = snapshot(known);
        for format in Format::ALL {
            let families = parse(&body(&snapshot, &catalog(), format), format);
            prop_assert!(families.is_ok(), "{families:?}");
            let of_readings = ["lightfi_sensor_info", "lightfi_temperature_celsius", "lightfi_reading"];
            let mut families = families.unwrap();
            for family in &mut families {
                family.samples.retain(|sample| of_readings.contains(&sample.name.as_str()));
            }
            prop_assert_eq!(&all_series(&families), &expected);
        }
    }
}
