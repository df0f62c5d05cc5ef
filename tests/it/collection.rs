//! Tests of collections on the real binary: the requests that are sent, and the scrapes when requests succeed and when they
//! fail.

use std::time::{Duration, Instant, SystemTime};

use lightfi_simulator::{Listing, Options};
use reqwest::RequestBuilder;

use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape},
    tools,
};

/// A cloud whose sensors are listed in the configuration.
async fn cloud(sensors: usize) -> Cloud {
    Cloud::start(Options {
        sensors,
        listing: Listing::Sensors,
        ..Options::default()
    })
    .await
}

fn sensor_series(scrape: &Scrape, metric: &str, labels: &[&str]) -> Option<f64> {
    let series = scrape.series_of(metric).into_iter();
    let mut matching =
        series.filter(|(series, _)| labels.iter().all(|label| series.contains(label)));
    matching.next().map(|(_, value)| value)
}

fn read_success(scrape: &Scrape, id: &str) -> Option<f64> {
    let id = format!("sensor_id=\"{id}\"");
    sensor_series(scrape, "lightfi_sensor_read_success", &[&id])
}

/// The number of sensors that the last collection read.
fn sensors_read(scrape: &Scrape) -> f64 {
    scrape.sum("lightfi_sensor_read_success")
}

/// The number of failed requests of the sensor route.
fn failures(scrape: &Scrape, reason: &str) -> f64 {
    let labels = format!("{{reason=\"{reason}\",route=\"sensor\"}}");
    let series = format!("lightfi_exporter_api_request_failures_total{labels}");
    scrape.value(&series).unwrap()
}

fn metrics_request(exporter: &Exporter, query: &str) -> RequestBuilder {
    let client = tools::client().no_proxy().gzip(false).build().unwrap();
    client.get(format!("{}/metrics{query}", exporter.url))
}

async fn text(request: RequestBuilder) -> String {
    request.send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn every_value_is_the_one_that_the_cloud_served() {
    let cloud = Cloud::start(Options {
        sensors: 60,
        ..Options::default()
    })
    .await;
    let exporter = Exporter::serve(&cloud.config("collect: {stale_after: 0}\n"));
    let scrape = exporter.scrape().await;
    let mut compared = 0;
    for id in cloud.simulator.sensors() {
        for item in cloud.simulator.served(&id) {
            let (Some(_), Some(value)) = (item.time, item.value) else {
                continue;
            };
            let (metric, expected, var_name) = match &*item.var_name {
                "temperatureC" => ("lightfi_temperature_celsius", value, ""),
                "relativeHumidity" => ("lightfi_humidity_ratio", value / 100.0, ""),
                "CO2ppm" => ("lightfi_co2_ppm", value, ""),
                "pressuremBar" => ("lightfi_pressure_pascals", value * 100.0, ""),
                "irSignatures" | "occSignatures" => ("lightfi_occupants", value, ""),
                "PM10" => ("lightfi_reading", value, "var_name=\"PM10\""),
                _ => continue,
            };
            let id = format!("sensor_id=\"{id}\"");
            let shown = sensor_series(&scrape, metric, &[&id, var_name]);
            assert_eq!(shown, Some(expected), "{metric} of {id}");
            compared += 1;
        }
    }
    assert!(compared > 100, "only {compared} values were compared");
}

#[tokio::test]
async fn a_server_error_is_tried_three_times_and_a_malformed_reply_once() {
    let cloud = cloud(10).await;
    let sensor = cloud.simulator.sensors()[0].clone();
    for (fault, requests) in [("error-500", 12), ("malformed", 10)] {
        let fault = format!("{fault}={sensor}");
        cloud.fault(&fault, true);
        let before = cloud.simulator.requests().sensor;
        let exporter = Exporter::serve(&cloud.config(""));
        let scrape = exporter.scrape().await;
        let sent = cloud.simulator.requests().sensor - before;
        assert_eq!(sent, requests, "{fault}");
        let counted = scrape.value("lightfi_exporter_api_requests_total{route=\"sensor\"}");
        assert_eq!(counted, Some(requests as f64), "{fault}");
        cloud.fault(&fault, false);
    }
}

#[tokio::test]
async fn readings_stay_through_an_outage_and_leave_at_the_moment_they_are_stale() {
    let cloud = cloud(10).await;
    // Simulated readings are minutes old, so the limit depends on the age of the newest temperature.
    let exporter = Exporter::serve(&cloud.config("metrics: {reading_timestamps: true}\n"));
    let scrape = exporter.scrape().await;
    let times = scrape.series_of("lightfi_reading_timestamp_seconds");
    let newest = times
        .into_iter()
        .filter(|(series, _)| series.contains("temperatureC"))
        .map(|(_, time)| time)
        .fold(0.0, f64::max);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let limit = (now.unwrap().as_secs_f64() - newest) as u64 + 8;
    let exporter = Exporter::serve(&cloud.config(&format!(
        "collect: {{interval: 2s, stale_after: 8s}}\n\
         metrics: {{variables: {{temperatureC: {{stale_after: {limit}s}}, batteryLevelPct: {{stale_after: 0}}, \
         energyInkWh: {{stale_after: 0}}}}}}\n"
    )));
    let temperatures = |scrape: &Scrape| scrape.series_of("lightfi_temperature_celsius").len();
    let stale = |scrape: &Scrape| scrape.sum("lightfi_sensor_stale_readings");
    let before = exporter.scrape().await;
    cloud.fault("error-500", true);
    let down = |scrape: &Scrape| scrape.value("lightfi_up") == Some(0.0);
    let outage = exporter.scrape_until("an outage", down).await;
    assert!(temperatures(&outage) <= temperatures(&before));
    let all_stale = |scrape: &Scrape| temperatures(scrape) == 0;
    let after = exporter.scrape_until("all stale", all_stale).await;
    assert!(stale(&after) > stale(&before));
    let without_limit = after.series_of("lightfi_battery_ratio");
    assert!(!without_limit.is_empty());
    assert_eq!(after.series_of("lightfi_sensor_info").len(), 10);
    let no_status = |scrape: &Scrape| scrape.series_of("lightfi_sensor_status").is_empty();
    exporter.scrape_until("no status", no_status).await;
}

#[tokio::test]
async fn a_429_pauses_all_requests() {
    let cloud = cloud(30).await;
    cloud.fault("rate-limit", true);
    let config = cloud.config("collect: {interval: 4s}\n");
    let config = config.replacen("api:\n", "api:\n  max_concurrency: 4\n", 1);
    let exporter = Exporter::serve(&config);
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.value("lightfi_up"), Some(0.0));
    assert!(failures(&scrape, "rate_limited") > 0.0);
    // Retry-After is 1 s, and 4 requests are sent at a time. Without pauses there would be dozens.
    let sent = cloud.simulator.requests().sensor;
    assert!(sent <= 4 * 5, "{sent} requests in less than 4 s");
    cloud.fault("rate-limit", false);
    let recovered = |scrape: &Scrape| sensors_read(scrape) == 30.0;
    exporter.scrape_until("recovery", recovered).await;
}

#[tokio::test]
async fn sensors_without_an_answer_time_out_and_do_not_delay_the_others() {
    let cloud = cloud(40).await;
    let hanging: Vec<_> = cloud.simulator.sensors().into_iter().step_by(4).collect();
    for id in &hanging {
        cloud.fault(&format!("hang={id}"), true);
    }
    let exporter = Exporter::serve(&cloud.config("collect: {interval: 3s}\n"));
    let others = |scrape: &Scrape| sensors_read(scrape) == 30.0;
    let scrape = exporter.scrape_until("the others are read", others).await;
    assert!(failures(&scrape, "timeout") > 0.0);
    let duration = scrape.value("lightfi_collect_duration_seconds");
    assert!(duration < Some(3.0), "{duration:?}");
    for id in &hanging {
        assert_eq!(read_success(&scrape, id), Some(0.0));
    }
}

#[tokio::test]
async fn concurrent_scrapes_share_one_collection_in_scrape_mode() {
    let cloud = cloud(20).await;
    let exporter = Exporter::serve(&cloud.config("collect: {mode: scrape, interval: 60s}\n"));
    let scrapes: Vec<_> = (0..20)
        .map(|_| tokio::spawn(text(metrics_request(&exporter, ""))))
        .collect();
    for scrape in scrapes {
        let scrape = Scrape::parse(scrape.await.unwrap());
        assert_eq!(sensors_read(&scrape), 20.0);
    }
    exporter.scrape().await;
    assert_eq!(cloud.simulator.requests().sensor, 20);
    assert_eq!(cloud.simulator.requests().token_granted, 1);
}

#[tokio::test]
async fn a_scrape_is_answered_before_its_timeout_and_the_collection_goes_on() {
    let cloud = cloud(10).await;
    cloud.fault("slow", true);
    let exporter = Exporter::serve(&cloud.config("collect: {mode: scrape, interval: 60s}\n"));
    let start = Instant::now();
    let timeout = ("X-Prometheus-Scrape-Timeout-Seconds", "1.5");
    let body = text(metrics_request(&exporter, "").header(timeout.0, timeout.1)).await;
    let took = start.elapsed();
    assert!(took < Duration::from_millis(1400), "{took:?}");
    assert!(!body.contains("sensor_id="), "the collection has not ended");
    assert_eq!(sensors_read(&exporter.scrape().await), 10.0);
    assert_eq!(cloud.simulator.requests().sensor, 10);
}

#[tokio::test]
async fn the_filter_takes_names_of_the_text_format_in_both_formats() {
    let demo = Exporter::demo(&["--sensors=10"]);
    let text_format = ("text/plain", "");
    let openmetrics = ("application/openmetrics-text", "# EOF\n");
    for (accept, end) in [text_format, openmetrics] {
        let get = |query| text(metrics_request(&demo, query).header("Accept", accept));
        let both = "?name[]=lightfi_up&name%5B%5D=lightfi_exporter_token_refreshes_total";
        let names: Vec<_> = Scrape::parse(get(both).await).samples.into_keys().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(get("?name[]=lightfi_exporter_token_refreshes").await, end);
        let scrape = Scrape::parse(get("?name[]=lightfi_sensor_info").await);
        assert_eq!(scrape.series_of("lightfi_sensor_info").len(), 10);
        assert_eq!(get("?name[]=nothing").await, end);
    }
}

#[tokio::test]
async fn gzip_is_a_single_member_with_the_same_body() {
    let demo = Exporter::demo(&["--sensors=10"]);
    let temperatures = "?name[]=lightfi_temperature_celsius";
    let plain = text(metrics_request(&demo, temperatures)).await;
    for query in [temperatures, ""] {
        let request = metrics_request(&demo, query).header("Accept-Encoding", "gzip");
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
        let compressed = response.bytes().await.unwrap();
        let mut decoder = flate2::bufread::GzDecoder::new(&compressed[..]);
        let body = std::io::read_to_string(&mut decoder).unwrap();
        assert!(decoder.into_inner().is_empty(), "more than one member");
        assert!(body.contains(plain.lines().last().unwrap()), "{body}");
    }
}
