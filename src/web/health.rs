//! `/-/healthy` and `/-/ready`: for probes. Neither asks the API or waits for anything.

use std::time::Instant;

use axum::{extract::State, http::StatusCode};

use super::Context;
use crate::{collector::Liveness, config::Mode};

/// 200 while the process answers and its collection task lives and goes on.
pub(super) async fn healthy(State(context): State<Context>) -> (StatusCode, &'static str) {
    health(context.app.collector.liveness(Instant::now()))
}

fn health(liveness: Liveness) -> (StatusCode, &'static str) {
    let words = match liveness {
        Liveness::Alive => return (StatusCode::OK, "LightFi exporter is healthy.\n"),
        Liveness::Ended => {
            "the collection task has ended: readings are no longer fetched; restart the exporter\n"
        }
        Liveness::Stuck => {
            "the collection task is stuck: its time to go on is more than a minute past; restart the exporter\n"
        }
    };
    (StatusCode::SERVICE_UNAVAILABLE, words)
}

/// Interval mode: 200 once a first collection has ended, well or badly. Scrape mode: 200, as no scrape, and so no
/// collection, may come before it is ready.
pub(super) async fn ready(State(context): State<Context>) -> (StatusCode, &'static str) {
    if context.app.collector.mode() == Mode::Scrape || context.app.collector.has_collected() {
        (StatusCode::OK, "LightFi exporter is ready.\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the first collection has not ended yet\n",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_collections_have_stopped_does_not_pretend() {
        assert_eq!(health(Liveness::Alive).0, StatusCode::OK);
        for (liveness, word) in [
            (Liveness::Ended, "has ended"),
            (Liveness::Stuck, "is stuck"),
        ] {
            let (status, words) = health(liveness);
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(words.contains(word), "{words}");
        }
    }
}
