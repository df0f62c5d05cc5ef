//! Prometheus and VictoriaMetrics, which prefer different formats, scrape one exporter. Each of them must store exactly what the
//! simulated cloud has served, converted and labelled.
//!
//! The table of metrics is repeated here on purpose: if it came from the catalog, a mistake there would pass.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use lightfi_simulator::{Options, Reading};
use serde_json::Value;

use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape},
    scraper::{Labels, Scraper},
};

/// Long enough for both scrapers on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The series of sensors, without those of the exporter and its collections.
const OF_SENSORS: &str =
    "{__name__=~\"lightfi_.+\",__name__!~\"lightfi_(up|collect_.+|exporter_.+)\"}";

type Values = BTreeMap<Labels, f64>;

/// Returns whether the stored value is the expected one.
type Same = fn(f64, f64) -> bool;

/// Prometheus keeps every bit.
fn exactly(stored: f64, value: f64) -> bool {
    stored == value
}

/// VictoriaMetrics stores decimal numbers with twelve significant digits: it makes 0.241 of 0.24100000000000002.
fn to_twelve_digits(stored: f64, value: f64) -> bool {
    (stored - value).abs() <= 1e-12 * value.abs()
}

#[tokio::test]
async fn prometheus_and_victoria_metrics_store_what_the_cloud_served() {
    if !crate::tools::has(&["prometheus", "victoria-metrics"]) {
        return;
    }
    let cloud = Cloud::start(Options {
        sensors: 60,
        ..Options::default()
    })
    .await;
    let config = cloud.config("collect: {interval: 30m}\n");
    // The cloud makes new readings at each request, so the identities are requested before the exporter starts.
    let identities = identities(&cloud, &config).await;
    assert_eq!(identities.len(), 60);
    let exporter = Exporter::serve(&config);
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.sum("lightfi_sensor_read_success"), 60.0);
    let served: BTreeMap<String, Vec<Reading>> = cloud
        .simulator
        .sensors()
        .into_iter()
        .map(|id| (id.clone(), cloud.simulator.served(&id)))
        .collect();
    let expected = || expected(&identities, &served, unix_now());
    let all = expected();
    for (metric, least) in METRICS {
        let of = all.keys().filter(|labels| labels["__name__"] == *metric);
        let count = of.count();
        assert!(count >= *least, "only {count} of {metric} are compared");
    }

    let target = exporter.url.trim_start_matches("http://");
    let (prometheus, victoria_metrics) = tokio::join!(
        Scraper::prometheus(target, "1s"),
        Scraper::victoria_metrics(target, "1s")
    );
    let both = [
        (&prometheus, exactly as Same),
        (&victoria_metrics, to_twelve_digits),
    ];
    for (scraper, same) in both {
        stores(scraper, same, expected).await;
        took_every_sample(scraper, same, &exporter, &all).await;
        assert_eq!(scraper.log(), "", "it logs no error");
    }
    let metadata = |metric: &str| format!("/api/v1/metadata?metric={metric}");
    for (metric, kind) in [
        ("lightfi_sensor", "info"),
        ("lightfi_energy_joules", "counter"),
    ] {
        let answer = prometheus.get(&metadata(metric)).await;
        assert!(
            answer.contains(&format!("\"type\":\"{kind}\"")),
            "Prometheus read OpenMetrics: {answer}"
        );
    }
    let own = Scrape::parse(prometheus.get("/metrics").await);
    for refused in ["duplicate_timestamp", "out_of_order", "out_of_bounds"] {
        let metric = format!("prometheus_target_scrapes_sample_{refused}_total");
        assert_eq!(own.value(&metric), Some(0.0), "{metric}");
    }
    let own = victoria_metrics.get("/metrics").await;
    let refused = "vm_rows_invalid_total{type=\"prometheus\"} 0";
    assert!(own.lines().any(|line| line == refused), "{own}");
}

/// Waits until the store has exactly the expected series; a reading that becomes stale meanwhile is in neither.
async fn stores(scraper: &Scraper, same: Same, expected: impl Fn() -> Values) {
    let start = Instant::now();
    loop {
        let stored = scraper.query(OF_SENSORS).await.into_iter();
        let stored: Values = stored
            .map(|series| (series.labels, series.samples[0].1))
            .collect();
        let differences = differences(&expected(), &stored, same);
        if differences.is_empty() {
            return;
        }
        assert!(
            start.elapsed() < TIMEOUT,
            "{} of {} series differ:\n{}\n{}",
            differences.len(),
            stored.len(),
            differences.join("\n"),
            scraper.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn differences(expected: &Values, stored: &Values, same: Same) -> Vec<String> {
    let wrong = expected.iter().filter_map(|(labels, value)| {
        let stored = stored.get(labels).copied();
        (!stored.is_some_and(|stored| same(stored, *value)))
            .then(|| format!("{labels:?}: {stored:?} instead of {value}"))
    });
    let surplus = stored
        .iter()
        .filter(|(labels, _)| !expected.contains_key(*labels))
        .map(|(labels, value)| format!("{labels:?}: {value} instead of nothing"));
    wrong.chain(surplus).collect()
}

/// Checks that several scrapes succeeded with all samples, and that no reading ever had another value.
async fn took_every_sample(scraper: &Scraper, same: Same, exporter: &Exporter, all: &Values) {
    let start = Instant::now();
    loop {
        let samples = exporter.scrape().await.samples.len() as f64;
        let taken = scraper.value("scrape_samples_scraped").await;
        let scrapes = scraper.value("count_over_time(up[5m])").await;
        if taken == Some(samples) && scrapes >= Some(3.0) {
            break;
        }
        assert!(
            start.elapsed() < TIMEOUT,
            "{taken:?} of {samples} samples, {scrapes:?} scrapes"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(scraper.value("min_over_time(up[5m])").await, Some(1.0));
    for series in scraper.query(&format!("{OF_SENSORS}[5m]")).await {
        // Only the number of stale readings may change with time alone.
        if series.labels["__name__"] == "lightfi_sensor_stale_readings" {
            continue;
        }
        let value = all[&series.labels];
        for (_, stored) in series.samples {
            assert!(
                same(stored, value),
                "{stored} instead of {value}: {:?}",
                series.labels
            );
        }
    }
}

/// The metrics of sensors, with the smallest number of series that sixty sensors have at any time.
const METRICS: &[(&str, usize)] = &[
    ("lightfi_temperature_celsius", 20),
    ("lightfi_humidity_ratio", 20),
    ("lightfi_co2_ppm", 15),
    ("lightfi_voc_ppb", 4),
    ("lightfi_pm2_5_ugm3", 4),
    ("lightfi_pressure_pascals", 4),
    ("lightfi_illuminance", 4),
    ("lightfi_battery_ratio", 20),
    ("lightfi_energy_joules_total", 1),
    ("lightfi_wifi_clients", 4),
    ("lightfi_ble_clients", 4),
    ("lightfi_occupants", 4),
    ("lightfi_bacnet_reads", 4),
    ("lightfi_motion_last_event_timestamp_seconds", 4),
    ("lightfi_sensor_status", 5 * 60),
    ("lightfi_reading", 14),
    ("lightfi_sensor_info", 60),
    ("lightfi_sensor_read_success", 60),
    ("lightfi_sensor_stale_readings", 60),
    ("lightfi_sensor_last_reading_timestamp_seconds", 60),
];

const HOUR: f64 = 3600.0;

/// Returns the metric of a variable, its converted value, and its age limit. Not for `onlineStatus`.
pub fn metric_of(var_name: &str, value: f64) -> (&'static str, f64, f64) {
    let (metric, value) = match var_name {
        "temperatureC" => ("lightfi_temperature_celsius", value),
        "relativeHumidity" => ("lightfi_humidity_ratio", value / 100.0),
        "CO2ppm" => ("lightfi_co2_ppm", value),
        "VOCppb" => ("lightfi_voc_ppb", value),
        "particulateMatter" => ("lightfi_pm2_5_ugm3", value),
        "pressuremBar" => ("lightfi_pressure_pascals", value * 100.0),
        "illuminanceArb" => ("lightfi_illuminance", value),
        "batteryLevelPct" => ("lightfi_battery_ratio", value / 100.0),
        "energyInkWh" => ("lightfi_energy_joules_total", value * 3_600_000.0),
        "clientsWiFi" => ("lightfi_wifi_clients", value),
        "clientsBLE" => ("lightfi_ble_clients", value),
        "occSignatures" | "irSignatures" => ("lightfi_occupants", value),
        "BACnetReads" => ("lightfi_bacnet_reads", value),
        "motionEvent" => ("lightfi_motion_activity", value),
        _ => ("lightfi_reading", value),
    };
    let stale_after = match var_name {
        "batteryLevelPct" => 14.0 * 24.0 * HOUR,
        "energyInkWh" => 24.0 * HOUR,
        _ => HOUR,
    };
    (metric, value, stale_after)
}

/// Returns the expected series of all sensors at a moment.
fn expected(
    identities: &BTreeMap<String, Identity>,
    served: &BTreeMap<String, Vec<Reading>>,
    now: f64,
) -> Values {
    let mut values = Values::new();
    for (id, items) in served {
        let identity = &identities[id];
        let mut put = |metric: &str, more: &[(&str, &str)], value: f64| {
            let mut labels = identity.series_labels(id);
            labels.insert("__name__".to_owned(), metric.to_owned());
            for (label, text) in more {
                labels.insert((*label).to_owned(), (*text).to_owned());
            }
            assert_eq!(values.insert(labels, value), None, "{metric} of {id} twice");
        };
        let mut stale = 0.0;
        let mut newest = None;
        for item in items {
            let (Some(time), Some(value)) = (item.time, item.value) else {
                continue;
            };
            let var_name = &*item.var_name;
            if !matches!(var_name, "onlineStatus" | "BACnetReads") {
                newest = Some(f64::max(time, newest.unwrap_or(time)));
            }
            if var_name == "onlineStatus" {
                for (state, number) in STATES {
                    let present = f64::from(u8::from(value == number));
                    put("lightfi_sensor_status", &[("status", state)], present);
                }
                continue;
            }
            if var_name == "motionEvent" {
                put("lightfi_motion_last_event_timestamp_seconds", &[], time);
            }
            let (metric, value, stale_after) = metric_of(var_name, value);
            if now - time > stale_after {
                stale += 1.0;
            } else if metric == "lightfi_reading" {
                put(metric, &[("var_name", var_name)], value);
            } else {
                put(metric, &[], value);
            }
        }
        put("lightfi_sensor_read_success", &[], 1.0);
        put("lightfi_sensor_stale_readings", &[], stale);
        if let Some(newest) = newest {
            put("lightfi_sensor_last_reading_timestamp_seconds", &[], newest);
        }
        let known: Vec<_> = identity
            .more
            .iter()
            .map(|(label, text)| (label.as_str(), text.as_str()))
            .collect();
        put("lightfi_sensor_info", &known, 1.0);
    }
    values
}

const STATES: [(&str, f64); 5] = [
    ("online", 1.0),
    ("offline", 0.0),
    ("rebooting", -1.0),
    ("retired", -2.0),
    ("unknown", f64::NAN), // the simulated building has none
];

/// The labels of a sensor.
#[derive(Default)]
struct Identity {
    name: String,
    location: Option<String>,
    /// Only on `lightfi_sensor_info`.
    more: Labels,
}

impl Identity {
    fn series_labels(&self, id: &str) -> Labels {
        let mut labels = Labels::from([
            ("sensor_id".to_owned(), id.to_owned()),
            ("sensor".to_owned(), self.name.clone()),
        ]);
        labels.extend(
            self.location
                .iter()
                .map(|path| ("location".to_owned(), path.clone())),
        );
        labels
    }
}

/// Gets names and locations from the cloud, and applies those in the configuration.
async fn identities(cloud: &Cloud, config: &str) -> BTreeMap<String, Identity> {
    let config: Value = serde_saphyr::from_str(config).expect("YAML");
    let oauth = |key: &str| config["oauth"][key].as_str().expect("text").to_owned();
    let client = crate::tools::client().no_proxy().build();
    let client = client.expect("a client");
    let form = [
        ("grant_type", "refresh_token".to_owned()),
        ("client_id", oauth("client_id")),
        ("client_secret", oauth("client_secret")),
        ("refresh_token", oauth("refresh_token")),
    ];
    let answer = json(client.post(oauth("token_url")).form(&form)).await;
    let token = answer["access_token"].as_str().expect("a token");
    let get = async |path: &str| {
        json(
            client
                .get(format!("{}{path}", cloud.url))
                .bearer_auth(token),
        )
        .await
    };

    let mut identities = BTreeMap::new();
    let entries = |key: &str| config[key].as_array().cloned().unwrap_or_default();
    let mut open: Vec<(String, String)> = Vec::new();
    for location in entries("locations") {
        open.push((text(&location, "id"), text(&location, "name")));
    }
    while let Some((id, path)) = open.pop() {
        let location = get(&format!("/locations/{id}/")).await;
        for child in location["children"].as_array().expect("children") {
            let path = format!("{path} / {}", text(child, "name"));
            open.push((text(child, "id"), path));
        }
        for sensor in location["sensors"].as_array().expect("sensors") {
            let identity = Identity {
                name: text(sensor, "name"),
                location: Some(path.clone()),
                more: Labels::from([("location_id".to_owned(), id.clone())]),
            };
            identities.insert(text(sensor, "id"), identity);
        }
    }
    for entry in entries("sensors") {
        let id = match entry.as_str() {
            Some(id) => id.to_owned(),
            None => text(&entry, "id"),
        };
        let sensor = get(&format!("/sensors/{id}?project=latest&project=value")).await;
        let identity: &mut Identity = identities.entry(id).or_default();
        identity.name = text(&sensor, "name");
        if let Some(name) = entry["name"].as_str() {
            identity.name = name.to_owned();
        }
        if let Some(location) = entry["location"].as_str() {
            identity.location = Some(location.to_owned());
        }
        for (label, value) in entry["labels"].as_object().into_iter().flatten() {
            let value = value.as_str().expect("text").to_owned();
            identity.more.insert(label.clone(), value);
        }
    }
    for (id, identity) in &mut identities {
        let prefix = id.split('-').next().expect("a first part");
        let model = match prefix {
            "LF" => "BASE",
            "LF5" => "Sahara",
            "AQ2" => "Alpine",
            "MS1" => "Hoth",
            "AMP" => "X1",
            unknown => unknown,
        };
        identity.more.insert("model".to_owned(), model.to_owned());
    }
    identities
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().expect("text").to_owned()
}

async fn json(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.expect("it answers");
    assert_eq!(response.status(), 200);
    let body = response.text().await.expect("a whole body");
    serde_json::from_str(&body).expect("JSON")
}

fn unix_now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_secs_f64()
}
