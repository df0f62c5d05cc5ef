//! The collector's log: one line when something begins to fail, and one when it has ended. Called by the collector after each
//! collection.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, info, warn};

use super::run::RequestFailure;
use crate::{snapshot::Snapshot, stats::Reason};

/// The failures that were logged and have not ended.
#[derive(Debug, Default)]
pub(super) struct CollectionLog {
    failing: BTreeSet<Reason>,
    limited: bool,
}

impl CollectionLog {
    /// Logs what has changed since the last collection.
    pub(super) fn report(
        &mut self,
        snapshot: &Snapshot,
        failures: &[RequestFailure],
        max_series: usize,
    ) {
        let summary = &snapshot.summary;
        debug!(
            sensors = snapshot.sensors.len(),
            sensors_failed = summary.sensors_failed,
            locations_failed = summary.locations_failed,
            duration = ?summary.duration,
            "collection finished"
        );
        self.report_failures(snapshot, failures);
        self.report_limit(snapshot, max_series);
    }

    fn report_failures(&mut self, snapshot: &Snapshot, failures: &[RequestFailure]) {
        let mut by_reason = BTreeMap::<Reason, Vec<&RequestFailure>>::new();
        // A missing token is logged by `oauth`.
        for failure in failures.iter().filter(|failure| !failure.no_token) {
            by_reason.entry(failure.reason).or_default().push(failure);
        }
        for (reason, failures) in &by_reason {
            if let Some(example) = failures.first()
                && !self.failing.contains(reason)
            {
                warn!(
                    reason = reason.as_str(),
                    failed = failures.len(),
                    example = example.subject,
                    error = example.message,
                    "API requests failed; serving last readings until they go stale"
                );
            }
        }
        // Without a token nothing was sent, so that earlier failures may not have ended.
        if by_reason.is_empty() && !failures.is_empty() {
            return;
        }
        if by_reason.is_empty() && !self.failing.is_empty() {
            info!(sensors = snapshot.sensors.len(), "collection recovered");
        }
        self.failing = by_reason.into_keys().collect();
    }

    fn report_limit(&mut self, snapshot: &Snapshot, max_series: usize) {
        let summary = &snapshot.summary;
        let is_over = summary.sensors_dropped + summary.readings_dropped > 0;
        // The sensors of a failed location may be over the limit as before.
        let limited = is_over || self.limited && summary.locations_failed > 0;
        if limited && !self.limited {
            warn!(
                sensors_dropped = summary.sensors_dropped,
                readings_dropped = summary.readings_dropped,
                max_series,
                "some readings are not exposed: over collect.max_series (raise it, or list fewer locations), or a sensor has \
                 more than 200 variables (those with a metric of their own are kept, then the first by name)"
            );
        } else if !limited && self.limited {
            info!(
                sensors = snapshot.sensors.len(),
                "all readings are within the limits again"
            );
        }
        self.limited = limited;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{snapshot::Summary, test_logs::CapturedLogs};

    fn report(log: &mut CollectionLog, summary: Summary, failures: &[RequestFailure]) -> String {
        let captured = CapturedLogs::default();
        let _guard = captured.start();
        let snapshot = Snapshot {
            summary,
            ..Snapshot::default()
        };
        log.report(&snapshot, failures, 1000);
        captured.lines().join("")
    }

    /// Asserts that a line holds these words, or that there is none if there are no words.
    fn assert_logged(line: &str, words: &str) {
        let is_expected = line.contains(words) && line.is_empty() == words.is_empty();
        assert!(is_expected, "{words:?} is not in {line:?}");
    }

    #[test]
    fn failures_are_logged_when_they_start_and_when_all_have_ended() {
        let failure = |reason, no_token| RequestFailure {
            subject: "sensor A".to_owned(),
            reason,
            message: String::new(),
            no_token,
        };
        let failed = failure(Reason::ServerError, false);
        let not_sent = failure(Reason::Unauthorized, true);
        let mut log = CollectionLog::default();
        for (failures, words) in [
            (vec![], ""),
            (vec![not_sent.clone()], ""),
            (
                vec![failed.clone(), not_sent.clone()],
                "API requests failed",
            ),
            (vec![failed.clone()], ""),
            (vec![not_sent], ""),
            (vec![], "collection recovered"),
            (vec![], ""),
            (vec![failed], "API requests failed"),
        ] {
            assert_logged(&report(&mut log, Summary::default(), &failures), words);
        }
    }

    #[test]
    fn the_series_limit_is_logged_when_it_is_reached_and_when_it_no_longer_is() {
        let (starts, ends) = (
            "some readings are not exposed",
            "all readings are within the limits again",
        );
        let mut log = CollectionLog::default();
        for (sensors_dropped, readings_dropped, locations_failed, words) in [
            (0, 0, 1, ""),
            (1, 0, 0, starts),
            (0, 0, 0, ends),
            (0, 0, 0, ""),
            (0, 1, 0, starts),
            (0, 2, 0, ""),
            (0, 0, 1, ""),
            (0, 0, 0, ends),
        ] {
            let summary = Summary {
                sensors_dropped,
                readings_dropped,
                locations_failed,
                ..Summary::default()
            };
            assert_logged(&report(&mut log, summary, &[]), words);
        }
    }
}
