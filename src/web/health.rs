//! Liveness and readiness probes. Nothing here asks the API or waits for anything.

use std::time::Instant;

use axum::{extract::State, http::StatusCode};

use super::SharedState;
use crate::{collector::Liveness, config::Mode};

/// Answers 200 while collections are being made.
pub(super) async fn healthy(State(state): State<SharedState>) -> (StatusCode, &'static str) {
    answer(state.collector.liveness(Instant::now()))
}

fn answer(liveness: Liveness) -> (StatusCode, &'static str) {
    match liveness {
        Liveness::Alive => (StatusCode::OK, "LightFi exporter is healthy.\n"),
        Liveness::Ended => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the collection task has ended, so that readings are no longer fetched; restart the exporter\n",
        ),
        Liveness::Stuck => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the collection task is stuck: it is overdue by more than a minute; restart the exporter\n",
        ),
    }
}

/// Answers 200 once a first collection has ended, whether it succeeded or not. In scrape mode always 200, because no scrape,
/// and so no collection, may come while the exporter is not ready.
pub(super) async fn ready(State(state): State<SharedState>) -> (StatusCode, &'static str) {
    if state.collector.mode() == Mode::Scrape || state.collector.has_collected() {
        (StatusCode::OK, "LightFi exporter is ready.\n")
    } else {
        let waiting = "the first collection has not ended yet\n";
        (StatusCode::SERVICE_UNAVAILABLE, waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_collections_the_exporter_is_not_healthy() {
        assert_eq!(answer(Liveness::Alive).0, StatusCode::OK);
        for (state, word) in [
            (Liveness::Ended, "has ended"),
            (Liveness::Stuck, "is stuck"),
        ] {
            let (status, text) = answer(state);
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(text.contains(word), "{text}");
        }
    }
}
