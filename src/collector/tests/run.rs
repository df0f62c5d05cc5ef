//! The requests of one collection, and its end.

use std::time::Instant;

use super::fixture::*;
use crate::{
    api::RequestError,
    collector::{CollectionRun, Job, SensorRegistry, Step, queue::CarriedOver},
};

/// Everything that is sent now.
fn send_all(run: &mut CollectionRun, now: Instant) -> Vec<Job> {
    let sent = std::iter::from_fn(|| match run.next(now) {
        Step::Send(job) => Some(job),
        _ => None,
    });
    sent.collect()
}

fn sensor_job(id: &str) -> Job {
    Job::Sensor(id.into())
}

fn location_job(id: &str) -> Job {
    Job::Location(id.into())
}

#[test]
fn configured_sensors_wait_for_the_locations_that_may_hold_them() {
    let mut collections = Collections::of(plan(&["A", "B"], &["1"]));
    let now = Instant::now();
    let mut run = start(&collections.plan, SensorRegistry::default(), now);
    assert_eq!(send_all(&mut run, now), [location_job("1")]);
    let reply = location("", vec![inside("A")], vec![]);
    run.handle_result(&location_job("1"), Ok(reply), now + SECOND, NOW);
    assert_eq!(send_all(&mut run, now + SECOND), [sensor_job("B")]);
    run.handle_result(&sensor_job("B"), Ok(sensor("", 500.0)), now + SECOND, NOW);
    assert_eq!(run.next(now + SECOND), Step::Done);
    // From the next collection on it is known which sensor no location holds.
    (collections.registry, _) = run.finish(now + SECOND, NOW);
    let mut run = start(&collections.plan, collections.registry, now);
    assert_eq!(
        send_all(&mut run, now),
        [location_job("1"), sensor_job("B")]
    );
}

#[test]
fn a_configured_sensor_fails_with_the_location_that_holds_it() {
    let mut collections = Collections::of(plan(&["A", "C"], &["1"]));
    let reply = location("", vec![inside("A")], vec![]);
    collections.collect_from([("location 1", reply), ("sensor C", sensor("", 500.0))]);
    assert_eq!(collections.requested, ["location 1", "sensor C"]);
    collections.collect(|_| None);
    assert_eq!(collections.requested, ["location 1", "sensor C"]);
    let snapshot = collections.collect_from([("location 1", location("", vec![], vec![]))]);
    let requested = ["location 1", "sensor A", "sensor C"];
    assert_eq!(collections.requested, requested, "A has left the location");
    assert_eq!(snapshot.summary.sensors_failed, 2);
}

#[test]
fn configured_sensors_do_not_wait_for_a_location_that_hangs() {
    let now = Instant::now();
    let mut run = start(&plan(&["A"], &["1"]), SensorRegistry::default(), now);
    assert_eq!(send_all(&mut run, now), [location_job("1")]);
    let fallback = now + 36 * SECOND;
    assert_eq!(run.next(now + SECOND), Step::Wait(fallback));
    assert_eq!(send_all(&mut run, fallback), [sensor_job("A")]);
    run.handle_result(&sensor_job("A"), Ok(sensor("", 500.0)), fallback, NOW);
    let end = now + 54 * SECOND;
    assert_eq!(run.next(fallback), Step::Wait(end));
    assert_eq!(run.next(end), Step::Done);
    let (registry, failures) = run.finish(end, NOW);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0].subject, "location 1");
    let summary = registry.snapshot().summary;
    assert_eq!((summary.up, summary.locations_failed), (true, 1));
}

#[test]
fn configured_sensors_do_not_wait_for_the_second_attempt_of_a_location() {
    let now = Instant::now();
    let mut run = start(&plan(&["A"], &["1"]), SensorRegistry::default(), now);
    assert_eq!(send_all(&mut run, now), [location_job("1")]);
    let timed_out = RequestError::out_of_time();
    run.handle_result(&location_job("1"), Err(timed_out), now + SECOND, NOW);
    assert_eq!(send_all(&mut run, now + SECOND), [sensor_job("A")]);
}

#[test]
fn requests_without_an_answer_at_the_end_have_failed_and_are_carried_over() {
    let now = Instant::now();
    let plan = plan(&["A"], &["1"]);
    let mut run = start(&plan, SensorRegistry::default(), now);
    assert_eq!(send_all(&mut run, now), [location_job("1")]);
    let (registry, failures) = run.finish(now + 54 * SECOND, NOW);
    let failed: Vec<_> = failures.iter().map(|failure| &*failure.subject).collect();
    assert_eq!(failed, ["location 1", "sensor A"]);
    let summary = registry.snapshot().summary;
    assert_eq!((summary.up, summary.sensors_failed), (false, 1));
    let carried_over: Vec<_> = registry.carried_over.clone().into_iter().collect();
    let state = |priority, hung| CarriedOver { priority, hung };
    let expected = [
        (location_job("1"), state(1, true)),
        (sensor_job("A"), state(2, false)),
    ];
    assert_eq!(carried_over, expected);
    let registry = start(&plan, registry, now).cancel();
    assert_eq!(registry.carried_over.len(), 2, "a reload keeps the order");
}

#[test]
fn every_sensor_is_read_in_turn_if_there_is_no_time_for_all() {
    let mut start_at = Instant::now();
    let ids: Vec<_> = (0..100).map(|id| id.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let mut plan = plan(&ids, &[]);
    plan.max_concurrency = 1;
    let mut registry = SensorRegistry::default();
    let mut last_read = vec![0; ids.len()];
    for collection in 1..200 {
        let mut run = start(&plan, registry, start_at);
        let end = start_at + 54 * SECOND;
        // Each reply takes a second: about half of them come in time, and one is cut off.
        let mut now = start_at;
        while let Step::Send(job) = run.next(now) {
            now += SECOND + SECOND / 100;
            if now < end {
                let index = ids.iter().position(|id| sensor_job(id) == job);
                last_read[index.expect("it is configured")] = collection;
                run.handle_result(&job, Ok(sensor("", 500.0)), now, NOW);
            }
        }
        registry = run.finish(end, NOW).0;
        let longest = last_read.iter().map(|read| collection - read).max();
        assert!(longest < Some(4), "{longest:?} in collection {collection}");
        start_at += 60 * SECOND;
    }
}
