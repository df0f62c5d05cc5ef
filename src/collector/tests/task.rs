//! The collector's task: what scrapes, probes and reloads see of it.

use std::{
    collections::BTreeMap,
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Client, SharedRateLimiter},
    catalog::Catalog,
    collector::{Collector, CollectorConfig, Liveness},
    config::{self, Flags, Mode, Purpose},
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
async fn a_new_configuration_is_collected_in_its_own_mode() {
    let (collector, handle) = Collector::new(empty("interval").await);
    assert_eq!(handle.mode(), Mode::Interval);
    let interval = Duration::from_millis(100);
    assert_eq!(collector.initial_snapshot().summary.interval, interval);
    tokio::spawn(collector.run(|_, _| ready(()), CancellationToken::new()));
    for (mode, name) in [(Mode::Scrape, "scrape"), (Mode::Interval, "interval")] {
        handle.reconfigure(empty(name).await).await;
        assert_eq!(handle.mode(), mode);
    }
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
async fn in_scrape_mode_a_scrape_starts_a_collection_once_the_last_one_is_old() {
    let (collector, handle) = Collector::new(empty("scrape").await);
    let published = Arc::new(AtomicUsize::new(0));
    let count = published.clone();
    let publish = move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        ready(())
    };
    tokio::spawn(collector.run(publish, CancellationToken::new()));
    for collections in 1..4 {
        tokio::join!(
            handle.wait_until_fresh(|| LONG),
            handle.wait_until_fresh(|| LONG)
        );
        assert_eq!(published.load(Ordering::Relaxed), collections);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
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
