//! The effect of each fault on scrapes, as one table: [`ROWS`].
//!
//! Each fault is tried for one sensor, for all sensors, for one location and for the token endpoint, where it can happen
//! there. Each case has its own cloud and exporter, and meets the fault twice: at the start and after the first readings.
//! After each time the exporter recovers without a restart. Sensors without the fault keep their readings.
//!
//! Not here: refused refresh tokens and clients, which need a person (`tokens`, `rotation`); ids that no URL can contain,
//! which the configuration refuses (`tests/config/bad-sensors-ids.yaml`).

use std::{collections::BTreeMap, fmt, time::Duration};

use futures_util::{StreamExt as _, stream};
use lightfi_simulator::{Listing, Options};

use self::{
    Effect::{Dropped, Empty, Fails, Skipped, Stale, Unaffected},
    Scope::{Location, OneSensor, Sensors, Token},
};
use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape},
};

/// The cases that run at the same time. Each of them mostly waits.
const CONCURRENT_CASES: usize = 8;
/// The most memory and file descriptors that the exporter may use during any case.
const MAX_MEMORY_BYTES: f64 = 400e6;
const MAX_DESCRIPTORS: f64 = 64.0;

/// The requests that a fault affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    OneSensor,
    Sensors,
    Location,
    Token,
}

/// The effect of a fault on the sensors that it affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// They are not read, for this reason. Earlier readings stay.
    Fails(&'static str),
    /// They are read and have no readings.
    Empty,
    /// They are read, and every reading is skipped for this reason.
    Skipped(&'static str),
    /// They are read, and every reading is stale.
    Stale,
    /// They are read and shown as without the fault.
    Unaffected,
    /// They are read and shown as without the fault. Variables beyond the limit are dropped and counted.
    Dropped,
}

const API: &[Scope] = &[OneSensor, Sensors, Location];
const EVERYWHERE: &[Scope] = &[OneSensor, Sensors, Location, Token];

/// The fault, where it happens, and its effect.
#[rustfmt::skip]
const ROWS: &[(&str, &[Scope], Effect)] = &[
    ("error-500",             EVERYWHERE,   Fails("server_error")),
    ("rate-limit",            EVERYWHERE,   Fails("rate_limited")),
    ("unauthorized",          EVERYWHERE,   Fails("unauthorized")),
    ("slow",                  EVERYWHERE,   Fails("timeout")),
    ("hang",                  EVERYWHERE,   Fails("timeout")),
    ("drip",                  EVERYWHERE,   Fails("timeout")),
    ("truncated",             EVERYWHERE,   Fails("connect")),
    ("reset",                 EVERYWHERE,   Fails("connect")),
    ("huge",                  EVERYWHERE,   Fails("too_large")),
    ("gzip-bomb",             EVERYWHERE,   Fails("too_large")),
    ("redirect",              EVERYWHERE,   Fails("redirect")),
    ("malformed",             EVERYWHERE,   Fails("malformed")),
    ("wrong-length",          EVERYWHERE,   Fails("malformed")),
    ("html",                  EVERYWHERE,   Fails("malformed")),
    ("infinity",              API,          Fails("malformed")),
    ("data-object",           API,          Fails("malformed")),
    ("data-string",           API,          Fails("malformed")),
    ("data-null",             API,          Empty),
    ("out-of-range",          API,          Skipped("non_finite")),
    ("far-future",            API,          Skipped("future")),
    ("negative-times",        API,          Stale),
    ("duplicate-variables",   API,          Unaffected),
    ("duplicate-sensors",     &[Location],  Unaffected),
    ("many-variables",        &[OneSensor], Dropped),
    ("token-no-access-token", &[Token],     Fails("malformed")),
];

/// Faults that do not end without a person, and one that is no failure: `tokens` and `rotation` test them.
const TESTED_ELSEWHERE: [&str; 3] = ["token-expires", "token-revoked", "token-invalid-client"];

#[test]
fn every_fault_is_in_the_table() {
    for name in lightfi_simulator::fault_names() {
        let is_in_table = ROWS.iter().any(|(fault, ..)| *fault == name);
        assert!(is_in_table || TESTED_ELSEWHERE.contains(&name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_has_its_effect_only_where_it_happens_and_the_exporter_recovers() {
    let floor = largest_floor().await;
    let cases = ROWS.iter().flat_map(|(fault, scopes, effect)| {
        let case = |scope: &Scope| Case {
            fault,
            scope: *scope,
            effect: *effect,
            floor: floor.clone(),
        };
        scopes.iter().map(case)
    });
    let cases: Vec<_> = cases.collect();
    let count = cases.len();
    let failures: Vec<_> = stream::iter(cases)
        .map(|case| async {
            let name = case.to_string();
            let result = tokio::spawn(case.run()).await;
            result.err().map(|panic| format!("{name}: {panic}"))
        })
        .buffer_unordered(CONCURRENT_CASES)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(
        failures.is_empty(),
        "{} of {count}: {failures:#?}",
        failures.len()
    );
}

/// A location. Other locations have sensors too.
#[derive(Debug, Clone)]
struct Floor {
    id: String,
    /// The sensors of the location.
    sensors: Vec<String>,
    /// The sensors that measure a temperature, by which the test recognizes readings.
    thermometers: Vec<String>,
}

fn options() -> Options {
    Options {
        sensors: 60,
        listing: Listing::Locations,
        // Short enough that a fault of the token endpoint has an effect.
        token_lifetime: Duration::from_secs(4),
        ..Options::default()
    }
}

/// Returns the location with the most thermometers.
async fn largest_floor() -> Floor {
    let cloud = Cloud::start(options()).await;
    let exporter = Exporter::serve(&cloud.config(""));
    let scrape = exporter.scrape().await;
    let mut locations = BTreeMap::<String, Vec<String>>::new();
    for series in scrape.series_of("lightfi_sensor_info").keys() {
        let sensors = locations.entry(label(series, "location_id")).or_default();
        sensors.push(label(series, "sensor_id"));
    }
    assert!(locations.len() > 1, "one location only: {locations:?}");
    let temperatures = scrape.series_of("lightfi_temperature_celsius");
    let is_thermometer = |id: &&String| temperatures.keys().any(|s| label(s, "sensor_id") == **id);
    let floors = locations.into_iter().map(|(id, sensors)| Floor {
        id,
        thermometers: sensors.iter().filter(is_thermometer).cloned().collect(),
        sensors,
    });
    let largest = floors.max_by_key(|floor| floor.thermometers.len());
    largest.expect("there are locations")
}

/// Returns the value of a label.
fn label(series: &str, name: &str) -> String {
    let value = series.split_once(&format!("{name}=\""));
    let value = value.and_then(|(_, rest)| rest.split_once('"'));
    let (value, _) = value.unwrap_or_else(|| panic!("{series} has no {name}"));
    value.to_owned()
}

/// One cell of the table.
struct Case {
    fault: &'static str,
    scope: Scope,
    effect: Effect,
    floor: Floor,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?}", self.fault, self.scope)
    }
}

/// When the fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    BeforeReadings,
    AfterReadings,
}

impl Case {
    async fn run(self) {
        let cloud = Cloud::start(options()).await;
        let fault = self.fault_argument();
        cloud.fault(&fault, true);
        let config = self.config(&cloud);
        let exporter = tokio::task::spawn_blocking(move || Exporter::serve(&config));
        let exporter = exporter.await.expect("the exporter starts");
        let has_fault = |scrape: &Scrape| self.has_fault(scrape, Phase::BeforeReadings);
        self.wait(&exporter, "fault at the start", has_fault).await;

        cloud.fault(&fault, false);
        let is_healthy = |scrape: &Scrape| self.is_healthy(scrape);
        let healthy = self.wait(&exporter, "first recovery", is_healthy).await;
        let others = self.others_with_readings(&healthy);

        cloud.fault(&fault, true);
        let has_fault = |scrape: &Scrape| {
            assert!(
                self.others_with_readings(scrape) >= others,
                "other sensors lose their readings in\n{}",
                scrape.body
            );
            self.has_fault(scrape, Phase::AfterReadings)
        };
        self.wait(&exporter, "fault after readings", has_fault)
            .await;
        self.check_reason(&exporter).await;

        cloud.fault(&fault, false);
        let healthy = self.wait(&exporter, "second recovery", is_healthy).await;
        for (metric, limit) in [
            ("process_resident_memory_bytes", MAX_MEMORY_BYTES),
            ("process_open_fds", MAX_DESCRIPTORS),
        ] {
            let value = healthy.value(metric).expect("the metric is exported");
            assert!(value < limit, "{metric} {value}");
        }
    }

    /// Returns the fault as the simulator parses it.
    fn fault_argument(&self) -> String {
        match self.scope {
            OneSensor => format!("{}={}", self.fault, self.floor.thermometers[0]),
            Location => format!("{}={}", self.fault, self.floor.id),
            Token if !self.fault.starts_with("token-") => format!("{}=token", self.fault),
            Sensors | Token => self.fault.to_owned(),
        }
    }

    /// Returns a configuration with short times: scrapes start collections, at most one per second.
    fn config(&self, cloud: &Cloud) -> String {
        let (api, interval) = match self.fault {
            // A pause of a second.
            "rate-limit" => ("timeout: 3s", "4s"),
            // A reply of 6 MB, which a debug build decodes slowly.
            "many-variables" => ("timeout: 8s", "9s"),
            _ => ("timeout: 400ms\n  max_response_bytes: 1048576", "1s"),
        };
        let collect = format!("collect: {{mode: scrape, interval: {interval}}}\n");
        let mut config = cloud.config(&collect);
        if self.scope != Location {
            let (head, _) = config.split_once("locations:").expect("locations");
            let ids = self.floor.thermometers.join(", ");
            config = format!("{head}sensors: [{ids}]\n{collect}");
        }
        config.replacen("api:\n", &format!("api:\n  {api}\n"), 1)
    }

    async fn wait(
        &self,
        exporter: &Exporter,
        phase: &str,
        condition: impl Fn(&Scrape) -> bool,
    ) -> Scrape {
        let words = format!("{self}: {phase}");
        exporter.scrape_until(&words, condition).await
    }

    fn is_affected(&self, series: &str) -> bool {
        let id = label(series, "sensor_id");
        match self.scope {
            OneSensor => id == self.floor.thermometers[0],
            Location => self.floor.sensors.contains(&id),
            Sensors | Token => true,
        }
    }

    /// Counts the sensors without the fault that have readings.
    fn others_with_readings(&self, scrape: &Scrape) -> usize {
        let with_readings = scrape.series_of("lightfi_sensor_last_reading_timestamp_seconds");
        let others = with_readings
            .keys()
            .filter(|series| !self.is_affected(series));
        others.count()
    }

    fn is_healthy(&self, scrape: &Scrape) -> bool {
        let is_zero = |metric| scrape.sum(metric) == 0.0;
        let read = scrape.series_of("lightfi_sensor_read_success");
        let temperatures = scrape.series_of("lightfi_temperature_celsius");
        let of_floor = temperatures.keys().filter(|series| {
            self.floor
                .thermometers
                .contains(&label(series, "sensor_id"))
        });
        scrape.value("lightfi_up") == Some(1.0)
            && is_zero("lightfi_collect_sensors_failed")
            && is_zero("lightfi_collect_locations_failed")
            && is_zero("lightfi_collect_readings_dropped")
            && read.values().all(|read| *read == 1.0)
            // The building sometimes reports a null.
            && of_floor.count() + 1 >= self.floor.thermometers.len()
    }

    /// Returns whether a scrape shows the effect of the fault and nothing else.
    fn has_fault(&self, scrape: &Scrape, phase: Phase) -> bool {
        let fails = matches!(self.effect, Fails(_));
        let read = scrape.series_of("lightfi_sensor_read_success");
        let are_read = read.iter().all(|(series, read)| {
            let is_read = !self.is_affected(series) || !fails;
            *read == f64::from(is_read)
        });
        let affected = read.keys().filter(|series| self.is_affected(series));
        let affected = affected.count();
        // The sensors of a location that was never read are unknown.
        let are_known = affected > 0 || (self.scope == Location && phase == Phase::BeforeReadings);
        let failed = if fails { affected as f64 } else { 0.0 };
        let location_failed = self.scope == Location && self.fails_request();
        let is_up = !(fails && matches!(self.scope, Sensors | Token));
        are_read
            && are_known
            && self.shows_temperatures(scrape, phase)
            && self.is_reported(scrape)
            && scrape.value("lightfi_collect_sensors_failed") == Some(failed)
            && scrape.value("lightfi_collect_locations_failed") == Some(location_failed.into())
            && scrape.value("lightfi_up") == Some(is_up.into())
    }

    /// Returns whether the request fails, and not only the readings in its reply.
    fn fails_request(&self) -> bool {
        matches!(self.effect, Fails(_)) && !self.fault.starts_with("data-")
    }

    /// Returns whether the affected sensors show temperatures exactly if they should.
    fn shows_temperatures(&self, scrape: &Scrape, phase: Phase) -> bool {
        let temperatures = scrape.series_of("lightfi_temperature_celsius").into_iter();
        let shown: Vec<_> = temperatures
            .filter(|(series, _)| self.is_affected(series))
            .collect();
        match self.effect {
            Fails(_) if phase == Phase::BeforeReadings => shown.is_empty(),
            Empty | Skipped(_) | Stale => shown.is_empty(),
            // An older duplicate has a value that is no temperature.
            Fails(_) | Unaffected | Dropped => {
                !shown.is_empty() && shown.iter().all(|(_, value)| *value < 100.0)
            }
        }
    }

    /// Returns whether the metric that belongs to the effect reports it.
    fn is_reported(&self, scrape: &Scrape) -> bool {
        match self.effect {
            Fails(_) | Empty | Unaffected => true,
            Skipped(reason) => {
                let series = format!("lightfi_collect_readings_skipped{{reason=\"{reason}\"}}");
                scrape.value(&series) > Some(0.0)
            }
            Stale => {
                let stale = scrape.series_of("lightfi_sensor_stale_readings");
                let mut affected = stale.iter().filter(|(series, _)| self.is_affected(series));
                affected.all(|(_, stale)| *stale > 0.0)
            }
            Dropped => {
                let shown = scrape.series_of("lightfi_reading").len();
                scrape.value("lightfi_collect_readings_dropped") > Some(99_000.0) && shown < 210
            }
        }
    }

    /// Checks that a failure is counted by its reason and logged.
    async fn check_reason(&self, exporter: &Exporter) {
        let Fails(reason) = self.effect else { return };
        let scrape = exporter.scrape().await;
        let metric = match self.scope {
            Token => "lightfi_exporter_token_refresh_failures_total",
            OneSensor | Sensors | Location => "lightfi_exporter_api_request_failures_total",
        };
        let failures = scrape.series_of(metric).into_iter();
        let counted: BTreeMap<String, f64> = failures
            .filter(|(_, count)| *count > 0.0)
            .map(|(series, count)| (label(series, "reason"), count))
            .collect();
        // The request for a location succeeds if only the readings in its reply are malformed.
        let is_counted = self.scope != Location || self.fails_request();
        assert!(
            counted.contains_key(reason) || !is_counted,
            "{self} is counted as {counted:?}"
        );
        exporter.says(&format!("reason={reason}")).await;
    }
}
