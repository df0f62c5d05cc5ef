//! Answers scrapes of `/metrics`. Waits for the collector if necessary, and sends what `publisher` has rendered.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;

use super::SharedState;
use crate::exposition::{Encoding, Filter, negotiate};

/// The header in which Prometheus says how long it waits.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
/// Prometheus' default, for clients without the header.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The part of the timeout that is left for rendering and sending.
const TIMEOUT_MARGIN: Duration = Duration::from_millis(500);
/// No scrape waits longer, whatever its header says.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// Answers one scrape: 200 whatever the state of the API, 503 only if too many scrapes are running.
pub(super) async fn scrape(
    State(state): State<SharedState>,
    Extension(scrapes): Extension<Arc<Semaphore>>,
    request: Request,
) -> Response {
    let Ok(permit) = scrapes.try_acquire_owned() else {
        let error = "too many concurrent scrapes (web.max_requests)\n";
        return (StatusCode::SERVICE_UNAVAILABLE, error).into_response();
    };
    let headers = request.headers();
    state.collector.wait_until_fresh(|| max_wait(headers)).await;

    let format = negotiate::format(values(headers, header::ACCEPT));
    let encoding = negotiate::encoding(values(headers, header::ACCEPT_ENCODING));
    let filter = filter(request.uri().query().unwrap_or_default());
    let body = state.publisher.body(format, encoding, filter).await;

    let length: usize = body.iter().map(|piece| piece.len()).sum();
    // The permit is returned when the last piece is sent, or the client is gone.
    let pieces = stream::iter(body).map(move |piece| {
        let _ = &permit;
        Ok::<_, Infallible>(piece)
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        ),
        (header::CONTENT_LENGTH, length.into()),
        (
            header::VARY,
            HeaderValue::from_static("Accept, Accept-Encoding"),
        ),
    ];
    let mut response = (headers, Body::from_stream(pieces)).into_response();
    if encoding == Encoding::Gzip {
        let gzip = HeaderValue::from_static("gzip");
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, gzip);
    }
    response
}

/// Returns the values of a header that are text.
fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok())
}

/// Reads `?name[]=…`, which may be repeated.
fn filter(query: &str) -> Filter {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs
        .filter(|(key, _)| key == "name[]")
        .map(|(_, name)| name.into_owned())
        .collect()
}

/// Returns how long a scrape may wait for a collection.
fn max_wait(headers: &HeaderMap) -> Duration {
    let seconds = values(headers, SCRAPE_TIMEOUT)
        .next()
        .and_then(|value| value.trim().parse().ok());
    let timeout = seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(DEFAULT_TIMEOUT);
    timeout.saturating_sub(TIMEOUT_MARGIN).min(MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_waits_for_its_timeout_less_half_a_second() {
        for (timeout, seconds) in [
            (Some("15"), 14.5),
            (Some("2.5"), 2.0),
            (Some("0.5"), 0.0),
            (Some("0.1"), 0.0),
            (Some("0"), 0.0),
            (None, 9.5),
            (Some("soon"), 9.5),
            (Some("-1"), 9.5),
            (Some("NaN"), 9.5),
            (Some("inf"), 9.5),
            (Some("1e300"), 9.5),
            (Some("1e9"), 3600.0),
        ] {
            let header = timeout.map(|text| (SCRAPE_TIMEOUT, HeaderValue::from_static(text)));
            let headers = header.into_iter().collect();
            assert_eq!(max_wait(&headers).as_secs_f64(), seconds, "{timeout:?}");
        }
    }
}
