//! Turns the items of the API's replies into readings: skips items that hold no usable reading, keeps the newest of each
//! variable, and limits their number. Pure. Called by `run` and `discovery` (`parse`, `merge`) and by `registry`
//! (`keep_newer_counters`).

use std::sync::Arc;

use crate::{
    api::Item,
    catalog,
    snapshot::{Reading, SkipReason, SkippedReadings, UnixTime},
};

/// How many seconds a reading may be ahead of this machine's clock: clocks differ, but not by more.
const MAX_AHEAD_SECONDS: f64 = 3600.0;
/// The number of variables of one sensor at most; the vendor documents fifteen.
const MAX_VARIABLES: usize = 200;

/// The readings in one or several replies about one sensor: at most one per variable, ordered by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ParsedReadings {
    pub(super) readings: Arc<[Reading]>,
    pub(super) skipped: SkippedReadings,
    /// The number of readings left out because the sensor has too many variables.
    pub(super) dropped: usize,
}

impl ParsedReadings {
    /// Reads the items of one reply. Of several readings of one variable the newest is kept.
    pub(super) fn parse(items: Vec<Item>, now: UnixTime) -> Self {
        let mut readings = Vec::with_capacity(items.len());
        let mut skipped = SkippedReadings::default();
        for item in items {
            match item {
                Item::Null => skipped.count(SkipReason::Null),
                Item::Malformed => skipped.count(SkipReason::Malformed),
                Item::Reading {
                    var_name,
                    time,
                    value,
                } => {
                    let var_name = catalog::shared_name(var_name);
                    let reading = Reading {
                        var_name,
                        time,
                        value,
                    };
                    match reason_to_skip(&reading, now) {
                        Some(reason) => skipped.count(reason),
                        None => readings.push(reading),
                    }
                }
            }
        }
        let dropped = sort_and_limit(&mut readings);
        Self {
            readings: readings.into(),
            skipped,
            dropped,
        }
    }

    /// Returns these readings merged with `before`, those of another reply of the same collection. Of one variable the newest
    /// wins; at the same time, the one of `self`.
    pub(super) fn merge(self, before: Option<Self>) -> Self {
        let Some(before) = before else {
            return self;
        };
        let mut readings = [&*before.readings, &*self.readings].concat();
        let excess = sort_and_limit(&mut readings);
        let mut skipped = before.skipped;
        skipped.add(&self.skipped);
        Self {
            readings: readings.into(),
            skipped,
            dropped: before.dropped + self.dropped + excess,
        }
    }

    /// Keeps the readings of counters that are newer in `known`: a counter never goes back to an older reading.
    pub(super) fn keep_newer_counters(&mut self, known: &[Reading]) {
        for index in 0..self.readings.len() {
            let reading = &self.readings[index];
            if !catalog::is_counter(&reading.var_name) {
                continue;
            }
            let newer = known
                .iter()
                .find(|known| known.var_name == reading.var_name && known.time > reading.time);
            if let Some(newer) = newer {
                Arc::make_mut(&mut self.readings)[index] = newer.clone();
                self.skipped.count(SkipReason::Older);
            }
        }
    }
}

/// Keeps one reading of each variable, the newest (at the same time, the later in the list), sorted by name. Of too many variables
/// it keeps those of the catalog, then the first by name. Returns the number of variables left out.
fn sort_and_limit(readings: &mut Vec<Reading>) -> usize {
    readings.reverse();
    readings.sort_by(|a, b| {
        let by_name = a.var_name.cmp(&b.var_name);
        by_name.then(b.time.total_cmp(&a.time))
    });
    readings.dedup_by(|later, first| later.var_name == first.var_name);
    let excess = readings.len().saturating_sub(MAX_VARIABLES);
    if excess > 0 {
        readings.sort_by_key(|reading| !catalog::has_row(&reading.var_name));
        readings.truncate(MAX_VARIABLES);
        readings.sort_by(|a, b| a.var_name.cmp(&b.var_name));
    }
    excess
}

fn reason_to_skip(reading: &Reading, now: UnixTime) -> Option<SkipReason> {
    if !reading.time.is_finite() || !reading.value.is_finite() {
        Some(SkipReason::NonFinite)
    } else if reading.time > now + MAX_AHEAD_SECONDS {
        Some(SkipReason::Future)
    } else if reading.value < 0.0 && catalog::is_counter(&reading.var_name) {
        // No meter counts below zero, and Prometheus would take the value for a reset.
        Some(SkipReason::Malformed)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1_716_301_234.0;

    fn parse(items: &[(&str, f64, f64)]) -> ParsedReadings {
        let items = items.iter().map(|(name, time, value)| Item::Reading {
            var_name: (*name).to_owned(),
            time: *time,
            value: *value,
        });
        ParsedReadings::parse(items.collect(), NOW)
    }

    fn values(parsed: &ParsedReadings) -> Vec<(&str, f64, f64)> {
        let readings = parsed.readings.iter();
        readings
            .map(|it| (&*it.var_name, it.time, it.value))
            .collect()
    }

    /// So many variables that are not in the catalog, all at the same time.
    fn many(prefix: &str, count: usize) -> ParsedReadings {
        let names: Vec<_> = (0..count).map(|n| format!("{prefix}{n:04}")).collect();
        let items: Vec<_> = names.iter().rev().map(|name| (&**name, NOW, 1.0)).collect();
        parse(&items)
    }

    #[test]
    fn the_newest_reading_of_a_variable_wins_whatever_the_order() {
        let parsed = parse(&[
            ("a", 2.0, 20.0),
            ("b", 1.0, 5.0),
            ("a", 3.0, 30.0),
            ("a", 1.0, 10.0),
        ]);
        assert_eq!(values(&parsed), [("a", 3.0, 30.0), ("b", 1.0, 5.0)]);
        let same_time = parse(&[("a", 1.0, 1.0), ("a", 1.0, 2.0)]);
        assert_eq!(values(&same_time), [("a", 1.0, 2.0)], "the later one wins");
    }

    #[test]
    fn the_former_name_of_a_variable_is_the_same_variable() {
        let parsed = parse(&[("irSignatures", 2.0, 4.0), ("occSignatures", 1.0, 3.0)]);
        assert_eq!(values(&parsed), [("occSignatures", 2.0, 4.0)]);
    }

    #[test]
    fn impossible_readings_are_counted_and_left_out() {
        let parsed = parse(&[
            ("a", NOW + 3601.0, 1.0),
            ("b", NOW + 3600.0, 1.0),
            ("c", NOW, f64::INFINITY),
            ("d", f64::NEG_INFINITY, 1.0),
            ("energyInkWh", NOW, -0.5),
            ("temperatureC", NOW, -0.5),
        ]);
        let kept = [("b", NOW + 3600.0, 1.0), ("temperatureC", NOW, -0.5)];
        assert_eq!(values(&parsed), kept);
        let counts = SkipReason::ALL.map(|reason| parsed.skipped.of(reason));
        assert_eq!(counts, [0, 1, 2, 1, 0]);
        let new_meter = ("energyInkWh", NOW, 0.0);
        assert_eq!(values(&parse(&[new_meter])), [new_meter]);
    }

    #[test]
    fn a_counter_keeps_its_newer_reading_and_shows_a_reset() {
        let known = parse(&[("energyInkWh", 10.0, 500.0), ("temperatureC", 10.0, 20.0)]);
        let mut older = parse(&[("energyInkWh", 9.0, 499.0), ("temperatureC", 9.0, 19.0)]);
        older.keep_newer_counters(&known.readings);
        let expected = [("energyInkWh", 10.0, 500.0), ("temperatureC", 9.0, 19.0)];
        assert_eq!(values(&older), expected);
        assert_eq!(older.skipped.of(SkipReason::Older), 1);
        for reading in [("energyInkWh", 11.0, 0.5), ("energyInkWh", 10.0, 501.0)] {
            let mut newer = parse(&[reading]);
            newer.keep_newer_counters(&known.readings);
            assert_eq!(values(&newer), [reading]);
            assert_eq!(newer.skipped.of(SkipReason::Older), 0);
        }
    }

    #[test]
    fn several_replies_about_a_sensor_are_merged() {
        let before = parse(&[("a", 1.0, 10.0), ("b", 3.0, 30.0), ("c", f64::NAN, 1.0)]);
        let after = parse(&[("a", 2.0, 20.0), ("b", 2.0, 20.0), ("d", NOW, f64::NAN)]);
        let merged = after.merge(Some(before));
        assert_eq!(values(&merged), [("a", 2.0, 20.0), ("b", 3.0, 30.0)]);
        assert_eq!(merged.skipped.of(SkipReason::NonFinite), 2);
        let twice = many("Extra", 205).merge(Some(many("Extra", 205)));
        assert_eq!((twice.readings.len(), twice.dropped), (200, 5 + 5));
        let more = many("Other", 210).merge(Some(twice));
        assert_eq!((more.readings.len(), more.dropped), (200, 10 + 10 + 200));
    }

    #[test]
    fn of_too_many_variables_those_of_the_catalog_stay_then_the_first_by_name() {
        let known = parse(&[("temperatureC", NOW, 21.0)]);
        let parsed = known.merge(Some(many("Extra", 200)));
        assert_eq!((parsed.readings.len(), parsed.dropped), (200, 1));
        let kept: Vec<_> = values(&parsed).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(
            (kept[0], kept[198], kept[199]),
            ("Extra0000", "Extra0198", "temperatureC")
        );
    }
}
