//! What is kept of sensors from one collection to the next.

use std::sync::Arc;

use super::fixture::*;
use crate::{
    api::{Item, SensorReply},
    collector::Reply,
};

/// A sensor's reply with so many variables.
fn many_variables(count: usize) -> Reply {
    let item = |number| Item::Reading {
        var_name: format!("Extra{number}"),
        time: NOW,
        value: 1.0,
    };
    Reply::Sensor(SensorReply {
        name: None,
        items: (0..count).map(item).collect(),
    })
}

#[test]
fn a_sensor_that_fails_keeps_its_readings_and_the_others_are_read() {
    let mut collections = Collections::of(targets(&["A", "B"], &[]));
    collections.collect_from([
        ("sensor A", sensor("", 500.0)),
        ("sensor B", sensor("", 600.0)),
    ]);
    let snapshot = collections.collect_from([("sensor B", sensor("", 610.0))]);
    assert_eq!(
        values(&snapshot),
        [
            ("A", Some(false), vec![500.0]),
            ("B", Some(true), vec![610.0])
        ]
    );
    assert_eq!(snapshot.summary.sensors_failed, 1);
}

#[test]
fn a_reading_that_a_good_reply_no_longer_holds_leaves() {
    let mut collections = Collections::of(targets(&["A"], &[]));
    collections.collect_from([("sensor A", sensor("", 500.0))]);
    let snapshot = collections.collect_from([("sensor A", many_variables(0))]);
    assert_eq!(values(&snapshot), [("A", Some(true), vec![])]);
}

#[test]
fn the_last_success_is_never_later_than_a_clock_that_was_set_back() {
    let mut collections = Collections::of(targets(&["A"], &[]));
    collections.collect_from([("sensor A", sensor("", 1.0))]);
    collections.unix_now -= 86_400.0;
    let snapshot = collections.collect(|_| None);
    assert_eq!(snapshot.sensors[0].last_success, Some(NOW - 86_400.0));
}

#[test]
fn a_name_stays_until_another_comes_and_the_configured_one_wins() {
    let mut collections = Collections::of(targets(&["A"], &[]));
    let name_after = |collections: &mut Collections, name| {
        let snapshot = collections.collect_from([("sensor A", sensor(name, 500.0))]);
        snapshot.sensors[0].identity.name.clone()
    };
    for (name, expected) in [("East", "East"), ("", "East"), ("West", "West")] {
        let shown = name_after(&mut collections, name);
        assert_eq!(shown.as_deref(), Some(expected));
    }
    let mut boardroom = configured("A");
    boardroom.name = Some("Boardroom".into());
    collections.targets.sensors = by_id([boardroom]);
    let shown = name_after(&mut collections, "North");
    assert_eq!(shown.as_deref(), Some("Boardroom"));
}

#[test]
fn labels_are_built_once_while_nothing_in_them_changes() {
    let mut collections = Collections::of(targets(&["A"], &[]));
    let [before, after] =
        [500.0, 510.0].map(|value| collections.collect_from([("sensor A", sensor("East", value))]));
    let [before, after] = [before, after].map(|it| it.sensors[0].identity.clone());
    assert!(Arc::ptr_eq(&before, &after));
}

#[test]
fn a_location_that_fails_keeps_its_sensors_and_a_good_reply_removes_those_that_left() {
    let reply = |ids: &[&str]| {
        let sensors = ids.iter().map(|id| inside(id)).collect();
        ("location 1", location("HQ", sensors, vec![]))
    };
    let mut collections = Collections::of(targets(&[], &["1"]));
    collections.collect_from([reply(&["A", "B"])]);
    let failed = collections.collect(|_| None);
    let expected = ["A", "B"].map(|id| (id, Some(false), vec![700.0]));
    assert_eq!(values(&failed), expected);
    let good = collections.collect_from([reply(&["B"])]);
    assert_eq!(values(&good), [("B", Some(true), vec![700.0])]);
}

#[test]
fn the_deeper_placement_is_kept_while_its_location_fails() {
    let mut targets = targets(&[], &[]);
    targets.locations = [
        root("1", Some("HQ"), true),
        root("2", Some("HQ / Floor 2"), true),
        root("3", Some("Annexe"), true),
    ]
    .into();
    let mut collections = Collections::of(targets);
    let mut path_after = |holds: [Option<bool>; 3]| {
        let snapshot = collections.collect(|name| {
            let index: usize = name.strip_prefix("location ")?.parse().ok()?;
            let sensors = holds[index - 1]?.then(|| inside("A"));
            Some(location("", sensors.into_iter().collect(), vec![]))
        });
        snapshot.sensors[0].identity.location.clone()
    };
    let [yes, no, fails] = [Some(true), Some(false), None];
    for (holds, expected) in [
        ([yes, yes, no], "HQ / Floor 2"),
        ([yes, fails, no], "HQ / Floor 2"),
        ([yes, fails, no], "HQ / Floor 2"),
        ([yes, no, no], "HQ"),
        ([fails, no, yes], "Annexe"),
    ] {
        assert_eq!(path_after(holds).as_deref(), Some(expected), "{holds:?}");
    }
}

#[test]
fn a_placement_without_a_name_replaces_no_path() {
    let mut targets = targets(&[], &["2"]);
    targets.locations = [root("1", Some("HQ"), true), root("2", None, true)].into();
    let mut collections = Collections::of(targets);
    for holds in ["location 1", "location 2"] {
        let snapshot = collections.collect(|name| {
            let sensors = (name == holds).then(|| inside("A"));
            Some(location("", sensors.into_iter().collect(), vec![]))
        });
        assert_eq!(places(&snapshot)[0].1, Some("HQ"), "in {holds}");
    }
}

#[test]
fn a_sensor_leaves_with_the_location_that_holds_it() {
    let mut collections = Collections::of(targets(&[], &["base"]));
    collections.collect_from([
        ("the base location", base("1", vec![], vec![])),
        ("location 1", location("HQ", vec![], vec![child("2", "")])),
        ("location 2", location("", vec![inside("A")], vec![])),
    ]);
    let mut sensors_under = |locations: &[&str]| {
        collections.registry.reconfigure(&targets(&[], locations));
        collections.registry.snapshot().sensors.len()
    };
    assert_eq!(sensors_under(&["base"]), 1, "it is still below it");
    assert_eq!(sensors_under(&["2"]), 1);
    assert_eq!(sensors_under(&["3"]), 0);
}

#[test]
fn sensors_beyond_the_series_limit_leave_whole_the_configured_last() {
    // Each sensor has five series, six with the time of its reading.
    for (max_series, reading_timestamps, kept) in [
        (15, false, "BCD"),
        (14, false, "BD"),
        (9, false, "D"),
        (4, false, ""),
        (17, true, "BD"),
    ] {
        let mut collections = Collections::of(targets(&["D"], &["1"]));
        collections.targets.max_series = max_series;
        collections.targets.reading_timestamps = reading_timestamps;
        let sensors = vec![inside("B"), inside("C")];
        let snapshot = collections.collect_from([
            ("location 1", location("", sensors, vec![])),
            ("sensor D", sensor("", 500.0)),
        ]);
        let ids: String = values(&snapshot).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ids, kept, "{max_series}");
        assert_eq!(snapshot.summary.sensors_dropped, 3 - kept.len());
        assert_eq!(snapshot.summary.readings_dropped, 3 - kept.len());
    }
}

#[test]
fn readings_of_a_sensor_with_too_many_variables_are_counted_as_dropped() {
    let mut collections = Collections::of(targets(&["A", "B"], &[]));
    collections.targets.max_series = 205;
    let snapshot = collections.collect_from([
        ("sensor A", many_variables(203)),
        ("sensor B", sensor("", 500.0)),
    ]);
    let summary = snapshot.summary;
    let dropped = (summary.sensors_dropped, summary.readings_dropped);
    assert_eq!(dropped, (1, 3 + 1), "of one sensor, and of all together");
}

#[test]
fn what_a_reload_drops_adds_to_what_was_dropped_before() {
    let mut collections = Collections::of(targets(&["A", "B", "C", "D"], &[]));
    collections.collect(|_| Some(sensor("", 500.0)));
    for (max_series, dropped) in [(15, 1), (5, 3), (5, 3)] {
        collections.targets.max_series = max_series;
        collections.registry.reconfigure(&collections.targets);
        let summary = collections.registry.snapshot().summary;
        assert_eq!(summary.sensors_dropped, dropped, "{max_series}");
        assert_eq!(summary.readings_dropped, dropped, "{max_series}");
    }
}
