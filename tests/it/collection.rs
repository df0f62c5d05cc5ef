//! What a scrape shows when things go well and when they go wrong, and what the API is asked for meanwhile.

use std::time::{Duration, Instant, SystemTime};

use lightfi_simulator::{Listing, Options};

use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape},
};

fn by_id(sensors: usize) -> Options {
    Options {
        sensors,
        listing: Listing::Sensors,
        ..Options::default()
    }
}

fn read_success(scrape: &Scrape, id: &str) -> Option<f64> {
    let series = scrape.series_of("lightfi_sensor_read_success");
    series
        .into_iter()
        .find(|(series, _)| series.contains(&format!("sensor_id=\"{id}\"")))
        .map(|(_, value)| value)
}

fn failures(scrape: &Scrape, route: &str, reason: &str) -> f64 {
    let series = format!(
        "lightfi_exporter_api_request_failures_total{{reason=\"{reason}\",route=\"{route}\"}}"
    );
    scrape
        .value(&series)
        .unwrap_or_else(|| panic!("no {series} in\n{}", scrape.body))
}

#[tokio::test]
async fn every_value_is_the_one_the_cloud_served() {
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
            let (metric, expected) = match &*item.var_name {
                "temperatureC" => ("lightfi_temperature_celsius", value),
                "relativeHumidity" => ("lightfi_humidity_ratio", value / 100.0),
                "CO2ppm" => ("lightfi_co2_ppm", value),
                "pressuremBar" => ("lightfi_pressure_pascals", value * 100.0),
                "irSignatures" | "occSignatures" => ("lightfi_occupants", value),
                "PM10" => ("lightfi_reading", value),
                _ => continue,
            };
            let of_sensor = format!("sensor_id=\"{id}\"");
            let of_variable = if metric == "lightfi_reading" {
                "var_name=\"PM10\""
            } else {
                ""
            };
            let series = scrape.series_of(metric);
            let shown = series
                .iter()
                .find(|(series, _)| series.contains(&of_sensor) && series.contains(of_variable));
            assert_eq!(
                shown.map(|(_, value)| *value),
                Some(expected),
                "{metric} of {id}"
            );
            compared += 1;
        }
    }
    assert!(compared > 100, "only {compared} values were compared");
}

#[tokio::test]
async fn one_sensor_that_fails_touches_no_other_and_is_tried_again() {
    let cloud = Cloud::start(by_id(10)).await;
    let bad = cloud.simulator.sensors()[3].clone();
    for (fault, reason) in [
        ("error-500", "server_error"),
        ("malformed", "malformed"),
        ("truncated", "connect"),
        ("unauthorized", "unauthorized"),
    ] {
        let fault = format!("{fault}={bad}");
        cloud.fault(&fault, true);
        let exporter = Exporter::serve(&cloud.config("collect: {interval: 3s}\n"));
        let scrape = exporter.scrape().await;
        assert_eq!(
            read_success(&scrape, &bad),
            Some(0.0),
            "{fault}: {}",
            exporter.output()
        );
        assert_eq!(scrape.sum("lightfi_sensor_read_success"), 9.0, "{fault}");
        assert_eq!(
            scrape.value("lightfi_collect_sensors_failed"),
            Some(1.0),
            "{fault}"
        );
        assert_eq!(scrape.value("lightfi_up"), Some(1.0), "{fault}");
        assert!(
            failures(&scrape, "sensor", reason) > 0.0,
            "{fault}:\n{}",
            scrape.body
        );
        cloud.fault(&fault, false);
        exporter
            .scrape_until("recovery", |scrape| read_success(scrape, &bad) == Some(1.0))
            .await;
    }
}

#[tokio::test]
async fn failures_are_told_once_when_they_begin_and_once_when_they_have_ended() {
    let cloud = Cloud::start(by_id(10)).await;
    let fault = format!("malformed={}", cloud.simulator.sensors()[3]);
    let exporter = Exporter::serve(&cloud.config("collect: {interval: 500ms}\n"));
    let failed = |count| {
        exporter.scrape_until("that many failures", move |scrape| {
            failures(scrape, "sensor", "malformed") >= count
        })
    };
    let (begins, ends) = ("requests to the API fail", "collection is whole again");
    let told = || {
        let log = exporter.output();
        [begins, ends].map(|line| log.matches(line).count())
    };
    exporter.scrape().await;
    assert_eq!(told(), [0, 0], "all is well");
    cloud.fault(&fault, true);
    failed(3.0).await;
    exporter.says(begins).await;
    assert_eq!(told(), [1, 0]);
    cloud.fault(&fault, false);
    exporter
        .scrape_until("recovery", |scrape| {
            scrape.sum("lightfi_sensor_read_success") == 10.0
        })
        .await;
    exporter.says(ends).await;
    assert_eq!(told(), [1, 1]);
    cloud.fault(&fault, true);
    failed(8.0).await;
    exporter.says_times(begins, 2).await;
    assert_eq!(told(), [2, 1], "another time is told too");
}

#[tokio::test]
async fn a_server_error_is_tried_three_times_and_a_malformed_answer_once() {
    let cloud = Cloud::start(by_id(10)).await;
    let bad = cloud.simulator.sensors()[0].clone();
    for (fault, requests) in [("error-500", 12), ("malformed", 10)] {
        let fault = format!("{fault}={bad}");
        cloud.fault(&fault, true);
        let before = cloud.simulator.requests().sensor;
        let exporter = Exporter::serve(&cloud.config(""));
        let scrape = exporter.scrape().await;
        assert_eq!(
            cloud.simulator.requests().sensor - before,
            requests,
            "{fault}"
        );
        assert_eq!(
            scrape.value("lightfi_exporter_api_requests_total{route=\"sensor\"}"),
            Some(requests as f64)
        );
        cloud.fault(&fault, false);
    }
}

#[tokio::test]
async fn readings_stay_through_an_outage_until_they_are_stale_and_leave_at_that_moment() {
    let cloud = Cloud::start(by_id(10)).await;
    // Simulated readings are minutes old: find out how old the newest temperature is, and let it expire in a while.
    let exporter = Exporter::serve(&cloud.config("metrics: {reading_timestamps: true}\n"));
    let scrape = exporter.scrape().await;
    let times = scrape
        .series_of("lightfi_reading_timestamp_seconds")
        .into_iter();
    let newest = times
        .filter(|(series, _)| series.contains("temperatureC"))
        .map(|(_, time)| time)
        .fold(0.0, f64::max);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64();
    let limit = (now - newest) as u64 + 8;
    let exporter = Exporter::serve(&cloud.config(&format!(
        "collect: {{interval: 2s, stale_after: 8s}}\n\
         metrics: {{variables: {{temperatureC: {{stale_after: {limit}s}}, batteryLevelPct: {{stale_after: 0}}, \
         energyInkWh: {{stale_after: 0}}}}}}\n"
    )));
    let readings = |scrape: &Scrape| scrape.series_of("lightfi_temperature_celsius").len();
    let scrape = exporter.scrape().await;
    cloud.fault("error-500", true);
    let scrape_failed = exporter
        .scrape_until("an outage", |scrape| {
            scrape.value("lightfi_up") == Some(0.0)
        })
        .await;
    assert!(readings(&scrape_failed) <= readings(&scrape));
    let held = |scrape: &Scrape| scrape.sum("lightfi_sensor_stale_readings");
    let gone = exporter
        .scrape_until("all stale", |scrape| readings(scrape) == 0)
        .await;
    assert!(held(&gone) > held(&scrape), "what is held back is counted");
    assert!(
        !gone.series_of("lightfi_battery_ratio").is_empty(),
        "what never goes stale stays"
    );
    assert_eq!(gone.series_of("lightfi_sensor_info").len(), 10);
    let left = exporter.scrape_until("the status leaves with the last good read", |scrape| {
        scrape.series_of("lightfi_sensor_status").is_empty()
    });
    left.await;
}

#[tokio::test]
async fn a_rate_limit_pauses_everybody_and_is_obeyed() {
    let cloud = Cloud::start(by_id(30)).await;
    cloud.fault("rate-limit", true);
    let config = cloud.config("collect: {interval: 4s}\n").replacen(
        "api:\n",
        "api:\n  max_concurrency: 4\n",
        1,
    );
    let exporter = Exporter::serve(&config);
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.value("lightfi_up"), Some(0.0));
    assert!(failures(&scrape, "sensor", "rate_limited") > 0.0);
    // Retry-After is 1 s, and four go at a time: a crowd that did not wait would have sent dozens.
    let sent = cloud.simulator.requests().sensor;
    assert!(sent <= 4 * 5, "{sent} requests in under 4 s");
    cloud.fault("rate-limit", false);
    exporter
        .scrape_until("recovery", |scrape| {
            scrape.value("lightfi_collect_sensors_failed") == Some(0.0)
        })
        .await;
}

#[tokio::test]
async fn what_hangs_times_out_and_never_holds_up_the_others() {
    let cloud = Cloud::start(by_id(40)).await;
    let hanging: Vec<_> = cloud.simulator.sensors().into_iter().step_by(4).collect();
    for id in &hanging {
        cloud.fault(&format!("hang={id}"), true);
    }
    let exporter = Exporter::serve(&cloud.config("collect: {interval: 3s}\n"));
    let all_others = (40 - hanging.len()) as f64;
    let scrape = exporter.scrape_until("all the others are read", |scrape| {
        scrape.sum("lightfi_sensor_read_success") == all_others
    });
    let scrape = scrape.await;
    assert!(failures(&scrape, "sensor", "timeout") > 0.0);
    assert!(
        scrape
            .value("lightfi_collect_duration_seconds")
            .is_some_and(|seconds| seconds < 3.0)
    );
    for id in &hanging {
        assert_eq!(read_success(&scrape, id), Some(0.0));
    }
}

#[tokio::test]
async fn concurrent_scrapes_share_one_collection_in_scrape_mode() {
    let cloud = Cloud::start(by_id(20)).await;
    let exporter = Exporter::serve(&cloud.config("collect: {mode: scrape, interval: 60s}\n"));
    let url = format!("{}/metrics", exporter.url);
    let scrapes: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn(
                crate::tools::client()
                    .build()
                    .unwrap()
                    .get(url.clone())
                    .send(),
            )
        })
        .collect();
    for scrape in scrapes {
        let body = scrape
            .await
            .expect("no panic")
            .expect("it answers")
            .text()
            .await
            .expect("a whole body");
        let scrape = Scrape::parse(body);
        assert_eq!(scrape.sum("lightfi_sensor_read_success"), 20.0);
    }
    exporter.scrape().await;
    assert_eq!(cloud.simulator.requests().sensor, 20);
    assert_eq!(cloud.simulator.requests().token_granted, 1);
}

#[tokio::test]
async fn a_scrape_answers_ahead_of_its_deadline_and_the_collection_goes_on_for_the_next() {
    let cloud = Cloud::start(by_id(10)).await;
    cloud.fault("slow", true);
    let exporter = Exporter::serve(&cloud.config("collect: {mode: scrape, interval: 60s}\n"));
    let client = crate::tools::client().no_proxy().build().expect("a client");
    let start = Instant::now();
    let request = client
        .get(format!("{}/metrics", exporter.url))
        .header("X-Prometheus-Scrape-Timeout-Seconds", "1.5");
    let body = request
        .send()
        .await
        .expect("it answers")
        .text()
        .await
        .expect("a whole body");
    assert!(
        start.elapsed() < Duration::from_millis(1400),
        "{:?}",
        start.elapsed()
    );
    assert!(
        !body.contains("sensor_id="),
        "no part of a collection under way"
    );
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.sum("lightfi_sensor_read_success"), 10.0);
    assert_eq!(cloud.simulator.requests().sensor, 10);
}

#[tokio::test]
async fn the_filter_goes_by_names_of_the_text_format_in_both_formats() {
    let demo = Exporter::demo(&["--sensors=10"]);
    let client = crate::tools::client().no_proxy().build().expect("a client");
    let get = |accept: &'static str, query: &'static str| {
        let request = client
            .get(format!("{}/metrics?{query}", demo.url))
            .header("Accept", accept);
        async {
            request
                .send()
                .await
                .expect("it answers")
                .text()
                .await
                .expect("a whole body")
        }
    };
    for accept in ["text/plain", "application/openmetrics-text"] {
        let body = get(
            accept,
            "name[]=lightfi_up&name%5B%5D=lightfi_energy_joules_total",
        )
        .await;
        let names: Vec<_> = Scrape::parse(body).samples.into_keys().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let body = get(accept, "name[]=lightfi_sensor_info").await;
        assert_eq!(
            Scrape::parse(body).series_of("lightfi_sensor_info").len(),
            10
        );
    }
    assert_eq!(get("text/plain", "name[]=nothing").await, "");
    assert_eq!(
        get("application/openmetrics-text", "name[]=nothing").await,
        "# EOF\n"
    );
}

#[tokio::test]
async fn gzip_is_one_member_of_the_same_body() {
    let demo = Exporter::demo(&["--sensors=10"]);
    let client = crate::tools::client()
        .no_proxy()
        .gzip(false)
        .build()
        .expect("a client");
    let url = format!("{}/metrics?name[]=lightfi_temperature_celsius", demo.url);
    let plain = client
        .get(&url)
        .send()
        .await
        .expect("it answers")
        .text()
        .await
        .expect("a whole body");
    for url in [url, format!("{}/metrics", demo.url)] {
        let response = client
            .get(&url)
            .header("Accept-Encoding", "gzip")
            .send()
            .await
            .expect("it answers");
        assert_eq!(response.headers()["content-encoding"], "gzip");
        let packed = response.bytes().await.expect("a whole body");
        let mut decoder = flate2::bufread::GzDecoder::new(&packed[..]);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut decoder, &mut text).expect("gzip");
        assert!(decoder.into_inner().is_empty(), "one member");
        assert!(
            text.contains(plain.lines().last().expect("a sample")),
            "{text}"
        );
    }
}
