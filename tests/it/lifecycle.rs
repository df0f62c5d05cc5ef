//! From start to stop: exit codes, health, first moments, signals, connections.

use std::{net::TcpListener, time::Duration};

use lightfi_simulator::Options;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    cloud::Cloud,
    exporter::{Exporter, command, run},
};

#[test]
fn exit_codes_tell_usage_from_failure() {
    let code = |arguments: &[&str]| run(arguments).status.code();
    assert_eq!(code(&["--version"]), Some(0));
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["--no-such-flag"]), Some(2));
    assert_eq!(code(&["--config.file=no-such-file.yaml"]), Some(2));
    assert_eq!(code(&["check", "--config.file=no-such-file.yaml"]), Some(2));
    assert_eq!(code(&["simulate", "--fault=nonsense"]), Some(2));
    assert_eq!(code(&["simulate", "--listen=nonsense"]), Some(2));
    assert_eq!(code(&["check", "--health=http://127.0.0.1:1"]), Some(1));
}

#[test]
fn a_port_in_use_is_a_failure_that_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken
        .local_addr()
        .expect("a bound listener has an address")
        .to_string();
    let output = run(&["demo", "--web.listen-address", &address]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains(&format!("cannot listen on {address} (web.listen_address)")),
        "{said}"
    );
}

#[test]
fn a_bad_configuration_is_found_before_a_port_is_bound() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("bad.yaml");
    std::fs::write(&file, "colect: {}\n").expect("written");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken
        .local_addr()
        .expect("a bound listener has an address")
        .to_string();
    let file = file.to_str().expect("a plain path");
    let output = run(&["--config.file", file, "--web.listen-address", &address]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn with_a_dead_api_it_serves_its_own_metrics_and_recovers_by_itself() {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let options = || Options {
        sensors: 10,
        ..Options::default()
    };
    let there = Cloud::start_on(options(), &format!("127.0.0.1:{port}")).await;
    let config = there.config("collect: {interval: 1s}\n");
    drop(there);
    tokio::time::sleep(Duration::from_millis(100)).await;

    let exporter = Exporter::serve(&config);
    let scrape = exporter.scrape_until("a failed collection", |scrape| {
        scrape
            .value("lightfi_collect_sensors_failed")
            .is_some_and(|failed| failed > 0.0)
    });
    let scrape = scrape.await;
    assert_eq!(scrape.value("lightfi_up"), Some(0.0));
    assert_eq!(
        scrape.value("lightfi_exporter_refresh_token_valid"),
        Some(1.0)
    );
    assert_eq!(
        scrape.value("lightfi_collect_last_success_timestamp_seconds"),
        None
    );
    assert!(scrape.series_of("lightfi_temperature_celsius").is_empty());
    assert_eq!(exporter.get("/-/healthy").await.status(), 200);
    assert_eq!(
        exporter.get("/-/ready").await.status(),
        200,
        "a failed first collection is one that has ended"
    );

    let _there = Cloud::start_on(options(), &format!("127.0.0.1:{port}")).await;
    let scrape = exporter
        .scrape_until("recovery", |scrape| scrape.value("lightfi_up") == Some(1.0))
        .await;
    assert!(!scrape.series_of("lightfi_temperature_celsius").is_empty());
}

#[tokio::test]
async fn in_the_first_moments_it_shows_only_itself() {
    let cloud = Cloud::start(Options {
        sensors: 10,
        ..Options::default()
    })
    .await;
    cloud.fault("hang", true);
    let exporter = Exporter::serve(&cloud.config("collect: {interval: 60s}\n"));
    assert_eq!(exporter.get("/-/ready").await.status(), 503);
    assert_eq!(exporter.get("/-/healthy").await.status(), 200);
    let client = crate::tools::client().no_proxy().build().expect("a client");
    let request = client
        .get(format!("{}/metrics", exporter.url))
        .header("X-Prometheus-Scrape-Timeout-Seconds", "1");
    let start = std::time::Instant::now();
    let body = request
        .send()
        .await
        .expect("it answers")
        .text()
        .await
        .expect("a whole body");
    let took = start.elapsed();
    assert!(
        took > Duration::from_millis(400) && took < Duration::from_millis(950),
        "{took:?}"
    );
    let scrape = crate::exporter::Scrape::parse(body);
    assert_eq!(scrape.value("lightfi_up"), Some(0.0));
    assert_eq!(
        scrape.value("lightfi_exporter_refresh_token_valid"),
        Some(1.0)
    );
    assert_eq!(
        scrape.value("lightfi_collect_last_success_timestamp_seconds"),
        None
    );
    assert!(!scrape.body.contains("sensor_id="), "{}", scrape.body);
}

#[tokio::test]
async fn sigterm_ends_it_well_and_soon() {
    for signal in ["TERM", "INT"] {
        let mut exporter = Exporter::demo(&["--sensors=10"]);
        exporter.scrape().await;
        // A connection kept alive must not hold it.
        let _idle = TcpStream::connect(exporter.url.trim_start_matches("http://"))
            .await
            .expect("it listens");
        exporter.signal(signal);
        assert_eq!(
            exporter.wait(Duration::from_secs(5)),
            Some(0),
            "{}",
            exporter.output()
        );
    }
}

#[tokio::test]
async fn a_file_that_hangs_does_not_hold_up_the_end() {
    let cloud = Cloud::start(Options {
        sensors: 10,
        token_lifetime: Duration::from_secs(2),
        ..Options::default()
    })
    .await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("refresh-token");
    let config = cloud.config("");
    let token = config
        .lines()
        .find_map(|line| line.trim().strip_prefix("refresh_token: "))
        .expect("the configuration has a refresh token");
    std::fs::write(&file, token.trim_matches('"')).expect("written");
    let mut exporter = Exporter::serve(&config.replace(
        &format!("refresh_token: {token}"),
        &format!("refresh_token_file: {}", file.display()),
    ));
    exporter
        .scrape_until("a token", |scrape| scrape.value("lightfi_up") == Some(1.0))
        .await;
    std::fs::remove_file(&file).expect("removed");
    // Whoever reads a pipe without a writer waits for ever, as on a network share that is away.
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.expect("mkfifo runs").success());
    tokio::time::sleep(Duration::from_secs(2)).await;
    exporter.signal("TERM");
    assert_eq!(exporter.wait(Duration::from_secs(5)), Some(0));
}

#[tokio::test]
async fn a_scrape_in_flight_at_the_end_is_answered() {
    let cloud = Cloud::start(Options {
        sensors: 10,
        ..Options::default()
    })
    .await;
    cloud.fault("slow", true);
    let mut exporter = Exporter::serve(&cloud.config("collect: {interval: 60s, mode: scrape}\n"));
    let url = format!("{}/metrics", exporter.url);
    let scrape = tokio::spawn(async move {
        let client = crate::tools::client().no_proxy().build().expect("a client");
        client
            .get(url)
            .header("X-Prometheus-Scrape-Timeout-Seconds", "3")
            .send()
            .await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    exporter.signal("TERM");
    let response = scrape.await.expect("no panic").expect("it is answered");
    assert_eq!(response.status(), 200);
    assert_eq!(exporter.wait(Duration::from_secs(5)), Some(0));
}

#[tokio::test]
async fn it_listens_where_it_is_told() {
    let cloud = Cloud::start(Options {
        sensors: 10,
        ..Options::default()
    })
    .await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("lightfi-exporter.yaml");
    std::fs::write(&file, cloud.config("")).expect("written");
    let mut command = command();
    command.arg("--config.file").arg(&file);
    command.args([
        "--web.listen-address=127.0.0.1:0",
        "serve",
        "--web.listen-address=[::1]:0",
        "--web.listen-address=localhost:0",
    ]);
    let exporter = Exporter::spawn(command, directory);
    // Flags after the command win over those before it.
    assert!(
        exporter.url.starts_with("http://[::1]:"),
        "{}",
        exporter.url
    );
    assert_eq!(exporter.get("/healthz").await.status(), 200);
    exporter.scrape().await;
    assert_eq!(exporter.get("/readyz").await.status(), 200);
}

/// On a machine with one CPU a scrape would otherwise wait while the next snapshot is made.
#[tokio::test]
async fn the_threads_beside_the_one_that_serves_give_way_to_it() {
    let exporter = Exporter::demo(&[]);
    exporter.scrape().await;
    let pid = exporter.pid();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let mut niceness: Vec<(bool, i32)> = threads
        .map(|thread| {
            let thread = thread.expect("a thread");
            let stat = std::fs::read_to_string(thread.path().join("stat")).expect("it lives");
            // proc_pid_stat(5): the 19th field, and the 3rd follows the name.
            let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
            let nice = fields.split(' ').nth(16).expect("nice");
            let serves = *thread.file_name() == *pid.to_string();
            (serves, nice.parse().expect("a number"))
        })
        .collect();
    niceness.sort_unstable();
    niceness.dedup();
    let (_, serving) = niceness[niceness.len() - 1];
    // 19 is the nicest there is.
    assert_eq!(niceness, [(false, 19.min(serving + 10)), (true, serving)]);
}

#[tokio::test]
async fn logs_are_json_where_asked_for() {
    let demo = Exporter::demo(&["--log.format=json", "--sensors=10"]);
    let output = demo.output();
    let lines = output.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["level"] == "INFO" && line["message"] == "listening"),
        "{output}"
    );
}

#[tokio::test]
async fn only_get_and_head_are_answered_and_oversized_requests_are_refused() {
    let demo = Exporter::demo(&["--sensors=10"]);
    let client = crate::tools::client()
        .no_proxy()
        .no_gzip()
        .build()
        .expect("a client");
    let status = |request: reqwest::RequestBuilder| async {
        request.send().await.expect("it answers").status()
    };
    assert_eq!(
        status(client.delete(format!("{}/nothing", demo.url))).await,
        405
    );
    for path in ["/metrics", "/", "/-/healthy", "/-/ready"] {
        let url = format!("{}{path}", demo.url);
        assert_eq!(status(client.post(&url)).await, 405, "{path}");
        let head = client.head(&url).send().await.expect("it answers");
        assert_eq!(head.status(), 200, "{path}");
        assert!(head.headers().contains_key("content-length"), "{path}");
        assert!(!head.headers().contains_key("server"), "{path}");
    }
    assert_eq!(
        status(client.get(format!("{}/nothing", demo.url))).await,
        404
    );
    let long = "x".repeat(9000);
    assert_eq!(
        status(client.get(format!("{}/metrics?{long}", demo.url))).await,
        414
    );
    let huge = "x".repeat(70_000);
    assert_eq!(
        status(
            client
                .get(format!("{}/metrics", demo.url))
                .header("X-Huge", huge)
        )
        .await,
        431
    );
}

#[tokio::test]
async fn a_connection_serves_more_than_one_request() {
    let demo = Exporter::demo(&["--sensors=10"]);
    let address = demo.url.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("it listens");
    for _ in 0..2 {
        stream
            .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("it takes bytes");
        let mut answer = [0; 512];
        let length = stream.read(&mut answer).await.expect("it answers");
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
    }
}

#[tokio::test]
async fn a_crowd_larger_than_the_room_locks_no_scrape_out() {
    let demo = Exporter::demo(&["--sensors=10"]);
    let address = demo.url.trim_start_matches("http://").to_owned();
    // Half of them half-open, and some more than the 512 that have room.
    let mut crowd = Vec::new();
    for number in 0..530 {
        let mut stream = TcpStream::connect(&address).await.expect("it listens");
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /metr").await;
        }
        crowd.push(stream);
    }
    let start = std::time::Instant::now();
    demo.scrape().await;
    assert!(start.elapsed() < Duration::from_secs(2));
    // The newest of the crowd is served as well.
    let newest = crowd.last_mut().expect("a crowd");
    newest
        .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .expect("it takes bytes");
    let mut answer = [0; 512];
    let length = newest.read(&mut answer).await.expect("it answers");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn more_scrapes_than_allowed_are_refused_and_probes_are_not() {
    let cloud = Cloud::start(Options {
        sensors: 10,
        ..Options::default()
    })
    .await;
    cloud.fault("slow", true);
    let exporter = Exporter::serve_with(
        &cloud.config("collect: {mode: scrape}\n"),
        &["--web.max-requests=2"],
    );
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let url = format!("{}/metrics", exporter.url);
            tokio::spawn(async move {
                crate::tools::client()
                    .build()
                    .unwrap()
                    .get(url)
                    .send()
                    .await
                    .expect("it answers")
                    .status()
                    .as_u16()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(exporter.get("/metrics").await.status(), 503);
    assert_eq!(exporter.get("/-/healthy").await.status(), 200);
    for scrape in waiting {
        assert_eq!(scrape.await.expect("no panic"), 200);
    }
    assert_eq!(exporter.get("/metrics").await.status(), 200);
}

#[tokio::test]
async fn readiness_in_scrape_mode_comes_with_listening() {
    let cloud = Cloud::start(Options {
        sensors: 10,
        ..Options::default()
    })
    .await;
    let exporter = Exporter::serve(&cloud.config("collect: {mode: scrape}\n"));
    assert_eq!(exporter.get("/-/ready").await.status(), 200);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let requests = cloud.simulator.requests();
    assert_eq!(
        (requests.sensor, requests.location),
        (0, 0),
        "no request before the first scrape"
    );
}
