//! The list of sensors that `check --online` and `sensors` print.

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    catalog,
    clock::unix_now,
    duration::rounded,
    snapshot::{Sensor, Snapshot, UnixTime},
};

/// A sensor in the list, and in `sensors --output json`.
#[derive(Debug, Serialize)]
pub(super) struct ListedSensor<'a> {
    id: &'a str,
    name: Option<&'a str>,
    location: Option<&'a str>,
    location_id: Option<&'a str>,
    model: Option<&'a str>,
    variables: Vec<&'a str>,
    age_seconds: Option<u64>,
}

/// Returns the sensors of a snapshot in its order.
pub(super) fn entries(snapshot: &Snapshot) -> Vec<ListedSensor<'_>> {
    let now = unix_now();
    let sensors = snapshot.sensors.iter();
    sensors.map(|sensor| entry(sensor, now)).collect()
}

fn entry(sensor: &Sensor, now: UnixTime) -> ListedSensor<'_> {
    let identity = &sensor.identity;
    let readings = || sensor.readings.iter();
    // The newest measurement shows when the sensor was last active. A gateway has none, so any reading counts.
    let measured = readings().filter(|reading| catalog::is_measured(&reading.var_name));
    let newest = measured
        .map(|reading| reading.time)
        .reduce(f64::max)
        .or_else(|| readings().map(|reading| reading.time).reduce(f64::max));
    ListedSensor {
        id: &identity.id,
        name: identity.name.as_deref(),
        location: identity.location.as_deref(),
        location_id: identity.location_id.as_deref(),
        model: identity.model(),
        variables: readings().map(|reading| &*reading.var_name).collect(),
        age_seconds: newest.map(|time| (now - time).max(0.0) as u64),
    }
}

/// Returns a table without borders.
pub(super) fn table(sensors: &[ListedSensor<'_>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SENSOR", "NAME", "LOCATION", "MODEL", "VARIABLES", "AGE"]);
    for sensor in sensors {
        let variables = match sensor.variables.as_slice() {
            [] => "none".to_owned(),
            variables => printable(&variables.join(", ")),
        };
        let age = sensor.age_seconds.map(|age| rounded(age as f64));
        table.add_row([
            printable(sensor.id),
            printable(sensor.name.unwrap_or("-")),
            printable(sensor.location.unwrap_or("-")),
            printable(sensor.model.unwrap_or("-")),
            variables,
            age.unwrap_or("never".to_owned()),
        ]);
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}

/// Replaces control characters: names come from a server and must not control the terminal.
fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control(), "�")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_control_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a�[31mb�c");
    }
}
