//! The shapes of responses that several routes share.

use std::io::Write as _;

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;
use serde_json::json;

/// Smaller bodies are not worth compressing.
const COMPRESS_FROM_BYTES: usize = 1024;

pub(super) const JSON: (HeaderName, &str) = (header::CONTENT_TYPE, "application/json");

/// Returns an error as FastAPI writes it.
pub(super) fn error(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({"detail": detail}))).into_response()
}

/// Returns a 401 response.
pub(super) fn unauthorized() -> Response {
    let detail = Json(json!({"detail": "Could not validate credentials"}));
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, detail).into_response()
}

/// Returns a JSON document, compressed if the client accepts gzip.
pub(super) fn json_document(request: &HeaderMap, document: Vec<u8>) -> Response {
    let accepted = request.get(header::ACCEPT_ENCODING);
    let accepts_gzip = accepted.is_some_and(|value| value.as_bytes().starts_with(b"gzip"));
    if accepts_gzip && document.len() >= COMPRESS_FROM_BYTES {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        if let Ok(compressed) = encoder.write_all(&document).and_then(|()| encoder.finish()) {
            return ([JSON, (header::CONTENT_ENCODING, "gzip")], compressed).into_response();
        }
    }
    ([JSON], Body::from(document)).into_response()
}

/// Serialises a value whose serialisation cannot fail: it has no maps with keys other than strings.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
