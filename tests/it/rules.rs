//! The shipped alert and recording rules: promtool accepts them, and every metric in them is exported.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{exporter::Exporter, tools};

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
const RECORDING: &str = include_str!("../../deploy/prometheus/recording.yml");
const TESTS: &str = include_str!("../../deploy/prometheus/tests/alerts.yml");

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
pub struct Rule {
    pub alert: Option<String>,
    pub expr: String,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize, Default)]
struct Labels {
    severity: String,
}

#[derive(Deserialize, Default)]
struct Annotations {
    summary: String,
    description: String,
}

#[derive(Deserialize)]
struct Tests {
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    alert_rule_test: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    alertname: String,
    exp_alerts: Vec<serde_json::Value>,
}

fn rules_of(text: &str) -> Vec<Rule> {
    let rules: Rules = serde_saphyr::from_str(text).expect("a rule file");
    rules
        .groups
        .into_iter()
        .flat_map(|group| group.rules)
        .collect()
}

pub fn alerts() -> Vec<Rule> {
    rules_of(ALERTS)
}

pub fn recording() -> Vec<Rule> {
    rules_of(RECORDING)
}

impl Rule {
    /// Splits the expression into the part before the last comparison, and the threshold.
    pub fn split_threshold(&self) -> (&str, f64) {
        let (rest, threshold) = self
            .expr
            .trim()
            .rsplit_once(' ')
            .expect("an expression has words");
        let (rest, _) = rest
            .rsplit_once(' ')
            .expect("a comparison before the threshold");
        let threshold = threshold.parse();
        (
            rest,
            threshold.unwrap_or_else(|_| panic!("no threshold ends {}", self.expr)),
        )
    }
}

#[test]
fn promtool_accepts_the_rules_and_the_example_scrape_configuration() {
    if !tools::has(&["promtool"]) {
        return;
    }
    for arguments in [
        ["check", "rules", "deploy/prometheus/alerts.yml"],
        ["check", "rules", "deploy/prometheus/recording.yml"],
        ["check", "config", "deploy/prometheus/scrape.yml"],
    ] {
        let (is_ok, output) = tools::run("promtool", &arguments);
        assert!(
            is_ok && !output.contains("duplicate") && !output.contains("FAILED"),
            "{output}"
        );
    }
}

#[test]
fn the_rules_pass_their_promtool_tests() {
    if !tools::has(&["promtool"]) {
        return;
    }
    for file in [
        "deploy/prometheus/tests/alerts.yml",
        "deploy/prometheus/tests/recording.yml",
    ] {
        let (is_ok, output) = tools::run("promtool", &["test", "rules", file]);
        assert!(is_ok, "{output}");
    }
}

#[test]
fn every_alert_has_a_test_that_fires_and_one_that_does_not_and_says_what_to_do() {
    let tests: Tests = serde_saphyr::from_str(TESTS).expect("a file of tests");
    let cases: Vec<_> = tests
        .tests
        .iter()
        .flat_map(|test| &test.alert_rule_test)
        .collect();
    let mut names = BTreeSet::new();
    for rule in alerts() {
        let name = rule.alert.clone().expect("the file holds alerts only");
        for fires in [true, false] {
            assert!(
                cases
                    .iter()
                    .any(|case| case.alertname == name && case.exp_alerts.is_empty() != fires),
                "{name} has no test in which firing is {fires}"
            );
        }
        assert!(
            ["critical", "warning", "info"].contains(&rule.labels.severity.as_str()),
            "{name}"
        );
        assert!(!rule.annotations.summary.is_empty(), "{name}");
        assert!(rule.annotations.description.len() > 60, "{name}");
        // The chart replaces the threshold by a value.
        let (_, threshold) = rule.split_threshold();
        assert!(threshold.is_finite(), "{name}");
        assert!(names.insert(name), "an alert is defined twice");
    }
}

#[tokio::test]
async fn every_metric_a_rule_names_is_in_a_scrape() {
    let demo = Exporter::demo(&[]);
    let scrape = demo.scrape().await;
    for rule in alerts().into_iter().chain(recording()) {
        let names: Vec<_> = metrics_of(&rule.expr).collect();
        assert!(!names.is_empty(), "{}", rule.expr);
        for name in names {
            assert!(
                !scrape.series_of(name).is_empty(),
                "{name} is not exported: {}",
                rule.expr
            );
        }
    }
}

/// Returns the exporter's metrics in a query.
pub fn metrics_of(query: &str) -> impl Iterator<Item = &str> {
    query
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| word.starts_with("lightfi_") || word.starts_with("process_"))
}
