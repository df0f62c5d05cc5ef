//! Durations as the configuration writes them: `500ms`, `10s`, `5m`, `1h`, `7d`, and Prometheus' combinations (`1h30m`).
//!
//! Pure: text to value and back, also for serde (`#[serde(with = "duration")]`), and `rounded` for people. Which durations make
//! sense where is decided in `config`.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::text::FromText;
pub(crate) use crate::text::parse as deserialize;

/// Units with their milliseconds, largest first.
const UNITS: &[(&str, u64)] = &[
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The largest unit [`format()`] uses: the contract's durations end at days.
const LARGEST_FORMATTED: &str = "d";

/// Longer ones are typing errors, and would overflow clocks.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

const ADVICE: &str = "is not a duration, write for example 500ms, 10s, 5m, 1h or 7d";

/// Reads a duration. The error completes a sentence that begins with the value, and does not contain it.
pub fn parse(text: &str) -> Result<Duration, &'static str> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is a duration without a unit, write for example 500ms, 10s, 5m, 1h or 7d");
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(ADVICE)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
        // Each unit at most once and the larger first: `units` never goes back.
        let millis = units.find(|(name, _)| *name == unit);
        let (_, millis) = millis.filter(|_| digits > 0).ok_or(ADVICE)?;
        // A number with too many digits is longer than any limit.
        let number: u64 = number.parse().unwrap_or(u64::MAX);
        total = total.saturating_add(number.saturating_mul(*millis));
        rest = after;
    }
    let duration = Duration::from_millis(total);
    match duration <= LONGEST {
        true => Ok(duration),
        false => Err("is longer than a hundred years"),
    }
}

/// Writes a duration in the largest unit that divides it, so that [`parse`] reads it back; what is finer than a
/// millisecond is rounded up.
pub fn format(duration: Duration) -> String {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    if millis == 0 {
        return "0".to_owned();
    }
    let mut units = UNITS
        .iter()
        .skip_while(|(unit, _)| *unit != LARGEST_FORMATTED);
    let exact = units.find(|(_, size)| millis.is_multiple_of(u128::from(*size)));
    let (unit, size) = exact.unwrap_or(&("ms", 1));
    format!("{}{unit}", millis / u128::from(*size))
}

impl FromText for Duration {
    fn from_text(text: &str) -> Result<Self, String> {
        parse(text).map_err(str::to_owned)
    }
}

/// Writes a duration as a text, for serde.
pub(crate) fn serialize<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// A duration that may be absent, for serde.
pub(crate) mod option {
    use super::{Duration, Serialize, Serializer, format};
    pub(crate) use crate::text::parse_option as deserialize;

    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(format).serialize(serializer)
    }
}

/// Formats a duration for people, rounded down to one unit: `6 days` instead of `6d3h12m7s`. The space does not break lines.
pub fn rounded(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..120 => format!("{seconds}\u{a0}s"),
        120..7_200 => format!("{}\u{a0}min", seconds / 60),
        7_200..172_800 => format!("{}\u{a0}h", seconds / 3_600),
        _ => format!("{}\u{a0}days", seconds / 86_400),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_and_combinations_are_read() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
            ("1h30m", 5_400_000),
            ("1m30s500ms", 90_500),
            ("007s", 7_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            " ",
            "60",
            "00",
            "s",
            "1.5h",
            "-1s",
            "+1s",
            "1 s",
            "1s ",
            "5M",
            "1m1h",
            "1s1s",
            "1h30",
            "1µs",
            "٣s",
            "1sms",
            "99999999999999999999s",
            "101y",
            "1e3s",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_largest_exact_unit_is_written() {
        for (millis, text) in [
            (0, "0"),
            (1, "1ms"),
            (90_000, "90s"),
            (60_000, "1m"),
            (129_600_000, "36h"),
            (1_209_600_000, "14d"),
        ] {
            assert_eq!(format(Duration::from_millis(millis)), text);
        }
        assert_eq!(format(Duration::from_nanos(1)), "1ms");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..LONGEST.as_millis() as u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn a_rounded_duration_has_one_unit() {
        let seconds = [-1.0, 119.9, 120.0, 7_199.0, 7_201.0, 172_799.0, 900_000.0];
        let expected = ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "10 days"];
        assert_eq!(
            seconds.map(rounded),
            expected.map(|text| text.replace(' ', "\u{a0}"))
        );
    }
}
