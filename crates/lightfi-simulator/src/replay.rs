//! Recorded readings served again, with the rhythm of the recording: each row from the moment its offset from the
//! first row has passed, as many times faster as asked for, with times shifted to now.
//!
//! Reading the file and answering "what holds after so much time" are pure; `mod` hands in the clock.

use std::{borrow::Cow, collections::HashMap, fs::File, io, path::Path};

use super::item::Item;

/// A recording.
#[derive(Debug, Clone)]
pub struct Replay {
    sensors: Vec<Recorded>,
    /// Recorded seconds per second.
    speed: f64,
}

#[derive(Debug, Clone)]
struct Recorded {
    id: String,
    /// The name of its location, as its first row has it.
    location: Option<String>,
    /// In the order of their first row.
    variables: Vec<Variable>,
}

#[derive(Debug, Clone)]
struct Variable {
    name: String,
    /// Seconds since the first row of the recording, and the value; by time, in the file's order where times are equal.
    rows: Vec<(f64, Option<f64>)>,
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("replay file {path}: {why}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        why: io::Error,
    },
    /// It is no CSV.
    #[error("replay: {0}")]
    Csv(csv::Error),
    /// The header lacks a column.
    #[error("replay line 1: no column {0:?}; the columns are time,sensor_id,var_name,value")]
    NoColumn(&'static str),
    /// A field cannot be understood.
    #[error("replay line {line}, column {column}: {text:?} is {problem}")]
    Field {
        /// Counted from 1, the header included.
        line: u64,
        /// The column's name.
        column: &'static str,
        /// What stands there.
        text: String,
        /// What it should be.
        problem: &'static str,
    },
    /// There is no row.
    #[error("replay: the file has no rows")]
    Empty,
    /// `--speed` is zero, negative or no number.
    #[error("replay: a speed of {0} goes nowhere; it must be a number above 0")]
    Speed(f64),
}

const COLUMNS: [&str; 4] = ["time", "sensor_id", "var_name", "value"];
/// May be there too.
const LOCATION: &str = "location";

impl From<csv::Error> for ReplayError {
    fn from(error: csv::Error) -> Self {
        Self::Csv(error)
    }
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

    /// Reads CSV with a header and the columns `time`, `sensor_id`, `var_name` and `value`, in any order; where
    /// there is a `location`, it names the place that a sensor stands in. Others are ignored. An empty value is a null.
    pub fn read(csv: impl io::Read, speed: f64) -> Result<Self, ReplayError> {
        if !(speed.is_finite() && speed > 0.0) {
            return Err(ReplayError::Speed(speed));
        }
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(csv);
        let headers = reader.headers()?.clone();
        let mut places = [0; 4];
        // Spreadsheets begin a file with a byte order mark.
        let place_of = |name: &str| {
            let mut headers = headers.iter();
            headers.position(|header| header.trim_start_matches('\u{feff}') == name)
        };
        for (place, name) in places.iter_mut().zip(COLUMNS) {
            *place = place_of(name).ok_or(ReplayError::NoColumn(name))?;
        }
        let location_at = place_of(LOCATION);
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record?;
            let line = record.position().map_or(0, csv::Position::line);
            let field = |column: usize| record.get(places[column]).unwrap_or_default();
            let wrong = |column: usize, problem: &'static str| ReplayError::Field {
                line,
                column: COLUMNS[column],
                text: field(column).to_owned(),
                problem,
            };
            let time = unix_time(field(0)).ok_or_else(|| {
                wrong(
                    0,
                    "no time; write Unix seconds, 2024-05-21T18:20:34Z or 2024-05-21 18:20:34 (UTC)",
                )
            })?;
            if !is_id(field(1)) {
                return Err(wrong(
                    1,
                    "no sensor id; these are letters, digits, `.`, `_` and `-`",
                ));
            }
            if field(2).is_empty() {
                return Err(wrong(2, "no variable's name"));
            }
            let value = match field(3) {
                "" => None,
                text => Some(
                    text.parse::<f64>()
                        .ok()
                        .filter(|value| value.is_finite())
                        .ok_or_else(|| wrong(3, "no finite number; leave it empty for a null"))?,
                ),
            };
            let location = location_at.and_then(|at| record.get(at));
            let location = location.filter(|name| !name.is_empty()).map(str::to_owned);
            rows.push((
                time,
                field(1).to_owned(),
                location,
                field(2).to_owned(),
                value,
            ));
        }
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (first, ..) = rows.first().ok_or(ReplayError::Empty)?;
        let first = *first;
        let mut replay = Self {
            sensors: Vec::new(),
            speed,
        };
        let mut sensor_at = HashMap::new();
        let mut variable_at = HashMap::new();
        for (time, id, location, name, value) in rows {
            let sensor = *sensor_at.entry(id.clone()).or_insert_with(|| {
                replay.sensors.push(Recorded {
                    id,
                    location,
                    variables: Vec::new(),
                });
                replay.sensors.len() - 1
            });
            let variables = &mut replay.sensors[sensor].variables;
            let variable = *variable_at
                .entry((sensor, name.clone()))
                .or_insert_with(|| {
                    variables.push(Variable {
                        name,
                        rows: Vec::new(),
                    });
                    variables.len() - 1
                });
            variables[variable].rows.push((time - first, value));
        }
        Ok(replay)
    }

    /// The ids, each with the name of its location where there is one, in the order of their first row.
    pub fn sensors(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.sensors
            .iter()
            .map(|sensor| (sensor.id.as_str(), sensor.location.as_deref()))
    }

    /// What the cloud holds of a sensor (by its place in [`Replay::sensors`]) at `now` when the replay began at
    /// `start`, both in Unix seconds: of each variable the last row whose moment has come.
    pub fn readings(&self, sensor: usize, start: f64, now: f64) -> Vec<Item> {
        let variables = &self.sensors[sensor].variables;
        let items = variables.iter().filter_map(|variable| {
            let due = |(offset, _): &(f64, Option<f64>)| start + offset / self.speed <= now;
            let (offset, value) = variable.rows[..variable.rows.partition_point(due)].last()?;
            Some(Item {
                var_name: Cow::Owned(variable.name.clone()),
                time: Some(start + offset / self.speed),
                value: *value,
            })
        });
        items.collect()
    }
}

/// As the API's clients take ids into a path.
fn is_id(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !matches!(text, "" | "." | "..") && text.chars().all(plain)
}

/// Unix seconds, RFC 3339, or `YYYY-MM-DD HH:MM:SS` in UTC.
fn unix_time(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some(seconds);
    }
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let (year, month, day) = three(date, '-')?;
    let (clock, ahead) = match time.find(['Z', 'z', '+', '-']) {
        None => (time, 0.0),
        Some(at) if matches!(&time[at..], "Z" | "z") => (&time[..at], 0.0),
        Some(at) => {
            let (hours, minutes) = time[at + 1..].split_once(':')?;
            let ahead = 3600.0 * digits(hours)? + 60.0 * digits(minutes)?;
            let behind_utc = time[at..].starts_with('-');
            (&time[..at], if behind_utc { -ahead } else { ahead })
        }
    };
    let (hour, minute, second) = three(clock, ':')?;
    let sane = (1.0..=12.0).contains(&month)
        && (1.0..=days_in(year as i64, month as i64) as f64).contains(&day)
        && hour < 24.0
        && minute < 60.0
        && second < 61.0;
    let days = days_since_1970(year as i64, month as i64, day as i64) as f64;
    sane.then_some(days * 86_400.0 + hour * 3600.0 + minute * 60.0 + second - ahead)
}

fn three(text: &str, separator: char) -> Option<(f64, f64, f64)> {
    let mut parts = text.split(separator);
    let numbers = (
        digits(parts.next()?)?,
        digits(parts.next()?)?,
        digits(parts.next()?)?,
    );
    parts.next().is_none().then_some(numbers)
}

fn digits(text: &str) -> Option<f64> {
    let plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    plain.then(|| text.parse().ok()).flatten()
}

fn days_in(year: i64, month: i64) -> i64 {
    let (next_year, next_month) = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    days_since_1970(next_year, next_month, 1) - days_since_1970(year, month, 1)
}

/// Days of the Gregorian calendar. Years are counted from March, so that the leap day is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let before_month = (153 * month + 2) / 5;
    365 * year + leap_days + before_month + day - 1 - 719_468
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

    fn shown(replay: &Replay, sensor: usize, now: f64) -> Vec<(String, f64, Option<f64>)> {
        let items = replay.readings(sensor, 5000.0, now).into_iter();
        items
            .map(|item| (item.var_name.into_owned(), item.time.unwrap(), item.value))
            .collect()
    }

    #[test]
    fn each_row_appears_when_its_offset_has_passed_at_the_given_speed() {
        let replay = Replay::read(ROOM.as_bytes(), 60.0).unwrap();
        let sensors: Vec<_> = replay.sensors().collect();
        assert_eq!(sensors, [("AQ2-B", None), ("AQ2-A", None)]);
        let co2 = "CO2ppm".to_owned();
        let null = ("temperatureC".to_owned(), 5000.0, None);
        assert_eq!(shown(&replay, 0, 4999.9), []);
        assert_eq!(
            shown(&replay, 0, 5000.9),
            [(co2.clone(), 5000.0, Some(612.5)), null.clone()]
        );
        assert_eq!(shown(&replay, 1, 5000.9), []);
        assert_eq!(
            shown(&replay, 0, 5001.0),
            [(co2, 5001.0, Some(700.0)), null]
        );
        let exact = shown(&replay, 1, 9999.0);
        assert_eq!(
            exact,
            [("temperatureC".to_owned(), 5001.0, Some(21.123456789012345))]
        );
    }

    #[test]
    fn times_are_read_in_every_spelling() {
        for text in [
            "1716315634",
            "2024-05-21T18:20:34Z",
            "2024-05-21 18:20:34",
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
    fn what_cannot_be_replayed_says_where_and_why() {
        let error = |csv: &str| Replay::read(csv.as_bytes(), 1.0).unwrap_err().to_string();
        assert_eq!(
            error("time,sensor_id,value\n"),
            "replay line 1: no column \"var_name\"; the columns are time,sensor_id,var_name,value"
        );
        assert_eq!(
            error("time,sensor_id,var_name,value\n"),
            "replay: the file has no rows"
        );
        assert_eq!(
            error("time,sensor_id,var_name,value\n1,A,b,2\nnoon,A,b,2\n"),
            "replay line 3, column time: \"noon\" is no time; write Unix seconds, 2024-05-21T18:20:34Z or \
             2024-05-21 18:20:34 (UTC)"
        );
        assert_eq!(
            error("time,sensor_id,var_name,value\n1,A/B,b,2\n"),
            "replay line 2, column sensor_id: \"A/B\" is no sensor id; these are letters, digits, `.`, `_` and `-`"
        );
        assert_eq!(
            error("time,sensor_id,var_name,value\n1,A,,2\n"),
            "replay line 2, column var_name: \"\" is no variable's name"
        );
        assert_eq!(
            error("time,sensor_id,var_name,value\n1,A,b,inf\n"),
            "replay line 2, column value: \"inf\" is no finite number; leave it empty for a null"
        );
        assert!(error("time,sensor_id,var_name,value\n1,A,b\n").contains("line: 2"));
        let speed = Replay::read(ROOM.as_bytes(), 0.0).unwrap_err().to_string();
        assert_eq!(
            speed,
            "replay: a speed of 0 goes nowhere; it must be a number above 0"
        );
    }
}
