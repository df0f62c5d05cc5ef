//! THE table: which variable (`var_name`) becomes which metric. A new variable is one row of [`ROWS`].
//!
//! Belongs here: the table, and what the configuration overrides in it. Does not belong here: readings, and how a family is
//! written (`exposition`). Pure. `config` and `collector` ask the table itself; [`Catalog`] is made at each load of the
//! configuration and used by `exposition`, `web` and `cli`. The rows state facts of the vendor's "Sensor Data" page.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{duration, text};

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A total that only grows, except for resets.
    Counter,
}

/// The conversion from the vendor's unit to the base unit. Division is not a multiplication by the inverse: `57 / 100` is
/// 0.57, `57 × 0.01` is not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Multiplies the value.
    Times(f64),
    /// Divides the value.
    Over(f64),
}

impl Scale {
    /// Returns the value in the metric's unit, which may be infinite.
    pub fn apply(self, value: f64) -> f64 {
        match self {
            Self::Times(factor) => value * factor,
            Self::Over(divisor) => value / divisor,
        }
    }
}

/// The families to which a reading belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One sample: the converted value.
    Value,
    /// `motionEvent`: the value, and the reading's time in a second family ([`MOTION_TIME`]).
    Motion,
    /// `onlineStatus`: one sample per state ([`Status`]).
    Status,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The API's name of the variable; the last word of HELP.
    pub var_name: &'a str,
    /// The name of the family in the text format.
    pub metric: &'a str,
    /// HELP, without the words that end the HELP of every reading.
    pub help: &'a str,
    /// TYPE.
    pub kind: Kind,
    /// The families to which a reading belongs.
    pub form: Form,
    /// The conversion to the base unit.
    pub scale: Scale,
    /// Overrides `collect.stale_after` for this variable.
    pub stale_after: Option<Duration>,
    /// Whether the sensor itself measures the variable. Others come from the cloud or a building management system, and
    /// say nothing about when the sensor last measured.
    pub measured: bool,
}

const HOUR: u64 = 3600;

const fn gauge<'a>(var_name: &'a str, metric: &'a str, scale: Scale, help: &'a str) -> Row<'a> {
    Row {
        var_name,
        metric,
        help,
        kind: Kind::Gauge,
        form: Form::Value,
        scale,
        stale_after: None,
        measured: true,
    }
}

/// Every variable the vendor documents, in the order of the exposition.
#[rustfmt::skip]
pub const ROWS: &[Row<'static>] = &[
    gauge("temperatureC", "lightfi_temperature_celsius", Scale::Times(1.0), "Air temperature"),
    gauge("relativeHumidity", "lightfi_humidity_ratio", Scale::Over(100.0), "Relative humidity, 0 to 1"),
    gauge("CO2ppm", "lightfi_co2_ppm", Scale::Times(1.0), "Carbon dioxide in parts per million"),
    gauge("VOCppb", "lightfi_voc_ppb", Scale::Times(1.0), "Volatile organic compounds in parts per billion"),
    gauge("particulateMatter", "lightfi_pm2_5_ugm3", Scale::Times(1.0), "PM2.5 in micrograms per cubic metre"),
    gauge("pressuremBar", "lightfi_pressure_pascals", Scale::Times(100.0), "Air pressure"),
    gauge("illuminanceArb", "lightfi_illuminance", Scale::Times(1.0), "Light level in an arbitrary unit"),
    Row { stale_after: Some(Duration::from_secs(14 * 24 * HOUR)),
        ..gauge("batteryLevelPct", "lightfi_battery_ratio", Scale::Over(100.0), "Battery charge, 0 to 1") },
    Row { kind: Kind::Counter, stale_after: Some(Duration::from_secs(24 * HOUR)),
        ..gauge("energyInkWh", "lightfi_energy_joules_total", Scale::Times(3_600_000.0), "Energy consumed, as counted by the meter") },
    gauge("clientsWiFi", "lightfi_wifi_clients", Scale::Times(1.0), "Wi-Fi devices seen, as a sign of occupancy"),
    gauge("clientsBLE", "lightfi_ble_clients", Scale::Times(1.0), "Bluetooth LE devices seen, as a sign of occupancy"),
    gauge("occSignatures", "lightfi_occupants", Scale::Times(1.0), "People counted under the sensor"),
    Row { measured: false,
        ..gauge("BACnetReads", "lightfi_bacnet_reads", Scale::Times(1.0), "Requests for this sensor by a building management system in the last period") },
    Row { form: Form::Motion,
        ..gauge("motionEvent", "lightfi_motion_activity", Scale::Times(1.0), "Count of motion events that decays while there is no motion") },
    Row { form: Form::Status, measured: false,
        ..gauge("onlineStatus", "lightfi_sensor_status", Scale::Times(1.0), "1 for the current state of the sensor, 0 for the other states") },
];

/// The second family of [`Form::Motion`].
pub const MOTION_TIME: (&str, &str) = (
    "lightfi_motion_last_event_timestamp_seconds",
    "Unix time of the last motion event",
);

/// The family of every variable that has no row.
pub const UNMAPPED: (&str, &str) = (
    "lightfi_reading",
    "Unconverted readings of variables without a metric of their own, by var_name",
);

/// Old names of variables with the names in the table: the vendor renamed `irSignatures`.
const ALIASES: &[(&str, &str)] = &[("irSignatures", "occSignatures")];

/// The states of `onlineStatus`: 1 online, 0 offline, −1 rebooting, −2 retired.
pub struct Status;

impl Status {
    /// The label values, in the order of the exposition.
    pub const NAMES: [&'static str; 5] = ["online", "offline", "rebooting", "retired", "unknown"];

    /// Returns the index into [`Status::NAMES`] for the API's number.
    pub fn of(value: f64) -> usize {
        match value {
            1.0 => 0,
            0.0 => 1,
            -1.0 => 2,
            -2.0 => 3,
            _ => 4,
        }
    }
}

/// Returns the name by which the table knows a variable.
pub fn canonical(var_name: &str) -> &str {
    let alias = ALIASES.iter().find(|(old, _)| *old == var_name);
    alias.map_or(var_name, |(_, new)| new)
}

/// Returns the [`canonical`] name. The names in the table are shared, so that thousands of sensors take little memory.
pub fn shared_name(var_name: String) -> Cow<'static, str> {
    match row(canonical(&var_name)) {
        Some(row) => Cow::Borrowed(row.var_name),
        None => Cow::Owned(var_name),
    }
}

/// Returns the row of a variable, by its [`canonical`] name.
fn row(var_name: &str) -> Option<&'static Row<'static>> {
    ROWS.iter().find(|row| row.var_name == var_name)
}

/// Whether a variable has a row in the table.
pub fn has_row(var_name: &str) -> bool {
    row(var_name).is_some()
}

/// Whether the table says that a variable is a counter, which never goes back to an older reading. Overrides do not change
/// this, so that what is kept does not depend on what is shown.
pub fn is_counter(var_name: &str) -> bool {
    row(var_name).is_some_and(|row| row.kind == Kind::Counter)
}

/// Whether the sensor itself measures a variable.
pub fn is_measured(var_name: &str) -> bool {
    row(var_name).is_none_or(|row| row.measured)
}

/// Returns the largest number of series that one reading of a variable can have, without the series of its time.
pub fn max_series(var_name: &str) -> usize {
    match row(var_name).map(|row| row.form) {
        Some(Form::Status) => Status::NAMES.len(),
        Some(Form::Motion) => 2,
        Some(Form::Value) | None => 1,
    }
}

/// One entry of `metrics.variables`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[serde(expecting = "an object with keys such as name")]
pub struct Override {
    /// Exports the variable as the gauge `lightfi_<name>`.
    pub name: Option<String>,
    /// HELP, without the words that end the HELP of every reading.
    pub help: Option<String>,
    /// Replaces the table's conversion.
    #[serde(deserialize_with = "text::parse_option")]
    pub scale: Option<f64>,
    /// Replaces the table's limit; 0 means never.
    #[serde(with = "duration::option")]
    pub stale_after: Option<Duration>,
    /// Does not export the variable.
    #[serde(deserialize_with = "text::parse")]
    pub drop: bool,
}

/// One metric family of readings.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The name in the text format, with `_total`.
    pub name: String,
    /// HELP, without the words that end the HELP of every reading.
    pub help: String,
    /// TYPE.
    pub kind: Kind,
    /// The last word of HELP; `None` only for [`UNMAPPED`].
    pub var_name: Option<String>,
}

impl Family {
    fn gauge((name, help): (&str, &str), var_name: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            help: help.to_owned(),
            kind: Kind::Gauge,
            var_name: var_name.map(str::to_owned),
        }
    }
}

/// How readings of one variable are exported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mapping {
    /// An index into [`Catalog::families`]. The family of [`MOTION_TIME`] follows the one of [`Form::Motion`].
    pub family: usize,
    /// The families to which a reading belongs.
    pub form: Form,
    /// The conversion to the metric's unit.
    pub scale: Scale,
    /// The age at which a reading is stale by its own time; `None` means never. Does not apply to the status and to the time
    /// of a motion.
    pub stale_after: Option<Duration>,
    /// Whether the family is [`UNMAPPED`].
    pub unmapped: bool,
    /// Whether the sensor itself measures the variable.
    pub measured: bool,
}

/// The table with the overrides of one configuration.
#[derive(Debug)]
pub struct Catalog {
    families: Vec<Family>,
    /// By variable; `None` means that it is not exported.
    mappings: HashMap<String, Option<Mapping>>,
    unmapped: Mapping,
    /// `collect.stale_after`; `None` means never.
    pub default_stale_after: Option<Duration>,
    /// `metrics.reading_timestamps`.
    pub reading_timestamps: bool,
}

impl Catalog {
    /// Applies `variables` to the table. The keys are old or new names of variables. Their names of families must be unique:
    /// `config` has checked that.
    pub fn new(
        variables: &BTreeMap<String, Override>,
        stale_after: Duration,
        reading_timestamps: bool,
    ) -> Self {
        let default_stale_after = limit(stale_after);
        let unmapped = Mapping {
            family: 0,
            form: Form::Value,
            scale: Scale::Times(1.0),
            stale_after: default_stale_after,
            unmapped: true,
            measured: true,
        };
        let mut catalog = Self {
            families: Vec::new(),
            mappings: HashMap::new(),
            unmapped,
            default_stale_after,
            reading_timestamps,
        };
        let by_name = variables.iter().map(|(name, over)| (canonical(name), over));
        let overrides: BTreeMap<&str, &Override> = by_name.collect();
        let names = overrides.keys().filter(|name| !has_row(name));
        let custom = names.map(|name| {
            let help = "Reading of a variable named in the configuration";
            gauge(name, UNMAPPED.0, Scale::Times(1.0), help)
        });
        let unchanged = Override::default();
        for row in ROWS.iter().copied().chain(custom) {
            let over = overrides.get(row.var_name).copied();
            catalog.add(row, over.unwrap_or(&unchanged));
        }
        let last = catalog.families.len();
        catalog.families.push(Family::gauge(UNMAPPED, None));
        catalog.unmapped.family = last;
        let mappings = catalog.mappings.values_mut().flatten();
        for mapping in mappings.filter(|mapping| mapping.unmapped) {
            mapping.family = last;
        }
        catalog
    }

    /// Adds the mapping and the families of one variable.
    fn add(&mut self, row: Row<'_>, over: &Override) {
        if over.drop {
            self.mappings.insert(row.var_name.to_owned(), None);
            return;
        }
        let custom_name = over.name.as_ref().map(|name| format!("lightfi_{name}"));
        // An entry without a name only changes how `lightfi_reading` shows the variable.
        let unmapped = custom_name.is_none() && row.metric == UNMAPPED.0;
        let stale_after = over.stale_after.or(row.stale_after);
        let mapping = Mapping {
            family: self.families.len(),
            form: row.form,
            scale: over.scale.map_or(row.scale, Scale::Times),
            stale_after: stale_after.map_or(self.default_stale_after, limit),
            unmapped,
            measured: row.measured,
        };
        self.mappings.insert(row.var_name.to_owned(), Some(mapping));
        if unmapped {
            return;
        }
        let name = custom_name.as_deref().unwrap_or(row.metric);
        let help = over.help.as_deref().unwrap_or(row.help);
        let mut family = Family::gauge((name, help), Some(row.var_name));
        if custom_name.is_none() {
            family.kind = row.kind;
        }
        self.families.push(family);
        if row.form == Form::Motion {
            let family = Family::gauge(MOTION_TIME, Some(row.var_name));
            self.families.push(family);
        }
    }

    /// Returns the families of readings in the order of the exposition; the last one is [`UNMAPPED`].
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// Returns the mapping of a variable, by its [`canonical`] name; `None` if the variable is dropped.
    pub fn mapping(&self, var_name: &str) -> Option<Mapping> {
        let known = self.mappings.get(var_name).copied();
        known.unwrap_or(Some(self.unmapped))
    }
}

/// 0 means never.
fn limit(stale_after: Duration) -> Option<Duration> {
    (!stale_after.is_zero()).then_some(stale_after)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn catalog(variables: &[(&str, Override)]) -> Catalog {
        let variables = variables
            .iter()
            .map(|(name, over)| ((*name).to_owned(), over.clone()));
        Catalog::new(&variables.collect(), Duration::from_secs(HOUR), false)
    }

    fn named(name: &str) -> Override {
        Override {
            name: Some(name.to_owned()),
            ..Override::default()
        }
    }

    fn stale_after(seconds: u64) -> Override {
        Override {
            stale_after: Some(Duration::from_secs(seconds)),
            ..Override::default()
        }
    }

    fn family<'a>(catalog: &'a Catalog, var_name: &str) -> &'a Family {
        &catalog.families()[catalog.mapping(var_name).unwrap().family]
    }

    #[test]
    fn variables_and_families_are_unique() {
        let var_names: BTreeSet<_> = ROWS.iter().map(|row| row.var_name).collect();
        assert_eq!(var_names.len(), ROWS.len());
        let catalog = catalog(&[]);
        // OpenMetrics names the family of a counter without `_total`, which must be unique as well.
        let families = catalog.families().iter();
        let names = families.map(|family| family.name.trim_end_matches("_total"));
        assert_eq!(names.collect::<BTreeSet<_>>().len(), ROWS.len() + 2);
    }

    #[test]
    fn names_and_help_follow_the_rules_of_promtool() {
        let other_types = ["_count", "_sum", "_bucket", "_created", "_info"];
        let other_units = [
            "percent", "pct", "kwh", "mbar", "milli", "kilo", "micro", "minutes", "hours", "days",
            "mb",
        ];
        for Family {
            name, help, kind, ..
        } in catalog(&[]).families()
        {
            assert!(name.starts_with("lightfi_"), "{name}");
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(allowed), "{name}");
            let is_counter = *kind == Kind::Counter;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            let has_suffix = other_types.iter().any(|suffix| name.ends_with(suffix));
            assert!(!has_suffix, "{name}");
            let has_unit = name.split('_').any(|word| other_units.contains(&word));
            assert!(!has_unit, "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn families_are_in_the_order_of_the_table_then_custom_ones_then_unmapped() {
        let catalog = catalog(&[("PM10", named("pm10_ugm3")), ("CO2ppm", named("carbon"))]);
        let families = catalog.families().iter();
        let names: Vec<_> = families.map(|family| family.name.as_str()).collect();
        let mut expected: Vec<_> = ROWS.iter().map(|row| row.metric).collect();
        expected[2] = "lightfi_carbon";
        let motion = catalog.mapping("motionEvent").unwrap().family;
        assert_eq!(expected[motion], "lightfi_motion_activity");
        expected.insert(motion + 1, MOTION_TIME.0);
        expected.extend(["lightfi_pm10_ugm3", UNMAPPED.0]);
        assert_eq!(names, expected);
    }

    #[test]
    fn units_are_converted_without_rounding_errors() {
        let catalog = catalog(&[]);
        for (var_name, value, converted) in [
            ("temperatureC", 21.4, 21.4),
            ("relativeHumidity", 57.0, 0.57),
            ("batteryLevelPct", 29.0, 0.29),
            ("pressuremBar", 1013.0, 101_300.0),
            ("energyInkWh", 2000.0, 7_200_000_000.0),
            ("PM10", 12.5, 12.5),
        ] {
            let scale = catalog.mapping(var_name).unwrap().scale;
            assert_eq!(scale.apply(value), converted, "{var_name}");
        }
    }

    #[test]
    fn variables_without_a_name_are_unmapped_and_follow_their_overrides() {
        let doubled = Override {
            scale: Some(2.0),
            ..stale_after(7)
        };
        let catalog = catalog(&[("PM10", doubled)]);
        for (var_name, factor, limit) in [("PM10", 2.0, 7), ("unknown", 1.0, HOUR)] {
            let mapping = catalog.mapping(var_name).unwrap();
            assert!(mapping.unmapped);
            assert_eq!(mapping.scale, Scale::Times(factor));
            assert_eq!(mapping.stale_after, Some(Duration::from_secs(limit)));
            assert_eq!(family(&catalog, var_name).name, UNMAPPED.0);
        }
    }

    #[test]
    fn the_limit_of_the_variable_precedes_the_tables_and_the_general_one() {
        let overrides = [
            ("batteryLevelPct", stale_after(5)),
            ("energyInkWh", stale_after(0)),
        ];
        let never = Catalog::new(&BTreeMap::new(), Duration::ZERO, false);
        for (catalog, var_name, seconds) in [
            (&catalog(&overrides), "batteryLevelPct", Some(5)),
            (&catalog(&overrides), "energyInkWh", None),
            (&catalog(&overrides), "CO2ppm", Some(HOUR)),
            (&never, "batteryLevelPct", Some(14 * 24 * HOUR)),
            (&never, "energyInkWh", Some(24 * HOUR)),
            (&never, "CO2ppm", None),
        ] {
            let limit = catalog.mapping(var_name).unwrap().stale_after;
            assert_eq!(limit, seconds.map(Duration::from_secs), "{var_name}");
        }
    }

    #[test]
    fn an_old_name_is_the_same_variable() {
        assert_eq!(canonical("irSignatures"), "occSignatures");
        assert_eq!(canonical("PM10"), "PM10");
        let catalog = catalog(&[("irSignatures", named("people"))]);
        assert_eq!(family(&catalog, "occSignatures").name, "lightfi_people");
    }

    #[test]
    fn the_table_states_counters_measured_variables_and_series() {
        let names = |is: &dyn Fn(&str) -> bool| -> Vec<_> {
            let names = ROWS.iter().map(|row| row.var_name);
            names.chain(["PM10"]).filter(|name| is(name)).collect()
        };
        assert_eq!(names(&is_counter), ["energyInkWh"]);
        let not_measured = ["BACnetReads", "onlineStatus"];
        assert_eq!(names(&|name| !is_measured(name)), not_measured);
        assert_eq!(names(&|name| max_series(name) == 5), ["onlineStatus"]);
        assert_eq!(names(&|name| max_series(name) == 2), ["motionEvent"]);
        assert_eq!(max_series("PM10"), 1);
    }

    #[test]
    fn every_status_has_a_name() {
        for (value, name) in [
            (1.0, "online"),
            (0.0, "offline"),
            (-0.0, "offline"),
            (-1.0, "rebooting"),
            (-2.0, "retired"),
            (-3.0, "unknown"),
            (0.5, "unknown"),
        ] {
            assert_eq!(Status::NAMES[Status::of(value)], name, "{value}");
        }
    }
}
