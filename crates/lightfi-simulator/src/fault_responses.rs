//! The responses while a fault is on: one instead of the good one, or a good one with wrong readings.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    http::{StatusCode, header},
    response::{self, IntoResponse, Response},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use socket2::SockRef;

use super::{
    faults::FaultKind,
    reading::Reading,
    responses::{self, JSON},
};

/// The delay of `slow`.
const SLOW_DELAY: Duration = Duration::from_secs(2);
/// The body of `huge`, in pieces of a megabyte.
const HUGE_PIECES: usize = 200;
/// The decompressed body of `gzip-bomb`.
const BOMB_BYTES: usize = 64 << 20;
/// The additional variables of `many-variables`.
const EXTRA_VARIABLES: usize = 100_000;
/// The beginning of a good body.
const BEGINNING: &str = r#"{"data": [{"var_name": "CO2ppm", "ti"#;

/// The connection that a request came over, for the fault that resets it.
#[derive(Clone)]
pub(super) struct Connection(Option<Arc<OwnedFd>>);

impl Connection {
    /// Keeps a second handle of the same socket.
    pub(super) fn of(stream: &impl AsFd) -> Self {
        Self(stream.as_fd().try_clone_to_owned().ok().map(Arc::new))
    }

    /// Makes the next close of the connection a reset.
    fn reset_on_close(&self) {
        if let Some(socket) = &self.0 {
            // If it fails, the response merely ends early.
            let _ = SockRef::from(&**socket).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Waits as long as the faults say, then returns the response that replaces the good one, if any.
pub(super) async fn replacement(faults: &[FaultKind], connection: &Connection) -> Option<Response> {
    if faults.contains(&FaultKind::Hang) {
        std::future::pending::<()>().await;
    }
    if faults.contains(&FaultKind::Slow) {
        tokio::time::sleep(SLOW_DELAY).await;
    }
    let mut responses = faults.iter().filter_map(|kind| response(*kind, connection));
    responses.next()
}

fn response(kind: FaultKind, connection: &Connection) -> Option<Response> {
    Some(match kind {
        FaultKind::Unauthorized => responses::unauthorized(),
        FaultKind::Error500 => {
            responses::error(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
        FaultKind::RateLimit => {
            let response = responses::error(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded");
            ([(header::RETRY_AFTER, "1")], response).into_response()
        }
        FaultKind::Malformed => ([JSON], BEGINNING).into_response(),
        FaultKind::Truncated => truncated(),
        FaultKind::Reset => {
            connection.reset_on_close();
            truncated()
        }
        FaultKind::Drip => drip(),
        FaultKind::Huge => huge(),
        FaultKind::GzipBomb => gzip_bomb(),
        FaultKind::WrongLength => wrong_length(),
        FaultKind::Html => {
            response::Html("<!DOCTYPE html><title>Welcome</title><p>Please accept our terms.</p>")
                .into_response()
        }
        // Addresses of this block are reserved for documentation.
        FaultKind::Redirect => {
            let location = [(header::LOCATION, "http://192.0.2.1/elsewhere")];
            (StatusCode::FOUND, location).into_response()
        }
        FaultKind::TokenNoAccessToken => {
            Json(json!({"token_type": "Bearer", "expires_in": 3600})).into_response()
        }
        FaultKind::TokenRevoked => oauth_error("invalid_grant"),
        FaultKind::TokenInvalidClient => oauth_error("invalid_client"),
        _ => return None,
    })
}

/// Returns an error of the token endpoint.
pub(super) fn oauth_error(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response()
}

/// A response whose body fails after its first bytes, which closes the connection.
fn truncated() -> Response {
    let body = stream::once(async { Ok(Bytes::from(BEGINNING)) }).chain(stream::once(async {
        // Until the head and the first bytes have been sent.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(io::Error::other("truncated on purpose"))
    }));
    let length = [(header::CONTENT_LENGTH, 10 * BEGINNING.len())];
    ([JSON], length, Body::from_stream(body)).into_response()
}

fn wrong_length() -> Response {
    // The server does not check the length of a stream.
    let whole = format!("{BEGINNING}me\": 1, \"value\": 1}}]}}");
    let body = stream::iter([Ok::<_, io::Error>(whole)]);
    let length = [(header::CONTENT_LENGTH, BEGINNING.len())];
    ([JSON], length, Body::from_stream(body)).into_response()
}

fn drip() -> Response {
    let body = stream::iter(BEGINNING.bytes()).then(async |byte| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, io::Error>(Bytes::from(vec![byte]))
    });
    ([JSON], Body::from_stream(body)).into_response()
}

fn huge() -> Response {
    let piece = Bytes::from(vec![b' '; 1_000_000]);
    let pieces = std::iter::repeat_n(piece, HUGE_PIECES).map(Ok::<_, io::Error>);
    ([JSON], Body::from_stream(stream::iter(pieces))).into_response()
}

fn gzip_bomb() -> Response {
    static BOMB: OnceLock<Bytes> = OnceLock::new();
    let bomb = BOMB.get_or_init(|| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let piece = [b' '; 1 << 16];
        for _ in 0..BOMB_BYTES / piece.len() {
            // Writing to memory cannot fail.
            let _ = encoder.write_all(&piece);
        }
        encoder.finish().unwrap_or_default().into()
    });
    let headers = [JSON, (header::CONTENT_ENCODING, "gzip")];
    (headers, bomb.clone()).into_response()
}

/// Returns a sensor's readings as the payload faults change them.
pub(super) fn change_readings(faults: &[FaultKind], mut readings: Vec<Reading>) -> Vec<Reading> {
    for fault in faults {
        match fault {
            FaultKind::NegativeTimes => change_times(&mut readings, |time| -time),
            FaultKind::FarFuture => change_times(&mut readings, |time| time + 1e11),
            FaultKind::DuplicateVariables => {
                let mut older = readings.clone();
                change_times(&mut older, |time| time - 60.0);
                for reading in &mut older {
                    reading.value = reading.value.map(|value| value + 1e6);
                }
                readings.extend(older);
            }
            FaultKind::ManyVariables => {
                let time = readings.first().and_then(|reading| reading.time);
                readings.extend((0..EXTRA_VARIABLES).map(|number| Reading {
                    var_name: format!("Extra{number:06}").into(),
                    time,
                    value: Some(1.0),
                }));
            }
            _ => {}
        }
    }
    readings
}

fn change_times(readings: &mut [Reading], change: impl Fn(f64) -> f64) {
    for reading in readings {
        reading.time = reading.time.map(&change);
    }
}

/// Returns a good body as the payload faults change its text: what no list of readings can express.
pub(super) fn change_text(faults: &[FaultKind], body: Vec<u8>) -> Vec<u8> {
    let replacement = faults.iter().find_map(|fault| match fault {
        FaultKind::DataObject => Some((r#""data":["#, r#""data":{},"was":["#)),
        FaultKind::DataString => Some((r#""data":["#, r#""data":"none","was":["#)),
        FaultKind::DataNull => Some((r#""data":["#, r#""data":null,"was":["#)),
        FaultKind::OutOfRange => Some((r#""value":"#, r#""value":1e999,"was":"#)),
        FaultKind::Infinity => Some((r#""value":"#, r#""value":Infinity,"was":"#)),
        _ => None,
    });
    match replacement {
        Some((good, bad)) => {
            let body = String::from_utf8_lossy(&body).replace(good, bad);
            body.into_bytes()
        }
        None => body,
    }
}
