//! What the browser shows at the end of a login: whether it worked and what to do next. It needs nothing from anywhere,
//! and repeats nothing of the address it was asked for by.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

use crate::oauth::login::Stray;

/// Nothing is loaded, nothing runs; the style is in the page.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

/// It worked.
pub(super) fn logged_in(advice: &str) -> Response {
    page(
        StatusCode::OK,
        "Logged in",
        &[advice, "You can close this window."],
    )
}

/// It did not.
pub(super) fn failed(why: &str) -> Response {
    page(
        StatusCode::BAD_REQUEST,
        "Not logged in",
        &[
            &sentence(why),
            "lightfi-exporter says the same in its terminal. You can close this window.",
        ],
    )
}

/// Somebody came who does not belong here; the login goes on.
pub(super) fn stray(stray: Stray) -> Response {
    let what = match stray {
        Stray::NoAnswer => {
            "This address is only where a login ends. Open the address that lightfi-exporter shows in its terminal."
        }
        Stray::WrongState => {
            "This answer belongs to another login, perhaps an earlier one. Open the address that lightfi-exporter \
             shows in its terminal now."
        }
    };
    page(StatusCode::BAD_REQUEST, "Not this login", &[what])
}

/// Too late.
pub(super) fn over() -> Response {
    page(
        StatusCode::GONE,
        "This login has ended",
        &["Run lightfi-exporter login again if you still need to."],
    )
}

/// For what is no page.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn page(status: StatusCode, title: &str, paragraphs: &[&str]) -> Response {
    let text: String = paragraphs
        .iter()
        .map(|paragraph| format!("<p>{}</p>\n", escaped(paragraph)))
        .collect();
    let html = format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} - LightFi exporter</title>
<style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem; }}
p {{ overflow-wrap: anywhere; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{text}</main>
</body>
</html>
"#
    );
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        // The address holds the code.
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Errors are written without a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters
        .next()
        .map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), characters.as_str())
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}
