//! The alert and recording rules that ship: what promtool says of them, and that they speak of metrics there are.

use std::{collections::BTreeSet, process::Command};

use serde::Deserialize;

use crate::{exporter::Exporter, prometheus};

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
    /// The expression apart from the comparison at its end, and the threshold.
    pub fn cut(&self) -> (&str, f64) {
        let (rest, threshold) = self
            .expr
            .trim()
            .rsplit_once(' ')
            .expect("an expression has words");
        let (rest, _) = rest
            .rsplit_once(' ')
            .expect("a comparison stands before the threshold");
        let threshold = threshold.parse();
        (
            rest,
            threshold.unwrap_or_else(|_| panic!("no threshold ends {}", self.expr)),
        )
    }
}

fn promtool(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| {
            panic!("promtool cannot be run ({error}): `make tools` installs it")
        });
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[test]
fn promtool_accepts_the_rules_and_the_example_of_a_scrape() {
    if !crate::tools::has(&["promtool"]) {
        return;
    }
    for arguments in [
        ["check", "rules", "deploy/prometheus/alerts.yml"],
        ["check", "rules", "deploy/prometheus/recording.yml"],
        ["check", "config", "deploy/prometheus/scrape.yml"],
    ] {
        let (content, said) = promtool(&arguments);
        assert!(
            content && !said.contains("duplicate") && !said.contains("FAILED"),
            "{said}"
        );
    }
}

#[test]
fn the_rules_fire_and_keep_quiet_when_their_tests_say_so() {
    if !crate::tools::has(&["promtool"]) {
        return;
    }
    for file in [
        "deploy/prometheus/tests/alerts.yml",
        "deploy/prometheus/tests/recording.yml",
    ] {
        let (content, said) = promtool(&["test", "rules", file]);
        assert!(content, "{said}");
    }
}

#[test]
fn every_alert_is_tested_both_ways_and_says_what_to_do() {
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
        // The chart puts a value in its place.
        let (_, threshold) = rule.cut();
        assert!(threshold.is_finite(), "{name}");
        assert!(names.insert(name), "an alert stands twice");
    }
}

#[tokio::test]
async fn every_metric_a_rule_names_is_in_a_scrape() {
    let demo = Exporter::demo(&[]);
    let scrape = demo.scrape().await;
    for rule in alerts().into_iter().chain(recording()) {
        let names = prometheus::metrics_of(&rule.expr);
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
