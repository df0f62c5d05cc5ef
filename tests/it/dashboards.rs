//! The Grafana dashboards that ship: their form, and that every query brings data from a real Prometheus.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::Value;

use crate::{
    exporter::Exporter,
    prometheus::{Prometheus, has_numbers, metrics_of},
    rules,
};

/// What Prometheus itself adds to a scrape.
const OF_PROMETHEUS: [&str; 2] = ["scrape_duration_seconds", "scrape_samples_scraped"];
/// What a person tells apart in one panel; a histogram has as many buckets. Tables may hold more.
const MOST_SERIES: usize = 12;
const UIDS: [&str; 3] = ["lightfi-building", "lightfi-exporter", "lightfi-sensor"];

/// The dashboards by uid, which is also the file's name.
fn dashboards() -> Vec<(String, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the dashboards are there") {
        let path = entry.expect("a file").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = fs::read_to_string(&path).expect("text");
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            found.push((name, serde_json::from_str(&text).expect("JSON")));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn they_can_be_imported_and_linked_anywhere() {
    let dashboards = dashboards();
    let names: Vec<_> = dashboards.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, UIDS);
    for (name, dashboard) in &dashboards {
        assert_eq!(text(dashboard, "uid"), name);
        assert!(dashboard.get("__inputs").is_none() && dashboard.get("__requires").is_none());
        assert!(
            dashboard.get("id").is_none(),
            "the id belongs to one Grafana: {name}"
        );
        let variables = list(&dashboard["templating"], "list");
        assert_eq!(text(&variables[0], "name"), "datasource");
        assert_eq!(text(&variables[0], "type"), "datasource");
        let tags = list(dashboard, "tags");
        assert!(
            list(dashboard, "links")
                .iter()
                .any(|link| list(link, "tags") == tags),
            "{name}"
        );
        let written = dashboard.to_string();
        for link in written.split("\"/d/").skip(1) {
            let uid = link.split(['/', '?']).next().unwrap_or_default();
            assert!(UIDS.contains(&uid), "{name} links to {uid}");
        }
        for link in written.split("\"uid\":\"").skip(1) {
            let uid = link.split('"').next().unwrap_or_default();
            let known = ["${datasource}", "-- Grafana --", name.as_str()];
            assert!(known.contains(&uid), "{name} names the data source {uid}");
        }
    }
}

#[test]
fn every_panel_says_what_it_shows_and_has_a_place_of_its_own() {
    for (name, dashboard) in dashboards() {
        let mut taken = Vec::new();
        let mut ids = Vec::new();
        for panel in list(&dashboard, "panels") {
            let title = text(panel, "title");
            assert!(!title.is_empty(), "{name}: {panel}");
            let is_row = text(panel, "type") == "row";
            assert!(
                is_row || text(panel, "description").len() > 10,
                "{name}: {title}"
            );
            assert!(
                is_row || !list(panel, "targets").is_empty(),
                "{name}: {title}"
            );
            assert!(
                !ids.contains(&&panel["id"]),
                "{name}: {title} has the id of another"
            );
            ids.push(&panel["id"]);
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a place"));
            assert!(w >= 3 && h >= 1 && x + w <= 24, "{name}: {title}");
            for (other, (x2, y2, w2, h2)) in &taken {
                let apart = x + w <= *x2 || x2 + w2 <= x || y + h <= *y2 || y2 + h2 <= y;
                assert!(apart, "{name}: {title} lies over {other}");
            }
            taken.push((title.to_owned(), (x, y, w, h)));
        }
    }
}

#[test]
fn grafanas_own_model_knows_every_key() {
    if !crate::tools::has(&[crate::tools::PYTHON]) {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join(".tools/venv/bin/python"))
        .arg("tests/grafana_round_trip.py")
        .args(UIDS.map(|uid| format!("grafana/{uid}.json")))
        .current_dir(root)
        .output()
        .unwrap_or_else(|error| panic!("python cannot be run ({error}): `make tools` installs it"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// As Grafana fills them in with everything chosen, over the last minute.
fn fill(query: &str, sensor: &str) -> String {
    query
        .replace("$__rate_interval", "15s")
        .replace("$__interval", "15s")
        .replace("$__range", "60s")
        .replace("$job", ".*")
        .replace("$instance", ".*")
        .replace("$location", ".*")
        .replace("$sensor", sensor)
}

#[tokio::test]
async fn a_real_prometheus_answers_every_query_and_rule_after_a_minute_of_scraping_demo() {
    if !crate::tools::has(&["prometheus"]) {
        return;
    }
    let demo = Exporter::demo(&["--sensors=40"]);
    let scrape = demo.scrape().await;
    let prometheus = Prometheus::scraping(
        &demo.url,
        &[
            "deploy/prometheus/alerts.yml",
            "deploy/prometheus/recording.yml",
        ],
    )
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;

    let mut wrong = Vec::new();
    let sensors: Vec<_> = scrape
        .series_of("lightfi_sensor_info")
        .keys()
        .filter_map(|series| {
            series
                .split("sensor_id=\"")
                .nth(1)?
                .split('"')
                .next()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(sensors.len(), 40);

    let mut asked = 0;
    for (name, dashboard) in dashboards() {
        for panel in list(&dashboard, "panels") {
            for target in list(panel, "targets") {
                let query = text(target, "expr");
                asked += 1;
                for metric in metrics_of(query) {
                    let exported =
                        !scrape.series_of(metric).is_empty() || OF_PROMETHEUS.contains(&metric);
                    assert!(exported, "{name}: {metric} is not exported");
                }
                // No sensor measures everything: one that has what the query asks for must be found.
                let of = if query.contains("$sensor") {
                    &sensors[..]
                } else {
                    &sensors[..1]
                };
                let mut answered = false;
                for sensor in of {
                    let query = fill(query, sensor);
                    assert!(!query.contains('$'), "a variable is left in {query}");
                    let series = if target["instant"] == true {
                        prometheus.instant(&query).await
                    } else {
                        prometheus.range(&query).await
                    };
                    let Some(series) = series else { break };
                    // However many sensors there are: forty lines, or three thousand, tell nobody anything.
                    if text(panel, "type") != "table" && series.len() > MOST_SERIES {
                        wrong.push(format!(
                            "{} series are too many for a panel: {query}",
                            series.len()
                        ));
                    }
                    answered = has_numbers(&series);
                    if answered {
                        break;
                    }
                }
                if !answered {
                    wrong.push(format!(
                        "{name}, {}: no data for {query}",
                        text(panel, "title")
                    ));
                }
            }
        }
        for variable in list(&dashboard["templating"], "list").iter().skip(1) {
            let query = text(&variable["query"], "query");
            let inner = query
                .split_once('(')
                .and_then(|(_, rest)| rest.rsplit_once(')'))
                .expect("a function");
            let selector = inner
                .0
                .rsplit_once(", ")
                .map_or(inner.0, |(selector, label)| {
                    if label.contains('"') {
                        inner.0
                    } else {
                        selector
                    }
                });
            let series = prometheus.instant(&fill(selector, ".*")).await;
            if !series.is_some_and(|series| has_numbers(&series)) {
                wrong.push(format!(
                    "{name}, variable {}: no data for {selector}",
                    text(variable, "name")
                ));
            }
        }
    }
    assert!(asked > 80, "the dashboards ask {asked} queries only");

    let rules = prometheus.rules().await;
    assert_eq!(
        rules.len(),
        rules::alerts().len() + rules::recording().len()
    );
    for rule in rules.iter().filter(|rule| rule["health"] != "ok") {
        wrong.push(format!("rule {rule}"));
    }
    // A condition that never sees data could never fire. Exceptions: that nothing is absent, or was there six hours ago.
    let exceptions = ["LightFiExporterAbsent", "LightFiExporterGone"];
    for rule in rules::alerts() {
        let name = rule.alert.clone().unwrap_or_default();
        let (condition, _) = rule.cut();
        let series = prometheus.instant(condition).await;
        if !series.is_some_and(|series| has_numbers(&series)) && !exceptions.contains(&&*name) {
            wrong.push(format!("{name}: no data for {condition}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
