//! From items as the API sent them to the readings that are kept. Pure.

use std::{collections::HashSet, sync::Arc};

use crate::{
    api::Item,
    catalog,
    snapshot::{Reading, SkipReason, SkippedReadings, UnixTime},
};

/// A reading further ahead of this machine's clock than this is no reading: clocks differ, but not by that.
const MAX_AHEAD: f64 = 3600.0;
/// Variables of one sensor; the vendor documents fifteen.
const MAX_VARIABLES: usize = 200;

/// Every `var_name` once, shared by all readings.
#[derive(Debug, Default)]
pub(super) struct VarNames(HashSet<Arc<str>>);

impl VarNames {
    fn share(&mut self, var_name: &str) -> Arc<str> {
        if let Some(shared) = self.0.get(var_name) {
            return shared.clone();
        }
        let shared: Arc<str> = var_name.into();
        self.0.insert(shared.clone());
        shared
    }

    /// Forgets the names that no reading uses any more.
    pub(super) fn forget_unused(&mut self) {
        self.0.retain(|name| Arc::strong_count(name) > 1);
    }
}

/// What one reply, or several of one collection, tell of a sensor: at most one reading per variable, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Settled {
    pub(super) readings: Arc<[Reading]>,
    pub(super) skipped: SkippedReadings,
    /// Readings of more variables than a sensor may have.
    pub(super) dropped: usize,
}

impl Settled {
    /// Sorts out the items of one reply: what is no reading is counted, of several readings of one variable the newest
    /// stays.
    pub(super) fn from_items(items: Vec<Item>, now: UnixTime, names: &mut VarNames) -> Self {
        let mut kept = Vec::with_capacity(items.len());
        let mut skipped = SkippedReadings::default();
        for item in &items {
            match item {
                Item::Null => skipped.count(SkipReason::Null),
                Item::Malformed => skipped.count(SkipReason::Malformed),
                Item::Reading {
                    var_name,
                    time,
                    value,
                } => {
                    let var_name = catalog::canonical(var_name);
                    match reason_to_skip(var_name, *time, *value, now) {
                        Some(skip) => skipped.count(skip),
                        None => kept.push((var_name, *time, *value)),
                    }
                }
            }
        }
        let dropped = keep_newest_few(&mut kept, |(name, time, _)| (name, *time));
        let readings = kept.into_iter().map(|(name, time, value)| Reading {
            var_name: names.share(name),
            time,
            value,
        });
        Self {
            readings: readings.collect(),
            skipped,
            dropped,
        }
    }

    /// Adds what another reply of the same collection tells of the same sensor.
    pub(super) fn merge(&mut self, other: Self) {
        let both = self.readings.iter().chain(&*other.readings);
        let mut readings: Vec<_> = both.cloned().collect();
        let excess = keep_newest_few(&mut readings, |reading| (&reading.var_name, reading.time));
        self.readings = readings.into();
        self.skipped.add(&other.skipped);
        self.dropped += other.dropped + excess;
    }

    /// Together with what other replies told before, if any did.
    pub(super) fn merged_into(self, before: Option<Self>) -> Self {
        match before {
            None => self,
            Some(mut before) => {
                before.merge(self);
                before
            }
        }
    }

    /// A counter never goes back to an older reading than the one `held`.
    pub(super) fn keep_counters_from(&mut self, held: &[Reading]) {
        for at in 0..self.readings.len() {
            let reading = &self.readings[at];
            if !catalog::is_counter(&reading.var_name) {
                continue;
            }
            let newer = held
                .iter()
                .find(|held| held.var_name == reading.var_name && held.time > reading.time);
            if let Some(newer) = newer {
                Arc::make_mut(&mut self.readings)[at] = newer.clone();
                self.skipped.count(SkipReason::Older);
            }
        }
    }
}

/// By name, and of one name the newest; of the same time the later in the reply. Of too many, the variables of the table
/// stay, then those whose names come first. Yields how many do not. `of` tells name and time.
fn keep_newest_few<T>(readings: &mut Vec<T>, of: impl Fn(&T) -> (&str, f64)) -> usize {
    readings.reverse();
    readings.sort_by(|a, b| {
        let ((a, at_a), (b, at_b)) = (of(a), of(b));
        a.cmp(b).then(at_b.total_cmp(&at_a))
    });
    readings.dedup_by(|later, first| of(later).0 == of(first).0);
    let excess = readings.len().saturating_sub(MAX_VARIABLES);
    if excess > 0 {
        readings.sort_by_key(|reading| !catalog::has_row(of(reading).0));
        readings.truncate(MAX_VARIABLES);
        readings.sort_by(|a, b| of(a).0.cmp(of(b).0));
    }
    excess
}

fn reason_to_skip(var_name: &str, time: f64, value: f64, now: UnixTime) -> Option<SkipReason> {
    if !time.is_finite() || !value.is_finite() {
        Some(SkipReason::NonFinite)
    } else if time > now + MAX_AHEAD {
        Some(SkipReason::Future)
    } else if value < 0.0 && catalog::is_counter(var_name) {
        // A meter below zero is no meter reading, and Prometheus would take it for a reset.
        Some(SkipReason::Malformed)
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    const NOW: f64 = 1_716_301_234.0;

    fn settle(items: &[(&str, f64, f64)]) -> Settled {
        let items = items.iter().map(|(name, time, value)| Item::Reading {
            var_name: (*name).to_owned(),
            time: *time,
            value: *value,
        });
        Settled::from_items(items.collect(), NOW, &mut VarNames::default())
    }

    fn shown(settled: &Settled) -> Vec<(&str, f64, f64)> {
        settled
            .readings
            .iter()
            .map(|r| (&*r.var_name, r.time, r.value))
            .collect()
    }

    #[test]
    fn the_newest_of_one_variable_wins_whatever_the_order() {
        let settled = settle(&[
            ("a", 2.0, 20.0),
            ("b", 1.0, 5.0),
            ("a", 3.0, 30.0),
            ("a", 1.0, 10.0),
        ]);
        assert_eq!(shown(&settled), [("a", 3.0, 30.0), ("b", 1.0, 5.0)]);
        assert_eq!(
            shown(&settle(&[("a", 1.0, 1.0), ("a", 1.0, 2.0)])),
            [("a", 1.0, 2.0)]
        );
    }

    #[test]
    fn the_old_name_of_a_variable_is_the_same_variable() {
        let settled = settle(&[("irSignatures", 2.0, 4.0), ("occSignatures", 1.0, 3.0)]);
        assert_eq!(shown(&settled), [("occSignatures", 2.0, 4.0)]);
    }

    #[test]
    fn what_cannot_be_is_counted_and_not_kept() {
        let settled = settle(&[
            ("a", NOW + 3601.0, 1.0),
            ("b", NOW + 3600.0, 1.0),
            ("c", NOW, f64::INFINITY),
            ("d", f64::NEG_INFINITY, 1.0),
            ("energyInkWh", NOW, -0.5),
            ("temperatureC", NOW, -0.5),
        ]);
        assert_eq!(
            shown(&settled),
            [("b", NOW + 3600.0, 1.0), ("temperatureC", NOW, -0.5)]
        );
        let new_meter = ("energyInkWh", NOW, 0.0);
        assert_eq!(shown(&settle(&[new_meter])), [new_meter]);
        let counts = SkipReason::ALL.map(|skip| settled.skipped.of(skip));
        assert_eq!(counts, [0, 1, 2, 1, 0]);
    }

    #[test]
    fn a_counter_keeps_the_newer_reading_and_shows_a_real_reset() {
        let held = settle(&[("energyInkWh", 10.0, 500.0), ("temperatureC", 10.0, 20.0)]);
        let mut older = settle(&[("energyInkWh", 9.0, 499.0), ("temperatureC", 9.0, 19.0)]);
        older.keep_counters_from(&held.readings);
        assert_eq!(
            shown(&older),
            [("energyInkWh", 10.0, 500.0), ("temperatureC", 9.0, 19.0)]
        );
        assert_eq!(older.skipped.of(SkipReason::Older), 1);
        // Of the same time the one told last.
        for reading in [("energyInkWh", 11.0, 0.5), ("energyInkWh", 10.0, 501.0)] {
            let mut settled = settle(&[reading]);
            settled.keep_counters_from(&held.readings);
            assert_eq!(shown(&settled), [reading]);
            assert_eq!(settled.skipped.of(SkipReason::Older), 0);
        }
    }

    #[test]
    fn several_replies_of_a_collection_tell_of_a_sensor_together() {
        let many: Vec<_> = (0..205).map(|number| format!("Extra{number}")).collect();
        let many: Vec<_> = many.iter().map(|name| (&**name, NOW, 1.0)).collect();
        let before = settle(&[("a", 1.0, 10.0), ("b", 3.0, 30.0), ("c", f64::NAN, 1.0)]);
        let after = settle(&[("a", 2.0, 20.0), ("b", 2.0, 20.0), ("d", NOW, f64::NAN)]);
        let both = after.merged_into(Some(before));
        assert_eq!(shown(&both), [("a", 2.0, 20.0), ("b", 3.0, 30.0)]);
        assert_eq!(both.skipped.of(SkipReason::NonFinite), 2);
        let twice = settle(&many).merged_into(Some(settle(&many)));
        assert_eq!((twice.readings.len(), twice.dropped), (200, 10));
        let others: Vec<_> = (0..210).map(|number| format!("Other{number}")).collect();
        let others: Vec<_> = others.iter().map(|name| (&**name, NOW, 1.0)).collect();
        let three = settle(&others).merged_into(Some(twice));
        assert_eq!((three.readings.len(), three.dropped), (200, 10 + 10 + 200));
    }

    #[test]
    fn of_too_many_variables_the_known_ones_stay_and_then_the_first_by_name() {
        let names: Vec<_> = (0..1000)
            .map(|number| format!("Extra{number:04}"))
            .collect();
        let extra = names.iter().rev().map(|name| (name.as_str(), NOW, 1.0));
        let items: Vec<_> = extra.chain([("temperatureC", NOW, 21.0)]).collect();
        let settled = settle(&items);
        assert_eq!((settled.readings.len(), settled.dropped), (200, 801));
        let kept: Vec<_> = shown(&settled).into_iter().map(|(name, ..)| name).collect();
        let mut expected: Vec<_> = names[..199].iter().map(String::as_str).collect();
        expected.push("temperatureC");
        assert_eq!(kept, expected);
    }

    #[test]
    fn names_are_shared_and_forgotten() {
        let mut names = VarNames::default();
        let kept = names.share("a");
        assert!(Arc::ptr_eq(&kept, &names.share("a")));
        drop(names.share("b"));
        names.forget_unused();
        assert_eq!(names.0.iter().collect::<Vec<_>>(), [&kept]);
    }
}
