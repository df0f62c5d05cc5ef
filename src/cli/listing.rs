//! How `check --online` and `sensors` show sensors to a person or a program.

use std::{sync::Arc, time::Duration};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    catalog,
    clock::unix_now,
    config::duration,
    snapshot::{Sensor, Snapshot, UnixTime},
};

/// One sensor, as `sensors --output json` writes it.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    id: String,
    name: Option<String>,
    location: Option<String>,
    location_id: Option<String>,
    model: Option<String>,
    variables: Vec<String>,
    age_seconds: Option<u64>,
}

/// The sensors of a snapshot, by id.
pub(super) fn entries(snapshot: &Snapshot) -> Vec<Entry> {
    let now = unix_now();
    snapshot
        .sensors
        .iter()
        .map(|sensor| Entry::of(sensor, now))
        .collect()
}

impl Entry {
    fn of(sensor: &Sensor, now: UnixTime) -> Self {
        let identity = &sensor.identity;
        // What the sensor measured tells when it was heard of; a gateway that measures nothing has only the rest.
        let newest = |measured: bool| {
            let readings = sensor
                .readings
                .iter()
                .filter(|reading| !measured || catalog::is_measured(&reading.var_name));
            readings.map(|reading| reading.time).reduce(f64::max)
        };
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            id: identity.id.to_string(),
            name: text(&identity.name),
            location: text(&identity.location),
            location_id: text(&identity.location_id),
            model: identity.model().map(str::to_owned),
            variables: sensor
                .readings
                .iter()
                .map(|reading| reading.var_name.to_string())
                .collect(),
            age_seconds: newest(true)
                .or_else(|| newest(false))
                .map(|time| (now - time).max(0.0) as u64),
        }
    }

    fn age(&self) -> String {
        self.age_seconds.map_or("never".to_owned(), |seconds| {
            duration::format(coarse(Duration::from_secs(seconds)))
        })
    }
}

/// A table for a person, without borders.
pub(super) fn table(entries: &[Entry]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SENSOR", "NAME", "LOCATION", "MODEL", "VARIABLES", "AGE"]);
    let text = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), printable);
    for entry in entries {
        let variables = if entry.variables.is_empty() {
            "none".to_owned()
        } else {
            entry.variables.join(", ")
        };
        table.add_row([
            printable(&entry.id),
            text(&entry.name),
            text(&entry.location),
            text(&entry.model),
            printable(&variables),
            entry.age(),
        ]);
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}

/// Names come from a server: none may steer the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '�' } else { c })
        .collect()
}

/// In the largest unit that still tells something: nobody reads `6d3h12m7s`.
fn coarse(age: Duration) -> Duration {
    let unit = match age.as_secs() {
        0..120 => 1,
        120..7_200 => 60,
        7_200..172_800 => 3_600,
        _ => 86_400,
    };
    Duration::from_secs(age.as_secs() / unit * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_one_unit() {
        let ages = [1, 119, 121, 7_199, 7_201, 172_799, 172_801, 900_000];
        let told = ages.map(|seconds| duration::format(coarse(Duration::from_secs(seconds))));
        assert_eq!(told, ["1s", "119s", "2m", "119m", "2h", "47h", "2d", "10d"]);
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a�[31mb�c");
    }
}
