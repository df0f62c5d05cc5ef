//! The page that the browser shows at the end of a login. It loads nothing and repeats nothing of its URL.

use askama::Template;
use axum::{
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use crate::oauth::login::CallbackError;

/// A page with a heading and a text.
#[derive(Debug, Clone, Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{{ title }} - LightFi exporter</title></head>
<body><h1>{{ title }}</h1><p>{{ text }}</p></body>
</html>
"#
)]
pub(super) struct CallbackPage {
    status: StatusCode,
    title: &'static str,
    text: String,
}

impl CallbackPage {
    /// The page after a successful login.
    pub(super) fn logged_in(next_step: &str) -> Self {
        Self {
            status: StatusCode::OK,
            title: "Logged in",
            text: format!("{next_step} You can close this window."),
        }
    }

    /// The page after a failed login.
    pub(super) fn failed(error: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            title: "Not logged in",
            text: format!("Error: {error}. The terminal shows the same message."),
        }
    }

    /// The page for a request that is not the answer to this login.
    pub(super) fn for_error(error: CallbackError) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            title: "Not this login",
            text: format!("Error: {error}. Log in at the address that lightfi-exporter prints."),
        }
    }
}

impl IntoResponse for CallbackPage {
    fn into_response(self) -> Response {
        let Ok(html) = self.render() else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let headers = [
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; frame-ancestors 'none'",
            ),
            (header::CACHE_CONTROL, "no-store"),
            // The URL contains the code.
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (self.status, headers, Html(html)).into_response()
    }
}
