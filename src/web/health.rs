//! `/-/healthy` and `/-/ready`: for probes. Neither asks the API or waits for anything.

use axum::{extract::State, http::StatusCode};

use super::Context;
use crate::config::Mode;

/// 200 while the process answers and its collection task lives.
pub(super) async fn healthy(State(context): State<Context>) -> (StatusCode, &'static str) {
    if context.app.collector.is_alive() {
        (StatusCode::OK, "LightFi exporter is healthy.\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the collection task has ended: readings are no longer fetched; restart the exporter\n",
        )
    }
}

/// Interval mode: 200 once a first collection has ended, well or badly. Scrape mode: 200, as no scrape, and so no
/// collection, may come before it is ready.
pub(super) async fn ready(State(context): State<Context>) -> (StatusCode, &'static str) {
    if context.app.collector.mode() == Mode::Scrape || context.app.collector.has_ended_once() {
        (StatusCode::OK, "LightFi exporter is ready.\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the first collection has not ended yet\n",
        )
    }
}
