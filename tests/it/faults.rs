//! What is served while something fails, as one table: [`ROWS`]. Each fault is tried from the start and later, of one
//! sensor, of all, of one location and of the token endpoint where it can happen there, on a cloud and an exporter of its
//! own; then it ends, and everything is back without a restart. Whoever has no part in a fault loses nothing by it.
//!
//! Not here: refused refresh tokens and clients, whose way back is a person's (`tokens`, `rotation`); ids that no URL can
//! hold, which the configuration refuses (`tests/config/bad-sensors-ids.yaml`).

use std::{collections::BTreeMap, fmt, time::Duration};

use futures_util::{StreamExt as _, stream};
use lightfi_simulator::{Listing, Options};

use self::{
    Effect::{AsEver, Dropped, Empty, Fails, Skipped, Stale},
    Scope::{Location, OneSensor, Sensors, Token},
};
use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape},
};

/// Rows under way at once: each is mostly waiting.
const AT_ONCE: usize = 8;
/// Of the exporter, in any row and at any time.
const MOST_MEMORY: f64 = 400e6;
const MOST_DESCRIPTORS: f64 = 64.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    OneSensor,
    Sensors,
    Location,
    Token,
}

/// What becomes of the sensors that a fault happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Not read, for this reason; what was read before stays.
    Fails(&'static str),
    /// Read, and there is nothing.
    Empty,
    /// Read, and every reading is skipped for this reason.
    Skipped(&'static str),
    /// Read, and every reading is held back as stale.
    Stale,
    /// Read, and shown as without the fault.
    AsEver,
    /// The same, and what is too much is left out and counted.
    Dropped,
}

const API: &[Scope] = &[OneSensor, Sensors, Location];
const EVERYWHERE: &[Scope] = &[OneSensor, Sensors, Location, Token];

/// Fault, where, and what becomes of it.
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
    ("duplicate-variables",   API,          AsEver),
    ("duplicate-sensors",     &[Location],  AsEver),
    ("many-variables",        &[OneSensor], Dropped),
    ("token-error-500",       &[Token],     Fails("server_error")),
    ("token-slow",            &[Token],     Fails("timeout")),
    ("token-html",            &[Token],     Fails("malformed")),
    ("token-no-access-token", &[Token],     Fails("malformed")),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_has_its_reason_touches_nobody_else_and_passes_without_a_restart() {
    let floor = floor().await;
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
    let wrong: Vec<_> = stream::iter(cases)
        .map(|case| async {
            let name = case.to_string();
            let ended = tokio::spawn(case.run()).await;
            ended.err().map(|panic| format!("{name}: {panic}"))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{} of {count}: {wrong:#?}", wrong.len());
}

/// One cell of the table.
struct Case {
    fault: &'static str,
    scope: Scope,
    effect: Effect,
    floor: Floor,
}

/// A location with sensors in it, which others are outside of.
#[derive(Debug, Clone)]
struct Floor {
    id: String,
    /// Those with a thermometer, by which it is seen what is shown.
    sensors: Vec<String>,
    everyone: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The fault was there first.
    AtStart,
    /// There were readings before it.
    Later,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?}", self.fault, self.scope)
    }
}

fn options() -> Options {
    Options {
        sensors: 60,
        listing: Listing::Locations,
        // Short enough that a broken token endpoint is felt.
        token_lifetime: Duration::from_secs(4),
        ..Options::default()
    }
}

async fn floor() -> Floor {
    let cloud = Cloud::start(options()).await;
    let exporter = Exporter::serve(&cloud.config(""));
    let scrape = exporter.scrape().await;
    let mut floors = BTreeMap::<String, Vec<String>>::new();
    for series in scrape.series_of("lightfi_sensor_info").keys() {
        let location = floors.entry(label(series, "location_id")).or_default();
        location.push(label(series, "sensor_id"));
    }
    assert!(floors.len() > 1, "there is somebody elsewhere: {floors:?}");
    let temperatures = scrape.series_of("lightfi_temperature_celsius");
    let measures = |id: &&String| temperatures.keys().any(|s| label(s, "sensor_id") == **id);
    let floors = floors.into_iter().map(|(id, everyone)| Floor {
        id,
        sensors: everyone.iter().filter(measures).cloned().collect(),
        everyone,
    });
    let most = floors.max_by_key(|floor| floor.sensors.len());
    most.expect("there are floors")
}

fn label(series: &str, label: &str) -> String {
    let value = series
        .split_once(&format!("{label}=\""))
        .map(|(_, rest)| rest);
    let value = value.and_then(|rest| rest.split_once('"'));
    value
        .unwrap_or_else(|| panic!("{series} has {label}"))
        .0
        .to_owned()
}

impl Case {
    async fn run(self) {
        let cloud = Cloud::start(options()).await;
        let fault = match self.scope {
            OneSensor => format!("{}={}", self.fault, self.floor.sensors[0]),
            Location => format!("{}={}", self.fault, self.floor.id),
            Token if !self.fault.starts_with("token-") => format!("{}=token", self.fault),
            Sensors | Token => self.fault.to_owned(),
        };
        cloud.fault(&fault, true);
        let config = self.config(&cloud);
        let exporter = tokio::task::spawn_blocking(move || Exporter::serve(&config));
        let exporter = exporter.await.expect("it starts");
        self.until("at the start", &exporter, |scrape| {
            self.met(scrape, Phase::AtStart)
        })
        .await;
        cloud.fault(&fault, false);
        let well = self
            .until("well again", &exporter, |scrape| self.is_well(scrape))
            .await;
        let others = self.others(&well);
        cloud.fault(&fault, true);
        let met = self.until("later", &exporter, |scrape| {
            assert!(
                self.others(scrape) >= others,
                "others lose their readings in\n{}",
                scrape.body
            );
            self.met(scrape, Phase::Later)
        });
        met.await;
        self.check_reason(&exporter).await;
        cloud.fault(&fault, false);
        let well = self
            .until("well at last", &exporter, |scrape| self.is_well(scrape))
            .await;
        for (metric, most) in [
            ("process_resident_memory_bytes", MOST_MEMORY),
            ("process_open_fds", MOST_DESCRIPTORS),
        ] {
            let value = well.value(metric).expect("it is there");
            assert!(value < most, "{metric} {value}");
        }
    }

    /// Quick, so that a row takes seconds: a collection with every scrape, but one a second.
    fn config(&self, cloud: &Cloud) -> String {
        let (api, interval) = match self.fault {
            // It takes one pause of a second, or an answer of 6 MB.
            "rate-limit" | "many-variables" => ("timeout: 3s", "4s"),
            _ => ("timeout: 400ms\n  max_response_bytes: 1048576", "1s"),
        };
        let more = format!("collect: {{mode: scrape, interval: {interval}}}\n");
        let config = match self.scope {
            Location => cloud.config(&more),
            OneSensor | Sensors | Token => {
                let config = cloud.config("");
                let (head, _) = config.split_once("locations:").expect("it lists the base");
                let ids = self.floor.sensors.join(", ");
                format!("{head}sensors: [{ids}]\n{more}")
            }
        };
        config.replacen("api:\n", &format!("api:\n  {api}\n"), 1)
    }

    async fn until(
        &self,
        phase: &str,
        exporter: &Exporter,
        wanted: impl Fn(&Scrape) -> bool,
    ) -> Scrape {
        exporter
            .scrape_until(&format!("{self}: {phase}"), wanted)
            .await
    }

    fn is_victim(&self, series: &str) -> bool {
        let id = label(series, "sensor_id");
        match self.scope {
            OneSensor => id == self.floor.sensors[0],
            Location => self.floor.everyone.contains(&id),
            Sensors | Token => true,
        }
    }

    /// How many that have no part in the fault have readings: whichever, as the building tells a null now and then.
    fn others(&self, scrape: &Scrape) -> usize {
        let measured = scrape.series_of("lightfi_sensor_last_reading_timestamp_seconds");
        let others = measured.keys().filter(|series| !self.is_victim(series));
        others.count()
    }

    fn is_well(&self, scrape: &Scrape) -> bool {
        let zero = |metric| scrape.sum(metric) == 0.0;
        let read = scrape.series_of("lightfi_sensor_read_success");
        scrape.value("lightfi_up") == Some(1.0)
            && zero("lightfi_collect_sensors_failed")
            && zero("lightfi_collect_locations_failed")
            && zero("lightfi_collect_readings_dropped")
            && read.values().all(|read| *read == 1.0)
            // The building tells a null now and then.
            && self.temperatures(scrape).len() + 1 >= self.floor.sensors.len()
    }

    /// Of the floor.
    fn temperatures(&self, scrape: &Scrape) -> Vec<f64> {
        let series = scrape.series_of("lightfi_temperature_celsius").into_iter();
        let of_floor = series.filter(|(s, _)| self.floor.sensors.contains(&label(s, "sensor_id")));
        of_floor.map(|(_, value)| value).collect()
    }

    /// Whether a scrape shows the fault as the table says, and nothing else.
    fn met(&self, scrape: &Scrape, phase: Phase) -> bool {
        let fails = matches!(self.effect, Fails(_));
        let read = scrape.series_of("lightfi_sensor_read_success");
        let as_read = read.iter().all(|(series, read)| {
            let good = !self.is_victim(series) || !fails;
            *read == f64::from(good)
        });
        let victims = read.keys().filter(|series| self.is_victim(series)).count();
        let failed = if fails { victims as f64 } else { 0.0 };
        // Of a location that was never read nobody knows what it holds.
        let known = victims > 0 || (self.scope == Location && phase == Phase::AtStart);
        let of_request = fails && !self.fault.starts_with("data-");
        let locations_failed = f64::from(self.scope == Location && of_request);
        let up = f64::from(!(fails && matches!(self.scope, Sensors | Token)));
        let temperatures = scrape.series_of("lightfi_temperature_celsius");
        let mut shown = temperatures
            .iter()
            .filter(|(series, _)| self.is_victim(series));
        let shown_as_it_is = match self.effect {
            Fails(_) if phase == Phase::AtStart => shown.next().is_none(),
            Empty | Skipped(_) | Stale => shown.next().is_none(),
            // What an older duplicate says is far from any temperature.
            Fails(_) | AsEver | Dropped => {
                let shown: Vec<_> = shown.collect();
                !shown.is_empty() && shown.iter().all(|(_, value)| **value < 100.0)
            }
        };
        let told = match self.effect {
            Fails(_) | Empty | AsEver => true,
            Skipped(reason) => {
                let series = format!("lightfi_collect_readings_skipped{{reason=\"{reason}\"}}");
                scrape.value(&series) > Some(0.0)
            }
            Stale => {
                let stale = scrape.series_of("lightfi_sensor_stale_readings");
                let mut of_victims = stale.iter().filter(|(series, _)| self.is_victim(series));
                of_victims.all(|(_, stale)| *stale > 0.0)
            }
            Dropped => {
                let extra = scrape.series_of("lightfi_reading").len();
                scrape.value("lightfi_collect_readings_dropped") > Some(99_000.0) && extra < 210
            }
        };
        as_read
            && known
            && shown_as_it_is
            && told
            && scrape.value("lightfi_collect_sensors_failed") == Some(failed)
            && scrape.value("lightfi_collect_locations_failed") == Some(locations_failed)
            && scrape.value("lightfi_up") == Some(up)
    }

    /// A failure is counted by its reason, and told in the log.
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
        // The request for a location was good where only its sensors' readings are not.
        let of_request = self.scope != Location || !self.fault.starts_with("data-");
        assert!(
            counted.contains_key(reason) || !of_request,
            "{self} is counted as {counted:?}"
        );
        exporter.says(&format!("reason={reason}")).await;
    }
}
