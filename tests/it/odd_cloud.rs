//! Tests against a small API of their own, for what the simulated building never does.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::Path,
    http::{StatusCode, header::RETRY_AFTER},
    routing::{get, post},
};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use crate::exporter::{Exporter, Scrape};

/// The reply of a sensor with one reading.
pub const GOOD: &str = r#"{"data":[{"var_name":"CO2ppm","time":1716301234,"value":500}]}"#;

/// Serves `routes` and a token endpoint with that delay. Returns the start of a configuration for it, which ends in
/// section `api`.
pub async fn serve(routes: Router, token_delay: Duration) -> String {
    let token = move || async move {
        sleep(token_delay).await;
        r#"{"access_token":"opaque","expires_in":3600,"token_type":"Bearer"}"#
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = routes.route("/token", post(token));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!(
        "oauth: {{token_url: \"http://{address}/token\", client_id: id, client_secret: secret, refresh_token: refresh}}\n\
         collect: {{interval: 4s, stale_after: 0}}\napi:\n  url: http://{address}\n"
    )
}

/// The times at which requests arrived.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<Vec<Instant>>>);

impl Arrivals {
    fn add(&self) {
        self.0.lock().unwrap().push(Instant::now());
    }

    fn all(&self) -> Vec<Instant> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn requests_that_waited_for_a_token_are_still_rate_limited() {
    let arrivals = Arrivals::default();
    let seen = arrivals.clone();
    let sensor = move || async move {
        seen.add();
        GOOD
    };
    let routes = Router::new().route("/sensors/{id}", get(sensor));
    let config = serve(routes, Duration::from_secs(1)).await;
    let config = format!("{config}  requests_per_second: 5\nsensors: [A, B, C, D, E]\n");
    let exporter = Exporter::serve(&config);
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.sum("lightfi_sensor_read_success"), 5.0);
    let arrivals = arrivals.all();
    let took = arrivals[4] - arrivals[0];
    assert!(took >= Duration::from_millis(700), "5 requests in {took:?}");
}

#[tokio::test]
async fn a_pause_that_the_api_asked_for_survives_reloads() {
    let arrivals = Arrivals::default();
    let seen = arrivals.clone();
    let refuse = move || async move {
        seen.add();
        (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "60")])
    };
    let routes = Router::new().route("/sensors/{id}", get(refuse));
    let config = serve(routes, Duration::ZERO).await + "sensors: [A, B, C]\n";
    let exporter = Exporter::serve_with(&config, &["--web.enable-lifecycle"]);
    exporter.scrape().await;
    let before = arrivals.all();
    assert!(!before.is_empty());
    let client = crate::tools::client().build().unwrap();
    for _ in 0..5 {
        let reload = client.post(format!("{}/-/reload", exporter.url));
        let response = reload.send().await.unwrap();
        assert!(response.status().is_success(), "{response:?}");
    }
    // Long enough for a collection to send its requests.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(arrivals.all(), before);
}

/// Each reply is far below `api.max_response_bytes`, but would take hundreds of times its length in memory if it were kept
/// as it is.
#[tokio::test]
async fn small_replies_with_many_or_long_entries_take_little_memory() {
    let list = |entry: &dyn Fn(usize) -> String, count| {
        let entries: Vec<_> = (0..count).map(entry).collect();
        entries.join(",")
    };
    let sensor = |number: usize| format!(r#"{{"id":"S{number}","data":[]}}"#);
    let long_name = format!(
        r#"{{"children":[{{"id":"c","name":"{}","sensors":[{}]}}]}}"#,
        "N".repeat(1 << 20),
        list(&sensor, 4000)
    );
    // Twenty locations deep, twelve names deep in each reply, and a thousand sensors at the bottom.
    let deep = move |Path(id): Path<String>| async move {
        let Ok(level) = id.trim_start_matches('d').parse::<usize>() else {
            return r#"{"sensors":[]}"#.to_owned();
        };
        let content = match level {
            20.. => format!(r#""sensors":[{}]"#, list(&sensor, 1000)),
            _ => format!(r#""children":[{{"id":"d{}","name":"x"}}]"#, level + 1),
        };
        let name = "D".repeat(128);
        let nested = (0..12).fold(content, |content, number| {
            format!(r#""children":[{{"id":"{id}-{number}","name":"{name}",{content}}}]"#)
        });
        format!("{{{nested}}}")
    };
    let zeros = format!(r#"{{"data":[{}]}}"#, list(&|_| "0".to_owned(), 1_000_000));
    let variable =
        |number| format!(r#"{{"var_name":"variable-{number}","time":1716301234,"value":1}}"#);
    let variables = format!(r#"{{"data":[{}]}}"#, list(&variable, 50_000));
    let routes = Router::new()
        .route("/locations/1/", get(|| async { long_name }))
        .route("/locations/{id}/", get(deep))
        .route("/sensors/Z", get(|| async { zeros }))
        .route("/sensors/V", get(|| async { variables }));
    let config = serve(routes, Duration::ZERO).await;
    let config = config.replace("interval: 4s", "interval: 1m");
    let exporter = Exporter::serve(&format!(
        "{config}sensors: [Z, V]\nlocations: [{{id: 1}}, {{id: d0}}]\n"
    ));
    let all = |scrape: &Scrape| scrape.value("lightfi_collect_sensors") == Some(4002.0);
    let scrape = exporter.scrape_until("all sensors", all).await;
    assert_eq!(scrape.value("lightfi_collect_sensors_failed"), Some(1.0));
    let longest = scrape.samples.keys().map(String::len).max();
    assert!(longest < Some(600), "a series of {longest:?} bytes");
    let memory = scrape.value("process_resident_memory_bytes");
    assert!(memory < Some(150e6), "{memory:?} bytes");
}
