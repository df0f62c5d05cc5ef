//! What is answered while a fault is on: instead of the good answer, or made of it.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use socket2::SockRef;

use super::{
    faults::FaultKind,
    item::Item,
    routes::{detail, json_response},
};

/// How late the faults `slow` and `token-slow` are.
const SLOW: Duration = Duration::from_secs(2);
/// Of `huge`, in pieces of a megabyte.
const HUGE_PIECES: usize = 200;
/// Of `gzip-bomb`, unpacked.
const BOMB_BYTES: usize = 64 << 20;
/// Of `many-variables`.
const MANY: usize = 100_000;

/// The connection that a request came over, for the fault that breaks it.
#[derive(Clone)]
pub(super) struct Connection(Option<Arc<OwnedFd>>);

impl Connection {
    pub(super) const NONE: Self = Self(None);

    /// A second handle of the same socket.
    pub(super) fn of(stream: &impl AsFd) -> Self {
        Self(stream.as_fd().try_clone_to_owned().ok().map(Arc::new))
    }

    /// When it is closed now, what is on its way is thrown away and the other side is told so.
    fn will_reset(&self) {
        if let Some(socket) = &self.0 {
            // An answer that merely ends early is what is left where this fails.
            let _ = SockRef::from(&**socket).set_linger(Some(Duration::ZERO));
        }
    }
}

/// The answer that a fault of delivery gives instead of the good one. May take its time, or all time.
pub(super) async fn answer(
    meets: impl Fn(FaultKind) -> bool,
    connection: &Connection,
) -> Option<Response> {
    if meets(FaultKind::Hang) {
        std::future::pending::<()>().await;
    }
    if meets(FaultKind::Slow) || meets(FaultKind::TokenSlow) {
        tokio::time::sleep(SLOW).await;
    }
    let mut met = FaultKind::ALL.into_iter().filter(|(_, kind)| meets(*kind));
    met.find_map(|(_, kind)| instead(kind, connection))
}

fn instead(kind: FaultKind, connection: &Connection) -> Option<Response> {
    Some(match kind {
        FaultKind::Unauthorized => unauthorized(),
        FaultKind::Error500 | FaultKind::TokenError500 => error_500(),
        FaultKind::RateLimit => rate_limited(),
        FaultKind::Malformed => json_response(StatusCode::OK, BEGIN),
        FaultKind::Truncated => truncated(),
        FaultKind::Reset => {
            connection.will_reset();
            truncated()
        }
        FaultKind::Drip => drip(),
        FaultKind::Huge => huge(),
        FaultKind::GzipBomb => gzip_bomb(),
        FaultKind::WrongLength => wrong_length(),
        FaultKind::Html | FaultKind::TokenHtml => html(),
        FaultKind::Redirect => redirect(),
        _ => return None,
    })
}

/// A sensor's readings as a fault of readings has them.
pub(super) fn readings(meets: &impl Fn(FaultKind) -> bool, mut items: Vec<Item>) -> Vec<Item> {
    if meets(FaultKind::NegativeTimes) {
        for item in &mut items {
            item.time = item.time.map(|time| -time);
        }
    }
    if meets(FaultKind::FarFuture) {
        for item in &mut items {
            item.time = item.time.map(|time| time + 1e11);
        }
    }
    if meets(FaultKind::DuplicateVariables) {
        let older = |item: &Item| Item {
            time: item.time.map(|time| time - 60.0),
            value: item.value.map(|value| value + 1e6),
            ..item.clone()
        };
        let older: Vec<_> = items.iter().map(older).collect();
        items.extend(older);
    }
    if meets(FaultKind::ManyVariables) {
        let time = items.first().and_then(|item| item.time);
        items.extend((0..MANY).map(|number| Item {
            var_name: format!("Extra{number:06}").into(),
            time,
            value: Some(1.0),
        }));
    }
    items
}

/// What a fault makes of the text of a good body: what no list of readings can say.
pub(super) fn text(meets: &impl Fn(FaultKind) -> bool, body: Vec<u8>) -> Vec<u8> {
    let changes = [
        (FaultKind::DataObject, r#""data":["#, r#""data":{},"was":["#),
        (
            FaultKind::DataString,
            r#""data":["#,
            r#""data":"none","was":["#,
        ),
        (FaultKind::DataNull, r#""data":["#, r#""data":null,"was":["#),
        (
            FaultKind::OutOfRange,
            r#""value":"#,
            r#""value":1e999,"was":"#,
        ),
        (
            FaultKind::Infinity,
            r#""value":"#,
            r#""value":Infinity,"was":"#,
        ),
    ];
    match changes.iter().find(|(kind, ..)| meets(*kind)) {
        Some((_, good, bad)) => String::from_utf8_lossy(&body)
            .replace(good, bad)
            .into_bytes(),
        None => body,
    }
}

/// The beginning of an answer.
const BEGIN: &str = r#"{"data": [{"var_name": "CO2ppm", "ti"#;

pub(super) fn unauthorized() -> Response {
    let mut response = detail(StatusCode::UNAUTHORIZED, "Could not validate credentials");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn error_500() -> Response {
    detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

fn rate_limited() -> Response {
    let mut response = detail(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded");
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn html() -> Response {
    let page = "<!DOCTYPE html><title>Welcome</title><p>Please accept our terms.</p>";
    let mut response = Response::new(Body::from(page));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// To a host that nobody has: addresses of this block are for documentation.
fn redirect() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let elsewhere = HeaderValue::from_static("http://192.0.2.1/elsewhere");
    response.headers_mut().insert(header::LOCATION, elsewhere);
    response
}

/// An answer that breaks off: the body fails after its first bytes, and with it the connection.
fn truncated() -> Response {
    let body = futures_util::stream::unfold(0, async |step| match step {
        0 => Some((Ok(Bytes::from_static(BEGIN.as_bytes())), 1)),
        _ => {
            // Until the head and the first bytes have left.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Err(io::Error::other("broken on purpose")), 2))
        }
    });
    let mut response = json_response(StatusCode::OK, Body::from_stream(body));
    let length = HeaderValue::from(10 * BEGIN.len());
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    response
}

fn wrong_length() -> Response {
    // As a stream, whose length the server does not see beforehand.
    let whole = format!("{BEGIN}me\": 1, \"value\": 1}}]}}");
    let body = futures_util::stream::iter([Ok::<_, io::Error>(whole)]);
    let mut response = json_response(StatusCode::OK, Body::from_stream(body));
    let length = HeaderValue::from(BEGIN.len());
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    response
}

fn drip() -> Response {
    let bytes = futures_util::stream::iter(BEGIN.bytes());
    let body = futures_util::StreamExt::then(bytes, async |byte| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, io::Error>(Bytes::from(vec![byte]))
    });
    json_response(StatusCode::OK, Body::from_stream(body))
}

fn huge() -> Response {
    let piece = Bytes::from(vec![b' '; 1_000_000]);
    let pieces = std::iter::repeat_n(piece, HUGE_PIECES).map(Ok::<_, io::Error>);
    let body = futures_util::stream::iter(pieces);
    json_response(StatusCode::OK, Body::from_stream(body))
}

fn gzip_bomb() -> Response {
    static BOMB: OnceLock<Bytes> = OnceLock::new();
    let bomb = BOMB.get_or_init(|| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let piece = [b' '; 1 << 16];
        for _ in 0..BOMB_BYTES / piece.len() {
            // Into memory: it cannot fail.
            let _ = encoder.write_all(&piece);
        }
        encoder.finish().unwrap_or_default().into()
    });
    let mut response = json_response(StatusCode::OK, Body::from(bomb.clone()));
    response
        .headers_mut()
        .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

/// What the token endpoint answers while a fault of its own is on that leaves the grant alone.
pub(super) fn token(meets: impl Fn(FaultKind) -> bool) -> Option<Response> {
    if meets(FaultKind::TokenNoAccessToken) {
        let body = json!({"token_type": "Bearer", "expires_in": 3600});
        return Some(json_response(StatusCode::OK, body.to_string()));
    }
    meets(FaultKind::TokenInvalidClient).then(|| {
        let body = json!({"error": "invalid_client"});
        json_response(StatusCode::BAD_REQUEST, body.to_string())
    })
}
