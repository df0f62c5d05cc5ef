//! Another configuration while it runs: by SIGHUP and by POST `/-/reload`.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lightfi_simulator::{Listing, Options};

use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape, command},
};

async fn post(exporter: &Exporter) -> (u16, String) {
    let client = crate::tools::client().no_proxy().build().expect("a client");
    let response = client
        .post(format!("{}/-/reload", exporter.url))
        .send()
        .await
        .expect("it answers");
    (
        response.status().as_u16(),
        response.text().await.expect("a whole body"),
    )
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
    let (head, _) = all.split_once("sensors:").expect("it lists sensors");
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
async fn sensors_come_go_and_are_renamed_and_nothing_else_changes() {
    let (cloud, exporter, file, ids) = start().await;
    let before = exporter.scrape().await;
    let requests = "lightfi_exporter_api_requests_total{route=\"sensor\"}";
    assert_eq!(before.value(requests), Some(4.0));

    let mut others = cloud.simulator.sensors()[2..5].to_vec();
    fs::write(&file, config(&cloud, &others, "")).expect("written");
    exporter.signal("HUP");
    others.sort();
    let scrape = exporter
        .scrape_until("the new sensors", |scrape| known(scrape) == others)
        .await;
    assert!(
        scrape.value(requests).is_some_and(|sent| sent >= 4.0),
        "counters go on"
    );
    assert_eq!(
        cloud.simulator.requests().token_granted,
        1,
        "the token is kept"
    );
    assert_eq!(exporter.get("/-/ready").await.status(), 200);

    // A new name needs no fetch: the cloud is out of order.
    cloud.fault("error-500", true);
    let renamed = format!("  - {{id: {}, name: Boardroom}}\n", ids[2]);
    fs::write(&file, config(&cloud, &[], &renamed)).expect("written");
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
async fn an_overridden_variable_shows_without_a_fetch() {
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
    fs::write(&file, config(&cloud, &ids, more)).expect("written");
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
async fn what_takes_a_restart_is_told_and_stays() {
    let (cloud, exporter, file, ids) = start().await;
    let other = config(&cloud, &ids[..1], "log: {format: json, level: debug}\n");
    fs::write(&file, other).expect("written");
    assert_eq!(post(&exporter).await.0, 200);
    let words = "log.format has changed: that takes a restart, the old one stays in force";
    exporter.says(words).await;
    let shown = exporter.get("/config").await.text().await;
    let shown = shown.expect("a whole body");
    assert!(shown.contains("format: logfmt"), "{shown}");
    assert!(shown.contains("level: debug"), "{shown}");
    assert_eq!(known(&exporter.scrape().await).len(), 1);
    exporter.says("level=debug").await;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_and_the_old_one_stays() {
    let (cloud, exporter, file, ids) = start().await;
    let good = "lightfi_exporter_config_last_reload_successful";
    assert_eq!(exporter.scrape().await.value(good), Some(1.0));
    fs::write(&file, config(&cloud, &ids, "colect: {}\n")).expect("written");
    let (status, words) = post(&exporter).await;
    assert_eq!(status, 500);
    assert!(words.contains("unknown key \"colect\""), "{words}");
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.value(good), Some(0.0));
    assert_eq!(known(&scrape).len(), 4);
    exporter
        .says("config reload failed; keeping the previous configuration")
        .await;

    fs::write(&file, config(&cloud, &ids, "")).expect("written");
    assert_eq!(post(&exporter).await.0, 200);
    assert_eq!(exporter.scrape().await.value(good), Some(1.0));
}

#[tokio::test]
async fn the_lifecycle_is_off_unless_asked_for() {
    let demo = Exporter::demo(&["--sensors=10"]);
    assert_eq!(post(&demo).await.0, 403);
    assert_eq!(demo.get("/-/reload").await.status(), 405);
}

#[tokio::test]
async fn credentials_and_modes_change_too() {
    let (cloud, exporter, file, ids) = start().await;
    let revoked = config(&cloud, &ids, "");
    cloud.simulator.replace_refresh_token();
    let anew = config(
        &cloud,
        &ids,
        "collect: {mode: scrape, interval: 1s}\nweb: {telemetry_path: /probe}\n",
    );
    assert_ne!(revoked.lines().nth(7), anew.lines().nth(7));
    // One token request a second at most, whoever makes it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    fs::write(&file, anew).expect("written");
    assert_eq!(post(&exporter).await.0, 200);
    assert_eq!(exporter.get("/metrics").await.status(), 404);
    let body = exporter
        .get("/probe")
        .await
        .text()
        .await
        .expect("a whole body");
    let scrape = Scrape::parse(body);
    assert_eq!(scrape.sum("lightfi_sensor_read_success"), 4.0);
    assert_eq!(scrape.value("lightfi_collect_interval_seconds"), Some(1.0));
    assert_eq!(cloud.simulator.requests().token_granted, 2);
}

#[tokio::test]
async fn what_config_shows_holds_no_secret_and_is_a_configuration() {
    let (cloud, exporter, _, _) = start().await;
    let shown = exporter
        .get("/config")
        .await
        .text()
        .await
        .expect("a whole body");
    for key in ["client_secret", "refresh_token"] {
        let line = cloud
            .config("")
            .lines()
            .find(|line| line.trim_start().starts_with(key))
            .map(str::to_owned);
        let secret = line.and_then(|line| {
            line.split_once(": ")
                .map(|(_, secret)| secret.trim_matches('"').to_owned())
        });
        let secret = secret.expect("it is there");
        assert!(secret.len() > 8 && !shown.contains(&secret), "{shown}");
        assert!(shown.contains(&format!("{key}: <secret>")), "{shown}");
    }
    let file = exporter.file("shown.yaml");
    fs::write(&file, &shown).expect("written");
    let output = command()
        .args(["check", "--config.file"])
        .arg(&file)
        .output()
        .expect("the binary starts");
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

#[tokio::test]
async fn a_thousand_scrapes_go_through_while_it_changes_twenty_times() {
    const SCRAPERS: usize = 4;
    const SCRAPES: usize = 1000;
    const CHANGES: usize = 20;
    let (cloud, exporter, file, ids) = start().await;
    let done = Arc::new(AtomicUsize::new(0));
    let scrapers = (0..SCRAPERS).map(|number| {
        // Half of them keep their connection, half make one for each scrape.
        let idle = if number % 2 == 0 { 1 } else { 0 };
        let client = crate::tools::client().no_proxy();
        let client = client.pool_max_idle_per_host(idle).build();
        let client = client.expect("a client");
        let (url, done, stay) = (
            format!("{}/metrics", exporter.url),
            done.clone(),
            ids[..3].to_vec(),
        );
        tokio::spawn(async move {
            for _ in 0..SCRAPES / SCRAPERS {
                let response = client.get(&url).send().await.expect("it answers");
                assert_eq!(response.status(), 200);
                let scrape = Scrape::parse(response.text().await.expect("a whole body"));
                let known = known(&scrape);
                assert!(known.len() <= 4, "{known:?}");
                for id in &stay {
                    assert!(known.contains(id), "{id} stays");
                    let label = format!("sensor_id=\"{id}\"");
                    let newest = scrape.series_of("lightfi_sensor_last_reading_timestamp_seconds");
                    let readings = newest.keys().any(|series| series.contains(&label));
                    assert!(readings, "the readings of {id} stay");
                }
                // The last family of all.
                assert!(scrape.body.contains("\nprocess_start_time_seconds "));
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
        fs::write(&file, change(&cloud, &ids, turn)).expect("written");
        let (status, words) = post(&exporter).await;
        assert_eq!(status, 200, "{words}");
    }
    for scraper in scrapers {
        scraper.await.expect("every scrape is whole");
    }
    assert_eq!(done.load(Relaxed), SCRAPES);
    let scrape = exporter.scrape().await;
    assert!(
        scrape
            .body
            .contains(&format!("sensor=\"Room {}\"", CHANGES - 1))
    );
    assert_eq!(scrape.value("lightfi_collect_interval_seconds"), Some(2.0));
}

#[tokio::test]
async fn another_web_configuration_counts_from_a_reload_on_and_a_bad_one_is_refused() {
    let (cloud, exporter, file, ids) = start().await;
    let client = crate::tools::client().no_proxy().build().expect("a client");
    let ask = |post: bool, path: &str, user: &str| {
        let url = format!("{}{path}", exporter.url);
        let request = if post {
            client.post(url)
        } else {
            client.get(url)
        };
        request.basic_auth(user, Some("secret")).send()
    };
    let status = async |user: &str| {
        let answer = ask(false, "/metrics", user).await.expect("it answers");
        answer.status().as_u16()
    };
    let reload_as = async |text: &str, user: &str| {
        fs::write(&file, text).expect("it can be written");
        let answer = ask(true, "/-/reload", user).await.expect("it answers");
        let status = answer.status().as_u16();
        (status, answer.text().await.expect("a whole body"))
    };
    let reload = async |web: &str, user: &str| reload_as(&config(&cloud, &ids, web), user).await;
    let users = |name: &str, user: &str| {
        let hash = bcrypt::hash("secret", 4).expect("it can be hashed");
        let path = exporter.file(name);
        fs::write(&path, format!("basic_auth_users: {{{user}: \"{hash}\"}}\n"))
            .expect("it can be written");
        format!("web: {{config_file: \"{}\"}}\n", path.display())
    };

    assert_eq!(status("nobody").await, 200);
    let of_alice = users("alice.yml", "alice");
    assert_eq!(reload(&of_alice, "nobody").await.0, 200);
    assert_eq!((status("nobody").await, status("alice").await), (401, 200));

    let bad = exporter.file("bad.yml");
    fs::write(&bad, "foo: 1\n").expect("it can be written");
    let text = config(&cloud, &ids, &of_alice.replace("alice.yml", "bad.yml"));
    let without_a_token = text.replace("refresh_token:", "refresh_token_file: nowhere #");
    assert!(without_a_token != text);
    let (refused, why) = reload_as(&without_a_token, "alice").await;
    assert_eq!(refused, 500);
    assert!(why.contains("foo"), "{why}");
    let scrape = ask(false, "/metrics", "alice").await.expect("it answers");
    let scrape = Scrape::parse(scrape.text().await.expect("a whole body"));
    let valid = scrape.value("lightfi_exporter_refresh_token_valid");
    assert_eq!(valid, Some(1.0), "nothing of it counts");
    assert_eq!((status("nobody").await, status("alice").await), (401, 200));
    let shown = ask(false, "/config", "alice").await.expect("it answers");
    let shown = shown.text().await.expect("a whole body");
    assert!(shown.contains("alice.yml"), "{shown}");

    assert_eq!(reload(&users("bob.yml", "bob"), "alice").await.0, 200);
    assert_eq!((status("alice").await, status("bob").await), (401, 200));
    users("alice.yml", "bob");
    users("bob.yml", "carol");
    let start = std::time::Instant::now();
    while status("carol").await != 200 {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{}",
            exporter.output()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(reload("", "carol").await.0, 200);
    assert_eq!(status("nobody").await, 200);
}
