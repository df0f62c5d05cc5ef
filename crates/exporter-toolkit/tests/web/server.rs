//! A server in this process.

use std::{fs, net, sync::Arc};

use arc_swap::ArcSwap;
use axum::{Router, routing::get};
use exporter_toolkit::{CancellationToken, Limits, Server, WebConfig};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::pki::Pki;

/// A server of `/metrics` and `/healthz`. The second needs no user.
pub struct TestServer {
    address: String,
    shutdown: CancellationToken,
}

impl TestServer {
    /// Serves with a web configuration.
    pub fn new(web_config: Arc<WebConfig>, limits: Limits) -> Self {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let page = async || ([("x-frame-options", "sameorigin")], "page");
        let router = Router::new()
            .route("/metrics", get(async || "hello_up 1\n"))
            .route("/page", get(page))
            .route("/healthz", get(async || "healthy\n"));
        let server = Server {
            listeners: vec![TcpListener::from_std(listener).unwrap()],
            router: Arc::new(ArcSwap::from_pointee(router)),
            web_config,
            open_paths: vec!["/healthz".to_owned()],
            limits,
        };
        let shutdown = CancellationToken::new();
        tokio::spawn(server.serve(shutdown.clone()));
        Self { address, shutdown }
    }

    /// Serves plain HTTP with the text of a web configuration.
    pub fn plain(text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("web.yml");
        fs::write(&file, text).unwrap();
        Self::new(
            WebConfig::load(Some(&file)).unwrap().into(),
            Limits::default(),
        )
    }

    /// Returns the whole response to a GET request with more header lines.
    pub async fn get(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    /// Returns the status of the response to a GET request with more header lines.
    pub async fn status(&self, path: &str, headers: &str) -> u16 {
        self.get(path, headers).await[9..12].parse().unwrap()
    }
}

impl AsRef<str> for TestServer {
    fn as_ref(&self) -> &str {
        &self.address
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Serves with the text of a web configuration, in which the certificates of `pki` can be named.
pub fn serve(pki: &Pki, text: &str) -> TestServer {
    let file = pki.write("web.yml", text);
    TestServer::new(
        WebConfig::load(Some(&file)).unwrap().into(),
        Limits::default(),
    )
}

impl Pki {
    /// Serves with these keys of `tls_server_config` and `more` of a web configuration.
    pub fn serve(&self, tls: &str, more: &str) -> TestServer {
        let files = "cert_file: server.crt, key_file: server.key";
        serve(
            self,
            &format!("tls_server_config: {{{files}{tls}}}\n{more}"),
        )
    }
}
