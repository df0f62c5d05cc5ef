//! THE table: which `var_name` becomes which metric. A new variable is one row of [`ROWS`].
//!
//! Pure and a leaf: [`Catalog::new`] lays the configuration's overrides over the table; `exposition` asks the result.
//! Facts of the rows come from the vendor's "Sensor Data" page.

use std::{borrow::Cow, collections::BTreeMap, collections::HashMap, time::Duration};

/// What Prometheus is told a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A total that only grows, but for resets.
    Counter,
}

/// The vendor's unit to the base unit. Division is kept as division: `57 / 100` is 0.57, `57 × 0.01` is not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// value × factor
    Times(f64),
    /// value ÷ divisor
    Over(f64),
}

impl Scale {
    /// The value in the metric's unit; may be infinite.
    pub fn apply(self, value: f64) -> f64 {
        match self {
            Self::Times(factor) => value * factor,
            Self::Over(divisor) => value / divisor,
        }
    }
}

/// Which families a reading feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One sample: the converted value.
    Value,
    /// `motionEvent`: the value, and the reading's time as a sample of its own ([`MOTION_TIME`]).
    Motion,
    /// `onlineStatus`: one sample per state ([`Status`]).
    Status,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The API's name; the last word of HELP.
    pub var_name: &'static str,
    /// The name in the text format.
    pub metric: &'static str,
    /// HELP without what every reading's HELP ends with.
    pub help: &'static str,
    /// TYPE.
    pub kind: Kind,
    /// Which families it feeds.
    pub form: Form,
    /// To the base unit.
    pub scale: Scale,
    /// Where it differs from `collect.stale_after`.
    pub stale_after: Option<Duration>,
}

const HOUR: u64 = 3600;

const fn gauge(
    var_name: &'static str,
    metric: &'static str,
    scale: Scale,
    help: &'static str,
) -> Row {
    Row {
        var_name,
        metric,
        help,
        kind: Kind::Gauge,
        form: Form::Value,
        scale,
        stale_after: None,
    }
}

/// Every variable the vendor documents, in the order of the exposition.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
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
        ..gauge("energyInkWh", "lightfi_energy_joules_total", Scale::Times(3_600_000.0), "Energy consumed, by the counter of the meter") },
    gauge("clientsWiFi", "lightfi_wifi_clients", Scale::Times(1.0), "Wi-Fi devices seen that indicate occupancy"),
    gauge("clientsBLE", "lightfi_ble_clients", Scale::Times(1.0), "Bluetooth LE devices seen that indicate occupancy"),
    gauge("occSignatures", "lightfi_occupants", Scale::Times(1.0), "People counted under the sensor"),
    gauge("BACnetReads", "lightfi_bacnet_reads", Scale::Times(1.0), "Queries by a building management system for this sensor in the last period"),
    Row { form: Form::Motion,
        ..gauge("motionEvent", "lightfi_motion_activity", Scale::Times(1.0), "Count of motion events that decays while there is no motion") },
    Row { form: Form::Status,
        ..gauge("onlineStatus", "lightfi_sensor_status", Scale::Times(1.0), "1 for the current state of the sensor, 0 for the other states") },
];

/// The second family of [`Form::Motion`]: when the last motion was seen.
pub const MOTION_TIME: (&str, &str) = (
    "lightfi_motion_last_event_timestamp_seconds",
    "Unix time of the last motion event",
);

/// The family of every variable that has no row.
pub const UNMAPPED: (&str, &str) = (
    "lightfi_reading",
    "Unconverted readings of variables without a metric of their own, by var_name",
);

/// Old names of variables, with the name in the table: the vendor renamed `irSignatures`.
const ALIASES: &[(&str, &str)] = &[("irSignatures", "occSignatures")];

/// Variables that tell nothing of when the sensor last measured: the cloud and the building management system make them.
const NOT_MEASURED: &[&str] = &["onlineStatus", "BACnetReads"];

/// `onlineStatus`: 1 online, 0 offline, −1 rebooting, −2 retired.
pub struct Status;

impl Status {
    /// The closed set of label values, in the order of the exposition.
    pub const NAMES: [&'static str; 5] = ["online", "offline", "rebooting", "retired", "unknown"];

    /// Index into [`Status::NAMES`] of what the API's number says.
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

/// The name the table knows a variable by.
pub fn canonical(var_name: &str) -> &str {
    ALIASES
        .iter()
        .find(|(old, _)| *old == var_name)
        .map_or(var_name, |(_, new)| new)
}

/// Whether a variable (by its [`canonical`] name) has a row in the table.
pub fn has_row(var_name: &str) -> bool {
    ROWS.iter().any(|row| row.var_name == var_name)
}

/// Whether readings of this variable are ordered by their own time: a counter never goes back to an older reading.
/// A fact of the table's rows, not of overrides, so that what is kept does not depend on what is shown.
pub fn is_counter(var_name: &str) -> bool {
    ROWS.iter()
        .any(|row| row.kind == Kind::Counter && row.var_name == var_name)
}

/// How many series one reading of this variable makes at most, that of its time not counted.
pub fn most_series(var_name: &str) -> usize {
    match ROWS.iter().find(|row| row.var_name == var_name) {
        Some(row) if row.form == Form::Status => Status::NAMES.len(),
        Some(row) if row.form == Form::Motion => 2,
        _ => 1,
    }
}

/// Whether the sensor itself measures this variable.
pub fn is_measured(var_name: &str) -> bool {
    !NOT_MEASURED.contains(&var_name)
}

/// One entry of `metrics.variables`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Override {
    /// Exported as the gauge `lightfi_<name>`.
    pub name: Option<String>,
    /// HELP without its end.
    pub help: Option<String>,
    /// Instead of the table's conversion.
    pub scale: Option<f64>,
    /// Instead of the table's; 0 = never.
    pub stale_after: Option<Duration>,
    /// Not exported at all.
    pub drop: bool,
}

/// One metric family of readings.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The name in the text format, with `_total`.
    pub name: Cow<'static, str>,
    /// What it is, without what every reading's HELP ends with.
    pub help: Cow<'static, str>,
    /// TYPE.
    pub kind: Kind,
    /// Ends HELP; `None` only for [`UNMAPPED`].
    pub var_name: Option<String>,
}

/// What becomes of one variable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mapping {
    /// Index into [`Catalog::families`]; for [`Form::Motion`] the time's family is the next one.
    pub family: usize,
    /// Which families it feeds.
    pub form: Form,
    /// To the metric's unit.
    pub scale: Scale,
    /// Age limit by the reading's own time; `None` = never stale. Does not bind the status or the motion time.
    pub stale_after: Option<Duration>,
    /// Whether it goes to [`UNMAPPED`].
    pub unmapped: bool,
    /// Whether the sensor itself measures it.
    pub measured: bool,
}

/// The table under one configuration's overrides.
#[derive(Debug)]
pub struct Catalog {
    families: Vec<Family>,
    mappings: HashMap<String, Option<Mapping>>,
    unmapped: Mapping,
    /// `collect.stale_after`; `None` = never.
    pub default_stale_after: Option<Duration>,
    /// `metrics.reading_timestamps`.
    pub reading_timestamps: bool,
}

/// 0 stands for "never".
fn limit(stale_after: Duration) -> Option<Duration> {
    (!stale_after.is_zero()).then_some(stale_after)
}

impl Catalog {
    /// Lays `variables` (keys are `var_name`s, old or new) over the table. A name of `variables` must not be taken:
    /// `config` has checked it.
    pub fn new(
        variables: &BTreeMap<String, Override>,
        stale_after: Duration,
        reading_timestamps: bool,
    ) -> Self {
        let default_stale_after = limit(stale_after);
        let overrides: BTreeMap<&str, &Override> = variables
            .iter()
            .map(|(name, o)| (canonical(name), o))
            .collect();
        let none = Override::default();
        let mut families = Vec::new();
        let mut mappings = HashMap::new();
        let custom = overrides
            .keys()
            .filter(|name| !ROWS.iter().any(|row| row.var_name == **name));
        let rows = ROWS
            .iter()
            .copied()
            .map(Some)
            .zip(ROWS.iter().map(|row| row.var_name));
        for (row, var_name) in rows.chain(custom.map(|name| (None, *name))) {
            let over = overrides.get(var_name).copied().unwrap_or(&none);
            if over.drop {
                mappings.insert(var_name.to_owned(), None);
                continue;
            }
            let scale = over
                .scale
                .map(Scale::Times)
                .or(row.map(|row| row.scale))
                .unwrap_or(Scale::Times(1.0));
            let stale_after = match over.stale_after.or(row.and_then(|row| row.stale_after)) {
                Some(own) => limit(own),
                None => default_stale_after,
            };
            let form = row.map_or(Form::Value, |row| row.form);
            let named = over.name.as_ref().map(|name| format!("lightfi_{name}"));
            // An addition without a name only changes how `lightfi_reading` shows it.
            let unmapped = named.is_none() && row.is_none();
            let mapping = Mapping {
                family: families.len(),
                form,
                scale,
                stale_after,
                unmapped,
                measured: is_measured(var_name),
            };
            mappings.insert(var_name.to_owned(), Some(mapping));
            if unmapped {
                continue;
            }
            let default_help = row
                .map_or("Reading of a variable named in the configuration", |row| {
                    row.help
                });
            families.push(Family {
                kind: row
                    .filter(|_| named.is_none())
                    .map_or(Kind::Gauge, |row| row.kind),
                name: named
                    .map(Cow::Owned)
                    .or(row.map(|row| row.metric.into()))
                    .unwrap_or(UNMAPPED.0.into()),
                help: over.help.clone().map_or(default_help.into(), Cow::Owned),
                var_name: Some(var_name.to_owned()),
            });
            if form == Form::Motion {
                let (name, help) = MOTION_TIME;
                let var_name = Some(var_name.to_owned());
                families.push(Family {
                    name: name.into(),
                    help: help.into(),
                    kind: Kind::Gauge,
                    var_name,
                });
            }
        }
        let (name, help) = UNMAPPED;
        families.push(Family {
            name: name.into(),
            help: help.into(),
            kind: Kind::Gauge,
            var_name: None,
        });
        let last = families.len() - 1;
        for mapping in mappings
            .values_mut()
            .flatten()
            .filter(|mapping| mapping.unmapped)
        {
            mapping.family = last;
        }
        let unmapped = Mapping {
            family: last,
            form: Form::Value,
            scale: Scale::Times(1.0),
            stale_after: default_stale_after,
            unmapped: true,
            measured: true,
        };
        Self {
            families,
            mappings,
            unmapped,
            default_stale_after,
            reading_timestamps,
        }
    }

    /// The families of readings in the order of the exposition; the last one is [`UNMAPPED`].
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// What becomes of a variable (by its [`canonical`] name); `None` when it is dropped.
    pub fn mapping(&self, var_name: &str) -> Option<Mapping> {
        self.mappings
            .get(var_name)
            .copied()
            .unwrap_or(Some(self.unmapped))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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

    #[test]
    fn no_name_stands_twice() {
        let var_names: BTreeSet<_> = ROWS.iter().map(|row| row.var_name).collect();
        assert_eq!(var_names.len(), ROWS.len());
        let catalog = catalog(&[]);
        // OpenMetrics calls a counter without `_total`: also then.
        let names = catalog
            .families()
            .iter()
            .map(|family| family.name.trim_end_matches("_total"));
        assert_eq!(names.collect::<BTreeSet<_>>().len(), ROWS.len() + 2);
    }

    #[test]
    fn names_follow_prometheus_rules() {
        let of_other_types = ["_count", "_sum", "_bucket", "_created", "_info"];
        let not_base_units = [
            "percent", "pct", "kwh", "mbar", "milli", "kilo", "micro", "minutes", "hours", "days",
            "mb",
        ];
        for family in catalog(&[]).families() {
            let name = &*family.name;
            let words: Vec<_> = name.split('_').collect();
            assert!(name.starts_with("lightfi_"), "{name}");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(plain), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                family.kind == Kind::Counter,
                "{name}"
            );
            assert!(
                !of_other_types.iter().any(|end| name.ends_with(end)),
                "{name}"
            );
            assert!(
                !not_base_units.iter().any(|unit| words.contains(unit)),
                "{name}"
            );
            assert!(
                !family.help.is_empty() && !family.help.ends_with('.'),
                "{name}"
            );
        }
    }

    #[test]
    fn families_stand_in_the_tables_order_and_additions_before_the_unmapped() {
        let catalog = catalog(&[("PM10", named("pm10_ugm3")), ("CO2ppm", named("carbon"))]);
        let names: Vec<_> = catalog
            .families()
            .iter()
            .map(|family| &*family.name)
            .collect();
        let mut expected: Vec<_> = ROWS.iter().map(|row| row.metric).collect();
        expected[2] = "lightfi_carbon";
        let motion = expected
            .iter()
            .position(|name| *name == "lightfi_motion_activity")
            .unwrap();
        expected.insert(motion + 1, MOTION_TIME.0);
        expected.extend(["lightfi_pm10_ugm3", UNMAPPED.0]);
        assert_eq!(names, expected);
        let motion = catalog.mapping("motionEvent").unwrap();
        assert_eq!(catalog.families()[motion.family + 1].name, MOTION_TIME.0);
    }

    #[test]
    fn each_variable_goes_to_the_family_of_its_row() {
        let catalog = catalog(&[]);
        for row in ROWS {
            let family = &catalog.families()[catalog.mapping(row.var_name).unwrap().family];
            assert_eq!((&*family.name, family.kind), (row.metric, row.kind));
            assert_eq!(family.var_name.as_deref(), Some(row.var_name));
        }
    }

    #[test]
    fn units_are_converted_without_new_digits() {
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
    fn what_has_no_row_is_unmapped_and_unconverted() {
        let mapping = catalog(&[]).mapping("never seen").unwrap();
        assert!(mapping.unmapped);
        assert_eq!(mapping.scale, Scale::Times(1.0));
        assert_eq!(mapping.stale_after, Some(Duration::from_secs(HOUR)));
    }

    #[test]
    fn an_addition_without_a_name_stays_unmapped_under_its_own_rules() {
        let over = Override {
            scale: Some(2.0),
            ..stale_after(7)
        };
        let catalog = catalog(&[("PM10", over)]);
        let mapping = catalog.mapping("PM10").unwrap();
        assert!(mapping.unmapped);
        assert_eq!(catalog.families()[mapping.family].name, UNMAPPED.0);
        assert_eq!(
            (mapping.scale, mapping.stale_after),
            (Scale::Times(2.0), Some(Duration::from_secs(7)))
        );
    }

    #[test]
    fn a_variable_renamed_in_the_configuration_is_a_gauge() {
        let catalog = catalog(&[("energyInkWh", named("meter_joules"))]);
        let mapping = catalog.mapping("energyInkWh").unwrap();
        assert_eq!(catalog.families()[mapping.family].kind, Kind::Gauge);
        assert_eq!(mapping.scale, Scale::Times(3_600_000.0));
    }

    #[test]
    fn a_dropped_variable_takes_all_its_families_along() {
        let drop = Override {
            drop: true,
            ..Override::default()
        };
        let catalog = catalog(&[("motionEvent", drop.clone()), ("PM10", drop)]);
        assert_eq!(catalog.mapping("motionEvent"), None);
        assert_eq!(catalog.mapping("PM10"), None);
        let mut names = catalog.families().iter().map(|family| &*family.name);
        assert!(!names.any(|name| name.starts_with("lightfi_motion")));
    }

    #[test]
    fn a_limit_is_the_variables_own_then_the_tables_then_the_general_one() {
        let own = catalog(&[
            ("batteryLevelPct", stale_after(5)),
            ("energyInkWh", stale_after(0)),
        ]);
        let limit = |catalog: &Catalog, var_name| {
            catalog
                .mapping(var_name)
                .unwrap()
                .stale_after
                .map(|l| l.as_secs())
        };
        assert_eq!(limit(&own, "batteryLevelPct"), Some(5));
        assert_eq!(limit(&own, "energyInkWh"), None);
        assert_eq!(limit(&own, "CO2ppm"), Some(HOUR));
        let off = Catalog::new(&BTreeMap::new(), Duration::ZERO, false);
        assert_eq!(limit(&off, "batteryLevelPct"), Some(14 * 24 * HOUR));
        assert_eq!(limit(&off, "energyInkWh"), Some(24 * HOUR));
        assert_eq!(limit(&off, "CO2ppm"), None);
    }

    #[test]
    fn an_old_name_is_the_same_variable() {
        assert_eq!(canonical("irSignatures"), "occSignatures");
        assert_eq!(canonical("occSignatures"), "occSignatures");
        assert_eq!(canonical("PM10"), "PM10");
        let catalog = catalog(&[("irSignatures", named("people"))]);
        let mapping = catalog.mapping("occSignatures").unwrap();
        assert_eq!(catalog.families()[mapping.family].name, "lightfi_people");
    }

    #[test]
    fn only_the_meter_is_a_counter_whatever_it_is_shown_as() {
        let counters: Vec<_> = ROWS
            .iter()
            .map(|row| row.var_name)
            .filter(|name| is_counter(name))
            .collect();
        assert_eq!(counters, ["energyInkWh"]);
    }

    #[test]
    fn what_the_cloud_or_the_building_makes_is_not_measured() {
        let made: Vec<_> = ROWS
            .iter()
            .map(|row| row.var_name)
            .filter(|name| !is_measured(name))
            .collect();
        assert_eq!(made, ["BACnetReads", "onlineStatus"]);
        assert!(is_measured("PM10"));
    }

    #[test]
    fn a_reading_makes_a_series_for_each_state_and_one_for_the_time_of_a_motion() {
        for row in ROWS {
            let most = match row.form {
                Form::Value => 1,
                Form::Motion => 2,
                Form::Status => 5,
            };
            assert_eq!(most_series(row.var_name), most, "{}", row.var_name);
        }
        assert_eq!(most_series("PM10"), 1);
    }

    #[test]
    fn a_status_is_one_of_five() {
        for (value, state) in [
            (1.0, "online"),
            (0.0, "offline"),
            (-0.0, "offline"),
            (-1.0, "rebooting"),
            (-2.0, "retired"),
            (-3.0, "unknown"),
            (2.0, "unknown"),
            (0.5, "unknown"),
        ] {
            assert_eq!(Status::NAMES[Status::of(value)], state, "{value}");
        }
    }
}
