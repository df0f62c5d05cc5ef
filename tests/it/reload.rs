//! The configuration is loaded again on SIGHUP and on POST `/-/reload`.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use lightfi_simulator::{Listing, Options};

use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape, command},
};

async fn post(exporter: &Exporter) -> (u16, String) {
    let client = crate::tools::client().no_proxy().build().unwrap();
    let response = client
        .post(format!("{}/-/reload", exporter.url))
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// A cloud, an exporter of four of its sensors, and the file to change.
async fn start() -> (Cloud, Exporter, PathBuf, Vec<String>) {
    let cloud = Cloud::start(Options {
        sensors: 20,
        listing: Listing::Sensors,
        ..Options::default()
    })
    .await;
    let ids = cloud.simulator.sensors()[..4].to_vec();
    let exporter = Exporter::serve_with(&config(&cloud, &ids, ""), &["--web.enable-lifecycle"]);
    exporter.scrape().await;
    let file = exporter.file("lightfi-exporter.yaml");
    (cloud, exporter, file, ids)
}

/// A configuration of these sensors, with `more` YAML after it.
fn config(cloud: &Cloud, sensors: &[String], more: &str) -> String {
    let all = cloud.config("");
    let (head, _) = all.split_once("sensors:").unwrap();
    let list: String = sensors.iter().map(|id| format!("  - {id}\n")).collect();
    format!("{head}sensors:\n{list}{more}")
}

fn known(scrape: &Scrape) -> Vec<String> {
    let id = |series: &str| {
        series
            .split("sensor_id=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .map(str::to_owned)
    };
    scrape
        .series_of("lightfi_sensor_info")
        .into_keys()
        .filter_map(id)
        .collect()
}

#[tokio::test]
async fn sensors_are_added_removed_and_renamed_and_the_rest_stays() {
    let (cloud, exporter, file, ids) = start().await;
    let before = exporter.scrape().await;
    let requests = "lightfi_exporter_api_requests_total{route=\"sensor\"}";
    assert_eq!(before.value(requests), Some(4.0));

    let mut others = cloud.simulator.sensors()[2..5].to_vec();
    fs::write(&file, config(&cloud, &others, "")).unwrap();
    exporter.signal("HUP");
    others.sort();
    let scrape = exporter
        .scrape_until("the new sensors", |scrape| known(scrape) == others)
        .await;
    assert!(
        scrape.value(requests).is_some_and(|sent| sent >= 4.0),
        "counters are not reset"
    );
    assert_eq!(
        cloud.simulator.requests().token_granted,
        1,
        "the token is kept"
    );
    assert_eq!(exporter.get("/-/ready").await.status(), 200);

    // A new name needs no request: all requests fail now.
    cloud.fault("error-500", true);
    let renamed = format!("  - {{id: {}, name: Boardroom}}\n", ids[2]);
    fs::write(&file, config(&cloud, &[], &renamed)).unwrap();
    assert_eq!(post(&exporter).await.0, 200);
    let scrape = exporter.scrape().await;
    assert_eq!(known(&scrape), [ids[2].clone()]);
    assert!(
        scrape.body.contains("sensor=\"Boardroom\""),
        "{}",
        scrape.body
    );
    assert!(
        !scrape.series_of("lightfi_sensor_status").is_empty(),
        "its readings are kept"
    );
}

#[tokio::test]
async fn a_newly_overridden_variable_is_exposed_without_a_new_request() {
    let (cloud, exporter, file, ids) = start().await;
    assert!(
        !exporter
            .scrape()
            .await
            .series_of("lightfi_temperature_celsius")
            .is_empty()
    );
    cloud.fault("error-500", true);
    let more = "metrics: {variables: {temperatureC: {name: room_temperature_celsius, scale: 2}}}\n";
    fs::write(&file, config(&cloud, &ids, more)).unwrap();
    let (status, words) = post(&exporter).await;
    assert_eq!(status, 200, "{words}");
    let scrape = exporter.scrape().await;
    assert!(scrape.series_of("lightfi_temperature_celsius").is_empty());
    assert!(
        !scrape
            .series_of("lightfi_room_temperature_celsius")
            .is_empty()
    );
}

#[tokio::test]
async fn a_setting_that_takes_a_restart_stays_with_a_warning() {
    let (cloud, exporter, file, ids) = start().await;
    let other = config(&cloud, &ids[..1], "log: {format: json, level: debug}\n");
    fs::write(&file, other).unwrap();
    assert_eq!(post(&exporter).await.0, 200);
    exporter.says("log.format has changed: ").await;
    let shown = exporter.get("/config").await.text().await;
    let shown = shown.unwrap();
    assert!(shown.contains("format: logfmt"), "{shown}");
    assert!(shown.contains("level: debug"), "{shown}");
    assert_eq!(known(&exporter.scrape().await).len(), 1);
    exporter.says("level=debug").await;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_and_the_previous_one_stays() {
    let (cloud, exporter, file, ids) = start().await;
    let good = "lightfi_exporter_config_last_reload_successful";
    assert_eq!(exporter.scrape().await.value(good), Some(1.0));
    fs::write(&file, config(&cloud, &ids, "colect: {}\n")).unwrap();
    let (status, words) = post(&exporter).await;
    assert_eq!(status, 500);
    assert!(words.contains("unknown key \"colect\""), "{words}");
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.value(good), Some(0.0));
    assert_eq!(known(&scrape).len(), 4);
    exporter
        .says("configuration reload failed; keeping the previous configuration")
        .await;

    fs::write(&file, config(&cloud, &ids, "")).unwrap();
    assert_eq!(post(&exporter).await.0, 200);
    assert_eq!(exporter.scrape().await.value(good), Some(1.0));
}

#[tokio::test]
async fn the_reload_route_is_forbidden_without_its_flag() {
    let demo = Exporter::demo(&["--sensors=10"]);
    assert_eq!(post(&demo).await.0, 403);
    assert_eq!(demo.get("/-/reload").await.status(), 405);
}

#[tokio::test]
async fn a_reload_changes_the_refresh_token_the_mode_and_the_telemetry_path() {
    let (cloud, exporter, file, ids) = start().await;
    let revoked = config(&cloud, &ids, "");
    cloud.simulator.replace_refresh_token();
    let more = "collect: {mode: scrape, interval: 1s}\nweb: {telemetry_path: /probe}\n";
    let changed = config(&cloud, &ids, more);
    assert_ne!(revoked.lines().nth(7), changed.lines().nth(7));
    // There is at most one token request per second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    fs::write(&file, changed).unwrap();
    assert_eq!(post(&exporter).await.0, 200);
    assert_eq!(exporter.get("/metrics").await.status(), 404);
    let body = exporter.get("/probe").await.text().await.unwrap();
    let scrape = Scrape::parse(body);
    assert_eq!(scrape.sum("lightfi_sensor_read_success"), 4.0);
    assert_eq!(scrape.value("lightfi_collect_interval_seconds"), Some(1.0));
    assert_eq!(cloud.simulator.requests().token_granted, 2);
}

#[tokio::test]
async fn the_config_page_contains_no_secret_and_is_a_valid_configuration() {
    let (cloud, exporter, _, _) = start().await;
    let shown = exporter.get("/config").await.text().await.unwrap();
    let config = cloud.config("");
    for key in ["client_secret", "refresh_token"] {
        let (_, rest) = config.split_once(&format!("{key}: \"")).unwrap();
        let (secret, _) = rest.split_once('"').unwrap();
        assert!(secret.len() > 8 && !shown.contains(secret), "{shown}");
        assert!(shown.contains(&format!("{key}: <secret>")), "{shown}");
    }
    let file = exporter.file("shown.yaml");
    fs::write(&file, &shown).unwrap();
    let output = command()
        .args(["check", "--config.file"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The configuration of one change: sensors come, go and change their names, and intervals change.
fn change(cloud: &Cloud, ids: &[String], turn: usize) -> String {
    let stay = &ids[..2];
    let name = format!("Room {turn}");
    let renamed = format!("  - {{id: {}, name: {name}}}\n", ids[2]);
    let interval = format!("collect: {{interval: {}s}}\n", 1 + turn % 3);
    match turn % 4 {
        0 => config(cloud, &ids[..3], &interval),
        1 => config(cloud, ids, &interval),
        2 => config(cloud, stay, &renamed),
        _ => config(cloud, stay, &format!("{renamed}  - {}\n{interval}", ids[3])),
    }
}

/// Scrapes, and checks that the scrape is whole and has readings of these sensors.
async fn scrape_all_of(client: &reqwest::Client, url: &str, sensors: &[String]) {
    let response = client.get(format!("{url}/metrics")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let scrape = Scrape::parse(response.text().await.unwrap());
    let known = known(&scrape);
    assert!(known.len() <= 4, "{known:?}");
    let newest = scrape.series_of("lightfi_sensor_last_reading_timestamp_seconds");
    for id in sensors {
        let label = format!("sensor_id=\"{id}\"");
        let has_readings = newest.keys().any(|series| series.contains(&label));
        assert!(known.contains(id) && has_readings, "{id} stays");
    }
    // The last family of a scrape.
    assert!(scrape.body.contains("\nprocess_start_time_seconds "));
}

#[tokio::test]
async fn a_thousand_scrapes_succeed_during_twenty_reloads() {
    const SCRAPERS: usize = 4;
    const SCRAPES: usize = 1000;
    const CHANGES: usize = 20;
    let (cloud, exporter, file, ids) = start().await;
    let done = Arc::new(AtomicUsize::new(0));
    let scrapers = (0..SCRAPERS).map(|number| {
        // Half of them keep their connection, half make one for each scrape.
        let client = crate::tools::client().no_proxy();
        let client = client.pool_max_idle_per_host(number % 2).build().unwrap();
        let (url, done, stay) = (exporter.url.clone(), done.clone(), ids[..3].to_vec());
        tokio::spawn(async move {
            for _ in 0..SCRAPES / SCRAPERS {
                scrape_all_of(&client, &url, &stay).await;
                done.fetch_add(1, Relaxed);
            }
        })
    });
    let scrapers: Vec<_> = scrapers.collect();
    for turn in 0..CHANGES {
        // Spread over all of the scrapes, however fast they are.
        while done.load(Relaxed) < turn * SCRAPES / CHANGES
            && !scrapers.iter().any(|it| it.is_finished())
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fs::write(&file, change(&cloud, &ids, turn)).unwrap();
        let (status, words) = post(&exporter).await;
        assert_eq!(status, 200, "{words}");
    }
    for scraper in scrapers {
        scraper.await.unwrap();
    }
    assert_eq!(done.load(Relaxed), SCRAPES);
    let scrape = exporter.scrape().await;
    let last_name = format!("sensor=\"Room {}\"", CHANGES - 1);
    assert!(scrape.body.contains(&last_name), "{}", scrape.body);
    assert_eq!(scrape.value("lightfi_collect_interval_seconds"), Some(2.0));
}

#[tokio::test]
async fn a_reload_uses_another_web_configuration_and_refuses_a_bad_one() {
    let (cloud, exporter, file, ids) = start().await;
    let client = crate::tools::client().no_proxy().build().unwrap();
    let send = async |method: reqwest::Method, path: &str, user: &str| {
        let request = client.request(method, format!("{}{path}", exporter.url));
        let response = request.basic_auth(user, Some("secret")).send().await;
        let response = response.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let get = async |path: &str, user: &str| send(reqwest::Method::GET, path, user).await;
    let reload = async |text: &str, user: &str| {
        fs::write(&file, text).unwrap();
        send(reqwest::Method::POST, "/-/reload", user).await
    };
    let with_web_config = |text: &str| {
        let path = exporter.file("web.yml");
        fs::write(&path, text).unwrap();
        let web = format!("web: {{config_file: \"{}\"}}\n", path.display());
        config(&cloud, &ids, &web)
    };

    let hash = crate::tls::hash("secret", 4);
    let only_alice = with_web_config(&format!("basic_auth_users: {{alice: \"{hash}\"}}\n"));
    assert_eq!(reload(&only_alice, "unknown").await.0, 200);
    assert_eq!(get("/metrics", "unknown").await.0, 401);
    assert_eq!(get("/metrics", "alice").await.0, 200);
    // From now on changes of this file are noticed.
    let both = format!("basic_auth_users: {{alice: \"{hash}\", bob: \"{hash}\"}}\n");
    fs::write(exporter.file("web.yml"), both).unwrap();
    let start = Instant::now();
    while get("/metrics", "bob").await.0 != 200 {
        assert!(start.elapsed() < Duration::from_secs(10), "bob is unknown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Nothing of a bad configuration is used: neither its user file nor its missing token file.
    fs::write(exporter.file("bad.yml"), "foo: 1\n").unwrap();
    let bad = only_alice.replace("web.yml", "bad.yml");
    let bad = bad.replace("refresh_token:", "refresh_token_file: nowhere #");
    let (status, error) = reload(&bad, "alice").await;
    assert!(status == 500 && error.contains("foo"), "{status} {error}");
    assert_eq!(get("/metrics", "unknown").await.0, 401);
    let (_, metrics) = get("/metrics", "alice").await;
    let valid = Scrape::parse(metrics).value("lightfi_exporter_refresh_token_valid");
    assert_eq!(valid, Some(1.0));
    let (_, shown) = get("/config", "alice").await;
    assert!(shown.contains("web.yml"), "{shown}");

    let without_users = config(&cloud, &ids, "");
    assert_eq!(reload(&without_users, "alice").await.0, 200);
    assert_eq!(get("/metrics", "unknown").await.0, 200);
}
