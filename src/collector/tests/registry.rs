//! The state of sensors between collections.

use super::fixture::*;

#[test]
fn the_last_success_is_never_later_than_a_clock_that_was_set_back() {
    let mut collections = Collections::of(plan(&["A"], &[]));
    collections.collect_from([("sensor A", sensor("", 1.0))]);
    collections.unix_now -= 86_400.0;
    let snapshot = collections.collect(|_| None);
    assert_eq!(snapshot.sensors[0].last_success, Some(NOW - 86_400.0));
}

#[test]
fn the_deeper_placement_is_kept_while_its_location_fails() {
    let mut plan = plan(&[], &[]);
    plan.locations = [
        root("1", Some("HQ"), true),
        root("2", Some("HQ / Floor 2"), true),
        root("3", Some("Annexe"), true),
    ]
    .into();
    let mut collections = Collections::of(plan);
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
    let mut plan = plan(&[], &["2"]);
    plan.locations = [root("1", Some("HQ"), true), root("2", None, true)].into();
    let mut collections = Collections::of(plan);
    for holds in ["location 1", "location 2"] {
        let snapshot = collections.collect(|name| {
            let sensors = (name == holds).then(|| inside("A"));
            Some(location("", sensors.into_iter().collect(), vec![]))
        });
        assert_eq!(places(&snapshot)[0].1, Some("HQ"), "in {holds}");
    }
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
        let mut collections = Collections::of(plan(&["D"], &["1"]));
        collections.plan.max_series = max_series;
        collections.plan.reading_timestamps = reading_timestamps;
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
