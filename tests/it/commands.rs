//! `check` and `sensors`, run as the real binary against the simulated cloud.

use std::{
    fs::{self, File},
    process::{Command, Output, Stdio},
    time::Duration,
};

use axum::{Router, routing::get};
use lightfi_simulator::{Listing, Options};
use tempfile::TempDir;

use crate::{
    cloud::Cloud,
    exporter::{self, Exporter, command},
    odd_cloud::{self, GOOD},
};

/// The output of a command, and how it ended.
struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Finished {
    fn assert_ended_with(&self, code: i32) {
        let Self { stdout, stderr, .. } = self;
        assert_eq!(self.code, Some(code), "{stdout}{stderr}");
    }

    fn assert_printed(&self, text: &str) {
        let stdout = &self.stdout;
        assert!(stdout.contains(text), "no {text:?} in\n{stdout}");
    }
}

/// Returns a command that uses the configuration, and the directory of its file.
fn command_with(config: &str, arguments: &[&str]) -> (Command, TempDir) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("lightfi-exporter.yaml");
    fs::write(&file, config).unwrap();
    let mut command = command();
    command.args(arguments).arg("--config.file").arg(&file);
    (command, directory)
}

/// Runs a command with the configuration, while this process serves the cloud.
async fn run(config: &str, arguments: &[&str]) -> Finished {
    let (mut command, _directory) = command_with(config, arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.unwrap().unwrap().into()
}

/// Returns a configuration of the cloud without its sensors and locations.
fn without_targets(cloud: &Cloud) -> String {
    let config = cloud.config("");
    let (head, _) = config.split_once("locations:").unwrap();
    head.to_owned()
}

/// A cloud whose configuration lists the base location only.
async fn cloud() -> Cloud {
    Cloud::start(Options {
        sensors: 20,
        listing: Listing::Locations,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn check_validates_the_configuration_without_sending_a_request() {
    let cloud = cloud().await;
    let check = run(&cloud.config(""), &["check"]).await;
    check.assert_ended_with(0);
    assert_eq!(
        check.stdout,
        "ok      configuration: valid: 0 sensors and 1 locations listed\n"
    );
    assert_eq!(cloud.simulator.requests().token_granted, 0);
}

#[tokio::test]
async fn check_warns_if_the_exporter_would_not_start_on_this_machine() {
    let cloud = cloud().await;
    let directory = TempDir::new().unwrap();
    let damaged = directory.path().join("store.json");
    fs::write(&damaged, "{").unwrap();
    for (store, expected) in [
        (damaged.clone(), "is not a token store or is damaged"),
        (directory.path().join("missing/store.json"), "cannot write "),
    ] {
        let check = run(&cloud.config_with_store(&store, ""), &["check"]).await;
        check.assert_ended_with(0);
        check.assert_printed("warning start: the exporter would not start here: ");
        check.assert_printed(expected);
    }
    let unchanged = fs::read_to_string(&damaged).unwrap();
    assert_eq!(unchanged, "{");
}

#[tokio::test]
async fn check_online_reports_each_step() {
    let cloud = cloud().await;
    let check = run(&cloud.config(""), &["check", "--online"]).await;
    check.assert_ended_with(0);
    for line in [
        "ok      token: valid for 4h, renewed 1m before it expires",
        "ok      collection: 20 of 20 sensors read in",
        "ok      routes: all in the API's OpenAPI document",
        "ok      summary: everything works",
        "temperatureC",
    ] {
        check.assert_printed(line);
    }
}

#[tokio::test]
async fn check_online_warns_if_a_rotated_refresh_token_cannot_be_stored() {
    let cloud = Cloud::start(Options {
        sensors: 5,
        rotate_refresh_tokens: true,
        ..Options::default()
    })
    .await;
    let check = run(&cloud.config(""), &["check", "--online"]).await;
    check.assert_ended_with(0);
    check.assert_printed("warning token: the server rotates refresh tokens");
    check.assert_printed("summary: everything works, 1 warning");

    let directory = TempDir::new().unwrap();
    let config = cloud.config_with_store(&directory.path().join("store.json"), "");
    let check = run(&config, &["check", "--online"]).await;
    check.assert_ended_with(0);
    assert!(!check.stdout.contains("warning"), "{}", check.stdout);
}

#[tokio::test]
async fn check_online_reports_failures_and_ends_with_1() {
    let cloud = cloud().await;
    cloud.fault("malformed", true);
    let check = run(&cloud.config(""), &["check", "--online"]).await;
    check.assert_ended_with(1);
    check.assert_printed("failed  the base location: GET /locations: invalid JSON");
    assert!(check.stderr.contains("2 checks failed"), "{}", check.stderr);

    cloud.fault("malformed", false);
    cloud.fault("token-revoked", true);
    let check = run(&cloud.config(""), &["check", "--online"]).await;
    check.assert_ended_with(1);
    check.assert_printed("failed  token: the refresh token is not accepted");
    for absent in ["automatically", "collection:"] {
        assert!(!check.stdout.contains(absent), "{}", check.stdout);
    }
}

#[tokio::test]
async fn check_online_compares_the_routes_with_the_document_of_the_api() {
    const DOCUMENT: &str =
        r#"{"paths": {"/sensors/{sensor_id}": {"get": {}}, "/locations": {"post": {}}}}"#;
    let sensor = Router::new().route("/sensors/{id}", get(async || GOOD));
    let documented = sensor
        .clone()
        .route("/openapi.json", get(async || DOCUMENT));
    for (routes, lines) in [
        (
            documented,
            &[
                "warning routes: GET /locations/{}/ is not in the API's OpenAPI document",
                "warning routes: GET /locations is not in the API's OpenAPI document",
                "summary: everything works, 2 warnings",
            ][..],
        ),
        (
            sensor,
            &[
                "note    routes: cannot get the API's OpenAPI document, GET /openapi.json: the API answered HTTP 404",
                "summary: everything works\n",
            ],
        ),
    ] {
        let config = odd_cloud::serve(routes, Duration::ZERO).await + "sensors: [A]\n";
        let check = run(&config, &["check", "--online"]).await;
        check.assert_ended_with(0);
        for line in lines {
            check.assert_printed(line);
        }
        assert_eq!(check.stdout.matches("routes:").count(), lines.len() - 1);
    }
}

#[tokio::test]
async fn check_health_asks_a_running_exporter() {
    let demo = Exporter::demo(&["--sensors=2"]);
    demo.scrape().await;
    for (path, code, expected) in [
        ("", 0, "healthy\n"),
        ("/", 0, "healthy\n"),
        ("/-/ready", 0, "healthy\n"),
        ("/absent", 1, "/absent answered 404 Not Found"),
    ] {
        let health = format!("--health={}{path}", demo.url);
        let check = Finished::from(exporter::run(&["check", &health]));
        check.assert_ended_with(code);
        let output = check.stdout + &check.stderr;
        assert!(output.contains(expected), "{path}: {output}");
    }
}

#[test]
fn a_file_that_is_far_too_large_for_a_configuration_is_not_read() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("endless.yaml");
    // The file is sparse, so it needs no space on the disk.
    let endless = File::create(&file).unwrap();
    endless.set_len((128 << 20) + 1).unwrap();
    let file = file.to_str().unwrap();
    let check = Finished::from(exporter::run(&["check", "--config.file", file]));
    check.assert_ended_with(2);
    let expected = "endless.yaml: cannot be read: larger than 134217728 bytes";
    assert!(check.stderr.contains(expected), "{}", check.stderr);
}

#[tokio::test]
async fn sensors_lists_the_locations_as_table_json_and_yaml() {
    let cloud = cloud().await;
    let table = run(&cloud.config(""), &["sensors"]).await;
    table.assert_ended_with(0);
    assert_eq!(table.stdout.lines().count(), 21, "{}", table.stdout);
    assert!(table.stdout.starts_with("SENSOR"), "{}", table.stdout);

    let json = run(&cloud.config(""), &["sensors", "--output", "json"]).await;
    let list: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let sensors = list.as_array().unwrap();
    assert_eq!(sensors.len(), 20);
    for key in [
        "id",
        "name",
        "location",
        "location_id",
        "model",
        "variables",
        "age_seconds",
    ] {
        let has_key = |sensor: &serde_json::Value| sensor.get(key).is_some();
        assert!(sensors.iter().all(has_key), "no {key} in\n{list}");
    }

    // With the YAML under `sensors:`, the same sensors are read without locations.
    let yaml = run(&cloud.config(""), &["sensors", "--output", "yaml"]).await;
    let config = format!("{}sensors:\n{}", without_targets(&cloud), yaml.stdout);
    let check = run(&config, &["check", "--online"]).await;
    check.assert_ended_with(0);
    check.assert_printed("20 of 20 sensors read");
}

#[tokio::test]
async fn sensors_lists_the_whole_account_if_no_location_is_configured() {
    let cloud = cloud().await;
    let table = run(&without_targets(&cloud), &["sensors"]).await;
    table.assert_ended_with(0);
    assert_eq!(table.stdout.lines().count(), 21, "{}", table.stdout);
}

#[tokio::test]
async fn sensors_fails_if_the_list_is_incomplete() {
    let cloud = cloud().await;
    cloud.fault("error-500", true);
    let list = run(&cloud.config(""), &["sensors", "--output=json"]).await;
    list.assert_ended_with(1);
    assert_eq!(list.stdout.trim(), "[]");
    let expected = "the base location: the API answered HTTP 500";
    assert!(list.stderr.contains(expected), "{}", list.stderr);
}

#[tokio::test]
async fn sensors_accepts_that_its_output_is_closed_early() {
    let cloud = cloud().await;
    let (mut command, _directory) = command_with(&cloud.config(""), &["sensors"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
    let output = output.unwrap().unwrap();
    let list = Finished::from(output);
    list.assert_ended_with(0);
    assert_eq!(list.stderr, "");
}
