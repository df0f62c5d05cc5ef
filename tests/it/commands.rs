//! `check` and `sensors` with the real binary and the simulated cloud.

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use axum::{Router, routing::get};
use lightfi_simulator::{Listing, Options};
use tempfile::TempDir;

use crate::{
    cloud::Cloud,
    exporter::{Exporter, command, coverage},
    odd_cloud::{self, GOOD},
};

/// Runs a command against `config` while the cloud answers.
async fn run(config: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("lightfi-exporter.yaml");
    std::fs::write(&file, config).expect("written");
    let mut command = command();
    command.args(arguments).arg("--config.file").arg(&file);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic");
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes text");
    (status.code(), text(stdout), text(stderr))
}

async fn floor() -> Cloud {
    Cloud::start(Options {
        sensors: 20,
        listing: Listing::Locations,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn check_validates_the_configuration_without_any_request() {
    let cloud = floor().await;
    let (code, out, _) = run(&cloud.config(""), &["check"]).await;
    assert_eq!(code, Some(0));
    assert_eq!(
        out,
        "ok      configuration: valid: 0 sensors and 1 locations listed\n"
    );
    assert_eq!(cloud.simulator.requests().token_granted, 0);
}

#[tokio::test]
async fn check_warns_if_the_exporter_would_not_start_on_this_machine() {
    let cloud = floor().await;
    let directory = TempDir::new().expect("a temporary directory");
    let store = directory.path().join("store.json");
    std::fs::write(&store, "{").expect("written");
    let broken = cloud.config_with_store(&store, "");
    for (config, words) in [
        (broken, "store.json is not a token store or is damaged"),
        (
            cloud.config_with_store(&directory.path().join("missing/store.json"), ""),
            "cannot write ",
        ),
    ] {
        let (code, out, _) = run(&config, &["check"]).await;
        assert_eq!(code, Some(0), "{out}");
        let warning = "warning start: the exporter would not start here: ";
        assert!(out.contains(warning) && out.contains(words), "{out}");
    }
    assert_eq!(std::fs::read_to_string(&store).expect("it is there"), "{");
}

#[tokio::test]
async fn check_online_warns_if_it_has_used_a_rotating_token_without_a_token_store() {
    let cloud = Cloud::start(Options {
        sensors: 5,
        rotate_refresh_tokens: true,
        ..Options::default()
    })
    .await;
    let (code, out, _) = run(&cloud.config(""), &["check", "--online"]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("warning token: the server rotates refresh tokens")
            && out.contains("summary: everything works, 1 warning"),
        "{out}"
    );
    let directory = TempDir::new().expect("a temporary directory");
    let config = cloud.config_with_store(&directory.path().join("store.json"), "");
    let (code, out, _) = run(&config, &["check", "--online"]).await;
    assert_eq!((code, out.contains("warning")), (Some(0), false), "{out}");
}

#[tokio::test]
async fn check_online_reports_each_step() {
    let cloud = floor().await;
    let (code, out, _) = run(&cloud.config(""), &["check", "--online"]).await;
    assert_eq!(code, Some(0), "{out}");
    for line in [
        "ok      token: lives 4h, renewed 1m before its end",
        "ok      collection: 20 of 20 sensors read in",
        "ok      routes: all in the API's document",
        "ok      summary: everything works",
        "temperatureC",
    ] {
        assert!(out.contains(line), "no {line:?} in\n{out}");
    }
}

#[tokio::test]
async fn check_online_reports_failures_and_ends_with_1() {
    let cloud = floor().await;
    cloud.fault("malformed", true);
    let (code, out, err) = run(&cloud.config(""), &["check", "--online"]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("failed  the base location: GET /locations: the JSON ends early"),
        "{out}"
    );
    assert!(err.contains("2 checks failed"), "{err}");
    cloud.fault("malformed", false);
    cloud.fault("token-revoked", true);
    let (code, out, _) = run(&cloud.config(""), &["check", "--online"]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("failed  token: the refresh token is not accepted")
            && !out.contains("automatically"),
        "{out}"
    );
    assert!(
        !out.contains("collection:"),
        "there is no collection without a token\n{out}"
    );
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
                "warning routes: GET /locations/{}/ is not in the API's document",
                "warning routes: GET /locations is not in the API's document",
                "summary: everything works, 2 warnings",
            ][..],
        ),
        (
            sensor,
            &[
                "note    routes: cannot get the API's document, GET /openapi.json: HTTP 404",
                "summary: everything works\n",
            ],
        ),
    ] {
        let config = odd_cloud::serve(routes, Duration::ZERO).await + "sensors: [A]\n";
        let (code, out, _) = run(&config, &["check", "--online"]).await;
        assert_eq!(code, Some(0), "{out}");
        for line in lines {
            assert!(out.contains(line), "no {line:?} in\n{out}");
        }
        assert_eq!(out.matches("routes:").count(), lines.len() - 1, "{out}");
    }
}

#[tokio::test]
async fn check_health_asks_a_running_exporter() {
    let demo = Exporter::demo(&["--sensors=2"]);
    demo.scrape().await;
    for (path, expected, words) in [
        ("", 0, "healthy\n"),
        ("/", 0, "healthy\n"),
        ("/-/ready", 0, "healthy\n"),
        ("/absent", 1, "/absent answers 404 Not Found"),
    ] {
        let health = format!("--health={}{path}", demo.url);
        let Output {
            status,
            stdout,
            stderr,
        } = command()
            .args(["check", &health])
            .output()
            .expect("the binary starts");
        assert_eq!(status.code(), Some(expected), "{path}");
        let said = [stdout, stderr].concat();
        let said = String::from_utf8(said).expect("it writes text");
        assert!(said.contains(words), "{path}: {said}");
    }
}

#[tokio::test]
async fn a_file_far_larger_than_any_configuration_is_not_read() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("endless.yaml");
    let endless = std::fs::File::create(&file).expect("created");
    endless.set_len((128 << 20) + 1).expect("it takes no room");
    let output = command()
        .args(["check", "--config.file"])
        .arg(&file)
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("endless.yaml: cannot be read: larger than 134217728 bytes"),
        "{said}"
    );
}

#[tokio::test]
async fn sensors_accepts_that_its_output_is_closed_early() {
    let cloud = floor().await;
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("lightfi-exporter.yaml");
    std::fs::write(&file, cloud.config("")).expect("written");
    let mut command = command();
    command.arg("sensors").arg("--config.file").arg(&file);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    drop(child.stdout.take());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = output.await.expect("no panic").expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn sensors_lists_the_locations_as_table_json_and_yaml() {
    let cloud = floor().await;
    let (code, table, _) = run(&cloud.config(""), &["sensors"]).await;
    assert_eq!(code, Some(0));
    assert_eq!(table.lines().count(), 21, "{table}");
    assert!(table.starts_with("SENSOR"), "{table}");

    let (_, json, _) = run(&cloud.config(""), &["sensors", "--output", "json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let listed = listed.as_array().expect("a list");
    assert_eq!(listed.len(), 20);
    for key in [
        "id",
        "name",
        "location",
        "location_id",
        "model",
        "variables",
        "age_seconds",
    ] {
        assert!(
            listed.iter().all(|sensor| sensor.get(key).is_some()),
            "no {key} in\n{json}"
        );
    }

    // With the YAML under `sensors:`, the same sensors are read without locations.
    let (_, yaml, _) = run(&cloud.config(""), &["sensors", "--output", "yaml"]).await;
    let config = cloud.config("");
    let (oauth, _) = config.split_once("locations:").expect("it lists locations");
    let (code, out, err) = run(&format!("{oauth}sensors:\n{yaml}"), &["check", "--online"]).await;
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("20 of 20 sensors read"), "{out}");
}

#[tokio::test]
async fn sensors_lists_the_whole_account_if_no_location_is_configured() {
    let cloud = floor().await;
    let config = cloud.config("");
    let (oauth, _) = config.split_once("locations:").expect("it lists locations");
    let (code, table, _) = run(oauth, &["sensors"]).await;
    assert_eq!((code, table.lines().count()), (Some(0), 21), "{table}");
}

#[tokio::test]
async fn sensors_fails_if_the_list_is_incomplete() {
    let cloud = floor().await;
    cloud.fault("error-500", true);
    let (code, out, err) = run(&cloud.config(""), &["sensors", "--output=json"]).await;
    assert_eq!((code, out.trim()), (Some(1), "[]"));
    assert!(err.contains("the base location: HTTP 500"), "{err}");
}

/// Returns what a command shows on a terminal.
async fn on_a_terminal(config: &str, arguments: &str) -> String {
    let directory = TempDir::new().expect("a temporary directory");
    std::fs::write(directory.path().join("lightfi-exporter.yaml"), config).expect("written");
    let mut terminal = Command::new("script");
    terminal
        .args(["--quiet", "--return", "--command"])
        .arg(format!(
            "{} {arguments}",
            env!("CARGO_BIN_EXE_lightfi-exporter")
        ))
        .arg("/dev/null")
        .current_dir(directory.path())
        .env_clear()
        .envs([("TERM", "xterm"), ("PATH", "/usr/bin:/bin")])
        .envs(coverage())
        .stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || terminal.output()).await;
    let output = ended
        .expect("no panic")
        .expect("util-linux has script on every Linux");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn sensors_shows_its_progress_on_a_terminal_only() {
    let cloud = Cloud::start(Options {
        sensors: 100,
        latency: Duration::from_millis(100),
        listing: Listing::Locations,
        ..Options::default()
    })
    .await;
    let shown = on_a_terminal(&cloud.config(""), "sensors").await;
    assert!(
        shown.contains(" locations") && shown.contains("SENSOR"),
        "{shown:?}"
    );
    let (_, out, err) = run(&cloud.config(""), &["sensors"]).await;
    assert!(!out.contains(" locations") && err.is_empty(), "{err}");
}
