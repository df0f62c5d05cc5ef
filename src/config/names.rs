//! Names that a user may give to metrics and labels: valid for Prometheus, accepted by `promtool check metrics` (the rules
//! of client_golang's promlint, for gauges), and not taken by a metric of the exporter.
//!
//! Pure rules over tables. Called by `validate`, which knows which keys hold such names.

use crate::catalog;

/// All metrics but `process_*` begin with it, custom ones included.
const METRIC_PREFIX: &str = "lightfi_";

/// Labels that the exporter or Prometheus itself gives a meaning.
const RESERVED: &[&str] = &[
    "sensor_id",
    "sensor",
    "location",
    "model",
    "location_id",
    "status",
    "var_name",
    "le",
    "quantile",
];

/// The metrics that are no row of the catalog, by their names in the text format. A test in
/// `tests/it/config.rs` finds what is missing.
const OTHER_METRICS: &[&str] = &[
    "lightfi_sensor_info",
    "lightfi_sensor_read_success",
    "lightfi_sensor_stale_readings",
    "lightfi_sensor_last_reading_timestamp_seconds",
    "lightfi_reading_timestamp_seconds",
    "lightfi_up",
    "lightfi_collect_duration_seconds",
    "lightfi_collect_last_success_timestamp_seconds",
    "lightfi_collect_sensors",
    "lightfi_collect_sensors_failed",
    "lightfi_collect_locations_failed",
    "lightfi_collect_sensors_dropped",
    "lightfi_collect_readings_dropped",
    "lightfi_collect_interval_seconds",
    "lightfi_collect_readings_skipped",
    "lightfi_exporter_build_info",
    "lightfi_exporter_api_requests_total",
    "lightfi_exporter_api_request_failures_total",
    "lightfi_exporter_api_request_duration_seconds",
    "lightfi_exporter_token_refreshes_total",
    "lightfi_exporter_token_refresh_failures_total",
    "lightfi_exporter_access_token_expiry_timestamp_seconds",
    "lightfi_exporter_refresh_token_valid",
    "lightfi_exporter_refresh_token_obtained_timestamp_seconds",
    "lightfi_exporter_unmapped_variables",
    "lightfi_exporter_config_last_reload_successful",
    "lightfi_exporter_config_last_reload_success_timestamp_seconds",
    "lightfi_exporter_web_config_last_reload_successful",
    "lightfi_exporter_web_config_last_reload_success_timestamp_seconds",
];

/// Metric types, which do not belong in a name.
const TYPES: &[&str] = &["counter", "gauge", "summary", "histogram"];

/// Words that promlint takes for abbreviated units, wherever they occur in the name.
const ABBREVIATIONS: &[&str] = &[
    "s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d",
];

/// Prefixes that make another unit of any unit.
const MULTIPLES: &[&str] = &[
    "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega",
    "mibi", "giga", "gibi", "tera", "tebi", "peta", "pebi",
];

/// Base units, each with the units that a name must not use in its place.
const UNITS: &[(&str, &[&str])] = &[
    ("amperes", &[]),
    ("bytes", &["bits"]),
    ("celsius", &["fahrenheit", "rankine"]),
    ("grams", &["pounds", "ounces"]),
    ("joules", &["calories"]),
    ("kelvin", &["kelvins"]),
    ("meters", &["inches", "yards", "miles"]),
    ("metres", &[]),
    ("seconds", &["minutes", "hours", "days", "weeks"]),
    ("volts", &[]),
];

/// Suffixes that Prometheus gives to the series of counters, summaries and histograms.
const SUFFIXES: &[&str] = &["_total", "_count", "_sum", "_bucket"];

/// Checks whether a gauge may be exported as `lightfi_<name>` for this variable. Errors complete a sentence that begins with
/// the name.
pub(super) fn check_metric(name: &str, var_name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if !name.bytes().all(is_word_byte) {
        return Err("is not a metric name, use a-z, 0-9 and _".to_owned());
    }
    check_reserved_and_case(name)?;
    let full = format!("{METRIC_PREFIX}{name}");
    if let Some(suffix) = SUFFIXES.iter().find(|suffix| full.ends_with(**suffix)) {
        return Err(format!("ends in {suffix}, which a gauge must not"));
    }
    for word in name.to_ascii_lowercase().split('_') {
        if TYPES.contains(&word) {
            return Err(format!(
                "contains the metric type {word}; remove it from the name"
            ));
        }
        if ABBREVIATIONS.contains(&word) {
            return Err(format!(
                "contains the abbreviated unit {word}; write the unit in full"
            ));
        }
        if let Some(base) = base_unit_instead(word) {
            return Err(format!(
                "is not in a base unit, write {base} instead of {word} and set scale"
            ));
        }
    }
    match taken_by(&full, var_name) {
        Some(metric) => Err(format!("is taken by {metric}, choose another name")),
        None => Ok(()),
    }
}

/// Checks whether a user may put this label on `lightfi_sensor_info`. Errors complete a sentence that begins with the name.
pub(super) fn check_label(name: &str) -> Result<(), String> {
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    if !starts_well || !name.bytes().all(is_word_byte) {
        return Err("is not a label name, use a-z, 0-9 and _, and no digit first".to_owned());
    }
    check_reserved_and_case(name)
}

fn check_reserved_and_case(name: &str) -> Result<(), String> {
    if RESERVED.contains(&name) || name.starts_with("__") {
        return Err("is reserved by the exporter or Prometheus, choose another name".to_owned());
    }
    let is_camel_case = |pair: &[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    if name.as_bytes().windows(2).any(is_camel_case) {
        return Err("is camelCase, write it in small letters with _ between words".to_owned());
    }
    Ok(())
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn base_unit_instead(word: &str) -> Option<&'static str> {
    let is_multiple = |unit: &str| {
        let multiple = word.strip_suffix(unit);
        multiple.is_some_and(|multiple| MULTIPLES.contains(&multiple))
    };
    let (base, _) = UNITS.iter().find(|(base, others)| {
        is_multiple(base) || others.iter().any(|unit| word == *unit || is_multiple(unit))
    })?;
    Some(base)
}

/// Returns the metric that the name would clash with, by its name or by a name that OpenMetrics derives from it. A variable
/// may be given the name it has.
fn taken_by(full: &str, var_name: &str) -> Option<&'static str> {
    let variable = catalog::canonical(var_name);
    // A custom metric is a gauge, and must not take the name of a counter.
    let rows = catalog::ROWS
        .iter()
        .filter(|row| row.var_name != variable || row.metric.ends_with("_total"))
        .map(|row| row.metric);
    rows.chain([catalog::MOTION_TIME.0, catalog::UNMAPPED.0])
        .chain(OTHER_METRICS.iter().copied())
        .find(|metric| {
            let suffixes = ["_total", "_info"];
            let family = suffixes
                .iter()
                .find_map(|suffix| metric.strip_suffix(suffix));
            let family = family.unwrap_or(metric);
            full == *metric || full == family || full.strip_suffix("_created") == Some(family)
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::Write as _,
        iter,
        process::{Command, Stdio},
    };

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_promlint_likes_are_accepted() {
        for name in [
            "pm10_ugm3",
            "pm1_ugm3",
            "nox_index",
            "door_open",
            "x",
            "1st_floor",
            "temperature_kelvin",
            "flow_ratio",
            "thermometers",
            "PM10",
            "uptime_seconds",
            "power_watts",
            "sensor_height_meters",
            "foo_info",
            "counters",
        ] {
            assert_eq!(check_metric(name, "Anything"), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_promlint_objects_to_are_refused() {
        for (name, part) in [
            ("", "is empty"),
            ("a b", "not a metric name"),
            ("a:b", "not a metric name"),
            ("é", "not a metric name"),
            ("doorOpen", "camelCase"),
            ("people_total", "_total"),
            ("total", "_total"),
            ("people_count", "_count"),
            ("sum", "_sum"),
            ("x_bucket", "_bucket"),
            ("gauge_of_x", "type gauge"),
            ("x_HISTOGRAM", "type histogram"),
            ("age_ms", "unit ms"),
            ("m", "unit m"),
            ("d_x", "unit d"),
            ("age_minutes", "seconds instead of minutes"),
            ("size_kilobytes", "bytes instead of kilobytes"),
            ("pm10_micrograms", "grams instead of micrograms"),
            ("t_fahrenheit", "celsius instead of fahrenheit"),
            ("le", "reserved"),
            ("sensor", "reserved"),
            ("__x", "reserved"),
        ] {
            let error = check_metric(name, "Anything").unwrap_err();
            assert!(error.contains(part), "{name}: {error}");
        }
    }

    #[test]
    fn names_of_our_own_metrics_are_taken_also_as_openmetrics_writes_them() {
        for name in [
            "temperature_celsius",
            "reading",
            "up",
            "sensor_info",
            "energy_joules",
            "energy_joules_created",
            "exporter_build",
            "exporter_build_info",
            "motion_last_event_timestamp_seconds",
            "collect_sensors",
            "exporter_api_request_duration_seconds",
            "exporter_api_request_duration_seconds_created",
            "sensor_read_success",
            "co2_ppm",
        ] {
            let error = check_metric(name, "Anything").unwrap_err();
            assert!(error.contains("is taken by "), "{name}: {error}");
        }
    }

    #[test]
    fn a_variable_may_keep_its_own_name() {
        assert_eq!(check_metric("co2_ppm", "CO2ppm"), Ok(()));
        assert_eq!(check_metric("occupants", "irSignatures"), Ok(()));
        assert!(check_metric("energy_joules", "energyInkWh").is_err());
        assert!(check_metric("motion_last_event_timestamp_seconds", "motionEvent").is_err());
    }

    #[test]
    fn labels_are_snake_case_and_not_reserved() {
        for name in ["desk", "floor_2", "_x", "job", "DESK"] {
            assert_eq!(check_label(name), Ok(()), "{name}");
        }
        for (name, part) in [
            ("", "not a label name"),
            ("2nd", "not a label name"),
            ("a-b", "not a label name"),
            ("a:b", "not a label name"),
            ("sensor_id", "reserved"),
            ("quantile", "reserved"),
            ("__name__", "reserved"),
            ("deskNo", "camelCase"),
        ] {
            let error = check_label(name).unwrap_err();
            assert!(error.contains(part), "{name}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1))]
        /// Names put together from the words the rules are about: what is accepted here, promtool accepts too.
        #[test]
        fn promtool_finds_nothing_in_what_is_accepted(
            names in prop::collection::vec(
                prop::collection::vec(
                    prop::sample::select(
                        TYPES.iter().chain(ABBREVIATIONS).chain(MULTIPLES)
                            .chain(UNITS.iter().flat_map(|(base, others)| iter::once(base).chain(*others)))
                            .chain(&["total", "count", "sum", "bucket", "info", "x", "Ab", "", "kilobytes", "created"])
                            .copied()
                            .collect::<Vec<_>>(),
                    ),
                    1..4,
                ),
                2000,
            )
        ) {
            let mut text = String::new();
            let mut seen = std::collections::BTreeSet::new();
            for name in names.iter().map(|words| words.join("_")) {
                if check_metric(&name, "Anything").is_ok() && seen.insert(name.clone()) {
                    let full = format!("{METRIC_PREFIX}{name}");
                    text.push_str(&format!("# HELP {full} x\n# TYPE {full} gauge\n{full} 1\n"));
                }
            }
            prop_assert!(seen.len() > 10, "the rules accept something");
            let promtool = Command::new("promtool")
                .args(["check", "metrics"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let Ok(mut promtool) = promtool else {
                prop_assert!(std::env::var_os("REQUIRE_TEST_TOOLS").is_none(), "`make tools` installs promtool");
                return Ok(());
            };
            promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let out = promtool.wait_with_output().unwrap();
            prop_assert_eq!(String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr), "");
        }
    }
}
