//! The collector's task, as scrapes, probes and reloads see it.

use std::{
    collections::BTreeMap,
    future::{pending, ready},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Client, SharedRateLimiter},
    catalog::Catalog,
    collector::{Collector, CollectorConfig, Liveness},
    config::{self, Flags, Purpose},
    http::{Proxies, http_client},
    oauth::TokenSource,
    stats::Stats,
};

const LONG: Duration = Duration::from_secs(3600);

/// A configuration without sensors, so that no request is sent.
async fn empty(mode: &str) -> CollectorConfig {
    configured(&format!(
        "oauth: {{client_id: a, client_secret: b, refresh_token: c}}\ncollect: {{mode: {mode}, interval: 100ms}}\n"
    ))
    .await
}

async fn configured(text: &str) -> CollectorConfig {
    let flags = Flags::default();
    let loaded = config::load_text("a test", text, &flags, std::iter::empty(), Purpose::Serve);
    let config = loaded.unwrap().config;
    let stats = Arc::new(Stats::new(0.0));
    let http = http_client(&config.api, Proxies::None).unwrap();
    let tokens = TokenSource::new(&config.oauth, http.clone(), stats.clone());
    let tokens = tokens.await.unwrap();
    let client = Client::new(
        &config.api,
        http,
        tokens.clone(),
        stats,
        SharedRateLimiter::default(),
    );
    let catalog = Catalog::new(&BTreeMap::new(), LONG, false);
    CollectorConfig::new(&config, client, &tokens, Arc::new(catalog))
}

/// A server that accepts connections and never answers, and a configuration that uses it.
fn hanging() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let text = format!(
        "oauth: {{client_id: a, client_secret: b, refresh_token: c, token_url: 'http://{address}/'}}\n\
         api: {{url: 'http://{address}/', timeout: 10m}}\n\
         collect: {{interval: 1h}}\n\
         sensors: [A]\n"
    );
    (listener, text)
}

#[tokio::test]
async fn a_collector_that_is_overdue_is_stuck_and_one_without_a_task_has_ended() {
    let (collector, handle) = Collector::new(empty("interval").await);
    let (reached, mut publishing) = mpsc::channel(1);
    let publish = move |_, _| {
        let reached = reached.clone();
        async move {
            let _ = reached.send(()).await;
            pending().await
        }
    };
    let task = tokio::spawn(collector.run(publish, CancellationToken::new()));
    publishing.recv().await.unwrap();
    assert_eq!(handle.liveness(Instant::now()), Liveness::Alive);
    assert_eq!(handle.liveness(Instant::now() + LONG), Liveness::Stuck);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(handle.liveness(Instant::now()), Liveness::Ended);
}

#[tokio::test]
async fn scrapes_and_reloads_do_not_wait_for_a_later_collection() {
    let (listener, hanging) = hanging();
    let (collector, handle) = Collector::new(empty("interval").await);
    tokio::spawn(collector.run(|_, _| ready(()), CancellationToken::new()));
    handle.wait_until_fresh(|| LONG).await;
    assert!(handle.has_collected());
    handle.reconfigure(configured(&hanging).await).await;
    let (connection, _) = tokio::task::spawn_blocking(move || listener.accept())
        .await
        .unwrap()
        .unwrap();
    handle.wait_until_fresh(|| LONG).await;
    handle.reconfigure(empty("interval").await).await;
    drop(connection);
}

#[tokio::test]
async fn a_scrape_waits_for_the_first_collection_up_to_its_deadline() {
    let (_listener, hanging) = hanging();
    let (collector, handle) = Collector::new(configured(&hanging).await);
    tokio::spawn(collector.run(|_, _| ready(()), CancellationToken::new()));
    let start = Instant::now();
    let waits = (0..100).map(|_| handle.wait_until_fresh(|| Duration::from_millis(50)));
    futures_util::future::join_all(waits).await;
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(!handle.has_collected());
}

#[tokio::test]
async fn a_collector_that_waits_for_a_scrape_is_never_stuck() {
    let (collector, handle) = Collector::new(empty("scrape").await);
    tokio::spawn(collector.run(|_, _| ready(()), CancellationToken::new()));
    handle.wait_until_fresh(|| LONG).await;
    tokio::task::yield_now().await;
    let later = Instant::now() + 24 * LONG;
    assert_eq!(handle.liveness(later), Liveness::Alive);
}
