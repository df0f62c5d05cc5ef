//! `/`: the status page for the people who look after the building. It is rendered from what `publisher` holds, loads
//! nothing from elsewhere, shows no secret, and needs no script.

use std::{collections::BTreeSet, sync::LazyLock};

use askama::Template;
use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::form_urlencoded::Serializer;

use super::SharedState;
use crate::{
    blocking,
    catalog::{Family, MOTION_TIME, Status, is_measured},
    clock::unix_now,
    duration::rounded,
    exposition::{ShownReading, View},
    oauth,
    snapshot::{Sensor, Summary, UnixTime},
};

/// A reading that is this many seconds older than the newest one of its sensor has its own age shown.
const MIN_AGE_DIFFERENCE: f64 = 600.0;

/// The number of sensors on one page, which then is far smaller than a megabyte.
const SENSORS_PER_PAGE: usize = 100;

const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = include_str!("status.js");

/// How a metric is shown to people: label, unit, factor to that unit, decimals.
#[rustfmt::skip]
const DISPLAY: &[(&str, &str, &str, f64, usize)] = &[
    ("lightfi_temperature_celsius", "temperature", "°C", 1.0, 1),
    ("lightfi_humidity_ratio", "humidity", "%", 100.0, 0),
    ("lightfi_co2_ppm", "CO₂", "ppm", 1.0, 0),
    ("lightfi_voc_ppb", "VOC", "ppb", 1.0, 0),
    ("lightfi_pm2_5_ugm3", "PM2.5", "µg/m³", 1.0, 1),
    ("lightfi_pressure_pascals", "pressure", "hPa", 0.01, 0),
    ("lightfi_illuminance", "light", "", 1.0, 0),
    ("lightfi_battery_ratio", "battery", "%", 100.0, 0),
    ("lightfi_energy_joules_total", "energy", "kWh", 1.0 / 3.6e6, 1),
    ("lightfi_wifi_clients", "Wi-Fi devices", "", 1.0, 0),
    ("lightfi_ble_clients", "Bluetooth devices", "", 1.0, 0),
    ("lightfi_occupants", "people", "", 1.0, 0),
    ("lightfi_bacnet_reads", "BACnet reads", "", 1.0, 0),
    ("lightfi_motion_activity", "motion", "", 1.0, 0),
];

/// The filter and the page of the table, as the form sends them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    q: String,
    location: String,
    problems: String,
    page: String,
}

impl Filter {
    fn matches(&self, row: &Row) -> bool {
        let q = self.q.to_lowercase();
        (self.location.is_empty() || row.location() == self.location)
            && (self.problems.is_empty() || !row.problems.is_empty())
            && (row.name().to_lowercase().contains(&q) || row.id().to_lowercase().contains(&q))
    }

    /// Returns the query of another page of the same sensors.
    fn link(&self, page: usize) -> String {
        let mut link = Serializer::new(String::new());
        let pairs = [
            ("q", &self.q),
            ("location", &self.location),
            ("problems", &self.problems),
        ];
        link.extend_pairs(pairs.into_iter().filter(|(_, value)| !value.is_empty()));
        link.append_pair("page", &page.to_string());
        link.finish()
    }
}

/// A box that shows the state of one part of the exporter.
struct Card {
    good: bool,
    headline: String,
    detail: String,
}

/// A sensor in the table.
struct Row<'a> {
    sensor: &'a Sensor,
    shown: Vec<(&'a Family, ShownReading<'a>)>,
    state: Option<&'static str>,
    problems: Vec<String>,
}

/// A reading in the table.
struct DisplayedReading {
    label: String,
    value: String,
    /// `None` if it is about the age of the newest reading of the sensor.
    age: Option<String>,
}

#[derive(Template)]
#[template(path = "status.html")]
struct Page<'a> {
    version: &'static str,
    style: &'static str,
    script: &'static str,
    telemetry_path: &'a str,
    now: UnixTime,
    token: Card,
    collection: Card,
    known: usize,
    problems: usize,
    locations: BTreeSet<&'a str>,
    filter: Filter,
    rows: &'a [Row<'a>],
    matching: usize,
    first: usize,
    last: usize,
    page: usize,
    pages: usize,
}

/// Answers with the page; a malformed query counts as none.
pub(super) async fn page(
    State(state): State<SharedState>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Response {
    let view = state.publisher.view().await;
    let token = token_card(&state.tokens.status());
    let filter = query.map(|Query(filter)| filter).unwrap_or_default();
    let rendered = blocking::run(move || {
        let telemetry_path = &state.config.web.telemetry_path;
        render(&view, token, filter, telemetry_path)
    });
    match rendered.await {
        Ok(page) => {
            let policy = (header::CONTENT_SECURITY_POLICY, POLICY.clone());
            ([policy], Html(page)).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Allows only the style and the script of the page itself, and requests to its own server. Images are allowed for the empty
/// icon, without which browsers ask for one.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    HeaderValue::from_str(&policy).expect("base64 and ASCII words are a valid header")
});

fn render(
    view: &View,
    token: Card,
    filter: Filter,
    telemetry_path: &str,
) -> askama::Result<String> {
    let now = unix_now();
    let sensors = &view.snapshot().sensors;
    let mut rows = rows(view);
    let problems = rows.iter().filter(|row| !row.problems.is_empty()).count();
    rows.retain(|row| filter.matches(row));
    rows.sort_unstable_by(|one, other| one.rank().cmp(&other.rank()));
    let pages = rows.len().div_ceil(SENSORS_PER_PAGE).max(1);
    let page = filter.page.parse().unwrap_or(1).clamp(1, pages);
    let start = (page - 1) * SENSORS_PER_PAGE;
    let end = rows.len().min(start + SENSORS_PER_PAGE);
    Page {
        version: env!("CARGO_PKG_VERSION"),
        style: STYLE,
        script: SCRIPT,
        telemetry_path,
        now,
        token,
        collection: collection_card(&view.snapshot().summary, sensors.len(), now),
        known: sensors.len(),
        problems,
        locations: (sensors.iter())
            .filter_map(|sensor| sensor.identity.location.as_deref())
            .collect(),
        filter,
        rows: &rows[start..end],
        matching: rows.len(),
        first: start + 1,
        last: end,
        page,
        pages,
    }
    .render()
}

fn token_card(status: &oauth::TokenStatus) -> Card {
    let (good, headline) = match (status.refresh_token_valid, status.access_token_valid) {
        (false, _) => (false, "Login required"),
        (true, true) => (true, "Signed in"),
        (true, false) => (false, "No valid access token"),
    };
    let remaining = status
        .access_token_expires_at
        .map(|expiry| expiry - unix_now())
        .filter(|remaining| *remaining > 0.0);
    let detail = match (&status.last_error, remaining) {
        (Some(error), _) => error.clone(),
        (None, Some(remaining)) => {
            format!(
                "The access token is renewed automatically; it expires in {}.",
                rounded(remaining)
            )
        }
        (None, None) => "Waiting for the first access token.".to_owned(),
    };
    Card {
        good,
        headline: headline.to_owned(),
        detail,
    }
}

fn collection_card(summary: &Summary, sensors: usize, now: UnixTime) -> Card {
    let interval = rounded(summary.interval.as_secs_f64());
    let last_success = match summary.last_success {
        Some(at) => format!("Last success {} ago", rounded(now - at)),
        None => "No success yet".to_owned(),
    };
    let (failed, locations) = (summary.sensors_failed, summary.locations_failed);
    let headline = match (summary.up, failed, locations) {
        (false, 0, 0) if summary.duration.is_zero() => "The first collection is running".to_owned(),
        (false, ..) => "Nothing could be read".to_owned(),
        (true, 0, 0) => match sensors {
            0 => "There is no sensor to read".to_owned(),
            1 => "The only sensor was read".to_owned(),
            _ => format!("All {sensors} sensors read"),
        },
        (true, _, 0) => format!("{failed} of {sensors} sensors not read"),
        (true, ..) => {
            format!("{failed} of {sensors} sensors not read, {locations} locations failed")
        }
    };
    Card {
        good: summary.up && failed == 0 && locations == 0,
        headline,
        detail: format!("{last_success}; one collection every {interval}."),
    }
}

/// Returns a row for each sensor of the snapshot, in its order.
fn rows(view: &View) -> Vec<Row<'_>> {
    let sensors = &view.snapshot().sensors;
    let mut shown = vec![Vec::new(); sensors.len()];
    for (family, readings) in view.readings() {
        for reading in readings {
            shown[reading.sensor].push((family, reading));
        }
    }
    let rows = sensors.iter().zip(shown).enumerate();
    rows.map(|(index, (sensor, shown))| Row::new(sensor, shown, view.stale_readings(index)))
        .collect()
}

impl<'a> Row<'a> {
    fn new(sensor: &'a Sensor, shown: Vec<(&'a Family, ShownReading<'a>)>, mut stale: u32) -> Self {
        let has = |metric: &str| shown.iter().any(|(family, _)| family.name == metric);
        let motion_is_stale = shown.iter().filter(|it| is_motion(it)).count() == 1;
        if motion_is_stale && has(MOTION_TIME.0) {
            // A room without motion is no problem.
            stale -= 1;
        }
        let mut state = shown
            .iter()
            .find(|(_, shown)| &*shown.reading.var_name == "onlineStatus")
            .map(|(_, shown)| Status::NAMES[Status::of(shown.value)]);
        let mut problems = Vec::new();
        if sensor.read == Some(false) {
            problems.push("could not be read".to_owned());
        }
        match stale {
            0 => {}
            1 => problems.push("1 stale reading".to_owned()),
            _ => problems.push(format!("{stale} stale readings")),
        }
        match state {
            Some(problem @ ("offline" | "rebooting")) => {
                problems.insert(0, problem.to_owned());
                state = None;
            }
            // A retired sensor has no readings to expect.
            Some("retired") => problems.clear(),
            _ => {}
        }
        Self {
            sensor,
            shown,
            state,
            problems,
        }
    }

    fn id(&self) -> &'a str {
        &self.sensor.identity.id
    }

    fn name(&self) -> &'a str {
        let identity = &self.sensor.identity;
        identity.name.as_deref().unwrap_or(&identity.id)
    }

    fn location(&self) -> &'a str {
        let location = &self.sensor.identity.location;
        location.as_deref().unwrap_or_default()
    }

    /// Returns the id and the model, unless they repeat something.
    fn detail(&self) -> String {
        let identity = &self.sensor.identity;
        let id = identity.name.as_ref().map(|_| self.id());
        // The model of an unknown kind of sensor is the prefix of its id.
        let model = identity
            .model()
            .filter(|model| !self.id().starts_with(model));
        let parts: Vec<&str> = id.into_iter().chain(model).collect();
        parts.join(" · ")
    }

    /// Sensors with problems come first, then the order is that of location and name.
    fn rank(&self) -> impl Ord {
        let good = self.problems.is_empty();
        (good, self.location(), self.name(), self.id())
    }

    fn newest(&self) -> Option<UnixTime> {
        let readings = self.sensor.readings.iter();
        readings
            .filter(|reading| is_measured(&reading.var_name))
            .map(|reading| reading.time)
            .reduce(f64::max)
    }

    fn age(&self, now: &UnixTime) -> Option<String> {
        self.newest().map(|newest| rounded(now - newest))
    }

    fn readings(&self, now: &UnixTime) -> Vec<DisplayedReading> {
        let newest = self.newest().unwrap_or_default();
        let readings = self.shown.iter();
        readings
            .filter(|(_, shown)| &*shown.reading.var_name != "onlineStatus")
            .map(|(family, shown)| DisplayedReading::new(family, shown, newest, *now))
            .collect()
    }
}

fn is_motion((_, shown): &(&Family, ShownReading)) -> bool {
    &*shown.reading.var_name == "motionEvent"
}

impl DisplayedReading {
    fn new(family: &Family, shown: &ShownReading, newest: UnixTime, now: UnixTime) -> Self {
        let (time, value) = (shown.reading.time, shown.value);
        if family.name == MOTION_TIME.0 {
            return Self {
                label: "last motion".to_owned(),
                value: format!("{} ago", rounded(now - time)),
                age: None,
            };
        }
        let (label, value) = match DISPLAY.iter().find(|(name, ..)| *name == family.name) {
            Some((_, label, unit, factor, decimals)) => {
                (*label, format!("{:.decimals$} {unit}", value * factor))
            }
            None => (&*shown.reading.var_name, value.to_string()),
        };
        let is_older = newest - time > MIN_AGE_DIFFERENCE;
        Self {
            label: label.to_owned(),
            value,
            age: is_older.then(|| rounded(now - time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use super::*;
    use crate::{
        catalog::Catalog,
        snapshot::{Identity, Reading, SkippedReadings, Snapshot},
    };

    const NOW: UnixTime = 1_716_300_000.0;
    const HOUR: Duration = Duration::from_secs(3600);

    /// A view of one sensor with readings of (variable, age in seconds, value), last read `last_read` seconds ago.
    fn view(readings: &[(&str, f64, f64)], last_read: f64) -> View {
        let identity = Identity::new("AQ2-1".into(), None, None, None, BTreeMap::new());
        let reading = |(var_name, age, value): &(&str, f64, f64)| Reading {
            var_name: (*var_name).to_owned().into(),
            time: NOW - age,
            value: *value,
        };
        let sensor = Sensor {
            identity: Arc::new(identity),
            readings: readings.iter().map(reading).collect(),
            skipped: SkippedReadings::default(),
            read: Some(true),
            last_success: Some(NOW - last_read),
        };
        let snapshot = Snapshot {
            sensors: vec![sensor],
            summary: Summary::default(),
        };
        let catalog = Catalog::new(&BTreeMap::new(), HOUR, false);
        View::new(snapshot.into(), catalog.into(), NOW)
    }

    #[test]
    fn a_problem_is_something_that_needs_attention() {
        let (old_motion, motion) = (("motionEvent", 7200.0, 1.0), ("motionEvent", 60.0, 1.0));
        let (old, fresh) = (("temperatureC", 7200.0, 21.0), ("temperatureC", 60.0, 21.0));
        let status = |number| ("onlineStatus", 60.0, number);
        let one_stale = ["1 stale reading"].as_slice();
        for (case, readings, last_read, problems) in [
            (
                "all fresh",
                vec![fresh, motion, status(1.0)],
                60.0,
                [].as_slice(),
            ),
            ("no motion for long", vec![fresh, old_motion], 60.0, &[]),
            ("a stale reading", vec![old, motion], 60.0, one_stale),
            (
                "a stale reading, no motion for long",
                vec![old, old_motion],
                60.0,
                one_stale,
            ),
            ("not read recently", vec![old_motion], 7200.0, one_stale),
            ("offline", vec![fresh, status(0.0)], 60.0, &["offline"]),
            ("rebooting", vec![fresh, status(-1.0)], 60.0, &["rebooting"]),
            ("retired", vec![old, status(-2.0)], 60.0, &[]),
        ] {
            let view = view(&readings, last_read);
            assert_eq!(rows(&view)[0].problems, problems, "{case}");
        }
    }

    #[test]
    fn a_reading_has_an_age_if_it_is_older_than_the_newest_one() {
        let readings = [
            ("temperatureC", 60.0, 21.04),
            ("CO2ppm", 120.0, 612.0),
            ("batteryLevelPct", 7200.0, 38.0),
        ];
        let view = view(&readings, 60.0);
        let row = &rows(&view)[0];
        let displayed = row.readings(&NOW);
        let displayed: Vec<_> = (displayed.iter())
            .map(|reading| (reading.value.as_str(), reading.age.as_deref()))
            .collect();
        assert_eq!(
            displayed,
            [
                ("21.0 °C", None),
                ("612 ppm", None),
                ("38 %", Some("2\u{a0}h"))
            ]
        );
        assert_eq!(row.age(&NOW).as_deref(), Some("60\u{a0}s"));
    }
}
