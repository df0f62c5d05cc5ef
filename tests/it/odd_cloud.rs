//! A cloud made for one test, for what the simulated building never does.

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Path,
    http::{StatusCode, header::RETRY_AFTER},
    routing::{get, post},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    exporter::{Exporter, Scrape},
    tls::Pki,
};

pub const GOOD: &str = r#"{"data":[{"var_name":"CO2ppm","time":1716301234,"value":500}]}"#;

/// Serves `routes` and a token endpoint that takes its time; gives the beginning of a configuration for it.
pub async fn serve(routes: Router, token_takes: Duration) -> String {
    let token = move || async move {
        tokio::time::sleep(token_takes).await;
        r#"{"access_token":"opaque","expires_in":3600,"token_type":"Bearer"}"#
    };
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback can be bound");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address");
    let routes = routes.route("/token", post(token));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!(
        "oauth: {{token_url: \"http://{address}/token\", client_id: id, client_secret: secret, refresh_token: refresh}}\n\
         collect: {{interval: 4s, stale_after: 0}}\napi:\n  url: http://{address}\n"
    )
}

#[tokio::test]
async fn requests_that_waited_for_a_token_keep_to_the_rate() {
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let seen = arrivals.clone();
    let sensor = move || async move {
        seen.lock().expect("nobody panics").push(Instant::now());
        GOOD
    };
    let config = serve(
        Router::new().route("/sensors/{id}", get(sensor)),
        Duration::from_secs(1),
    )
    .await;
    let config = format!("{config}  requests_per_second: 5\nsensors: [A, B, C, D, E]\n");
    let exporter = Exporter::serve(&config);
    assert_eq!(
        exporter.scrape().await.sum("lightfi_sensor_read_success"),
        5.0
    );
    let arrivals = arrivals.lock().expect("nobody panics");
    let took = arrivals[4] - arrivals[0];
    assert!(took >= Duration::from_millis(700), "5 requests in {took:?}");
}

#[tokio::test]
async fn a_location_that_hangs_does_not_hold_up_the_listed_sensors() {
    let hang = || async { std::future::pending::<&str>().await };
    let routes = Router::new()
        .route("/locations/{id}/", get(hang))
        .route("/sensors/{id}", get(|| async { GOOD }));
    let config = serve(routes, Duration::ZERO).await;
    let exporter = Exporter::serve(&format!(
        "{config}sensors: [A, B]\nlocations: [{{id: 1}}]\n"
    ));
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.sum("lightfi_sensor_read_success"), 2.0);
    assert_eq!(scrape.value("lightfi_collect_locations_failed"), Some(1.0));
}

/// Serves sensors, the first request with what `first` answers; gives a configuration, and the requests so far.
async fn with_a_first<F: Future<Output = ()> + Send + 'static>(
    first: impl Fn(Arc<AtomicUsize>) -> F + Clone + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let arrivals = Arc::new(AtomicUsize::new(0));
    let seen = arrivals.clone();
    let sensor = move || async move {
        if seen.fetch_add(1, Ordering::SeqCst) == 0 {
            first(seen).await;
        }
        GOOD
    };
    let routes = Router::new().route("/sensors/{id}", get(sensor));
    let config = serve(routes, Duration::ZERO).await;
    (config, arrivals)
}

/// The same cloud behind TLS: what comes is deciphered and handed on.
async fn behind_tls(config: &str, pki: &Pki) -> String {
    let (before, url) = config
        .rsplit_once("http://")
        .expect("the URL of the API comes last");
    let cloud = url.trim().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback can be bound");
    let port = listener.local_addr().expect("it is bound").port();
    let acceptor = TlsAcceptor::from(pki.serving());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, cloud) = (acceptor.clone(), cloud.clone());
            tokio::spawn(async move {
                let mut client = acceptor.accept(stream).await?;
                let mut server = TcpStream::connect(cloud).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let authority = pki.path("ca.crt");
    format!(
        "{before}https://localhost:{port}\n  ca_file: {}\n",
        authority.display()
    )
}

#[tokio::test]
async fn the_first_request_goes_alone_over_tls_until_it_is_answered_and_else_with_the_others() {
    for (tls, patience, beside) in [(true, 300, 0), (false, 3000, 4)] {
        let noted = Arc::new(AtomicUsize::new(usize::MAX));
        let note = noted.clone();
        let (config, arrivals) = with_a_first(move |seen| {
            let note = note.clone();
            async move {
                let end = Instant::now() + Duration::from_millis(patience);
                while seen.load(Ordering::SeqCst) < 5 && Instant::now() < end {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                note.store(seen.load(Ordering::SeqCst) - 1, Ordering::SeqCst);
            }
        })
        .await;
        let mut config = config.replace("interval: 4s", "interval: 20s");
        let pki = Pki::new();
        if tls {
            config = behind_tls(&config, &pki).await;
        }
        let exporter = Exporter::serve(&format!("{config}sensors: [A, B, C, D, E]\n"));
        let read = exporter.scrape().await.sum("lightfi_sensor_read_success");
        assert_eq!(read, 5.0);
        assert_eq!(noted.load(Ordering::SeqCst), beside);
        assert_eq!(arrivals.load(Ordering::SeqCst), 5);
    }
}

#[tokio::test]
async fn a_first_request_that_hangs_does_not_hold_up_the_others() {
    let pki = Pki::new();
    for tls in [true, false] {
        let (mut config, _) = with_a_first(|_| std::future::pending()).await;
        if tls {
            config = behind_tls(&config, &pki).await;
        }
        let exporter = Exporter::serve(&format!("{config}sensors: [A, B, C, D, E]\n"));
        let read = exporter.scrape().await.sum("lightfi_sensor_read_success");
        assert_eq!(read, 4.0);
    }
}

#[tokio::test]
async fn one_that_hangs_holds_up_no_other_in_short_collections() {
    let sensor = |Path(id): Path<String>| async move {
        if id == "A" {
            std::future::pending::<()>().await;
        }
        GOOD
    };
    let routes = Router::new().route("/sensors/{id}", get(sensor));
    let config = serve(routes, Duration::ZERO).await;
    let pki = Pki::new();
    for config in [behind_tls(&config, &pki).await, config] {
        let config = config.replace("interval: 4s", "interval: 1s");
        let exporter = Exporter::serve(&format!("{config}sensors: [A, B, C]\n"));
        // From the second collection on the one that hangs is known to.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let others = |scrape: &Scrape| scrape.sum("lightfi_sensor_read_success") == 2.0;
        exporter
            .scrape_until("all the others are read", others)
            .await;
    }
}

#[tokio::test]
async fn a_pause_that_the_api_asked_for_outlasts_reloads() {
    let arrivals = Arc::new(AtomicUsize::new(0));
    let seen = arrivals.clone();
    let refuse = move || async move {
        seen.fetch_add(1, Ordering::SeqCst);
        (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "60")])
    };
    let routes = Router::new().route("/sensors/{id}", get(refuse));
    let config = serve(routes, Duration::ZERO).await;
    let exporter = Exporter::serve_with(
        &format!("{config}sensors: [A, B, C]\n"),
        &["--web.enable-lifecycle"],
    );
    exporter.scrape().await;
    let before = arrivals.load(Ordering::SeqCst);
    assert!(before > 0, "nothing was asked");
    for _ in 0..5 {
        let reload = crate::tools::client()
            .build()
            .unwrap()
            .post(format!("{}/-/reload", exporter.url));
        let answer = reload.send().await.expect("it answers");
        assert!(answer.status().is_success(), "{answer:?}");
    }
    // As long as a collection takes whose requests would all be sent.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(arrivals.load(Ordering::SeqCst), before);
}

/// Each is far below `api.max_response_bytes` and would take hundreds of times its length, were it kept as it comes.
#[tokio::test]
async fn small_replies_that_swell_take_little_memory() {
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
    // Twenty requests deep, each reply twelve names deep, and a thousand sensors at the bottom.
    let deep = move |Path(id): Path<String>| async move {
        let Ok(level) = id.trim_start_matches('d').parse::<usize>() else {
            return r#"{"sensors":[]}"#.to_owned();
        };
        let inside = match level {
            20.. => format!(r#""sensors":[{}]"#, list(&sensor, 1000)),
            _ => format!(r#""children":[{{"id":"d{}","name":"x"}}]"#, level + 1),
        };
        let name = "D".repeat(128);
        let nested = (0..12).fold(inside, |inside, at| {
            format!(r#""children":[{{"id":"{id}-{at}","name":"{name}",{inside}}}]"#)
        });
        format!("{{{nested}}}")
    };
    let zeros = format!(r#"{{"data":[{}]}}"#, list(&|_| "0".to_owned(), 1_000_000));
    let variable =
        |number| format!(r#"{{"var_name":"variable-{number}","time":1716301234,"value":1}}"#);
    let names = format!(r#"{{"data":[{}]}}"#, list(&variable, 50_000));
    let routes = Router::new()
        .route("/locations/1/", get(|| async { long_name }))
        .route("/locations/{id}/", get(deep))
        .route("/sensors/Z", get(|| async { zeros }))
        .route("/sensors/V", get(|| async { names }));
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
