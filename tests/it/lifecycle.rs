//! Start and stop: exit codes, health, the first scrape, signals, connections.

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use lightfi_simulator::Options;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    cloud::Cloud,
    exporter::{Exporter, Scrape, command, run},
};

/// Returns a listener on a free port, and its address.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn exit_codes_distinguish_wrong_usage_from_failure() {
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
    let (_taken, address) = listener();
    let output = run(&["demo", &format!("--web.listen-address={address}")]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!("cannot listen on {address}: ");
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn a_bad_configuration_is_found_before_a_port_is_bound() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.yaml");
    std::fs::write(&file, "colect: {}\n").unwrap();
    let (_taken, address) = listener();
    let file = file.to_str().unwrap();
    let address = address.to_string();
    let output = run(&["--config.file", file, "--web.listen-address", &address]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn the_exporter_serves_while_the_api_is_down_and_recovers() {
    let address = listener().1.to_string();
    let cloud = Cloud::start_on(Options::default(), &address).await;
    let config = cloud.config("collect: {interval: 1s}\n");
    drop(cloud);
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
        "the first collection has ended, although it failed"
    );

    let _cloud = Cloud::start_on(Options::default(), &address).await;
    let scrape = exporter
        .scrape_until("recovery", |scrape| scrape.value("lightfi_up") == Some(1.0))
        .await;
    assert!(!scrape.series_of("lightfi_temperature_celsius").is_empty());
}

#[tokio::test]
async fn a_scrape_before_the_first_collection_returns_the_exporters_own_metrics_by_its_deadline() {
    let cloud = Cloud::with_sensors(10).await;
    cloud.fault("hang", true);
    let exporter = Exporter::serve(&cloud.config("collect: {interval: 60s}\n"));
    assert_eq!(exporter.get("/-/ready").await.status(), 503);
    assert_eq!(exporter.get("/-/healthy").await.status(), 200);
    let request = exporter
        .request("/metrics")
        .header("X-Prometheus-Scrape-Timeout-Seconds", "1");
    let start = Instant::now();
    let response = request.send().await.unwrap();
    let body = response.text().await.unwrap();
    let took = start.elapsed();
    assert!(
        took > Duration::from_millis(400) && took < Duration::from_millis(950),
        "{took:?}"
    );
    let scrape = Scrape::parse(body);
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
async fn sigterm_and_sigint_stop_the_exporter_with_exit_code_0() {
    for signal in ["TERM", "INT"] {
        let mut exporter = Exporter::demo(&["--sensors=10"]);
        exporter.scrape().await;
        // An idle connection must not delay it.
        let _idle = TcpStream::connect(exporter.address()).await;
        exporter.signal(signal);
        let code = exporter.wait(Duration::from_secs(5));
        assert_eq!(code, Some(0), "{}", exporter.output());
    }
}

#[tokio::test]
async fn a_hanging_file_does_not_delay_the_exit() {
    let cloud = Cloud::start(Options {
        sensors: 10,
        token_lifetime: Duration::from_secs(2),
        ..Options::default()
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("refresh-token");
    std::fs::write(&file, cloud.simulator.newest_refresh_token()).unwrap();
    let oauth = format!("  refresh_token_file: {}\n", file.display());
    let mut exporter = Exporter::serve(&cloud.config_without_token(&oauth, ""));
    exporter
        .scrape_until("a token", |scrape| scrape.value("lightfi_up") == Some(1.0))
        .await;
    std::fs::remove_file(&file).unwrap();
    // Reading a pipe without a writer blocks forever, like a file on a network share that is down.
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    tokio::time::sleep(Duration::from_secs(2)).await;
    exporter.signal("TERM");
    assert_eq!(exporter.wait(Duration::from_secs(5)), Some(0));
}

#[tokio::test]
async fn a_scrape_in_flight_at_the_signal_is_answered() {
    let cloud = Cloud::with_sensors(10).await;
    cloud.fault("slow", true);
    let mut exporter = Exporter::serve(&cloud.config("collect: {interval: 60s, mode: scrape}\n"));
    let request = exporter
        .request("/metrics")
        .header("X-Prometheus-Scrape-Timeout-Seconds", "3");
    let scrape = tokio::spawn(request.send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    exporter.signal("TERM");
    let response = scrape.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(exporter.wait(Duration::from_secs(5)), Some(0));
}

#[tokio::test]
async fn the_exporter_listens_on_all_addresses_of_the_flags_after_the_command() {
    let cloud = Cloud::with_sensors(10).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lightfi-exporter.yaml");
    std::fs::write(&file, cloud.config("")).unwrap();
    let mut command = command();
    command.arg("--config.file").arg(&file);
    command.args([
        "--web.listen-address=127.0.0.1:0",
        "serve",
        "--web.listen-address=[::1]:0",
        "--web.listen-address=localhost:0",
    ]);
    let exporter = Exporter::spawn(command, directory);
    assert!(exporter.address().starts_with("[::1]:"), "{}", exporter.url);
    assert_eq!(exporter.get("/healthz").await.status(), 200);
    exporter.scrape().await;
    assert_eq!(exporter.get("/readyz").await.status(), 200);
}

/// On a machine with one CPU a scrape would otherwise wait for the rendering of the next snapshot.
#[tokio::test]
async fn blocking_threads_have_a_lower_priority_than_the_runtime_thread() {
    let exporter = Exporter::demo(&[]);
    exporter.scrape().await;
    let pid = exporter.pid();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut niceness: Vec<(bool, i32)> = threads
        .map(|thread| {
            let thread = thread.unwrap();
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap();
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
async fn logs_can_be_json() {
    let demo = Exporter::demo(&["--log.format=json", "--sensors=10"]);
    let output = demo.output();
    let lines = output.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["level"] == "INFO" && line["message"] == "listening"),
        "{output}"
    );
}

#[tokio::test]
async fn other_methods_and_unknown_paths_are_refused() {
    let demo = Exporter::demo(&["--sensors=10"]);
    let client = crate::tools::client().no_proxy().no_gzip();
    let client = client.build().unwrap();
    let status =
        async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    let url = |path: &str| format!("{}{path}", demo.url);
    assert_eq!(status(client.delete(url("/nothing"))).await, 405);
    for path in ["/metrics", "/", "/-/healthy", "/-/ready"] {
        assert_eq!(status(client.post(url(path))).await, 405, "{path}");
        let head = client.head(url(path)).send().await.unwrap();
        assert_eq!(head.status(), 200, "{path}");
        assert!(head.headers().contains_key("content-length"), "{path}");
        assert!(!head.headers().contains_key("server"), "{path}");
    }
    assert_eq!(status(client.get(url("/nothing"))).await, 404);
}

async fn ask_health(stream: &mut TcpStream) {
    let request = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut response = [0; 512];
    let length = stream.read(&mut response).await.unwrap();
    assert!(response[..length].starts_with(b"HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn idle_connections_above_the_limit_do_not_block_a_scrape() {
    let demo = Exporter::demo(&["--sensors=10"]);
    // More than the limit of 512; every other one has sent half a request.
    let mut connections = Vec::new();
    for number in 0..530 {
        let mut stream = TcpStream::connect(demo.address()).await.unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /metr").await;
        }
        connections.push(stream);
    }
    let start = Instant::now();
    demo.scrape().await;
    assert!(start.elapsed() < Duration::from_secs(2));
    // The newest connection is still open.
    ask_health(connections.last_mut().unwrap()).await;
}

#[tokio::test]
async fn scrapes_above_the_limit_are_refused_but_probes_are_not() {
    let cloud = Cloud::with_sensors(10).await;
    cloud.fault("slow", true);
    let exporter = Exporter::serve_with(
        &cloud.config("collect: {mode: scrape}\n"),
        &["--web.max-requests=2"],
    );
    let waiting: Vec<_> = (0..2)
        .map(|_| tokio::spawn(exporter.request("/metrics").send()))
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(exporter.get("/metrics").await.status(), 503);
    assert_eq!(exporter.get("/-/healthy").await.status(), 200);
    for scrape in waiting {
        let response = scrape.await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(exporter.get("/metrics").await.status(), 200);
}

#[tokio::test]
async fn in_scrape_mode_the_exporter_is_ready_once_it_listens_and_sends_no_request_before_a_scrape()
{
    let cloud = Cloud::with_sensors(10).await;
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
