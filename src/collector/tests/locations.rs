//! Which locations are requested, and where sensors are found.

use super::fixture::*;
use crate::{
    api::{LocationEntry, LocationReply},
    collector::Reply,
    config,
};

/// A building with a loop: location 3 is a child of 9, which is a child of 3.
fn building(name: &str) -> Option<Reply> {
    let id = name.strip_prefix("location ")?;
    Some(match id {
        "1" => location(
            "HQ",
            vec![inside("A")],
            vec![child("2", "Floor 2"), child("3", "Floor 3")],
        ),
        "2" => location("Floor 2", vec![inside("B")], vec![]),
        "3" => location(
            "Floor 3",
            vec![nested("9", inside("C"))],
            vec![child("9", "Lab")],
        ),
        "9" => location("Lab", vec![inside("C")], vec![child("3", "a loop")]),
        _ => return None,
    })
}

const PLACES: [(&str, Option<&str>, Option<&str>); 3] = [
    ("A", Some("HQ"), Some("1")),
    ("B", Some("HQ / Floor 2"), Some("2")),
    ("C", Some("HQ / Floor 3 / Lab"), Some("9")),
];

fn of_roots<const N: usize>(roots: [config::Location; N]) -> Collections {
    let mut plan = plan(&[], &[]);
    plan.locations = roots.into();
    Collections::of(plan)
}

/// `reply` without the names that `remove` selects.
fn without_names(reply: Option<Reply>, own: bool, of_children: bool) -> Option<Reply> {
    match reply? {
        Reply::Location(mut reply) => {
            if own {
                reply.name = Some(String::new());
            }
            for child in &mut reply.children {
                child.name = child.name.take().filter(|_| !of_children);
            }
            Some(Reply::Location(reply))
        }
        reply => Some(reply),
    }
}

#[test]
fn each_location_is_requested_once_whatever_the_order_of_replies() {
    for order in 0..6 {
        let roots = [root("1", None, true), root("3", Some("Third"), true)];
        let mut collections = of_roots(roots);
        collections.pick = order;
        let snapshot = collections.collect(building);
        assert_eq!(places(&snapshot), PLACES, "order {order}");
        let requested = ["location 1", "location 2", "location 3", "location 9"];
        assert_eq!(collections.requested, requested);
        assert_eq!(values(&snapshot)[2], ("C", Some(true), vec![700.0]));
        assert_eq!(snapshot.summary.locations_failed, 0);
    }
}

#[test]
fn without_recursion_only_the_locations_own_sensors_count() {
    let mut collections = of_roots([root("3", Some("Third"), false)]);
    assert_eq!(places(&collections.collect(building)), []);
    assert_eq!(collections.requested, ["location 3"]);
    let mut collections = of_roots([root("1", Some("A / B"), false)]);
    let snapshot = collections.collect(building);
    assert_eq!(places(&snapshot), [("A", Some("A / B"), Some("1"))]);
    let mut collections = of_roots([root("3", None, false), root("1", None, true)]);
    let snapshot = collections.collect(building);
    assert_eq!(places(&snapshot), PLACES, "another one is recursive");
}

#[test]
fn the_deepest_path_wins_then_the_order_of_locations_then_the_smaller_id() {
    let same = |_: &str| Some(location("", vec![inside("A")], vec![]));
    for (second, expected) in [
        ("Second / Deep", ("A", Some("Second / Deep"), Some("9"))),
        ("Second", ("A", Some("First"), Some("10"))),
    ] {
        let roots = [
            root("10", Some("First"), true),
            root("9", Some(second), true),
        ];
        let mut collections = of_roots(roots);
        assert_eq!(places(&collections.collect(same)), [expected]);
    }
    let twins = |name: &str| match name {
        "location 1" => Some(location(
            "",
            vec![],
            vec![child("10", "Twin"), child("9", "Twin")],
        )),
        name => same(name),
    };
    let mut collections = of_roots([root("1", None, true)]);
    let smaller_id = [("A", Some("Twin"), Some("9"))];
    assert_eq!(places(&collections.collect(twins)), smaller_id);
}

#[test]
fn the_base_location_is_found_and_walked_also_when_its_route_fails_later() {
    let world = |name: &str| match name {
        "the base location" => Some(base("1", vec![], vec![])),
        name => building(name),
    };
    let mut collections = of_roots([root("base", None, true)]);
    assert_eq!(places(&collections.collect(world)), PLACES);
    assert_eq!(collections.requested.len(), 5);
    let snapshot = collections.collect(building);
    assert_eq!(places(&snapshot), PLACES);
    assert_eq!(snapshot.summary.locations_failed, 1);
    let snapshot = collections.collect(|_| None);
    assert_eq!(
        snapshot.summary.locations_failed, 4,
        "the base location has two requests and counts once"
    );
}

#[test]
fn without_recursion_the_base_reply_counts_for_its_own_sensors_only() {
    let world = |name: &str| match name {
        "the base location" => Some(base(
            "1",
            vec![inside("A"), nested("2", inside("B"))],
            vec![child("2", "Floor 2")],
        )),
        "location 1" => Some(location("HQ", vec![], vec![])),
        _ => None,
    };
    let mut collections = of_roots([root("base", None, false)]);
    let snapshot = collections.collect(world);
    assert_eq!(places(&snapshot), [("A", Some("HQ"), Some("1"))]);
    assert_eq!(collections.requested, ["location 1", "the base location"]);
}

#[test]
fn locations_are_followed_to_a_limit() {
    let mut collections = of_roots([root("0", None, true)]);
    let snapshot = collections.collect(|name| {
        let depth: usize = name.strip_prefix("location ")?.parse().ok()?;
        let below = (depth < 34).then(|| child(&(depth + 1).to_string(), ""));
        let sensors = vec![inside(&format!("S{depth}"))];
        Some(location("", sensors, below.into_iter().collect()))
    });
    let ids: Vec<_> = places(&snapshot).into_iter().map(|(id, ..)| id).collect();
    assert!(ids.contains(&"S32") && !ids.contains(&"S33"), "{ids:?}");
}

#[test]
fn of_a_location_at_two_places_of_a_reply_the_deeper_counts_then_the_first() {
    let deeper = || nested("2", child("3", "Room"));
    for (children, path) in [
        (vec![deeper(), child("3", "Room")], "HQ / Floor / Room"),
        (vec![child("3", "Room"), deeper()], "HQ / Floor / Room"),
        (vec![child("3", "East"), child("3", "West")], "HQ / East"),
    ] {
        let floor = [child("2", "Floor")];
        let children = floor.into_iter().chain(children).collect();
        let reply = location("HQ", vec![nested("3", inside("A"))], children);
        let mut collections = of_roots([root("1", None, true)]);
        let snapshot = collections.collect_from([("location 1", reply)]);
        assert_eq!(places(&snapshot), [("A", Some(path), Some("3"))]);
    }
}

#[test]
fn names_are_kept_when_replies_no_longer_hold_them() {
    let mut collections = of_roots([root("1", None, true)]);
    collections.collect(building);
    for _ in 0..2 {
        let snapshot =
            collections.collect(|name| without_names(building(name), name == "location 2", true));
        assert_eq!(places(&snapshot), PLACES);
    }
}

#[test]
fn a_childs_own_reply_may_hold_its_name() {
    let mut collections = of_roots([root("1", None, true)]);
    let snapshot = collections.collect(|name| without_names(building(name), false, true));
    assert_eq!(places(&snapshot), PLACES);
}

#[test]
fn a_location_that_fails_keeps_its_name_and_its_children() {
    let mut collections = of_roots([root("1", None, true)]);
    collections.collect(building);
    for _ in 0..2 {
        let snapshot = collections.collect(|name| building(name).filter(|_| name != "location 1"));
        assert_eq!(places(&snapshot), PLACES);
        assert_eq!(collections.requested.len(), 4);
        assert_eq!(snapshot.summary.locations_failed, 1);
    }
}

#[test]
fn replies_are_refused_beyond_the_limits_of_a_collection() {
    let mut collections = of_roots([root("1", None, true)]);
    collections.plan.max_series = 10;
    // Each is a sensor and a reading; two for each series are allowed.
    for (count, is_refused) in [(10, false), (11, true)] {
        let sensors = (0..count).map(|id| inside(&id.to_string())).collect();
        collections.collect_from([("location 1", location("", sensors, vec![]))]);
        assert_eq!(!collections.failures.is_empty(), is_refused, "{count}");
    }
    assert!(collections.failures[0].message.contains("max_series (10)"));
    let children: Vec<LocationEntry> = (0..=100_000).map(|id| child(&id.to_string(), "")).collect();
    let reply = LocationReply {
        children,
        ..LocationReply::default()
    };
    collections.collect_from([("location 1", Reply::Location(reply))]);
    let message = &collections.failures[0].message;
    assert!(message.contains("over 100000 child"), "{message}");
}

/// Each of 60 locations has all the others as its children: there is an exponential number of paths.
#[test]
fn a_tangle_of_locations_is_walked_quickly() {
    let all: Vec<String> = (1..=60).map(|id| id.to_string()).collect();
    let mut collections = of_roots([root("1", None, true)]);
    let snapshot = collections.collect(|name| {
        let id = name.strip_prefix("location ")?;
        let others = all.iter().filter(|other| *other != id);
        let children = others.map(|id| child(id, "Place")).collect();
        Some(location("Place", vec![inside(id)], children))
    });
    assert_eq!(snapshot.sensors.len(), 60);
    assert_eq!(collections.requested.len(), 60);
}
