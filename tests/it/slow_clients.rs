//! Scrapes are fast while other clients send half a request, or one byte per second.

use std::time::Duration;

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
/// The maximum duration of a scrape.
const MAX_DURATION: Duration = Duration::from_secs(1);

const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// Parts of a request: nothing, and up to the middle of the first line or of a header.
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
        let connect = || async { TcpStream::connect(exporter.address()).await.unwrap() };
        let mut silent = Vec::new();
        for half in halves.iter().cycle().take(HALF_OPEN) {
            let mut stream = connect().await;
            stream.write_all(half).await.unwrap();
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
    let mut stream = TcpStream::connect(exporter.address()).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\nlightfi_up 1\n"),
        "{answer}"
    );
}

async fn scrape_tls(client: &Client, exporter: &Exporter) {
    let answer = client.get(exporter, "/metrics", "").await.unwrap();
    assert!(answer.head.starts_with("http/1.1 200") && answer.body.contains("\nlightfi_up 1\n"));
}

/// Returns the longest duration of 20 scrapes, each on its own connection.
async fn slowest(scrape: impl AsyncFn()) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let start = Instant::now();
        scrape().await;
        slowest = slowest.max(start.elapsed());
    }
    slowest
}

#[tokio::test]
async fn scrapes_are_fast_while_there_are_half_open_and_slow_clients() {
    let exporter = Exporter::demo(&[]);
    scrape_plain(&exporter).await;
    let crowd = Crowd::gather(&exporter, HALF_REQUESTS, REQUEST).await;
    let slowest_plain = slowest(async || scrape_plain(&exporter).await).await;
    assert!(slowest_plain < MAX_DURATION, "{slowest_plain:?}");
    drop(crowd);

    let pki = Pki::new();
    let (exporter, client) = (pki.serve("", ""), pki.client());
    scrape_tls(&client, &exporter).await;
    let _crowd = Crowd::gather(&exporter, HALF_HELLOS, HELLO).await;
    let slowest_tls = slowest(async || scrape_tls(&client, &exporter).await).await;
    assert!(slowest_tls < MAX_DURATION, "{slowest_tls:?}");
}
