//! `--web.systemd-socket`: the sockets that systemd binds and hands over, which outlive the exporter.

use std::{
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net,
};

use crate::exporter::{Exporter, coverage, run};

const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Returns a command that passes the socket to the exporter as systemd does: as descriptor 3, announced in the environment.
fn activated(socket: OwnedFd) -> Command {
    const HAND_OVER: &str = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@""#;
    let mut command = Command::new("/bin/sh");
    command
        .env_clear()
        .envs(coverage())
        .args(["-c", HAND_OVER, env!("CARGO_BIN_EXE_lightfi-exporter")])
        .args(["demo", "--sensors=2", "--web.systemd-socket"])
        // This address is ignored; it could not be bound.
        .arg("--web.listen-address=192.0.2.1:1")
        .stdin(Stdio::from(socket));
    command
}

#[tokio::test]
async fn clients_that_connect_before_a_start_or_during_a_restart_are_served() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let start = || {
        let socket = socket.try_clone().unwrap().into();
        Exporter::spawn(activated(socket), TempDir::new().unwrap())
    };
    for _ in 0..2 {
        let mut early = net::TcpStream::connect(address).await.unwrap();
        early.write_all(ASK).await.unwrap();
        let mut exporter = start();
        assert_eq!(exporter.url, format!("http://{address}"));
        let mut answer = String::new();
        early.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        exporter.scrape().await;
        exporter.signal("TERM");
        assert_eq!(exporter.wait(Duration::from_secs(5)), Some(0));
    }
}

#[test]
fn without_a_listening_socket_the_error_says_what_to_change() {
    let fails = |socket| {
        let output = activated(socket).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        error
    };
    let none = run(&["demo", "--web.systemd-socket"]);
    let error = String::from_utf8_lossy(&none.stderr).into_owned();
    assert_eq!(none.status.code(), Some(2), "{error}");
    assert!(
        error.contains("--web.systemd-socket: no socket activation file descriptors found"),
        "{error}"
    );

    let directory = TempDir::new().unwrap();
    let unix = UnixListener::bind(directory.path().join("socket")).unwrap();
    let error = fails(unix.into());
    assert!(
        error.contains("not a valid tcp socket") && error.contains("ListenStream"),
        "{error}"
    );

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connection = TcpStream::connect(address).unwrap();
    let error = fails(connection.into());
    assert!(error.contains("set Accept=no"), "{error}");
}
