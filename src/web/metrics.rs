//! `/metrics`: a scrape. Waits for the collector if it must, then joins what the publisher holds with the exporter's own
//! families.

use std::{sync::Arc, time::Duration};

use super::{App, Context, chunks::Chunks};
use crate::{
    exposition::{Encoding, Filter, Format, gzip, negotiate},
    publisher::Prefix,
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

/// What Prometheus tells of its patience.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
/// Patience of a client that does not tell: Prometheus' default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// What is left of it for rendering and the way back.
const TIMEOUT_MARGIN: Duration = Duration::from_millis(500);

// Of every answer, made once: a text is looked at byte by byte before it may be a header.
static TEXT: HeaderValue = HeaderValue::from_static(Format::Text.content_type());
static OPEN_METRICS: HeaderValue = HeaderValue::from_static(Format::OpenMetrics.content_type());
static VARY: HeaderValue = HeaderValue::from_static("Accept, Accept-Encoding");
static GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Answers one scrape: 200 whatever the state of the API; 503 only where too many come at once.
pub(super) async fn scrape(
    State(context): State<Context>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(&context, &uri, &headers).await
}

/// The same, for who has the parts of a request at hand.
pub(super) async fn answer(context: &Context, uri: &Uri, headers: &HeaderMap) -> Response {
    let permit = match context
        .scrapes
        .clone()
        .map(|scrapes| scrapes.try_acquire_owned())
        .transpose()
    {
        Ok(permit) => permit,
        Err(_) => {
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                "too many scrapes at once (web.max_requests)\n",
            )
                .into_response();
        }
    };
    let collector = &context.app.collector;
    collector.settled(|| patience(headers)).await;

    let values = |name| headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    let format = negotiate::format(values(header::ACCEPT));
    let encoding = negotiate::encoding(values(header::ACCEPT_ENCODING));
    let filter = filter(uri.query().unwrap_or_default());
    let App {
        publisher, tails, ..
    } = &context.app;
    let published = publisher.current().await;
    let (prefix, tail) = if filter.is_everything() {
        let prefix = publisher.prefix(&published, format, encoding).await;
        (prefix, tails.current(format))
    } else {
        let tail = tails.filtered(format, &filter);
        let prefix = published.filtered(format, encoding, filter).await;
        (prefix, Arc::new(tail))
    };
    let text = tail.text.clone();
    let body = match prefix {
        Prefix::Kept(pieces) => Chunks::new(pieces.iter().cloned().chain([text]), permit),
        Prefix::Anew(rendering) => Chunks::new([text], permit).after(rendering),
        Prefix::Gzip(prefix) => Chunks::new(gzip::join(&prefix, tail.gzip()), permit),
    };
    let mut response = Response::new(Body::new(body));
    let answer = response.headers_mut();
    let content_type = match format {
        Format::Text => &TEXT,
        Format::OpenMetrics => &OPEN_METRICS,
    };
    answer.insert(header::CONTENT_TYPE, content_type.clone());
    answer.insert(header::VARY, VARY.clone());
    if encoding == Encoding::Gzip {
        answer.insert(header::CONTENT_ENCODING, GZIP.clone());
    }
    response
}

/// `?name[]=…`, repeatable.
fn filter(query: &str) -> Filter {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs
        .filter(|(key, _)| key == "name[]")
        .map(|(_, name)| name.into_owned())
        .collect()
}

/// How long this scrape may wait.
fn patience(headers: &HeaderMap) -> Duration {
    let told = headers
        .get(SCRAPE_TIMEOUT)
        .and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let told = told.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    let timeout = told
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(DEFAULT_TIMEOUT);
    timeout.saturating_sub(TIMEOUT_MARGIN).min(MAX_PATIENCE)
}

/// Nobody waits longer than an hour, whatever some would tell.
const MAX_PATIENCE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_what_the_scraper_tells_less_half_a_second() {
        let cases = [
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
        ];
        for (told, seconds) in cases {
            let told = told.map(|told| (SCRAPE_TIMEOUT, HeaderValue::from_static(told)));
            assert_eq!(patience(&told.into_iter().collect()).as_secs_f64(), seconds);
        }
    }
}
