//! `check` and `sensors`: what a person asks before and beside running the exporter.

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
async fn check_says_what_is_listed_and_asks_nobody() {
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
async fn check_warns_of_what_would_keep_the_exporter_from_starting() {
    let cloud = floor().await;
    let directory = TempDir::new().expect("a temporary directory");
    let store = directory.path().join("store.json");
    std::fs::write(&store, "{").expect("written");
    let broken = cloud.config_with_store(&store, "");
    for (config, words) in [
        (broken, "store.json is no token store, or a broken one"),
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
async fn check_online_warns_where_it_has_used_up_a_token_that_rotates() {
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
async fn check_online_tells_of_each_step() {
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
    assert!(!out.contains('\u{1b}'), "no colours off a terminal");
}

#[tokio::test]
async fn check_online_names_what_fails() {
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
            && !out.contains("by itself"),
        "{out}"
    );
    assert!(
        !out.contains("collection:"),
        "without a token nothing is asked for\n{out}"
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
                "note    routes: GET /openapi.json, the API's document, cannot be had: HTTP 404",
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
async fn check_health_asks_the_exporter_that_runs() {
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
async fn a_reader_that_has_seen_enough_of_the_sensors_is_no_failure() {
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
async fn sensors_are_listed_in_three_forms() {
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

    // What is pasted under `sensors:` is a configuration that reads the same sensors.
    let (_, yaml, _) = run(&cloud.config(""), &["sensors", "--output", "yaml"]).await;
    let config = cloud.config("");
    let (oauth, _) = config.split_once("locations:").expect("it lists locations");
    let (code, out, err) = run(&format!("{oauth}sensors:\n{yaml}"), &["check", "--online"]).await;
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("20 of 20 sensors read"), "{out}");
}

#[tokio::test]
async fn without_locations_the_whole_account_is_listed() {
    let cloud = floor().await;
    let config = cloud.config("");
    let (oauth, _) = config.split_once("locations:").expect("it lists locations");
    let (code, table, _) = run(oauth, &["sensors"]).await;
    assert_eq!((code, table.lines().count()), (Some(0), 21), "{table}");
}

#[tokio::test]
async fn a_list_that_is_not_whole_is_a_failure() {
    let cloud = floor().await;
    cloud.fault("error-500", true);
    let (code, out, err) = run(&cloud.config(""), &["sensors", "--output=json"]).await;
    assert_eq!((code, out.trim()), (Some(1), "[]"));
    assert!(err.contains("the base location: HTTP 500"), "{err}");
}

/// What a command shows on a terminal.
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
async fn a_terminal_gets_colours_and_a_progress_bar() {
    let cloud = Cloud::start(Options {
        sensors: 100,
        latency: Duration::from_millis(100),
        listing: Listing::Locations,
        ..Options::default()
    })
    .await;
    let shown = on_a_terminal(&cloud.config(""), "check").await;
    assert!(shown.contains("\u{1b}[32mok"), "{shown:?}");
    let shown = on_a_terminal(&cloud.config(""), "sensors").await;
    assert!(
        shown.contains(" locations") && shown.contains("SENSOR"),
        "{shown:?}"
    );
    let (_, out, err) = run(&cloud.config(""), &["sensors"]).await;
    assert!(!out.contains(" locations") && err.is_empty(), "{err}");
}
