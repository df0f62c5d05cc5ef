//! What is known of every sensor from one collection to the next. Pure: results and `now` come in, snapshots go out.
//!
//! A sensor that fails keeps what it had; one that a good reply no longer holds leaves; names and paths once seen stay
//! until others come.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashSet},
    iter::Peekable,
    sync::Arc,
    time::Duration,
};

use super::{
    path::Path,
    plan::{Job, Unanswered},
    readings::{Settled, VarNames},
    round::{Listed, Targets},
    survey::{Finding, Memory, Survey},
};
use crate::{
    api::SensorReply,
    catalog, config,
    snapshot::{Identity, Reading, Sensor, SkippedReadings, Snapshot, Summary, UnixTime},
};

/// All that outlives a collection.
#[derive(Debug, Default)]
pub struct Ledger {
    pub(super) names: VarNames,
    pub(super) locations: Memory,
    /// What the last collection had no answer to.
    pub(super) unanswered: BTreeMap<Job, Unanswered>,
    pub(super) summary: Summary,
    /// By id, each once.
    sensors: Vec<Held>,
}

/// One sensor's page.
#[derive(Debug)]
struct Held {
    id: Arc<str>,
    /// The API's name, last seen.
    name: Option<Arc<str>>,
    /// Where it was found last.
    path: Option<Path>,
    location_id: Option<Arc<str>>,
    /// The location requests whose replies held it last, each once: one, mostly.
    sources: Vec<Arc<str>>,
    readings: Arc<[Reading]>,
    skipped: SkippedReadings,
    /// Readings of its last good read that it has too many variables for.
    dropped: usize,
    read: Option<bool>,
    last_success: Option<UnixTime>,
    identity: Arc<Identity>,
}

/// The result of asking for sensors by themselves, each once, in the order of the answers; `None` = it failed.
pub(super) type Direct = Vec<(Arc<str>, Option<Own>)>;

/// The name and the readings in a sensor's own reply.
type Own = (Option<String>, Settled);

impl Ledger {
    /// Of an exporter that has not collected yet.
    pub fn new(interval: Duration) -> Self {
        let mut ledger = Self::default();
        ledger.summary.interval = interval;
        ledger
    }

    /// Sorts out a sensor's own reply.
    pub(super) fn settle(&mut self, reply: SensorReply, now: UnixTime) -> Own {
        (
            reply.name,
            Settled::from_items(reply.items, now, &mut self.names),
        )
    }

    /// Whether the listed sensor `id` is asked for by itself: not where a location's request covers it, be it a failed
    /// one. `seen` are the sensors that good replies hold.
    pub(super) fn asks_directly(&self, id: &str, survey: &Survey, seen: &HashSet<&str>) -> bool {
        let held = self.held(id);
        let covered_by_failed =
            held.is_some_and(|held| held.sources.iter().any(|source| survey.has_failed(source)));
        !seen.contains(id) && !covered_by_failed
    }

    /// Whether the last collection found the sensor in no location, so that it can be asked for before they answer.
    pub(super) fn was_asked_directly(&self, id: &str) -> bool {
        self.held(id)
            .is_some_and(|held| held.read.is_some() && held.sources.is_empty())
    }

    fn held(&self, id: &str) -> Option<&Held> {
        let place = self.sensors.binary_search_by(|held| (*held.id).cmp(id));
        place.ok().map(|place| &self.sensors[place])
    }

    /// Closes a collection that ended at `now`.
    pub(super) fn close(
        &mut self,
        listed: &Listed,
        mut direct: Direct,
        survey: Survey,
        now: UnixTime,
    ) {
        let sources = self.sensors.iter().flat_map(|held| &held.sources);
        let failed_sources: BTreeSet<Arc<str>> = sources
            .filter(|source| survey.has_failed(source))
            .cloned()
            .collect();
        let (findings, memory) = survey.conclude();
        self.locations = memory;
        direct.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut findings = ById::of(findings.into_iter());
        let mut direct = ById::of(direct.into_iter());
        let mut listed = ById::of(listed.iter().map(|sensor| (&sensor.id, sensor)));
        // In place, where a sensor is known: a second ledger beside the first would be most of what a large building takes.
        self.sensors.retain_mut(|held| {
            let failed: Vec<_> = held
                .sources
                .iter()
                .filter(|source| failed_sources.contains(*source))
                .cloned()
                .collect();
            let (finding, is_listed) = (findings.take(&held.id), listed.take(&held.id));
            let own = direct.take(&held.id);
            let stays = finding.is_some() || is_listed.is_some() || !failed.is_empty();
            if stays {
                held.turn(finding, own, failed, is_listed, now);
            }
            stays
        });
        let (findings, listed) = (findings.not_taken(), listed.not_taken());
        let new: BTreeSet<Arc<str>> = (findings.iter().map(|(id, _)| id.clone()))
            .chain(listed.iter().map(|(id, _)| (*id).clone()))
            .collect();
        let mut findings = ById::of(findings.into_iter());
        let mut direct = ById::of(direct.not_taken().into_iter());
        let mut listed = ById::of(listed.into_iter());
        self.sensors.reserve_exact(new.len());
        for id in &new {
            let mut held = Held::new(id.clone());
            let (finding, own) = (findings.take(id), direct.take(id));
            held.turn(finding, own, Vec::new(), listed.take(id), now);
            self.sensors.push(held);
        }
        self.sensors.sort_by(|a, b| a.id.cmp(&b.id));
        self.names.forget_unused();
    }

    /// How many sensors the last read failed of.
    pub(super) fn unread(&self) -> usize {
        let pages = self.sensors.iter();
        pages.filter(|held| held.read == Some(false)).count()
    }

    /// How many readings the sensors had more than one may have.
    pub(super) fn excess(&self) -> usize {
        self.sensors.iter().map(|held| held.dropped).sum()
    }

    /// Lets go of the sensors that would make too many series: of those not listed first, and from the end by id, so that
    /// the same ones stay each time. Yields how many sensors and readings it has let go.
    pub(super) fn keep_within(&mut self, targets: &Targets) -> (usize, usize) {
        let series = |held: &Held| held.most_series(targets.reading_timestamps);
        let mut dropped = (0, 0);
        let total: usize = self.sensors.iter().map(series).sum();
        let mut excess = total.saturating_sub(targets.max_series);
        if excess == 0 {
            return dropped;
        }
        self.sensors.reverse();
        for spares_listed in [true, false] {
            self.sensors.retain(|held| {
                let spared = spares_listed && targets.sensors.get(&held.id).is_some();
                let stays = spared || excess == 0;
                if !stays {
                    excess = excess.saturating_sub(series(held));
                    dropped.0 += 1;
                    dropped.1 += held.readings.len();
                }
                stays
            });
        }
        self.sensors.reverse();
        self.names.forget_unused();
        dropped
    }

    /// Makes the ledger that of other targets: sensors that they neither list nor can find leave, the others go by the
    /// names they give them.
    pub fn reassign(&mut self, targets: &Targets) {
        self.summary.interval = targets.interval;
        let memory = std::mem::take(&mut self.locations);
        let survey = Survey::of_memory(targets.locations.clone(), memory);
        let reachable = survey.reachable();
        self.locations = survey.abandon();
        self.sensors.retain_mut(|held| {
            held.sources.retain(|source| reachable.contains(source));
            let listed = targets.sensors.get(&held.id);
            held.identify(listed);
            listed.is_some() || !held.sources.is_empty()
        });
        let (sensors, readings) = self.keep_within(targets);
        self.summary.sensors_dropped += sensors;
        self.summary.readings_dropped += readings;
    }

    /// Everything that is known now.
    pub fn snapshot(&self) -> Snapshot {
        let sensors = self.sensors.iter().map(|held| Sensor {
            identity: held.identity.clone(),
            readings: held.readings.clone(),
            skipped: held.skipped,
            read: held.read,
            last_success: held.last_success,
        });
        Snapshot {
            sensors: sensors.collect(),
            summary: self.summary,
        }
    }
}

/// `lightfi_sensor_info` and what else a sensor has whatever its readings.
const SERIES_WITHOUT_READINGS: usize = 4;

impl Held {
    /// As if every reading were shown.
    fn most_series(&self, reading_timestamps: bool) -> usize {
        let of_time = usize::from(reading_timestamps);
        let readings = self.readings.iter();
        let of_readings = readings.map(|reading| catalog::max_series(&reading.var_name) + of_time);
        SERIES_WITHOUT_READINGS + of_readings.sum::<usize>()
    }

    /// An empty page.
    fn new(id: Arc<str>) -> Self {
        Self {
            identity: Arc::new(Identity::new(id.clone(), None, None, None, BTreeMap::new())),
            id,
            name: None,
            path: None,
            location_id: None,
            sources: Vec::new(),
            readings: Arc::default(),
            skipped: SkippedReadings::default(),
            dropped: 0,
            read: None,
            last_success: None,
        }
    }

    /// Turns the page after a collection; `failed` are those of its sources that failed.
    fn turn(
        &mut self,
        finding: Option<Finding>,
        own: Option<Option<Own>>,
        failed: Vec<Arc<str>>,
        listed: Option<&config::Sensor>,
        now: UnixTime,
    ) {
        let was_read = finding.is_some() || own.is_some() || !failed.is_empty();
        let mut settled: Option<Settled> = None;
        if let Some(finding) = finding {
            replace_known(&mut self.name, finding.name);
            // The deepest place wins, also while it cannot be seen: its labels do not change for that.
            let depth = |path: &Option<Path>| path.as_ref().map_or(0, |path| path.depth);
            if failed.is_empty() || depth(&self.path) <= depth(&finding.path) {
                if finding.path.is_some() && finding.path != self.path {
                    self.path = finding.path;
                }
                replace_known(&mut self.location_id, finding.location_id);
            }
            self.sources = finding.sources;
            settled = finding.settled;
        } else {
            self.sources.clear();
        }
        // One that failed has not said that the sensor has left it.
        for source in failed {
            if !self.sources.contains(&source) {
                self.sources.push(source);
            }
        }
        if let Some((name, own)) = own.flatten() {
            replace_known(&mut self.name, name);
            settled = Some(own.merged_into(settled));
        }
        if was_read {
            self.read = Some(settled.is_some());
        }
        if let Some(mut settled) = settled {
            settled.keep_counters_from(&self.readings);
            self.skipped = settled.skipped;
            self.dropped = settled.dropped;
            self.last_success = Some(now);
            if *self.readings != *settled.readings {
                self.readings = settled.readings;
            }
        }
        // It was not later than now. With a clock that was set back, what it is the age of would stay for as long.
        self.last_success = self.last_success.map(|at| at.min(now));
        self.identify(listed);
    }

    /// Makes the labels anew where anything of them has changed.
    fn identify(&mut self, listed: Option<&config::Sensor>) {
        let name = listed
            .and_then(|sensor| sensor.name.as_ref())
            .or(self.name.as_ref());
        let location = listed
            .and_then(|sensor| sensor.location.as_ref())
            .or(self.path.as_ref().map(|path| &path.text));
        let none = BTreeMap::new();
        let labels = listed.map_or(&none, |sensor| &sensor.labels);
        let known = &*self.identity;
        let same = known.name.as_ref() == name
            && known.location.as_ref() == location
            && known.location_id == self.location_id
            && known.labels == *labels;
        if !same {
            self.identity = Arc::new(Identity::new(
                self.id.clone(),
                name.cloned(),
                location.cloned(),
                self.location_id.clone(),
                labels.clone(),
            ));
        }
    }
}

/// An empty text is none, and what was seen once stays until something else is.
fn replace_known(known: &mut Option<Arc<str>>, seen: Option<String>) {
    if let Some(seen) = seen.filter(|seen| !seen.is_empty() && known.as_deref() != Some(seen)) {
        *known = Some(seen.into());
    }
}
/// Entries in the order of their ids, taken in that order: one way through all of them, without looking any up.
struct ById<K, V, I: Iterator<Item = (K, V)>> {
    ahead: Peekable<I>,
    passed: Vec<(K, V)>,
}

impl<K: Borrow<Arc<str>>, V, I: Iterator<Item = (K, V)>> ById<K, V, I> {
    fn of(entries: I) -> Self {
        Self {
            ahead: entries.peekable(),
            passed: Vec::new(),
        }
    }

    /// That of this id, which comes after those asked for before.
    fn take(&mut self, id: &Arc<str>) -> Option<V> {
        loop {
            let (next, _) = self.ahead.peek()?;
            // Most of them are the very same.
            let next: &Arc<str> = next.borrow();
            let order = match Arc::ptr_eq(next, id) {
                true => Ordering::Equal,
                false => next.cmp(id),
            };
            match order {
                Ordering::Less => self.passed.extend(self.ahead.next()),
                Ordering::Equal => return self.ahead.next().map(|(_, entry)| entry),
                Ordering::Greater => return None,
            }
        }
    }

    /// Those that nobody asked for.
    fn not_taken(mut self) -> Vec<(K, V)> {
        self.passed.extend(self.ahead);
        self.passed
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::api::{Item, LocationEntry, LocationReply};

    const NOW: f64 = 1_716_301_234.0;

    fn listing(sensors: &[config::Sensor]) -> Listed {
        Listed::from(Arc::<[config::Sensor]>::from(sensors))
    }

    fn listed(id: &str) -> config::Sensor {
        config::Sensor {
            id: id.into(),
            ..config::Sensor::default()
        }
    }

    fn items(value: f64) -> Vec<Item> {
        vec![Item::Reading {
            var_name: "CO2ppm".to_owned(),
            time: NOW,
            value,
        }]
    }

    fn good(ledger: &mut Ledger, name: &str, value: f64) -> Option<(Option<String>, Settled)> {
        Some(ledger.settle(
            SensorReply {
                name: Some(name.to_owned()),
                items: items(value),
            },
            NOW,
        ))
    }

    /// Closes a collection of listed sensors only.
    fn close(ledger: &mut Ledger, sensors: &[config::Sensor], direct: Direct) -> Snapshot {
        let survey = Survey::new([].into(), std::mem::take(&mut ledger.locations));
        ledger.close(&listing(sensors), direct, survey, NOW);
        ledger.snapshot()
    }

    /// Closes a collection in which location 1 holds these sensors; `None` = it failed.
    fn close_location(
        ledger: &mut Ledger,
        sensors: &[config::Sensor],
        found: Option<&[&str]>,
    ) -> Snapshot {
        let roots = [config::Location {
            id: "1".to_owned(),
            name: Some("HQ".to_owned()),
            recursive: true,
        }];
        let mut survey = Survey::new(roots.into(), std::mem::take(&mut ledger.locations));
        survey.begin();
        let found = found.map(|ids| LocationReply {
            sensors: ids
                .iter()
                .map(|id| LocationEntry {
                    id: (*id).to_owned(),
                    name: None,
                    parent: None,
                    items: Some(items(700.0)),
                })
                .collect(),
            ..LocationReply::default()
        });
        survey.answered("1", found, NOW, &mut ledger.names);
        ledger.close(&listing(sensors), Direct::new(), survey, NOW);
        ledger.snapshot()
    }

    fn shown(snapshot: &Snapshot) -> Vec<(&str, Option<bool>, Vec<f64>)> {
        let sensors = snapshot.sensors.iter();
        let values = |sensor: &Sensor| {
            sensor
                .readings
                .iter()
                .map(|reading| reading.value)
                .collect()
        };
        sensors
            .map(|sensor| (&*sensor.identity.id, sensor.read, values(sensor)))
            .collect()
    }

    #[test]
    fn no_read_was_later_than_a_clock_that_was_set_back() {
        let mut ledger = Ledger::default();
        let sensors = [listed("A")];
        let read = good(&mut ledger, "", 1.0);
        close(&mut ledger, &sensors, vec![("A".into(), read)]);
        let survey = Survey::new([].into(), std::mem::take(&mut ledger.locations));
        let failed = vec![("A".into(), None)];
        ledger.close(&listing(&sensors), failed, survey, NOW - 86_400.0);
        let [sensor] = &*ledger.snapshot().sensors else {
            panic!("one sensor is known");
        };
        assert_eq!(sensor.last_success, Some(NOW - 86_400.0));
    }

    #[test]
    fn a_sensor_that_fails_keeps_its_readings_and_does_not_touch_others() {
        let mut ledger = Ledger::default();
        let sensors = [listed("A"), listed("B")];
        let direct = Direct::from([
            ("A".into(), good(&mut ledger, "", 500.0)),
            ("B".into(), good(&mut ledger, "", 600.0)),
        ]);
        close(&mut ledger, &sensors, direct);
        let direct = Direct::from([
            ("A".into(), None),
            ("B".into(), good(&mut ledger, "", 610.0)),
        ]);
        let snapshot = close(&mut ledger, &sensors, direct);
        assert_eq!(
            shown(&snapshot),
            [
                ("A", Some(false), vec![500.0]),
                ("B", Some(true), vec![610.0])
            ]
        );
    }

    #[test]
    fn what_a_good_reply_no_longer_holds_leaves() {
        let mut ledger = Ledger::default();
        let sensors = [listed("A")];
        let direct = Direct::from([("A".into(), good(&mut ledger, "", 500.0))]);
        close(&mut ledger, &sensors, direct);
        let empty = ledger.settle(
            SensorReply {
                name: None,
                items: vec![],
            },
            NOW,
        );
        let snapshot = close(
            &mut ledger,
            &sensors,
            Direct::from([("A".into(), Some(empty))]),
        );
        assert_eq!(shown(&snapshot), [("A", Some(true), vec![])]);
    }

    #[test]
    fn a_name_once_seen_stays_until_another_comes_and_the_configured_one_wins() {
        let mut ledger = Ledger::default();
        let mut sensors = [listed("A")];
        let mut names = Vec::new();
        for name in ["East", "", "West"] {
            let direct = Direct::from([("A".into(), good(&mut ledger, name, 500.0))]);
            names.push(
                close(&mut ledger, &sensors, direct).sensors[0]
                    .identity
                    .name
                    .as_deref()
                    .unwrap()
                    .to_owned(),
            );
        }
        assert_eq!(names, ["East", "East", "West"]);
        sensors[0].name = Some("Boardroom".into());
        let direct = Direct::from([("A".into(), good(&mut ledger, "North", 500.0))]);
        assert_eq!(
            close(&mut ledger, &sensors, direct).sensors[0]
                .identity
                .name
                .as_deref(),
            Some("Boardroom")
        );
    }

    #[test]
    fn labels_are_kept_while_nothing_of_them_changes() {
        let mut ledger = Ledger::default();
        let sensors = [listed("A")];
        let identities: Vec<_> = [500.0, 510.0]
            .into_iter()
            .map(|value| {
                let direct = Direct::from([("A".into(), good(&mut ledger, "East", value))]);
                close(&mut ledger, &sensors, direct).sensors[0]
                    .identity
                    .clone()
            })
            .collect();
        assert!(Arc::ptr_eq(&identities[0], &identities[1]));
    }

    #[test]
    fn a_location_that_fails_keeps_its_sensors_and_a_good_one_lets_go_of_those_that_left() {
        let mut ledger = Ledger::default();
        let first = close_location(&mut ledger, &[], Some(&["A", "B"]));
        assert_eq!(first.sensors[0].identity.location.as_deref(), Some("HQ"));
        let failed = close_location(&mut ledger, &[], None);
        assert_eq!(
            shown(&failed),
            [
                ("A", Some(false), vec![700.0]),
                ("B", Some(false), vec![700.0])
            ]
        );
        let good = close_location(&mut ledger, &[], Some(&["B"]));
        assert_eq!(shown(&good), [("B", Some(true), vec![700.0])]);
    }

    #[test]
    fn a_deeper_place_is_kept_while_its_location_fails() {
        let roots = [("1", "HQ"), ("2", "HQ / Floor 2"), ("3", "Annexe")].map(|(id, name)| {
            config::Location {
                id: id.to_owned(),
                name: Some(name.to_owned()),
                recursive: true,
            }
        });
        let mut ledger = Ledger::default();
        let mut turn = |found: [Option<bool>; 3]| {
            let mut survey =
                Survey::new(roots.clone().into(), std::mem::take(&mut ledger.locations));
            survey.begin();
            for (root, holds) in roots.iter().zip(found) {
                let sensor = || LocationEntry {
                    id: "A".to_owned(),
                    name: None,
                    parent: None,
                    items: Some(items(700.0)),
                };
                let reply = holds.map(|holds| LocationReply {
                    sensors: holds.then(sensor).into_iter().collect(),
                    ..LocationReply::default()
                });
                survey.answered(&root.id, reply, NOW, &mut ledger.names);
            }
            ledger.close(&listing(&[]), Direct::new(), survey, NOW);
            let sensor = ledger.snapshot().sensors.remove(0);
            (
                sensor.identity.location.as_deref().unwrap().to_owned(),
                sensor.read,
            )
        };
        let [yes, no, fails] = [Some(true), Some(false), None];
        let deep = ("HQ / Floor 2".to_owned(), Some(true));
        assert_eq!(turn([yes, yes, no]), deep);
        for _ in 0..2 {
            assert_eq!(turn([yes, fails, no]), deep);
        }
        assert_eq!(turn([yes, no, no]).0, "HQ");
        assert_eq!(turn([fails, no, yes]).0, "Annexe", "it has moved");
    }

    #[test]
    fn a_listed_sensor_is_asked_for_by_itself_only_where_no_location_covers_it() {
        let mut ledger = Ledger::default();
        let sensors = [listed("A"), listed("C")];
        close_location(&mut ledger, &sensors, Some(&["A"]));
        let roots = [config::Location {
            id: "1".to_owned(),
            name: None,
            recursive: true,
        }];
        let mut survey = Survey::new(roots.into(), std::mem::take(&mut ledger.locations));
        survey.begin();
        survey.answered("1", None, NOW, &mut ledger.names);
        let seen = HashSet::new();
        assert!(
            !ledger.asks_directly("A", &survey, &seen),
            "its location failed, and answers for it"
        );
        assert!(ledger.asks_directly("C", &survey, &seen));
        assert!(!ledger.asks_directly("C", &survey, &HashSet::from(["C"])));
    }

    #[test]
    fn only_a_sensor_that_was_read_by_itself_need_not_wait_for_locations() {
        let mut ledger = Ledger::default();
        let sensors = [listed("A"), listed("C")];
        close_location(&mut ledger, &sensors, Some(&["A"]));
        for id in ["A", "C", "never heard of"] {
            assert!(!ledger.was_asked_directly(id), "{id}");
        }
        let direct = vec![("C".into(), good(&mut ledger, "", 500.0))];
        close(&mut ledger, &sensors[1..], direct);
        assert!(ledger.was_asked_directly("C"));
    }

    #[test]
    fn a_place_without_a_name_replaces_none() {
        let root = |id: &str, name: Option<&str>| config::Location {
            id: id.to_owned(),
            name: name.map(str::to_owned),
            recursive: true,
        };
        let roots = [root("1", Some("HQ")), root("2", None)];
        let mut ledger = Ledger::default();
        for holds in ["1", "2"] {
            let mut survey =
                Survey::new(roots.clone().into(), std::mem::take(&mut ledger.locations));
            survey.begin();
            for root in &roots {
                let sensor = LocationEntry {
                    id: "A".to_owned(),
                    name: None,
                    parent: None,
                    items: Some(items(700.0)),
                };
                let reply = LocationReply {
                    sensors: (root.id == holds).then_some(sensor).into_iter().collect(),
                    ..LocationReply::default()
                };
                survey.answered(&root.id, Some(reply), NOW, &mut ledger.names);
            }
            ledger.close(&listing(&[]), Direct::new(), survey, NOW);
            let snapshot = ledger.snapshot();
            let identity = &snapshot.sensors[0].identity;
            assert_eq!(identity.location.as_deref(), Some("HQ"), "in {holds}");
        }
    }

    #[test]
    fn a_sensor_leaves_with_the_location_that_holds_it() {
        let location = config::Location {
            id: "1".to_owned(),
            name: None,
            recursive: true,
        };
        let mut targets = Targets {
            sensors: listing(&[]),
            locations: [location].into(),
            slots: 1,
            interval: Duration::from_secs(60),
            max_series: 1000,
            reading_timestamps: false,
        };
        let mut ledger = Ledger::default();
        close_location(&mut ledger, &[], Some(&["A"]));
        ledger.reassign(&targets);
        assert_eq!(ledger.snapshot().sensors.len(), 1);
        targets.locations = [].into();
        ledger.reassign(&targets);
        assert_eq!(ledger.snapshot().sensors.len(), 0);
    }

    #[test]
    fn what_a_new_assignment_leaves_out_adds_to_what_was_left_out_before() {
        let sensors = ["A", "B", "C", "D"].map(listed);
        let mut targets = Targets {
            sensors: listing(&sensors),
            locations: [].into(),
            slots: 1,
            interval: Duration::from_secs(60),
            max_series: 15,
            reading_timestamps: false,
        };
        let mut ledger = Ledger::default();
        let mut direct = Direct::new();
        for id in ["A", "B", "C", "D"] {
            direct.push((id.into(), good(&mut ledger, "", 500.0)));
        }
        close(&mut ledger, &sensors, direct);
        ledger.reassign(&targets);
        assert_eq!(ledger.summary.sensors_dropped, 1);
        targets.max_series = 5;
        ledger.reassign(&targets);
        assert_eq!(ledger.summary.sensors_dropped, 3);
        assert_eq!(ledger.summary.readings_dropped, 3);
        ledger.reassign(&targets);
        let Summary {
            sensors_dropped,
            readings_dropped,
            ..
        } = ledger.summary;
        assert_eq!((sensors_dropped, readings_dropped), (3, 3), "nothing new");
    }

    #[test]
    fn readings_of_a_sensor_that_has_too_many_are_counted() {
        let mut ledger = Ledger::default();
        let item = |number| Item::Reading {
            var_name: format!("Extra{number}"),
            time: NOW,
            value: 1.0,
        };
        let direct = ["A", "B"].map(|id| {
            let reply = SensorReply {
                name: None,
                items: (0..203).map(item).collect(),
            };
            (id.into(), Some(ledger.settle(reply, NOW)))
        });
        close(&mut ledger, &["A", "B"].map(listed), direct.into());
        assert_eq!(ledger.excess(), 2 * 3);
    }

    #[test]
    fn what_makes_too_many_series_leaves_whole_the_listed_last_and_the_same_each_time() {
        let sensors = ["B", "C", "D"].map(listed);
        let mut targets = Targets {
            sensors: listing(&sensors[2..]),
            locations: [].into(),
            slots: 1,
            interval: Duration::from_secs(60),
            max_series: 15,
            reading_timestamps: false,
        };
        let mut ledger = Ledger::default();
        // Five series each.
        for (max_series, timestamps, kept) in [
            (15, false, "BCD"),
            (14, false, "BD"),
            (9, false, "D"),
            (4, false, ""),
            (17, true, "BD"),
        ] {
            let mut direct = Direct::new();
            for id in ["B", "C", "D"] {
                direct.push((id.into(), good(&mut ledger, "", 500.0)));
            }
            close(&mut ledger, &sensors, direct);
            targets.max_series = max_series;
            targets.reading_timestamps = timestamps;
            let left_out = 3 - kept.len();
            assert_eq!(ledger.keep_within(&targets), (left_out, left_out));
            let snapshot = ledger.snapshot();
            let ids: String = shown(&snapshot).into_iter().map(|(id, ..)| id).collect();
            assert_eq!(ids, kept, "{max_series}");
        }
    }

    #[test]
    fn a_listed_sensor_without_an_attempt_has_not_been_read() {
        let mut ledger = Ledger::default();
        let snapshot = close(&mut ledger, &[listed("A")], Direct::new());
        assert_eq!(shown(&snapshot), [("A", None, vec![])]);
    }
}
