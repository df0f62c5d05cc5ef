#![allow(clippy::unwrap_used, reason = "tests")]
use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// The variables that the vendor lists, the old name of one, and some that no page lists.
const VARIABLES: &[&str] = &[
    "BACnetReads",
    "CO2ppm",
    "NOX",
    "PM1",
    "PM10",
    "VOCppb",
    "batteryLevelPct",
    "batterymV",
    "clientsBLE",
    "clientsWiFi",
    "contactOpen",
    "energyInkWh",
    "illuminanceArb",
    "irSignatures",
    "motionEvent",
    "occSignatures",
    "onlineStatus",
    "particulateMatter",
    "pressuremBar",
    "relativeHumidity",
    "temperatureC",
];

/// Moments from 2024 to 2034, at any hour of any day.
fn moments(count: u64) -> impl Iterator<Item = f64> {
    (0..count).map(|n| 1_704_067_200.0 + 315_360_000.0 * uniform(99, &[n]))
}

fn value(readings: &[Reading], name: &str) -> Option<f64> {
    let mut found = readings.iter().filter(|reading| reading.var_name == name);
    found.next()?.value
}

/// A working day, 2026-01-14, a Wednesday.
const WEDNESDAY: f64 = 1_768_348_800.0;

#[test]
fn the_same_seed_and_time_give_the_same_readings() {
    let (a, b, other) = (World::new(7, 40), World::new(7, 40), World::new(8, 40));
    let mut differ = 0;
    for now in moments(20) {
        for sensor in 0..40 {
            assert_eq!(a.readings(sensor, now), b.readings(sensor, now));
            differ += usize::from(a.readings(sensor, now) != other.readings(sensor, now));
        }
    }
    assert!(differ > 700, "{differ}");
    assert_ne!(a.building.sensors[0].id, other.building.sensors[0].id);
}

#[test]
fn every_variable_always_has_a_fresh_reading_with_eight_sensors_or_more() {
    for sensors in [8, 10, 40] {
        let world = World::new(3, sensors);
        for now in moments(60) {
            let mut fresh = BTreeSet::new();
            for reading in (0..sensors).flat_map(|sensor| world.readings(sensor, now)) {
                let limit = match &*reading.var_name {
                    "batteryLevelPct" => 14.0 * DAY,
                    _ => HOUR,
                };
                if reading.value.is_some() && reading.time.is_some_and(|time| now - time < limit) {
                    fresh.insert(reading.var_name);
                }
            }
            assert!(
                fresh.iter().eq(VARIABLES.iter()),
                "{sensors} sensors at {now}: {fresh:?}"
            );
        }
    }
}

#[test]
fn no_reading_is_in_the_future_and_few_have_no_time() {
    let world = World::new(5, 80);
    let (mut timed, mut untimed) = (0, 0);
    for now in moments(200) {
        for reading in (0..80).flat_map(|sensor| world.readings(sensor, now)) {
            match reading.time {
                Some(time) => {
                    assert!(
                        time <= now && time > now - 400.0 * DAY,
                        "{reading:?} at {now}"
                    );
                    timed += 1;
                }
                None => untimed += 1,
            }
        }
    }
    assert!(untimed > 0 && untimed * 100 < timed, "{untimed} of {timed}");
}

#[test]
fn some_of_forty_sensors_always_fail_and_most_are_healthy() {
    let world = World::new(1, 40);
    for now in moments(200) {
        let mut states = BTreeMap::new();
        let (mut silent, mut long_silent, mut nulls, mut well) = (0, 0, 0, 0);
        for sensor in 0..40 {
            let readings = world.readings(sensor, now);
            let state = value(&readings, "onlineStatus").unwrap();
            *states.entry(state as i64).or_insert(0) += 1;
            let null = readings.iter().any(|reading| reading.value.is_none());
            nulls += usize::from(null);
            // A room without motion is well, and so is a battery asked four times a day.
            let measured = readings.iter().filter(|reading| {
                !matches!(
                    &*reading.var_name,
                    "onlineStatus" | "motionEvent" | "batteryLevelPct"
                )
            });
            let newest = measured
                .filter_map(|reading| reading.time)
                .fold(f64::NAN, f64::max);
            let age = now - newest;
            silent += usize::from(age > HOUR && state == 1.0);
            long_silent += usize::from(age > DAY);
            let late = age > 600.0;
            well += usize::from(state == 1.0 && !null && !late);
        }
        assert_eq!(
            states.keys().copied().collect::<Vec<_>>(),
            [-2, -1, 0, 1],
            "at {now}"
        );
        assert!(silent >= 1 && long_silent >= 1 && nulls >= 1, "at {now}");
        assert!(well >= 32, "{well} at {now}");
    }
}

#[test]
fn values_are_within_the_range_of_the_sensors() {
    let world = World::new(11, 200);
    let bounds: BTreeMap<&str, (f64, f64)> = BTreeMap::from([
        ("CO2ppm", (400.0, 5000.0)),
        ("temperatureC", (14.0, 32.0)),
        ("relativeHumidity", (10.0, 90.0)),
        ("batteryLevelPct", (8.0, 100.0)),
        ("illuminanceArb", (0.0, 1500.0)),
        ("particulateMatter", (0.0, 100.0)),
        ("pressuremBar", (960.0, 1060.0)),
        ("clientsWiFi", (0.0, 200.0)),
        ("occSignatures", (0.0, 40.0)),
        ("irSignatures", (0.0, 40.0)),
        ("VOCppb", (0.0, 2000.0)),
    ]);
    for now in moments(200) {
        for reading in (0..200).flat_map(|sensor| world.readings(sensor, now)) {
            let (Some((least, most)), Some(value)) =
                (bounds.get(&*reading.var_name), reading.value)
            else {
                continue;
            };
            assert!((*least..=*most).contains(&value), "{reading:?} at {now}");
        }
    }
}

#[test]
fn co2_rises_on_a_working_morning_and_falls_by_night() {
    let world = World::new(1, 40);
    let mean = |now: f64| {
        let values: Vec<f64> = (0..40)
            .filter_map(|sensor| value(&world.readings(sensor, now), "CO2ppm"))
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let (night, morning) = (mean(WEDNESDAY + 4.0 * HOUR), mean(WEDNESDAY + 11.5 * HOUR));
    assert!((405.0..520.0).contains(&night), "{night}");
    assert!(morning > night + 150.0, "{night} to {morning}");
    let sunday = mean(WEDNESDAY - 3.0 * DAY + 11.5 * HOUR);
    assert!(sunday < night + 60.0, "{sunday}");
}

#[test]
fn energy_only_grows_and_grows_faster_by_day() {
    let world = World::new(1, 40);
    let energy = |now: f64| value(&world.readings(0, now), "energyInkWh").unwrap();
    let start = WEDNESDAY - 10.0 * DAY;
    let mut last = energy(start);
    for step in 0..40_000 {
        let next = energy(start + f64::from(step) * 61.0);
        assert!(next >= last, "{last} then {next}");
        last = next;
    }
    let used = |from: f64, to: f64| energy(WEDNESDAY + to * HOUR) - energy(WEDNESDAY + from * HOUR);
    assert!(used(10.0, 12.0) > 2.0 * used(2.0, 4.0) && used(2.0, 4.0) > 0.0);
}

#[test]
fn batteries_drain_slowly_until_they_are_replaced() {
    let world = World::new(1, 10);
    let level =
        |day: f64| value(&world.readings(2, WEDNESDAY + day * DAY), "batteryLevelPct").unwrap();
    let mut replaced = 0;
    for day in 0..3650 {
        let change = level(f64::from(day) + 1.0) - level(f64::from(day));
        match change {
            change if change > 80.0 => replaced += 1,
            change => assert!((-1.0..=0.0).contains(&change), "{change} on day {day}"),
        }
    }
    assert!((1..=4).contains(&replaced), "{replaced}");
}
