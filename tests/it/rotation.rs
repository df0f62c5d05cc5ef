//! Rotating refresh tokens, kills at the worst moments, two exporters with one store, and recovery from every failure of
//! the token endpoint, in real time.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lightfi_simulator::{Listing, Options};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape, command},
};

/// The longest time allowed from the correction to the first successful collection.
const RECOVERY: Duration = Duration::from_secs(10);

const COLLECT: &str = "collect: {interval: 1s}\n";

fn rotating() -> Options {
    Options {
        sensors: 5,
        listing: Listing::Sensors,
        rotate_refresh_tokens: true,
        token_lifetime: Duration::from_secs(2),
        ..Options::default()
    }
}

/// Returns the token in the store, which must be complete at any time; `None` before the first write.
fn stored(store: &Path) -> Option<String> {
    let text = match fs::read_to_string(store) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{error}"),
    };
    let stored: serde_json::Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("an incomplete store: {error}: {text}"));
    assert_eq!(stored["version"], 1, "{text}");
    let token = stored["refresh_token"].as_str().expect("it holds a token");
    assert!(!token.is_empty());
    Some(token.to_owned())
}

async fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn wait_for_good_collection(exporter: &Exporter) -> Scrape {
    exporter
        .scrape_until("a good collection", |scrape| {
            let failed = scrape.value("lightfi_collect_sensors_failed");
            scrape.value("lightfi_up") == Some(1.0) && failed == Some(0.0)
        })
        .await
}

/// Returns the failed requests without those whose token had just ended: they are repeated with the next one.
fn api_failures(scrape: &Scrape) -> f64 {
    let failures = scrape.series_of("lightfi_exporter_api_request_failures_total");
    let others = failures
        .iter()
        .filter(|(labels, _)| !labels.contains("unauthorized"));
    others.map(|(_, value)| value).sum()
}

fn refused(scrape: &Scrape) -> f64 {
    scrape.sum("lightfi_exporter_token_refresh_failures_total")
}

fn refreshes(scrape: &Scrape) -> f64 {
    scrape
        .value("lightfi_exporter_token_refreshes_total")
        .expect("it is counted")
}

// Rotation on every refresh.

/// Stops and starts the exporter half-way.
async fn every_rotation_is_stored_and_no_collection_fails_for(time: Duration) {
    let cloud = Cloud::start(rotating()).await;
    let directory = TempDir::new().expect("a temporary directory");
    let store = directory.path().join("store.json");
    let config = cloud.config_with_store(&store, COLLECT);
    for _ in 0..2 {
        let mut exporter = Exporter::serve(&config);
        let start = Instant::now();
        while start.elapsed() < time / 2 {
            let newest = cloud.simulator.newest_refresh_token();
            wait_until(
                "the newest token is in the store",
                Duration::from_secs(1),
                // It may already have been replaced by a newer one.
                || {
                    let stored = stored(&store);
                    stored.as_ref() == Some(&newest)
                        || stored == Some(cloud.simulator.newest_refresh_token())
                },
            )
            .await;
            let scrape = exporter.scrape().await;
            let output = exporter.output();
            assert_eq!(scrape.value("lightfi_up"), Some(1.0), "{output}");
            assert_eq!(scrape.sum("lightfi_sensor_read_success"), 5.0, "{output}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let scrape = exporter.scrape().await;
        let output = exporter.output();
        assert_eq!(api_failures(&scrape), 0.0, "{output}");
        assert_eq!(refused(&scrape), 0.0, "{output}");
        let least = time.as_secs_f64() / 2.0 * 0.6;
        assert!(refreshes(&scrape) > least, "about one a second: {output}");
        for level in ["level=warn", "level=error"] {
            assert!(!output.contains(level), "{output}");
        }
        exporter.signal("TERM");
        assert_eq!(exporter.wait(Duration::from_secs(6)), Some(0));
        let newest = cloud.simulator.newest_refresh_token();
        assert_eq!(stored(&store), Some(newest), "nothing is lost at the stop");
    }
    assert_eq!(cloud.simulator.requests().token_refused, 0);
}

#[tokio::test]
async fn every_rotation_is_stored_and_no_collection_fails() {
    every_rotation_is_stored_and_no_collection_fails_for(Duration::from_secs(10)).await;
}

#[tokio::test]
#[ignore = "takes three minutes: make test-long"]
async fn every_rotation_is_stored_and_no_collection_fails_for_three_minutes() {
    every_rotation_is_stored_and_no_collection_fails_for(Duration::from_secs(180)).await;
}

// Kills.

/// An exporter that is started to be killed; its output is discarded.
struct Victim(Child);

impl Victim {
    /// Returns as soon as a token was issued to it.
    async fn start_and_wait_for_token(cloud: &Cloud, config: &Path) -> Self {
        let granted = || cloud.simulator.requests().token_granted;
        let before = granted();
        let child = command()
            .arg("--config.file")
            .arg(config)
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let start = Instant::now();
        while granted() == before {
            assert!(start.elapsed() < Duration::from_secs(10), "no token");
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("a child can be waited for");
    }
}

fn configured(directory: &TempDir, yaml: &str) -> PathBuf {
    let path = directory.path().join("config.yaml");
    fs::write(&path, yaml).expect("written");
    path
}

/// Checks that the stored token is accepted.
async fn the_store_is_usable(cloud: &Cloud, config: &Path) {
    let yaml = fs::read_to_string(config).expect("it is there");
    let exporter = Exporter::serve(&yaml);
    let scrape = wait_for_good_collection(&exporter).await;
    assert_eq!(refused(&scrape), 0.0, "{}", exporter.output());
    assert_eq!(cloud.simulator.requests().token_refused, 0);
}

async fn kills_at_random_times_leave_a_usable_store(kills: usize) {
    let cloud = Cloud::start(rotating()).await;
    let directory = TempDir::new().expect("a temporary directory");
    let store = directory.path().join("store.json");
    let config = configured(&directory, &cloud.config_with_store(&store, COLLECT));
    for _ in 0..kills {
        let victim = Victim::start_and_wait_for_token(&cloud, &config).await;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..2_500_000))).await;
        victim.kill();
        stored(&store);
        assert_eq!(cloud.simulator.requests().token_refused, 0);
    }
    the_store_is_usable(&cloud, &config).await;
}

#[tokio::test]
async fn eight_kills_at_random_times_leave_a_usable_store() {
    kills_at_random_times_leave_a_usable_store(8).await;
}

#[tokio::test]
#[ignore = "takes minutes: make test-long"]
async fn fifty_kills_at_random_times_leave_a_usable_store() {
    kills_at_random_times_leave_a_usable_store(50).await;
}

/// Each kill comes a little later after a token was issued than the one before, until one comes after the write; then it
/// starts over with smaller steps. This covers the reply, the temporary file, its renaming and the time after.
async fn kills_around_the_write_leave_a_complete_store(kills: usize, grace: Duration) {
    let cloud = Cloud::start(Options {
        rotation_grace: grace,
        ..rotating()
    })
    .await;
    let directory = TempDir::new().expect("a temporary directory");
    let store = directory.path().join("store.json");
    let token = directory.path().join("token");
    let oauth = format!(
        "  refresh_token_file: \"{}\"\n  token_store: \"{}\"\n",
        token.display(),
        store.display()
    );
    fs::write(&token, cloud.simulator.newest_refresh_token()).expect("written");
    let config = configured(&directory, &cloud.config_without_token(&oauth, COLLECT));
    let first_step = Duration::from_micros(400);
    let (mut offset, mut step) = (Duration::ZERO, first_step);
    let (mut before_the_write, mut after_it) = (0, 0);
    // A busy machine may need more kills until both sides of the write are covered.
    for kill in 0..kills * 5 {
        if kill >= kills && before_the_write > 0 && after_it > 0 {
            break;
        }
        let victim = Victim::start_and_wait_for_token(&cloud, &config).await;
        // A timer is too coarse for this.
        let grant = Instant::now();
        while grant.elapsed() < offset {
            tokio::task::yield_now().await;
        }
        victim.kill();
        if stored(&store) == Some(cloud.simulator.newest_refresh_token()) {
            after_it += 1;
            offset = Duration::ZERO;
            step = step.min(first_step) * 3 / 4 + Duration::from_micros(50);
            continue;
        }
        before_the_write += 1;
        offset += step;
        if after_it == 0 {
            step *= 2;
        }
        if grace.is_zero() {
            a_lost_token_is_reported_and_can_be_replaced(&cloud, &config, &token).await;
        }
    }
    assert!(before_the_write > 0 && after_it > 0, "both are covered");
    if !grace.is_zero() {
        the_store_is_usable(&cloud, &config).await;
    }
}

/// Checks the case that a killed process used up the refresh token and could not store the new one.
async fn a_lost_token_is_reported_and_can_be_replaced(cloud: &Cloud, config: &Path, token: &Path) {
    let yaml = fs::read_to_string(config).expect("it is there");
    let exporter = Exporter::serve(&yaml);
    let scrape = exporter
        .scrape_until("the loss is reported", |scrape| {
            scrape.value("lightfi_exporter_refresh_token_valid") == Some(0.0)
        })
        .await;
    assert_eq!(
        refused(&scrape),
        failures(&scrape, "invalid_grant"),
        "{}",
        scrape.body
    );
    let output = exporter.says("reason=invalid_grant").await;
    for word in ["damaged", "cannot read the token store"] {
        assert!(!output.contains(word), "{output}");
    }
    fs::write(token, cloud.simulator.replace_refresh_token()).expect("written");
    recovers(&exporter).await;
}

#[tokio::test]
async fn kills_around_the_write_leave_a_usable_store() {
    kills_around_the_write_leave_a_complete_store(30, Duration::from_secs(60)).await;
}

#[tokio::test]
async fn without_grace_a_kill_before_the_write_shows_as_invalid_grant() {
    kills_around_the_write_leave_a_complete_store(8, Duration::ZERO).await;
}

#[tokio::test]
#[ignore = "takes minutes: make test-long"]
async fn four_hundred_kills_around_the_write_leave_a_usable_store() {
    kills_around_the_write_leave_a_complete_store(400, Duration::from_secs(60)).await;
    kills_around_the_write_leave_a_complete_store(60, Duration::ZERO).await;
}

// Two processes.

async fn two_exporters_share_a_store(time: Duration, grace: Duration) {
    let cloud = Cloud::start(Options {
        rotation_grace: grace,
        token_lifetime: Duration::from_secs(8),
        ..rotating()
    })
    .await;
    let directory = TempDir::new().expect("a temporary directory");
    let store = directory.path().join("store.json");
    let config = cloud.config_with_store(&store, COLLECT);
    let exporters = [Exporter::serve(&config), Exporter::serve(&config)];
    for exporter in &exporters {
        wait_for_good_collection(exporter).await;
    }
    let start = Instant::now();
    while start.elapsed() < time {
        for exporter in &exporters {
            let scrape = exporter.scrape().await;
            let output = exporter.output();
            assert_eq!(scrape.value("lightfi_up"), Some(1.0), "{output}");
            assert_eq!(api_failures(&scrape), 0.0, "{output}");
            stored(&store);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for exporter in &exporters {
        let scrape = exporter.scrape().await;
        assert!(refreshes(&scrape) >= 2.0, "{}", scrape.body);
        assert_eq!(refused(&scrape), failures(&scrape, "invalid_grant"));
        if !grace.is_zero() {
            assert_eq!(refused(&scrape), 0.0, "{}", exporter.output());
        }
    }
}

#[tokio::test]
async fn two_exporters_with_one_store_both_keep_working() {
    let time = Duration::from_secs(12);
    tokio::join!(
        two_exporters_share_a_store(time, Duration::from_secs(60)),
        two_exporters_share_a_store(time, Duration::ZERO),
    );
}

#[tokio::test]
#[ignore = "takes two minutes: make test-long"]
async fn two_exporters_with_one_store_both_keep_working_for_two_minutes() {
    let time = Duration::from_secs(120);
    two_exporters_share_a_store(time, Duration::from_secs(60)).await;
}

// Recovery.

fn failures(scrape: &Scrape, reason: &str) -> f64 {
    scrape
        .value(&format!(
            "lightfi_exporter_token_refresh_failures_total{{reason=\"{reason}\"}}"
        ))
        .expect("it is a known reason")
}

async fn recovers(exporter: &Exporter) -> Scrape {
    let corrected = Instant::now();
    let scrape = wait_for_good_collection(exporter).await;
    assert!(
        corrected.elapsed() < RECOVERY,
        "recovery took {:?}:\n{}",
        corrected.elapsed(),
        exporter.output()
    );
    scrape
}

/// Returns the log lines that contain this text.
fn log_lines(exporter: &Exporter, words: &str) -> Vec<String> {
    let output = exporter.output();
    let lines = output.lines().filter(|line| line.contains(words));
    lines.map(str::to_owned).collect()
}

/// Starts a failure in a good state and ends it: it is logged once, counted under its reason, retried with restraint, and
/// no reading is lost.
async fn fails_and_recovers(
    what: &str,
    exporter: &Exporter,
    (reason, sentence): (&str, &str),
    start: impl AsyncFnOnce(),
    end: impl AsyncFnOnce(),
) {
    let readings = |scrape: &Scrape| {
        let families = ["lightfi_temperature_celsius", "lightfi_battery_ratio"];
        families.map(|family| scrape.series_of(family).len())
    };
    let good = readings(&wait_for_good_collection(exporter).await);
    assert_ne!(good, [0, 0]);
    start().await;
    let started = Instant::now();
    let mut down_since = None;
    loop {
        let scrape = exporter.scrape().await;
        assert_eq!(readings(&scrape), good, "{what}: readings stay");
        // The valid token is used until its end; then some collections have none.
        if scrape.value("lightfi_up") == Some(0.0) {
            let since = *down_since.get_or_insert_with(Instant::now);
            if since.elapsed() > Duration::from_millis(2500) {
                break;
            }
        }
        assert!(
            started.elapsed() < Duration::from_secs(15),
            "{what}: the token must have ended:\n{}",
            exporter.output()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let bad = exporter.scrape().await;
    assert_eq!(exporter.get("/-/healthy").await.status(), 200, "{what}");
    let counted = failures(&bad, reason);
    assert_eq!(counted, refused(&bad), "{what}: no other reason");
    // At 0, 1, 3, 7 s and so on, less the jitter; once where only new credentials help.
    assert!((1.0..=6.0).contains(&counted), "{what}: {counted} requests");
    let lines = log_lines(exporter, "token refresh failed");
    assert_eq!(lines.len(), 1, "{what}: {lines:?}");
    assert!(
        lines[0].contains(&format!("reason={reason}")) && lines[0].contains(sentence),
        "{what}: {lines:?}"
    );
    let valid = bad.value("lightfi_exporter_refresh_token_valid");
    assert_eq!(valid == Some(0.0), reason == "invalid_grant", "{what}");
    end().await;
    let scrape = recovers(exporter).await;
    assert_eq!(
        scrape.value("lightfi_exporter_refresh_token_valid"),
        Some(1.0),
        "{what}"
    );
    exporter.says("token refresh recovered").await;
    let ended = log_lines(exporter, "token refresh recovered");
    assert_eq!(ended.len(), 1, "{what}: {ended:?}");
    let lines = log_lines(exporter, "token refresh failed");
    assert_eq!(lines.len(), 1, "{what}: {lines:?}");
}

/// Tokens of four seconds, so that the current one ends soon after the failure starts.
fn short_lived() -> Options {
    Options {
        rotate_refresh_tokens: false,
        token_lifetime: Duration::from_secs(4),
        ..rotating()
    }
}

#[tokio::test]
async fn temporary_failures_of_the_endpoint_are_logged_once_and_recovered_from() {
    let no_token = "not a JSON object with an access_token";
    let faults = [
        ("error-500=token", "server_error", "answered 500"),
        ("slow=token", "timeout", "timed out"),
        ("html=token", "malformed", no_token),
        ("token-no-access-token", "malformed", no_token),
    ];
    join_all(faults.map(async |(fault, reason, sentence)| {
        let cloud = Cloud::start(short_lived()).await;
        let config = cloud.config(COLLECT);
        let config = config.replacen("api:\n", "api:\n  timeout: 1s\n", 1);
        let exporter = Exporter::serve(&config);
        let start = async || cloud.fault(fault, true);
        let end = async || cloud.fault(fault, false);
        fails_and_recovers(fault, &exporter, (reason, sentence), start, end).await;
    }))
    .await;
}

#[tokio::test]
async fn an_unreachable_endpoint_is_recovered_from() {
    let cloud = Cloud::start(short_lived()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let serve = |listener| {
        let end = CancellationToken::new();
        let simulator = cloud.simulator.clone();
        tokio::spawn(simulator.serve(listener, end.clone().cancelled_owned()));
        end
    };
    let config = cloud.config(COLLECT).replacen(
        &format!("token_url: \"{}/", cloud.url),
        &format!("token_url: \"http://{address}/"),
        1,
    );
    let running = serve(listener);
    let exporter = Exporter::serve(&config);
    let start = async || running.cancel();
    let end = async || {
        serve(
            TcpListener::bind(address)
                .await
                .expect("the port is free again"),
        );
    };
    fails_and_recovers(
        "dead endpoint",
        &exporter,
        ("connect", "no access token"),
        start,
        end,
    )
    .await;
}

#[tokio::test]
async fn a_secret_that_kubernetes_replaces_ends_invalid_grant() {
    let cloud = Cloud::start(short_lived()).await;
    let directory = TempDir::new().expect("a temporary directory");
    let mount = directory.path();
    // Like the kubelet: a new directory, then the rename of the link that all paths lead through.
    let publish = |version: &str, token: &str| {
        fs::create_dir(mount.join(version)).expect("made");
        fs::write(mount.join(version).join("token"), token).expect("written");
        symlink(version, mount.join("..data_tmp")).expect("linked");
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("renamed");
    };
    publish("..2026_1", &cloud.simulator.newest_refresh_token());
    symlink("..data/token", mount.join("token")).expect("linked");
    let oauth = format!(
        "  refresh_token_file: \"{}\"\n",
        mount.join("token").display()
    );
    let exporter = Exporter::serve(&cloud.config_without_token(&oauth, COLLECT));
    let start = async || drop(cloud.simulator.replace_refresh_token());
    let known = ("invalid_grant", "the refresh token is not accepted");
    let end = async || {
        publish("..2026_2", &cloud.simulator.newest_refresh_token());
        fs::remove_dir_all(mount.join("..2026_1")).expect("removed");
    };
    fails_and_recovers("swapped secret", &exporter, known, start, end).await;
}

#[tokio::test]
async fn a_changed_store_ends_invalid_grant() {
    let cloud = Cloud::start(short_lived()).await;
    let directory = TempDir::new().expect("a temporary directory");
    let store = directory.path().join("store.json");
    let login = |token: &str| {
        // Like a login: complete, by a rename.
        let text = serde_json::json!({"version": 1, "refresh_token": token, "obtained_at": 1.8e9});
        let temporary = directory.path().join("temporary");
        fs::write(&temporary, text.to_string()).expect("written");
        fs::rename(&temporary, &store).expect("renamed");
    };
    login(&cloud.simulator.newest_refresh_token());
    let oauth = format!("  token_store: \"{}\"\n", store.display());
    let exporter = Exporter::serve(&cloud.config_without_token(&oauth, COLLECT));
    let start = async || drop(cloud.simulator.replace_refresh_token());
    let known = ("invalid_grant", "the refresh token is not accepted");
    let end = async || login(&cloud.simulator.newest_refresh_token());
    fails_and_recovers("changed store", &exporter, known, start, end).await;
}

#[tokio::test]
async fn a_corrected_secret_file_ends_the_invalid_client_state() {
    let cloud = Cloud::start(short_lived()).await;
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("secret");
    let secret = cloud.value("client_secret");
    fs::write(&file, &secret).expect("written");
    let exporter = Exporter::serve(&cloud.config(COLLECT).replacen(
        &format!("client_secret: \"{secret}\""),
        &format!("client_secret_file: \"{}\"", file.display()),
        1,
    ));
    let start = async || fs::write(&file, "not the secret").expect("written");
    let end = async || fs::write(&file, &secret).expect("written");
    let known = ("invalid_client", "the client id or secret is not accepted");
    fails_and_recovers("changed secret", &exporter, known, start, end).await;
}
