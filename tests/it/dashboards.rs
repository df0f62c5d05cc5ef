//! The shipped Grafana dashboards: their form, and that a real Prometheus has data for every query.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;

use crate::{
    exporter::{Exporter, Scrape},
    rules::{self, metrics_of},
    scraper::{Scraper, Stored},
    tools,
};

/// Metrics that Prometheus itself adds to a scrape.
const PROMETHEUS_METRICS: [&str; 2] = ["scrape_duration_seconds", "scrape_samples_scraped"];
/// More lines cannot be told apart in one panel. Tables may have more rows.
const MAX_SERIES: usize = 12;
const UIDS: [&str; 3] = ["lightfi-building", "lightfi-exporter", "lightfi-sensor"];
/// Alerts whose condition has no data in a healthy exporter: nothing is absent, and it did not run six hours ago.
const ALERTS_WITHOUT_DATA: [&str; 2] = ["LightFiExporterAbsent", "LightFiExporterGone"];

/// Returns the dashboards by uid, which is also the file's name.
fn dashboards() -> Vec<(String, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory exists") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if let Some(name) = name.strip_suffix(".json") {
            let text = fs::read_to_string(&path).expect("text");
            found.push((name.to_owned(), serde_json::from_str(&text).expect("JSON")));
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
fn dashboards_import_into_any_grafana_and_their_links_exist() {
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
fn every_panel_has_a_title_a_description_and_its_own_area() {
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
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a number"));
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
fn grafanas_dashboard_model_knows_every_key() {
    if !tools::has(&[tools::PYTHON]) {
        return;
    }
    let files = UIDS.map(|uid| format!("grafana/{uid}.json"));
    let mut arguments = vec!["tests/grafana_round_trip.py"];
    arguments.extend(files.iter().map(String::as_str));
    let (is_ok, output) = tools::run(tools::PYTHON, &arguments);
    assert!(is_ok && output.is_empty(), "{output}");
}

#[tokio::test]
async fn prometheus_has_data_for_every_query_and_rule_after_a_minute_of_scraping_demo() {
    if !tools::has(&["prometheus"]) {
        return;
    }
    let demo = Exporter::demo(&["--sensors=40"]);
    let scrape = demo.scrape().await;
    let rules = [
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/recording.yml",
    ];
    let prometheus = Scraper::prometheus_with(demo.address(), "1s", "", &rules).await;
    // Queries look back over one minute.
    tokio::time::sleep(Duration::from_secs(62)).await;

    let mut wrong = Vec::new();
    let mut queries = 0;
    for (name, dashboard) in dashboards() {
        for panel in list(&dashboard, "panels") {
            for target in list(panel, "targets") {
                queries += 1;
                for metric in metrics_of(text(target, "expr")) {
                    let is_exported = !scrape.series_of(metric).is_empty();
                    assert!(
                        is_exported || PROMETHEUS_METRICS.contains(&metric),
                        "{name}: {metric} is not exported"
                    );
                }
                if let Err(problem) = check_target(&prometheus, &scrape, panel, target).await {
                    wrong.push(format!("{name}, {}: {problem}", text(panel, "title")));
                }
            }
        }
        for variable in list(&dashboard["templating"], "list").iter().skip(1) {
            if let Err(problem) = check_variable(&prometheus, variable).await {
                wrong.push(format!("{name}, {}: {problem}", text(variable, "name")));
            }
        }
    }
    assert!(queries > 80, "the dashboards have only {queries} queries");
    check_rules(&prometheus, &mut wrong).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Fills in the variables of a query as Grafana does with everything selected, over the last minute.
fn fill(query: &str, sensor: &str) -> String {
    let query = query
        .replace("$__rate_interval", "15s")
        .replace("$__interval", "15s")
        .replace("$__range", "60s")
        .replace("$job", ".*")
        .replace("$instance", ".*")
        .replace("$location", ".*")
        .replace("$sensor", sensor);
    assert!(!query.contains('$'), "a variable is left in {query}");
    query
}

/// Runs the query of a panel. One that selects a sensor has to find data for at least one of them, because no sensor
/// measures everything.
async fn check_target(
    prometheus: &Scraper,
    scrape: &Scrape,
    panel: &Value,
    target: &Value,
) -> Result<(), String> {
    let query = text(target, "expr");
    let series = scrape.series_of("lightfi_sensor_info");
    let ids = series
        .keys()
        .filter_map(|series| series.split("sensor_id=\"").nth(1)?.split('"').next());
    let tries = if query.contains("$sensor") { 40 } else { 1 };
    for id in ids.take(tries) {
        let query = fill(query, id);
        let series = match target["instant"] == true {
            true => prometheus.try_query(&query).await?,
            false => prometheus.try_query_range(&query).await?,
        };
        if text(panel, "type") != "table" && series.len() > MAX_SERIES {
            return Err(format!(
                "{} series are too many for a panel: {query}",
                series.len()
            ));
        }
        if has_numbers(&series) {
            return Ok(());
        }
    }
    Err(format!("no data for {query}"))
}

/// Runs the query of a variable: `label_values(SELECTOR, LABEL)` or `query_result(QUERY)`.
async fn check_variable(prometheus: &Scraper, variable: &Value) -> Result<(), String> {
    let query = text(&variable["query"], "query");
    let (_, inner) = query.split_once('(').expect("a function");
    let inner = inner.strip_suffix(')').expect("a function");
    let selector = match inner.rsplit_once(", ") {
        Some((selector, label)) if !label.contains('"') => selector,
        _ => inner,
    };
    let series = prometheus.try_query(&fill(selector, ".*")).await?;
    has_numbers(&series)
        .then_some(())
        .ok_or_else(|| format!("no data for {selector}"))
}

/// Checks that Prometheus evaluates all rules. The condition of an alert without data could never fire.
async fn check_rules(prometheus: &Scraper, wrong: &mut Vec<String>) {
    let reply: Value = serde_json::from_str(&prometheus.get("/api/v1/rules").await).expect("JSON");
    let groups = list(&reply["data"], "groups").iter();
    let loaded: Vec<_> = groups.flat_map(|group| list(group, "rules")).collect();
    let alerts = rules::alerts();
    assert_eq!(loaded.len(), alerts.len() + rules::recording().len());
    for rule in loaded.iter().filter(|rule| rule["health"] != "ok") {
        wrong.push(format!("rule {rule}"));
    }
    for rule in &alerts {
        let name = rule.alert.as_deref().unwrap_or_default();
        let (condition, _) = rule.split_threshold();
        let series = prometheus.query(condition).await;
        if !has_numbers(&series) && !ALERTS_WITHOUT_DATA.contains(&name) {
            wrong.push(format!("{name}: no data for {condition}"));
        }
    }
}

/// Returns whether any sample is a number; a quotient without data is `NaN`.
fn has_numbers(series: &[Stored]) -> bool {
    let mut samples = series.iter().flat_map(|series| &series.samples);
    samples.any(|(_, value)| !value.is_nan())
}
