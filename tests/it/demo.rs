//! `demo` as a user sees it.

use std::collections::BTreeSet;

use tempfile::TempDir;

use crate::{
    exporter::{Exporter, Scrape, command},
    tools,
};

/// Every family that a scrape of `demo` must contain, by its name in the text format.
pub const FAMILIES: &[&str] = &[
    "lightfi_temperature_celsius",
    "lightfi_humidity_ratio",
    "lightfi_co2_ppm",
    "lightfi_voc_ppb",
    "lightfi_pm2_5_ugm3",
    "lightfi_pressure_pascals",
    "lightfi_illuminance",
    "lightfi_battery_ratio",
    "lightfi_energy_joules_total",
    "lightfi_wifi_clients",
    "lightfi_ble_clients",
    "lightfi_occupants",
    "lightfi_bacnet_reads",
    "lightfi_motion_activity",
    "lightfi_motion_last_event_timestamp_seconds",
    "lightfi_sensor_status",
    "lightfi_reading",
    "lightfi_sensor_info",
    "lightfi_sensor_read_success",
    "lightfi_sensor_stale_readings",
    "lightfi_sensor_last_reading_timestamp_seconds",
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
    "lightfi_exporter_unmapped_variables",
    "lightfi_exporter_config_last_reload_successful",
    "lightfi_exporter_config_last_reload_success_timestamp_seconds",
    "lightfi_exporter_web_config_last_reload_successful",
    "lightfi_exporter_web_config_last_reload_success_timestamp_seconds",
    "lightfi_exporter_refresh_token_obtained_timestamp_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

#[tokio::test]
async fn the_first_scrape_has_every_family_and_both_formats_are_valid() {
    let demo = Exporter::demo(&[]);
    let text = demo.scrape().await;
    let families: BTreeSet<&str> = text.families().into_iter().collect();
    let expected: BTreeSet<&str> = FAMILIES.iter().copied().collect();
    let missing: Vec<_> = expected.difference(&families).collect();
    assert!(missing.is_empty(), "missing: {missing:?} in\n{}", text.body);
    let unknown = families.difference(&expected);
    let unknown: Vec<_> = unknown
        .filter(|family| !family.starts_with("process_"))
        .collect();
    assert!(unknown.is_empty(), "not in FAMILIES: {unknown:?}");
    tools::promtool_accepts(&text.body);
    let cpu = text.value("process_cpu_seconds_total");
    let cpu = cpu.unwrap();
    assert!(cpu > 0.0 && cpu < 10.0, "{cpu} s");

    let openmetrics = scrape_openmetrics(&demo).await;
    if let Some(samples) = tools::openmetrics_samples(&openmetrics.body) {
        assert_eq!(samples, openmetrics.samples.len());
    }
    assert_eq!(series(&openmetrics), series(&text));
}

async fn scrape_openmetrics(demo: &Exporter) -> Scrape {
    let request = demo.request("/metrics");
    let request = request.header("Accept", "application/openmetrics-text");
    let response = request.send().await.unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert_eq!(response.headers()["vary"], "Accept, Accept-Encoding");
    let body = response.text().await.unwrap();
    assert!(body.ends_with("# EOF\n"));
    Scrape::parse(body)
}

/// Returns the names of the series. The formats write the bounds of buckets differently.
fn series(scrape: &Scrape) -> BTreeSet<String> {
    let series = scrape.samples.keys();
    series
        .map(|series| series.replace(".0\"}", "\"}"))
        .collect()
}

#[tokio::test]
async fn a_building_of_ten_sensors_reports_every_variable() {
    let demo = Exporter::demo(&["--sensors=10", "--seed=7"]);
    let scrape = demo.scrape().await;
    let families = scrape.families();
    for family in FAMILIES {
        assert!(families.contains(family), "no {family} in {families:?}");
    }
    assert_eq!(scrape.value("lightfi_collect_sensors"), Some(10.0));
}

#[tokio::test]
async fn demo_runs_on_a_machine_without_certificate_authorities() {
    let directory = TempDir::new().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let mut command = command();
    command
        .env("SSL_CERT_FILE", &empty)
        .env("SSL_CERT_DIR", directory.path())
        .args(["demo", "--sensors=2", "--web.listen-address=127.0.0.1:0"]);
    let demo = Exporter::spawn(command, directory);
    assert_eq!(demo.scrape().await.value("lightfi_up"), Some(1.0));
    demo.says("no certificate authorities").await;
}

#[tokio::test]
async fn demo_prints_its_urls() {
    let demo = Exporter::demo(&["--web.telemetry-path=/probe"]);
    demo.says(&format!("{}/probe", demo.url)).await;
    assert_eq!(demo.get("/probe").await.status(), 200);
    assert_eq!(demo.get("/metrics").await.status(), 404);
    let page = demo.get("/").await.text().await.unwrap();
    assert!(page.contains("href=\"probe\""), "{page}");
}
