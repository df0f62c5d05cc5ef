//! Recorded readings, served again with the rhythm of the recording: each row from the moment its offset from the first
//! row has passed, `speed` times as fast, with times shifted to now.
//!
//! No clock here: `cloud` hands in the time.

use std::{borrow::Cow, collections::HashMap, fs::File, io, path::Path};

use serde::{Deserialize, Deserializer, de::Error as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::reading::Reading;

/// A recording.
#[derive(Debug, Clone)]
pub struct Replay {
    sensors: Vec<RecordedSensor>,
    /// Recorded seconds per second.
    speed: f64,
}

#[derive(Debug, Clone)]
struct RecordedSensor {
    id: String,
    /// The name of its location in its first row.
    location: Option<String>,
    /// In the order of their first rows.
    variables: Vec<RecordedVariable>,
}

#[derive(Debug, Clone)]
struct RecordedVariable {
    name: String,
    /// Seconds since the first row of the recording, and the value; ordered by time.
    rows: Vec<(f64, Option<f64>)>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(deserialize_with = "time")]
    time: f64,
    #[serde(deserialize_with = "sensor_id")]
    sensor_id: String,
    var_name: String,
    value: Option<f64>,
    location: Option<String>,
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("replay file {path}: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why the file cannot be read.
        why: io::Error,
    },
    /// The file is not CSV, lacks a column, or has an invalid field. The message names the line.
    #[error("replay: {0}; the columns are time,sensor_id,var_name,value and optionally location")]
    Csv(#[from] csv::Error),
    /// There are no rows.
    #[error("replay: the file has no rows")]
    Empty,
    /// The speed is zero, negative or not a number.
    #[error("--speed must be a number greater than 0, not {0}")]
    Speed(f64),
}

impl Replay {
    /// Reads a file.
    pub fn open(path: &Path, speed: f64) -> Result<Self, ReplayError> {
        let file = File::open(path).map_err(|why| ReplayError::Unreadable {
            path: path.display().to_string(),
            why,
        })?;
        Self::read(file, speed)
    }

    /// Reads CSV with a header and the columns `time`, `sensor_id`, `var_name`, `value` and optionally `location` in any
    /// order. Other columns are ignored. An empty value is a null.
    pub fn read(csv: impl io::Read, speed: f64) -> Result<Self, ReplayError> {
        if !(speed.is_finite() && speed > 0.0) {
            return Err(ReplayError::Speed(speed));
        }
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(csv);
        let mut rows = reader.deserialize().collect::<Result<Vec<Row>, _>>()?;
        rows.sort_by(|a, b| a.time.total_cmp(&b.time));
        let first = rows.first().ok_or(ReplayError::Empty)?.time;
        let mut sensors: Vec<RecordedSensor> = Vec::new();
        let mut sensor_index = HashMap::new();
        let mut variable_index = HashMap::new();
        for row in rows {
            let id = row.sensor_id;
            let sensor = *sensor_index.entry(id.clone()).or_insert_with(|| {
                sensors.push(RecordedSensor {
                    id,
                    location: row.location,
                    variables: Vec::new(),
                });
                sensors.len() - 1
            });
            let variables = &mut sensors[sensor].variables;
            let name = row.var_name;
            let key = (sensor, name.clone());
            let variable = *variable_index.entry(key).or_insert_with(|| {
                variables.push(RecordedVariable {
                    name,
                    rows: Vec::new(),
                });
                variables.len() - 1
            });
            variables[variable].rows.push((row.time - first, row.value));
        }
        Ok(Self { sensors, speed })
    }

    /// Returns the sensor ids with the names of their locations, in the order of their first rows.
    pub(super) fn sensors(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let sensors = self.sensors.iter();
        sensors.map(|sensor| (sensor.id.as_str(), sensor.location.as_deref()))
    }

    /// Returns the readings of a sensor at `now` in a replay that started at `start`: of each variable the last row that
    /// is due.
    pub(super) fn readings(&self, sensor: usize, start: f64, now: f64) -> Vec<Reading> {
        let variables = self.sensors[sensor].variables.iter();
        let readings = variables.filter_map(|variable| {
            let is_due = |(offset, _): &(f64, _)| start + offset / self.speed <= now;
            let due = variable.rows.partition_point(is_due);
            let (offset, value) = variable.rows[..due].last()?;
            Some(Reading {
                var_name: Cow::Owned(variable.name.clone()),
                time: Some(start + offset / self.speed),
                value: *value,
            })
        });
        readings.collect()
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let text = String::deserialize(deserializer)?;
    unix_time(&text).ok_or_else(|| {
        D::Error::custom(format!(
            "invalid time {text:?}: expected Unix seconds, 2024-05-21T18:20:34Z or 2024-05-21 18:20:34 (UTC)"
        ))
    })
}

fn sensor_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match is_id(&text) {
        true => Ok(text),
        false => Err(D::Error::custom(format!(
            "invalid sensor id {text:?}: expected letters, digits, `.`, `_` and `-`"
        ))),
    }
}

/// Returns whether a text is an id that needs no escaping in a URL's path.
fn is_id(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !matches!(text, "" | "." | "..") && text.chars().all(is_plain)
}

/// Reads Unix seconds, or a time as in RFC 3339; a space may separate date and time, and without a zone it is UTC.
fn unix_time(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some(seconds);
    }
    let text = text.to_ascii_uppercase().replacen(' ', "T", 1);
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let time = parse(&text).or_else(|| parse(&format!("{text}Z")))?;
    Some(time.unix_timestamp() as f64 + f64::from(time.nanosecond()) / 1e9)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const ROOM: &str = "\
time,sensor_id,var_name,value
1000,AQ2-B,CO2ppm,612.5
1060,AQ2-B,CO2ppm,700
1060,AQ2-A,temperatureC,21.123456789012345
1000,AQ2-B,temperatureC,
";

    fn served(replay: &Replay, sensor: usize, now: f64) -> Vec<(String, f64, Option<f64>)> {
        let readings = replay.readings(sensor, 5000.0, now).into_iter();
        readings
            .map(|reading| {
                (
                    reading.var_name.into_owned(),
                    reading.time.unwrap(),
                    reading.value,
                )
            })
            .collect()
    }

    #[test]
    fn each_row_appears_when_its_offset_has_passed_at_the_given_speed() {
        let replay = Replay::read(ROOM.as_bytes(), 60.0).unwrap();
        let sensors: Vec<_> = replay.sensors().collect();
        assert_eq!(sensors, [("AQ2-B", None), ("AQ2-A", None)]);
        let co2 = "CO2ppm".to_owned();
        let null = ("temperatureC".to_owned(), 5000.0, None);
        assert_eq!(served(&replay, 0, 4999.9), []);
        assert_eq!(
            served(&replay, 0, 5000.9),
            [(co2.clone(), 5000.0, Some(612.5)), null.clone()]
        );
        assert_eq!(served(&replay, 1, 5000.9), []);
        assert_eq!(
            served(&replay, 0, 5001.0),
            [(co2, 5001.0, Some(700.0)), null]
        );
        let exact = served(&replay, 1, 9999.0);
        assert_eq!(
            exact,
            [("temperatureC".to_owned(), 5001.0, Some(21.123456789012345))]
        );
    }

    #[test]
    fn times_are_read_in_every_format() {
        for text in [
            "1716315634",
            "2024-05-21T18:20:34Z",
            "2024-05-21 18:20:34",
            "2024-05-21 18:20:34Z",
            "2024-05-21 20:20:34+02:00",
            "2024-05-21T18:20:34",
            "2024-05-21T20:20:34+02:00",
            "2024-05-21T18:20:34.000z",
        ] {
            assert_eq!(unix_time(text), Some(1_716_315_634.0), "{text}");
        }
        assert_eq!(unix_time("2000-02-29 00:00:00.5"), Some(951_782_400.5));
        assert_eq!(unix_time("1969-12-31 23:59:59"), Some(-1.0));
        for text in [
            "",
            "NaN",
            "yesterday",
            "2023-02-29 00:00:00",
            "2024-13-01 00:00:00",
            "2024-05-21",
            "2024-05-21 24:00:00",
            "2024-05-21 1:2:3:4",
        ] {
            assert_eq!(unix_time(text), None, "{text}");
        }
    }

    #[test]
    fn errors_say_where_and_what_is_expected() {
        let error = |csv: &str| Replay::read(csv.as_bytes(), 1.0).unwrap_err().to_string();
        let header = "time,sensor_id,var_name,value\n";
        assert_eq!(error(header), "replay: the file has no rows");
        assert!(error("time,sensor_id,value\n1,A,2\n").contains("missing field `var_name`"));
        for (row, expected) in [
            (
                "noon,A,b,2",
                "invalid time \"noon\": expected Unix seconds, ",
            ),
            ("1,A/B,b,2", "invalid sensor id \"A/B\": expected letters, "),
            ("1,A,b,x", "invalid float literal"),
            ("1,A,b", "found record with 3 fields"),
        ] {
            let error = error(&format!("{header}1,A,b,2\n{row}\n"));
            assert!(error.contains("line: 3"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        let speed = Replay::read(ROOM.as_bytes(), 0.0).unwrap_err().to_string();
        assert_eq!(speed, "--speed must be a number greater than 0, not 0");
    }
}
