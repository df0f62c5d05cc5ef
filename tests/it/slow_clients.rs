//! Clients that begin and do not go on, and what scrapes notice of them.

use std::{future::Future, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    exporter::Exporter,
    tls::{Client, Pki},
};

const HALF_OPEN: usize = 200;
/// No scrape takes longer, whoever else is there.
const SLOWEST: Duration = Duration::from_secs(1);
/// The median of a scrape may grow by this factor.
const MOST_GROWTH: f64 = 1.5;

const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// Where a client may stop: before a word, and within the first line or a header.
const HALF_REQUESTS: [&[u8]; 3] = [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: "];
/// The beginning of a ClientHello.
const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
const HALF_HELLOS: [&[u8]; 3] = [b"", b"\x16", HELLO];

/// Half-open connections and a client that sends a byte a second, until it is dropped.
struct Crowd {
    _silent: Vec<TcpStream>,
    slow: JoinHandle<()>,
}

impl Crowd {
    async fn gather(exporter: &Exporter, halves: [&[u8]; 3], slowly: &'static [u8]) -> Self {
        let connect = || async {
            let address = exporter.url.trim_start_matches("http://");
            TcpStream::connect(address).await.expect("it listens")
        };
        let mut silent = Vec::new();
        for half in halves.iter().cycle().take(HALF_OPEN) {
            let mut stream = connect().await;
            stream.write_all(half).await.expect("it takes bytes");
            silent.push(stream);
        }
        let mut stream = connect().await;
        let slow = tokio::spawn(async move {
            for byte in slowly {
                let _ = stream.write_all(&[*byte]).await;
                sleep(Duration::from_secs(1)).await;
            }
        });
        Self {
            _silent: silent,
            slow,
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.slow.abort();
    }
}

async fn scrape_plain(exporter: &Exporter) {
    let address = exporter.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(REQUEST).await.expect("it takes bytes");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\nlightfi_up 1\n"),
        "{answer}"
    );
}

async fn scrape_tls(client: &Client, exporter: &Exporter) {
    let answer = client
        .get(exporter, "/metrics", "")
        .await
        .expect("it answers");
    assert!(answer.head.starts_with("http/1.1 200") && answer.body.contains("\nlightfi_up 1\n"));
}

/// How long each of `times` scrapes takes, one after the other on connections of their own.
async fn measure<S: Future>(times: usize, scrape: &impl Fn() -> S) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        scrape().await;
        took.push(start.elapsed());
    }
    took
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

#[tokio::test]
async fn scrapes_beside_half_open_and_slow_clients_are_answered_soon() {
    let exporter = Exporter::demo(&[]);
    scrape_plain(&exporter).await;
    let crowd = Crowd::gather(&exporter, HALF_REQUESTS, REQUEST).await;
    let took = measure(20, &|| scrape_plain(&exporter)).await;
    assert!(took.iter().max() < Some(&SLOWEST), "{took:?}");
    drop(crowd);

    let pki = Pki::new();
    let (exporter, client) = (pki.serve("", ""), pki.client());
    scrape_tls(&client, &exporter).await;
    let _crowd = Crowd::gather(&exporter, HALF_HELLOS, HELLO).await;
    let took = measure(20, &|| scrape_tls(&client, &exporter)).await;
    assert!(took.iter().max() < Some(&SLOWEST), "{took:?}");
}

/// Alternates between alone and beside the crowd, so that what else the machine does falls on both alike, and prints the
/// figures.
#[allow(clippy::print_stdout)]
async fn compare<S: Future>(
    what: &str,
    exporter: &Exporter,
    (halves, slowly): ([&[u8]; 3], &'static [u8]),
    scrape: impl Fn() -> S,
) {
    const ROUNDS: usize = 10;
    const SCRAPES: usize = 100;
    measure(SCRAPES, &scrape).await;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.extend(measure(SCRAPES, &scrape).await);
        let crowd = Crowd::gather(exporter, halves, slowly).await;
        beside.extend(measure(SCRAPES, &scrape).await);
        drop(crowd);
    }
    let slowest = beside.iter().copied().max().expect("some");
    let (alone, beside) = (median(alone), median(beside));
    let growth = beside.as_secs_f64() / alone.as_secs_f64();
    println!(
        "{what}: median {alone:?} alone, {beside:?} beside {HALF_OPEN} half-open connections and a byte a second: \
         × {growth:.2}; slowest {slowest:?}"
    );
    assert!(growth <= MOST_GROWTH && slowest < SLOWEST);
}

#[tokio::test]
#[ignore = "a measurement: for `make test-long`, on a machine that does nothing else"]
async fn half_open_and_slow_clients_cost_a_scrape_next_to_nothing() {
    let exporter = Exporter::demo(&[]);
    let plain = (HALF_REQUESTS, REQUEST);
    compare("plain", &exporter, plain, || scrape_plain(&exporter)).await;
    let pki = Pki::new();
    let (exporter, client) = (pki.serve("", ""), pki.client());
    let tls = (HALF_HELLOS, HELLO);
    compare("TLS", &exporter, tls, || scrape_tls(&client, &exporter)).await;
}
