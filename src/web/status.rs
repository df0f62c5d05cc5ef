//! `/`: the status page, in words for who looks after the building. Server-rendered from what the publisher holds;
//! nothing from elsewhere, no secret, and no script needed.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use askama::Template;
use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    extract::{Query as QueryString, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use tokio::task::spawn_blocking;
use url::form_urlencoded::Serializer;

use super::Context;
use crate::{
    catalog::{Status, is_measured},
    exposition::{Shown, View},
    oauth,
    publisher::Published,
    snapshot::{Summary, UnixTime},
};

/// Rows of one page: a screenful for a wall, and far below the megabyte that a page may take.
const ROWS: usize = 100;

const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = include_str!("status.js");

/// How a metric is shown to a person: label, unit, factor to that unit, decimals.
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

const MOTION_TIME: &str = crate::catalog::MOTION_TIME.0;

/// What the page is asked to show.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Query {
    #[serde(default)]
    q: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    problems: String,
    #[serde(default)]
    page: String,
}

/// The same, understood.
struct Asked {
    q: String,
    location: String,
    problems: bool,
}

impl Asked {
    fn link(&self, page: usize) -> String {
        let mut link = Serializer::new(String::new());
        let pairs = [
            ("q", self.q.as_str()),
            ("location", &self.location),
            ("problems", if self.problems { "1" } else { "" }),
        ];
        link.extend_pairs(pairs.into_iter().filter(|(_, value)| !value.is_empty()));
        link.append_pair("page", &page.to_string());
        link.finish()
    }
}

/// A state in words.
struct Card {
    good: bool,
    headline: String,
    detail: String,
}

struct Row {
    name: String,
    id: String,
    model: Option<String>,
    location: String,
    state: Option<&'static str>,
    problems: Vec<String>,
    readings: Vec<Reading>,
    age: Option<String>,
}

struct Reading {
    label: String,
    value: String,
}

#[derive(Template)]
#[template(path = "status.html")]
struct Page<'a> {
    version: &'static str,
    style: &'static str,
    script: &'static str,
    telemetry_path: &'a str,
    token: Card,
    collection: Card,
    known: usize,
    problems: usize,
    locations: BTreeSet<&'a str>,
    query: Asked,
    rows: Vec<Row>,
    matching: usize,
    first: usize,
    last: usize,
    page: usize,
    pages: usize,
}

/// The page that `query` asks for; what it does not understand of it, it leaves out of account.
pub(super) async fn page(
    State(context): State<Context>,
    query: Result<QueryString<Query>, QueryRejection>,
) -> Response {
    let published = context.app.publisher.current().await;
    let token = token_card(&context.app.tokens.status());
    let query = query.map(|QueryString(query)| query).unwrap_or_default();
    let path = context.telemetry_path.clone();
    let rendered = spawn_blocking(move || render(&published, token, query, &path)).await;
    match rendered {
        Ok(Ok(page)) => (
            [(header::CONTENT_SECURITY_POLICY, POLICY.clone())],
            Html(page),
        )
            .into_response(),
        // The template only writes to a string.
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Nothing but the page's own style and script runs, and it talks to nobody but its own server.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    HeaderValue::from_str(&policy).expect("a policy of base64 and words is a header")
});

fn render(
    published: &Published,
    token: Card,
    query: Query,
    telemetry_path: &str,
) -> askama::Result<String> {
    let now = unix_now();
    let snapshot = &**published.view.snapshot();
    let rows = rows(&published.view, now);
    let problems = rows.iter().filter(|row| !row.problems.is_empty()).count();
    let page = query.page.parse().unwrap_or(1_usize);
    let query = Asked {
        q: query.q,
        location: query.location,
        problems: !query.problems.is_empty(),
    };
    let locations = snapshot
        .sensors
        .iter()
        .filter_map(|sensor| sensor.identity.location.as_deref())
        .collect();
    let wanted = query.q.to_lowercase();
    let mut rows: Vec<Row> = rows
        .into_iter()
        .filter(|row| query.location.is_empty() || row.location == query.location)
        .filter(|row| !query.problems || !row.problems.is_empty())
        .filter(|row| {
            row.name.to_lowercase().contains(&wanted) || row.id.to_lowercase().contains(&wanted)
        })
        .collect();
    rows.sort_by_cached_key(|row| {
        (
            row.problems.is_empty(),
            row.location.clone(),
            row.name.clone(),
            row.id.clone(),
        )
    });
    let matching = rows.len();
    let pages = matching.div_ceil(ROWS).max(1);
    let page = page.clamp(1, pages);
    let skipped = (page - 1) * ROWS;
    let rows: Vec<Row> = rows.into_iter().skip(skipped).take(ROWS).collect();
    Page {
        version: env!("CARGO_PKG_VERSION"),
        style: STYLE,
        script: SCRIPT,
        telemetry_path,
        token,
        collection: collection_card(&snapshot.summary, snapshot.sensors.len(), now),
        known: snapshot.sensors.len(),
        problems,
        locations,
        query,
        first: skipped + 1,
        last: skipped + rows.len(),
        rows,
        matching,
        page,
        pages,
    }
    .render()
}

fn token_card(status: &oauth::Status) -> Card {
    let (good, headline) = match (status.refresh_token_valid, status.access_token_valid) {
        (false, _) => (false, "A person must log in"),
        (true, true) => (true, "Signed in"),
        (true, false) => (false, "No access token at the moment"),
    };
    let renewal = status
        .access_token_expires_at
        .map(|end| end - unix_now())
        .filter(|left| *left > 0.0);
    let detail = match (&status.last_error, renewal) {
        (Some(error), _) => error.clone(),
        (None, Some(left)) => format!("Renews itself; the present token ends in {}.", told(left)),
        (None, None) => "The first token is being asked for.".to_owned(),
    };
    Card {
        good,
        headline: headline.to_owned(),
        detail,
    }
}

fn collection_card(summary: &Summary, sensors: usize, now: UnixTime) -> Card {
    let every = told(summary.interval.as_secs_f64());
    let detail = match summary.last_success {
        Some(at) => format!("Last success {} ago; asked every {every}.", told(now - at)),
        None => format!("No success yet; asked every {every}."),
    };
    let (failed, locations) = (summary.sensors_failed, summary.locations_failed);
    let headline = match (summary.up, failed, locations) {
        (false, 0, 0) if summary.duration.is_zero() => "The first one is under way".to_owned(),
        (false, ..) => "Nothing could be read".to_owned(),
        (true, 0, 0) => format!("All {sensors} sensors read"),
        (true, failed, 0) => format!("{failed} of {sensors} sensors not read"),
        (true, failed, locations) => {
            format!("{failed} of {sensors} sensors not read, {locations} locations failed")
        }
    };
    Card {
        good: summary.up && failed == 0 && locations == 0,
        headline,
        detail,
    }
}

/// Every sensor of the snapshot, in its order.
fn rows(view: &View, now: UnixTime) -> Vec<Row> {
    let mut rows: Vec<Row> = view
        .snapshot()
        .sensors
        .iter()
        .enumerate()
        .map(|(index, sensor)| {
            let identity = &sensor.identity;
            let measured = sensor
                .readings
                .iter()
                .filter(|reading| is_measured(&reading.var_name));
            let newest = measured.map(|reading| reading.time).reduce(f64::max);
            let mut problems = Vec::new();
            if sensor.read == Some(false) {
                problems.push("could not be read".to_owned());
            }
            match view.stale_readings(index) {
                0 => {}
                1 => problems.push("1 reading too old".to_owned()),
                stale => problems.push(format!("{stale} readings too old")),
            }
            Row {
                name: identity.name.clone().unwrap_or_else(|| identity.id.clone()),
                id: identity.id.clone(),
                model: identity.model().map(str::to_owned),
                location: identity.location.clone().unwrap_or_default(),
                state: None,
                problems,
                readings: Vec::new(),
                age: newest.map(|time| told(now - time)),
            }
        })
        .collect();
    for (family, shown) in view.readings() {
        let display = DISPLAY.iter().find(|(metric, ..)| *metric == family.name);
        for Shown {
            sensor,
            reading,
            value,
        } in shown
        {
            let Some(row) = rows.get_mut(sensor) else {
                continue;
            };
            if &*reading.var_name == "onlineStatus" {
                row.set_state(Status::NAMES[Status::of(value)]);
            } else if family.name == MOTION_TIME {
                row.readings.push(Reading {
                    label: "last motion".to_owned(),
                    value: format!("{} ago", told(now - value)),
                });
            } else if let Some((_, label, unit, factor, decimals)) = display {
                let mut text = format!("{:.decimals$}", value * factor);
                let _ = write!(text, " {unit}");
                row.readings.push(Reading {
                    label: (*label).to_owned(),
                    value: text,
                });
            } else {
                row.readings.push(Reading {
                    label: reading.var_name.to_string(),
                    value: value.to_string(),
                });
            }
        }
    }
    rows
}

impl Row {
    fn set_state(&mut self, state: &'static str) {
        match state {
            "offline" | "rebooting" => self.problems.insert(0, state.to_owned()),
            // Nobody expects anything of it any more.
            "retired" => self.problems.clear(),
            _ => {}
        }
        // A state that is a problem is told once, among the problems.
        self.state = (!self.problems.iter().any(|problem| problem == state)).then_some(state);
    }
}

/// A time in the largest unit that still tells something.
fn told(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .as_secs();
    match seconds {
        0..120 => format!("{seconds}\u{a0}s"),
        120..7_200 => format!("{}\u{a0}min", seconds / 60),
        7_200..172_800 => format!("{}\u{a0}h", seconds / 3_600),
        _ => format!("{}\u{a0}days", seconds / 86_400),
    }
}

fn unix_now() -> UnixTime {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
