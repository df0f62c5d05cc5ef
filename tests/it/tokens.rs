//! Access tokens end to end: one refresh for many requests, renewal ahead of time, wrong clocks, no secret in any output.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use axum::{Json, Router, http::HeaderMap, routing};
use lightfi_simulator::{Listing, Options};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape, command, run},
};

fn two_hundred_sensors() -> Options {
    Options {
        sensors: 200,
        listing: Listing::Sensors,
        ..Options::default()
    }
}

fn api_failures(scrape: &Scrape) -> f64 {
    scrape.sum("lightfi_exporter_api_request_failures_total")
}

#[tokio::test]
async fn an_access_token_that_the_api_rejects_is_replaced_once_for_all_requests() {
    let cloud = Cloud::start(two_hundred_sensors()).await;
    cloud.fault("token-expires", true);
    let config = cloud.config("collect: {mode: scrape, interval: 4s}\n");
    let exporter = Exporter::serve(&config.replacen("api:\n", "api:\n  max_concurrency: 200\n", 1));
    exporter.scrape().await;
    // The server rejects the first token after 2 s, although it was issued for hours.
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let scrape = exporter.scrape().await;
    assert_eq!(
        scrape.sum("lightfi_sensor_read_success"),
        200.0,
        "every request was repeated with the new token"
    );
    assert_eq!(cloud.simulator.requests().token_granted, 2);
}

#[tokio::test]
async fn a_rejected_token_is_refreshed_once_per_collection() {
    let cloud = Cloud::start(two_hundred_sensors()).await;
    cloud.fault("unauthorized", true);
    let exporter = Exporter::serve(&cloud.config("collect: {interval: 60s}\n"));
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.sum("lightfi_sensor_read_success"), 0.0);
    assert_eq!(scrape.value("lightfi_collect_sensors_failed"), Some(200.0));
    assert_eq!(cloud.simulator.requests().token_granted, 2);
    assert_eq!(
        scrape.value("lightfi_exporter_refresh_token_valid"),
        Some(1.0)
    );
}

#[tokio::test]
async fn a_server_clock_that_is_wrong_by_an_hour_does_no_harm() {
    for skew in [3600.0, -3600.0] {
        let cloud = Cloud::start(Options {
            clock_skew: skew,
            sensors: 20,
            listing: Listing::Sensors,
            ..Options::default()
        })
        .await;
        let exporter = Exporter::serve(&cloud.config("collect: {interval: 2s}\n"));
        let twice = |scrape: &Scrape| {
            scrape
                .value("lightfi_exporter_api_requests_total{route=\"sensor\"}")
                .is_some_and(|sent| sent > 40.0)
        };
        let scrape = exporter.scrape_until("two collections", twice).await;
        let output = exporter.output();
        assert_eq!(api_failures(&scrape), 0.0, "{skew:?}: {output}");
        assert_eq!(cloud.simulator.requests().token_granted, 1, "{skew:?}");
        let expiry = scrape
            .value("lightfi_exporter_access_token_expiry_timestamp_seconds")
            .expect("it is known");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970");
        let left = expiry - now.as_secs_f64();
        assert!((14_000.0..=14_400.0).contains(&left), "{skew:?}: {left} s");
    }
}

async fn short_lived_tokens_fail_no_request_for(time: Duration) {
    let options = Options {
        sensors: 20,
        listing: Listing::Sensors,
        token_lifetime: Duration::from_secs(3),
        ..Options::default()
    };
    let cloud = Cloud::start(options).await;
    let exporter = Exporter::serve(&cloud.config("collect: {interval: 1s}\n"));
    tokio::time::sleep(time).await;
    let scrape = exporter.scrape().await;
    assert_eq!(api_failures(&scrape), 0.0, "{}", exporter.output());
    assert_eq!(cloud.simulator.requests().unauthorized, 0);
    assert_eq!(
        scrape.sum("lightfi_exporter_token_refresh_failures_total"),
        0.0
    );
    let refreshes = scrape
        .value("lightfi_exporter_token_refreshes_total")
        .expect("it is counted");
    let expected = time.as_secs_f64() / 1.5;
    assert!(
        refreshes > expected * 0.6 && refreshes < expected * 1.5,
        "{refreshes} refreshes in {time:?}"
    );
}

#[tokio::test]
async fn a_token_of_three_seconds_is_renewed_without_one_failed_request() {
    short_lived_tokens_fail_no_request_for(Duration::from_secs(9)).await;
}

#[tokio::test]
#[ignore = "takes over a minute: make test-long"]
async fn a_token_of_three_seconds_is_renewed_for_a_minute_without_one_failed_request() {
    short_lived_tokens_fail_no_request_for(Duration::from_secs(65)).await;
}

/// An exporter at level `trace`, its files of secrets, and everything that it has shown.
struct SecretsFixture {
    cloud: Cloud,
    directory: TempDir,
    exporter: Exporter,
    /// Also every refresh token that was issued, because a rotated one is a secret too.
    secrets: Vec<String>,
    shown: String,
}

impl SecretsFixture {
    async fn start() -> Self {
        let cloud = Cloud::start(Options {
            sensors: 10,
            rotate_refresh_tokens: true,
            token_lifetime: Duration::from_secs(2),
            ..Options::default()
        })
        .await;
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().display();
        let oauth =
            format!("  refresh_token_file: {path}/token\n  token_store: {path}/store.json\n");
        let client_secret = cloud.value("client_secret");
        let config = cloud
            .config_without_token(&oauth, "collect: {interval: 1s}\n")
            .replacen("api:\n", "api:\n  timeout: 1s\n", 1)
            .replacen(
                &format!("client_secret: \"{client_secret}\""),
                &format!("client_secret_file: {path}/client-secret"),
                1,
            );
        assert!(
            !config.contains(&client_secret),
            "only files contain secrets"
        );
        for (file, text) in [
            ("config.yaml", &config),
            ("client-secret", &client_secret),
            ("token", &cloud.value("refresh_token")),
        ] {
            fs::write(directory.path().join(file), text).expect("written");
        }
        Self {
            secrets: vec![client_secret, cloud.value("refresh_token")],
            exporter: Exporter::serve_with(&config, &["--log.level=trace"]),
            shown: String::new(),
            cloud,
            directory,
        }
    }

    fn write(&mut self, file: &str, secret: &str) {
        fs::write(self.directory.path().join(file), secret).expect("written");
        self.secrets.push(secret.to_owned());
    }

    /// Lets the exporter work for this time, then reads all its pages.
    async fn read_pages_after(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 20 {
            self.secrets
                .push(self.cloud.simulator.newest_refresh_token());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for path in [
            "/metrics",
            "/",
            "/config",
            "/-/healthy",
            "/-/ready",
            "/nothing",
        ] {
            let page = self.exporter.get(path).await.text().await;
            self.shown += &page.expect("a whole body");
        }
    }

    /// Runs other commands with the same configuration.
    async fn run_other_commands(&mut self) {
        let config = self.directory.path().join("config.yaml");
        for words in [&["check", "--online"][..], &["sensors"]] {
            let mut command = command();
            command.args(words).arg("--log.level=trace");
            command.arg("--config.file").arg(&config);
            let ended = tokio::task::spawn_blocking(move || command.output());
            let output = ended.await.expect("no panic").expect("it runs");
            for bytes in [output.stdout, output.stderr] {
                self.shown += &String::from_utf8_lossy(&bytes);
            }
        }
    }
}

/// Covers rotation, every failure of the token endpoint and of the API, wrong credentials and a corrected file, in `serve`
/// and in other commands, at level `trace`.
#[tokio::test]
async fn no_secret_appears_in_any_output() {
    let mut fixture = SecretsFixture::start().await;
    fixture.read_pages_after(3000).await;
    for fault in [
        "unauthorized",
        "malformed",
        "token-revoked",
        "error-500=token",
        "slow=token",
        "html=token",
        "token-no-access-token",
    ] {
        fixture.cloud.fault(fault, true);
        fixture.read_pages_after(1400).await;
        fixture.cloud.fault(fault, false);
        // A refused refresh token is replaced when its file changes.
        if fault.starts_with("token-") {
            let token = fixture.cloud.simulator.replace_refresh_token();
            fixture.write("token", &token);
        }
        fixture.read_pages_after(1000).await;
    }
    let client_secret = fixture.secrets[0].clone();
    fixture.write("client-secret", "wrong-client-s3cret");
    fixture.write("token", "wrong-refresh-s3cret");
    fixture.read_pages_after(2500).await;
    fixture.run_other_commands().await;
    fixture.write("client-secret", &client_secret);
    let token = fixture.cloud.simulator.replace_refresh_token();
    fixture.write("token", &token);
    fixture
        .exporter
        .scrape_until("recovery", |scrape| scrape.value("lightfi_up") == Some(1.0))
        .await;
    fixture.run_other_commands().await;
    fixture.read_pages_after(1500).await;

    let SecretsFixture {
        exporter,
        secrets,
        mut shown,
        ..
    } = fixture;
    shown += &exporter.output();
    shown += &fs::read_to_string(format!("/proc/{}/cmdline", exporter.pid())).expect("it runs");
    for reason in [
        "invalid_grant",
        "invalid_client",
        "server_error",
        "timeout",
        "malformed",
    ] {
        let reason = format!("reason={reason}");
        assert!(shown.contains(&reason), "{reason} did not occur:\n{shown}");
    }
    let secrets = BTreeSet::from_iter(secrets);
    assert!(secrets.len() > 10, "only {} secrets", secrets.len());
    for secret in secrets {
        assert!(!shown.contains(&secret), "a secret appeared:\n{shown}");
    }
    assert!(!shown.contains("eyJ"), "a JWT was written:\n{shown}");
}

/// Starts a server with these routes, a slow token endpoint that rotates, and an API that repeats the access token.
/// Returns its URL.
async fn echo_server(routes: Router, latency: Duration) -> String {
    let token = move || async move {
        tokio::time::sleep(latency).await;
        Json(json!({"access_token": "access-s3cret", "refresh_token": "rotated-s3cret"}))
    };
    let echo = |headers: HeaderMap| async move {
        let bearer = headers["authorization"].to_str().expect("a bearer is text");
        Json(Value::from_iter([(bearer, 1)]))
    };
    let router = routes.route("/token", routing::post(token)).fallback(echo);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn echo_config(url: &str, store: &Path) -> String {
    format!(
        "api: {{url: \"{url}\"}}\n\
         oauth: {{token_url: \"{url}/token\", client_id: the-client, client_secret: client-s3cret, \
         refresh_token: refresh-s3cret, token_store: \"{}\"}}\n\
         locations: [L1]\n",
        store.display()
    )
}

// Two threads, because waiting for the exporter to exit blocks one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_token_received_after_sigterm_is_stored() {
    let url = echo_server(Router::new(), Duration::from_secs(2)).await;
    let directory = TempDir::new().expect("a temporary directory");
    let store = directory.path().join("store.json");
    let mut exporter = Exporter::serve(&echo_config(&url, &store));
    tokio::time::sleep(Duration::from_millis(300)).await;
    exporter.signal("TERM");
    assert_eq!(exporter.wait(Duration::from_secs(5)), Some(0));
    let stored = fs::read_to_string(&store).expect("the store is written");
    assert!(stored.contains("rotated-s3cret"));
}

#[tokio::test]
async fn a_secret_that_the_api_repeats_is_redacted_in_keys_and_names() {
    let sensor = json!({"name": "hello Bearer access-s3cret", "data": [
        {"var_name": "access-s3cret", "time": 1716301234, "value": 1},
        {"var_name": "client-s3cret", "time": 1716301234, "value": 1},
    ]});
    let location = json!({"name": "refresh-s3cret", "sensors": [
        {"id": "X-access-s3cret", "name": "its client-s3cret", "data": [{"var_name": "a", "time": 1, "value": 1}]},
        {"id": "Y-client-s3cret", "data": "none"},
    ], "children": [{"id": "c access-s3cret", "name": "rotated-s3cret"}]});
    let routes = Router::new()
        .route("/sensors/{id}", routing::get(Json(sensor)))
        .route("/locations/L1/", routing::get(Json(location)));
    let url = echo_server(routes, Duration::ZERO).await;
    let directory = TempDir::new().expect("a temporary directory");
    let config = echo_config(&url, &directory.path().join("store.json"));
    let config = config.replace("[L1]", "[L1, L2]");
    let config = format!("{config}sensors: [A]\ncollect: {{stale_after: 10000d}}\n");
    let exporter = Exporter::serve_with(&config, &["--log.level=trace"]);
    let scrape = exporter
        .scrape_until("a failed location", |scrape| {
            scrape.value("lightfi_collect_locations_failed") == Some(2.0)
        })
        .await;
    exporter.says("top-level keys: Bearer <secret>").await;
    let page = exporter.get("/").await.text().await.expect("a page");
    let output = exporter.says("sensor Y-<secret>").await;
    let seen = format!("{}{page}{output}", scrape.body);
    for redacted in [
        "sensor=\"hello Bearer <secret>\"",
        "var_name=\"<secret>\"",
        "sensor_id=\"X-<secret>\"",
        "location=\"<secret>\"",
    ] {
        assert!(seen.contains(redacted), "{redacted}:\n{seen}");
    }
    assert!(!seen.contains("s3cret"), "{seen}");
}

#[test]
fn a_damaged_store_is_reported_once_and_exits_with_2() {
    let directory = TempDir::new().expect("a temporary directory");
    let store = directory.path().join("store.json");
    fs::write(&store, "{").expect("written");
    let config = directory.path().join("config.yaml");
    fs::write(&config, echo_config("http://127.0.0.1:1", &store)).expect("written");
    let output = run(&["--config.file", config.to_str().expect("a plain path")]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let count = stderr.matches("is not a token store").count();
    assert_eq!(count, 1, "{stderr}");
    assert!(stderr.contains("oauth.token_store: "), "{stderr}");
}
