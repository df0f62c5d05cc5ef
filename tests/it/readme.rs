//! The README's tables of metrics and keys agree with the code.

use std::{collections::BTreeMap, time::Duration};

use lightfi_exporter::catalog::{Catalog, Form, Kind, MOTION_TIME, ROWS, UNMAPPED};
use serde_json::Value;

const README: &str = include_str!("../../README.md");
const DEFAULTS: &str = include_str!("../../src/config/default.yaml");

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|')
        .split('|')
        .map(|cell| cell.trim().trim_matches('`').to_owned())
        .collect()
}

#[test]
fn the_metric_table_matches_the_catalog() {
    let table = README
        .split("<!-- checked against src/catalog.rs")
        .nth(1)
        .expect("the table is marked");
    let shown: Vec<_> = table
        .lines()
        .skip(3)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect();
    let row = |metric: &str, kind: Kind, var_name: &str, stale_after: Option<Duration>| {
        let kind = if kind == Kind::Counter {
            "counter"
        } else {
            "gauge"
        };
        let days = stale_after.map_or(String::new(), |after| {
            format!("{}d", after.as_secs() / 86_400)
        });
        vec![
            metric.to_owned(),
            kind.to_owned(),
            var_name.to_owned(),
            days,
        ]
    };
    let mut known = Vec::new();
    for of in ROWS {
        known.push(row(of.metric, of.kind, of.var_name, of.stale_after));
        if of.form == Form::Motion {
            known.push(row(MOTION_TIME.0, Kind::Gauge, of.var_name, of.stale_after));
        }
    }
    known.push(row(UNMAPPED.0, Kind::Gauge, "", None));
    assert_eq!(shown, known);
}

#[test]
fn every_fault_of_the_simulator_is_in_the_readme() {
    for name in lightfi_simulator::fault_names() {
        assert!(README.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_metric_in_the_readme_exists() {
    let catalog = Catalog::new(&BTreeMap::new(), Duration::from_secs(3600), true);
    let mut known: Vec<String> = catalog
        .families()
        .iter()
        .map(|family| family.name.clone())
        .collect();
    known.extend(
        crate::demo::FAMILIES
            .iter()
            .map(|family| (*family).to_owned()),
    );
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = README
        .split(|c: char| !is_part(c))
        .filter(|word| word.starts_with("lightfi_"));
    let unknown: Vec<_> = words
        .filter(|word| !word.ends_with('_') && !known.iter().any(|name| name == word))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// Rows of several keys have no default.
#[test]
fn the_configuration_table_shows_the_keys_and_defaults_of_the_code() {
    let defaults: Value = serde_saphyr::from_str(DEFAULTS).expect("YAML");
    let default = |key: &str| {
        let pointer = format!("/{}", key.replace('.', "/"));
        let value = defaults.pointer(&pointer);
        let value = value.unwrap_or_else(|| panic!("{key} is no key of the configuration"));
        match value {
            Value::String(text) => text.clone(),
            Value::Null => "none".to_owned(),
            Value::Array(items) if items.is_empty() => "none".to_owned(),
            Value::Object(entries) if entries.is_empty() => "none".to_owned(),
            value => value.to_string(),
        }
    };
    let table = README.split("| key | default | meaning |").nth(1);
    let rows = table.expect("the table of keys").lines().skip(2);
    let mut checked = 0;
    for row in rows.take_while(|line| line.starts_with('|')).map(cells) {
        if row[0].contains(',') {
            continue;
        }
        assert_eq!(row[1], default(&row[0]), "{}", row[0]);
        checked += 1;
    }
    assert!(checked > 10, "only {checked} rows found");
}
