//! Go's notation of durations, such as `1h30m` or `100ms`.

use std::time::Duration;

/// The longest duration of Go: about 292 years.
const MAX: Duration = Duration::from_nanos(i64::MAX as u64);

const UNITS: [(&str, f64); 7] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// Reads a duration: numbers, each with a unit, or a bare 0.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut seconds = 0.0;
    while !rest.is_empty() || text.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds += number.parse::<f64>().ok()? * size;
        rest = after;
    }
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    (duration <= MAX).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("1s", 1000),
            ("1.5s", 1500),
            ("1h1m1s1ms", 3_661_001),
            ("+100ms", 100),
            (".5s", 500),
            ("2000us", 2),
            ("2000µs", 2),
        ] {
            let expected = Duration::from_millis(millis);
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "-1s",
            "1d",
            "1 s",
            "1.2.3s",
            "1s1",
            "1e9h",
            "99999999999h",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
