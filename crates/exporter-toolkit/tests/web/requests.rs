//! What the server checks of each request, and the bound on connections.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use exporter_toolkit::{Limits, WebConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::server::TestServer;

fn login(user: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(user))
}

#[tokio::test]
async fn a_rate_limit_without_interval_admits_everything_and_one_without_burst_nothing() {
    let off = TestServer::plain("rate_limit: {interval: 0, burst: 0}");
    for _ in 0..10 {
        assert_eq!(off.status("/metrics", "").await, 200);
    }
    let shut = TestServer::plain("rate_limit: {interval: 1s, burst: 0}");
    let refused = shut.get("/metrics", "").await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.ends_with("Too Many Requests\n"));
    assert_eq!(shut.status("/healthz", "").await, 200);
}

#[tokio::test]
async fn a_remembered_user_does_not_wait_for_the_guesses_of_others() {
    let hash = bcrypt::hash("secret", 10).unwrap();
    let server = TestServer::plain(&format!("basic_auth_users: {{dave: {hash}}}"));
    assert_eq!(server.status("/metrics", &login("dave:secret")).await, 200);
    let guesses: Vec<_> = (0..12)
        .map(|guess| login(&format!("dave:{guess}")))
        .collect();
    let guessing = async {
        for guess in &guesses {
            assert_eq!(server.status("/metrics", guess).await, 401);
        }
    };
    let scraping = async {
        for _ in 0..4 {
            assert_eq!(server.status("/metrics", &login("dave:secret")).await, 200);
        }
    };
    tokio::pin!(guessing);
    tokio::select! {
        biased;
        () = &mut guessing => panic!("the guesses were checked first"),
        () = scraping => {}
    }
    guessing.await;
}

#[tokio::test]
async fn large_requests_are_refused() {
    let server = TestServer::plain("");
    let long = format!("/metrics?{}", "x".repeat(9000));
    assert_eq!(server.status(&long, "").await, 414);
    let headers = format!("X-Large: {}\r\n", "x".repeat(60_000));
    assert_eq!(server.status("/metrics", &headers).await, 200);
}

#[tokio::test]
async fn too_many_connections_close_the_one_that_was_idle_longest() {
    let limits = Limits {
        max_connections: 2,
        ..Limits::default()
    };
    let server = TestServer::new(WebConfig::load(None).unwrap(), limits);
    let connect = async || {
        let mut stream = TcpStream::connect(server.as_ref()).await.unwrap();
        stream.write_all(b"GET /metr").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream
    };
    let mut oldest = connect().await;
    let _next = connect().await;
    assert_eq!(server.status("/metrics", "").await, 200);
    let closed = timeout(Duration::from_secs(5), oldest.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))));
}
