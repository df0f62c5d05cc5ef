//! `/`: the status page, in words for who looks after the building. Server-rendered from what the publisher holds;
//! nothing from elsewhere, no secret, and no script needed.

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use askama::Template;
use axum::{
    extract::{Query as QueryString, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;
use url::form_urlencoded::Serializer;

use super::Context;
use crate::{
    catalog::{Status, is_measured},
    clock::unix_now,
    exposition::{ShownReading, View},
    oauth,
    snapshot::{Identity, Sensor, Summary, UnixTime},
};

/// Readings so much older than the sensor's newest tell their own age, in seconds.
const OTHER_AGE: f64 = 600.0;

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

/// Exported as a value and, after it, as [`MOTION_TIME`].
const MOTION: &str = "motionEvent";
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

struct Row<'a> {
    /// Index into [`crate::snapshot::Snapshot::sensors`].
    sensor: usize,
    identity: &'a Identity,
    state: Option<&'static str>,
    problems: Vec<String>,
    /// Held back, other than the last motion of a quiet room.
    stale: u32,
    motion_is_fresh: bool,
    readings: Vec<Reading>,
    newest: Option<UnixTime>,
    age: Option<String>,
}

struct Reading {
    label: String,
    value: String,
    /// Where it is not about that of the sensor's newest.
    age: Option<String>,
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
    rows: Vec<Row<'a>>,
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
    let view = context.app.publisher.view().await;
    let token = token_card(&context.app.tokens.status());
    let query = query.map(|QueryString(query)| query).unwrap_or_default();
    let path = context.telemetry_path.clone();
    let rendered = spawn_blocking(move || render(&view, token, query, &path)).await;
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

/// Nothing but the page's own style and script runs, and it talks to nobody but its own server. Images are for its empty
/// icon, without which browsers ask for one.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    HeaderValue::from_str(&policy).expect("a policy of base64 and words is a header")
});

fn render(view: &View, token: Card, query: Query, telemetry_path: &str) -> askama::Result<String> {
    let now = unix_now();
    let snapshot = &**view.snapshot();
    let rows = rows(view);
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
        .filter(|row| query.location.is_empty() || row.location() == query.location)
        .filter(|row| !query.problems || !row.problems.is_empty())
        .filter(|row| {
            row.name().to_lowercase().contains(&wanted)
                || row.identity.id.to_lowercase().contains(&wanted)
        })
        .collect();
    rows.sort_unstable_by(|one, other| one.rank().cmp(&other.rank()));
    let matching = rows.len();
    let pages = matching.div_ceil(ROWS).max(1);
    let page = page.clamp(1, pages);
    let skipped = (page - 1) * ROWS;
    let mut rows: Vec<Row> = rows.into_iter().skip(skipped).take(ROWS).collect();
    fill(&mut rows, view, now);
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
        (true, false) => (false, "Not signed in at the moment"),
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
        (true, 0, 0) => match sensors {
            0 => "There is no sensor to read".to_owned(),
            1 => "The one sensor read".to_owned(),
            _ => format!("All {sensors} sensors read"),
        },
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

/// Every sensor of the snapshot, in its order, without its readings.
fn rows(view: &View) -> Vec<Row<'_>> {
    let row = |(index, sensor)| {
        let sensor: &Sensor = sensor;
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
        Row {
            sensor: index,
            identity,
            state: None,
            problems,
            stale: view.stale_readings(index),
            motion_is_fresh: false,
            readings: Vec::new(),
            newest,
            age: None,
        }
    };
    let mut rows: Vec<Row> = view
        .snapshot()
        .sensors
        .iter()
        .enumerate()
        .map(row)
        .collect();
    for (family, shown) in view.readings() {
        for ShownReading {
            sensor,
            reading,
            value,
        } in shown
        {
            let Some(row) = rows.get_mut(sensor) else {
                continue;
            };
            if &*reading.var_name == "onlineStatus" {
                row.state = Some(Status::NAMES[Status::of(value)]);
            } else if family.name != MOTION_TIME {
                row.motion_is_fresh |= &*reading.var_name == MOTION;
            } else if !row.motion_is_fresh {
                // Nobody moved there for a while: that is what the sensor is to tell, no problem of its own.
                row.stale = row.stale.saturating_sub(1);
            }
        }
    }
    rows.iter_mut().for_each(Row::judge);
    rows
}

/// Adds readings and ages to the few of the rows that are shown, of `sensors` sensors.
fn fill(rows: &mut [Row<'_>], view: &View, now: UnixTime) {
    let mut places = vec![None; view.snapshot().sensors.len()];
    for (place, row) in rows.iter_mut().enumerate() {
        places[row.sensor] = Some(place);
        row.age = row.newest.map(|time| told(now - time));
    }
    for (family, shown) in view.readings() {
        let display = DISPLAY.iter().find(|(metric, ..)| *metric == family.name);
        for ShownReading {
            sensor,
            reading,
            value,
        } in shown
        {
            let Some(place) = places.get(sensor).copied().flatten() else {
                continue;
            };
            let row = &mut rows[place];
            let (label, value) = if &*reading.var_name == "onlineStatus" {
                continue;
            } else if family.name == MOTION_TIME {
                ("last motion", format!("{} ago", told(now - value)))
            } else if let Some((_, label, unit, factor, decimals)) = display {
                (*label, format!("{:.decimals$} {unit}", value * factor))
            } else {
                (&*reading.var_name, value.to_string())
            };
            let behind = row.newest.map_or(0.0, |newest| newest - reading.time);
            row.readings.push(Reading {
                label: label.to_owned(),
                value,
                age: (behind > OTHER_AGE && family.name != MOTION_TIME)
                    .then(|| told(now - reading.time)),
            });
        }
    }
}

impl<'a> Row<'a> {
    fn name(&self) -> &'a str {
        self.identity.name.as_deref().unwrap_or(&self.identity.id)
    }

    fn location(&self) -> &'a str {
        self.identity.location.as_deref().unwrap_or_default()
    }

    /// The id and the model, as far as they repeat nothing.
    fn detail(&self) -> String {
        let Identity { id, name, .. } = self.identity;
        let id_beside_name = name.as_ref().map(|_| &**id);
        // Where nothing better is known the model is the beginning of the id.
        let model = self.identity.model().filter(|model| !id.starts_with(model));
        let parts: Vec<&str> = id_beside_name.into_iter().chain(model).collect();
        parts.join(" · ")
    }

    /// What is wrong, once its state and its stale readings are known.
    fn judge(&mut self) {
        match self.stale {
            0 => {}
            1 => self.problems.push("1 reading too old to show".to_owned()),
            stale => self
                .problems
                .push(format!("{stale} readings too old to show")),
        }
        match self.state {
            // Told once, among the problems.
            Some(state @ ("offline" | "rebooting")) => {
                self.problems.insert(0, state.to_owned());
                self.state = None;
            }
            // Nobody expects anything of it any more.
            Some("retired") => self.problems.clear(),
            _ => {}
        }
    }

    /// Problems first, then by place and name.
    fn rank(&self) -> impl Ord {
        (
            self.problems.is_empty(),
            self.location(),
            self.name(),
            &self.identity.id,
        )
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{catalog::Catalog, snapshot, snapshot::Snapshot};

    const NOW: UnixTime = 1_716_300_000.0;
    const HOUR: Duration = Duration::from_secs(3600);

    /// One sensor with readings of (variable, age in seconds, value), last read so many seconds ago.
    fn view(readings: &[(&str, f64, f64)], last_read: f64) -> View {
        let identity = Identity::new("AQ2-1".into(), None, None, None, BTreeMap::new());
        let reading = |(var_name, age, value): &(&str, f64, f64)| snapshot::Reading {
            var_name: (*var_name).into(),
            time: NOW - age,
            value: *value,
        };
        let sensor = Sensor {
            identity: Arc::new(identity),
            readings: readings.iter().map(reading).collect(),
            skipped: snapshot::SkippedReadings::default(),
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
    fn a_problem_is_what_somebody_has_to_look_at() {
        let (old_motion, motion) = (("motionEvent", 7200.0, 1.0), ("motionEvent", 60.0, 1.0));
        let (old_warmth, warmth) = (("temperatureC", 7200.0, 21.0), ("temperatureC", 60.0, 21.0));
        let state = |number| ("onlineStatus", 60.0, number);
        let one_old = ["1 reading too old to show"].as_slice();
        for (what, readings, last_read, problems) in [
            (
                "all is well",
                vec![warmth, motion, state(1.0)],
                60.0,
                [].as_slice(),
            ),
            ("a quiet room", vec![warmth, old_motion], 60.0, &[]),
            ("an old reading", vec![old_warmth, motion], 60.0, one_old),
            (
                "an old reading in a quiet room",
                vec![old_warmth, old_motion],
                60.0,
                one_old,
            ),
            ("not heard of for long", vec![old_motion], 7200.0, one_old),
            ("offline", vec![warmth, state(0.0)], 60.0, &["offline"]),
            ("rebooting", vec![warmth, state(-1.0)], 60.0, &["rebooting"]),
            ("retired", vec![old_warmth, state(-2.0)], 60.0, &[]),
        ] {
            let view = view(&readings, last_read);
            assert_eq!(rows(&view)[0].problems, problems, "{what}");
        }
    }

    #[test]
    fn a_reading_tells_its_age_where_it_is_not_that_of_the_newest() {
        let readings = [
            ("temperatureC", 60.0, 21.04),
            ("CO2ppm", 120.0, 612.0),
            ("batteryLevelPct", 7200.0, 38.0),
        ];
        let view = view(&readings, 60.0);
        let mut rows = rows(&view);
        fill(&mut rows, &view, NOW);
        let told: Vec<_> = rows[0]
            .readings
            .iter()
            .map(|it| (it.value.as_str(), it.age.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("21.0 °C", None),
                ("612 ppm", None),
                ("38 %", Some("2\u{a0}h"))
            ]
        );
        assert_eq!(rows[0].age.as_deref(), Some("60\u{a0}s"));
    }
}
