//! One collection: the next request, the handling of the replies, and the result.
//!
//! A state machine that takes `now` and never waits, so that tests run it in virtual time. It owns its state, so that its
//! start and its end can run on another thread: with thousands of sensors they take milliseconds. Called by the collector,
//! which sends the requests.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::debug;

use super::{
    discovery::{LocationWalk, SensorUpdate, SensorUpdates, non_empty},
    plan::CollectionPlan,
    queue::{Job, RequestQueue, Step},
    readings::ParsedReadings,
    registry::SensorRegistry,
    schedule::CollectionWindow,
};
use crate::{
    api::{LocationReply, RequestError, SensorReply},
    snapshot::{Summary, UnixTime},
    stats::Reason,
};

/// After this share of a collection's time, configured sensors stop waiting for pending locations. A sensor that a location held
/// in an earlier collection still waits for that location. Requests are spread over half of the interval, so all locations
/// have been requested by then, and enough time is left for the sensors.
const DIRECT_FALLBACK_SHARE: f64 = 2.0 / 3.0;

/// A good reply.
#[derive(Debug)]
pub enum Reply {
    /// The reply to [`Job::Sensor`].
    Sensor(SensorReply),
    /// The reply to [`Job::Location`].
    Location(LocationReply),
}

/// Something that could not be read in a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFailure {
    /// What could not be read, such as `sensor AQ2-FE753C0D7ADF`.
    pub subject: String,
    /// The reason as it is counted.
    pub reason: Reason,
    /// The error for a person; without secrets.
    pub message: String,
    /// Whether nothing was sent because there was no access token.
    pub no_token: bool,
}

/// A collection that is running.
#[derive(Debug)]
pub struct CollectionRun {
    plan: Arc<CollectionPlan>,
    registry: SensorRegistry,
    start: Instant,
    deadline: Instant,
    direct_fallback_at: Instant,
    queue: RequestQueue,
    walk: LocationWalk,
    /// Locations that have failed once and will be requested again: sensors do not wait for them.
    retried: HashSet<Arc<str>>,
    /// From the sensors' own requests.
    updates: SensorUpdates,
    /// Whether configured sensors that a location may hold are not queued yet.
    sensors_wait: bool,
    failures: Vec<RequestFailure>,
}

impl CollectionRun {
    /// Starts a collection: queues the requests that need not wait for a reply.
    pub fn start(
        plan: Arc<CollectionPlan>,
        registry: SensorRegistry,
        start: Instant,
        window: CollectionWindow,
        rng: fastrand::Rng,
    ) -> Self {
        let CollectionWindow { deadline, spread } = window;
        let mut walk = LocationWalk::start(plan.locations.clone(), registry.location_cache.clone());
        let sensors_wait = !plan.locations.is_empty();
        let sensors = plan
            .sensors
            .keys()
            .filter(|id| !sensors_wait || registry.is_known_outside_locations(id))
            .cloned()
            .map(Job::Sensor);
        let locations = walk.take_to_request().into_iter().map(Job::Location);
        let carried_over = registry.carried_over.clone();
        let max_in_flight = plan.max_concurrency;
        let mut queue = RequestQueue::new(max_in_flight, start, deadline, carried_over, rng);
        queue.add(locations.chain(sensors), start, spread);
        Self {
            plan,
            registry,
            start,
            deadline,
            direct_fallback_at: start + (deadline - start).mul_f64(DIRECT_FALLBACK_SHARE),
            queue,
            walk,
            retried: HashSet::new(),
            updates: SensorUpdates::new(),
            sensors_wait,
            failures: Vec::new(),
        }
    }

    /// Returns what to do at `now`.
    pub fn next(&mut self, now: Instant) -> Step {
        if now >= self.deadline {
            return Step::Done;
        }
        if self.sensors_wait
            && (now >= self.direct_fallback_at || !self.walk.is_pending_except(&self.retried))
        {
            self.sensors_wait = false;
            let jobs = self.sensors_to_request_directly();
            self.queue.add(jobs, now, Duration::ZERO);
        }
        match self.queue.next(now) {
            Step::Wait(until) if self.sensors_wait => {
                Step::Wait(until.min(self.direct_fallback_at))
            }
            step => step,
        }
    }

    /// Takes in the result of a request.
    pub fn handle_result(
        &mut self,
        job: &Job,
        result: Result<Reply, RequestError>,
        now: Instant,
        unix_now: UnixTime,
    ) {
        let result = result.and_then(|reply| self.take_reply(job, reply, unix_now));
        if let Err(error) = result {
            let timed_out = error.reason == Reason::Timeout;
            if error.retryable && self.queue.retry(job, timed_out, now) {
                debug!(%job, %error, "request failed; it will be repeated");
                if let Job::Location(id) = job {
                    self.retried.insert(id.clone());
                }
                return;
            }
            self.fail(job, error);
        }
        self.queue.remove(job);
        let further = self.walk.take_to_request().into_iter().map(Job::Location);
        self.queue.add(further, now, Duration::ZERO);
    }

    fn take_reply(
        &mut self,
        job: &Job,
        reply: Reply,
        unix_now: UnixTime,
    ) -> Result<(), RequestError> {
        let (Job::Location(id) | Job::Sensor(id)) = job;
        let reply = match reply {
            Reply::Location(reply) => reply,
            Reply::Sensor(reply) => {
                let update = SensorUpdate {
                    name: non_empty(reply.name.as_deref()).map(Arc::from),
                    readings: Some(ParsedReadings::parse(reply.items, unix_now)),
                    ..SensorUpdate::default()
                };
                self.updates.insert(id.clone(), update);
                return Ok(());
            }
        };
        for sensor in reply.sensors.iter().filter(|it| it.items.is_none()) {
            self.failures.push(RequestFailure {
                subject: format!("sensor {} in {job}", sensor.id),
                reason: Reason::Malformed,
                message: "its `data` is not an array".to_owned(),
                no_token: false,
            });
        }
        self.walk
            .apply_reply(id, reply, self.plan.max_series, unix_now)
            .map_err(RequestError::over_limit)
    }

    /// Records a request that has failed for good.
    fn fail(&mut self, job: &Job, error: RequestError) {
        debug!(%job, %error, "request failed");
        match job {
            Job::Location(id) => self.walk.apply_failure(id),
            // Without readings, the sensor counts as failed.
            Job::Sensor(id) => {
                self.updates.insert(id.clone(), SensorUpdate::default());
            }
        }
        self.failures.push(RequestFailure {
            subject: job.to_string(),
            reason: error.reason,
            message: error.message,
            no_token: error.no_token,
        });
    }

    /// Finishes the collection. Requests without an answer have failed, and are carried over to the next one (see `queue`).
    pub fn finish(
        mut self,
        now: Instant,
        unix_now: UnixTime,
    ) -> (SensorRegistry, Vec<RequestFailure>) {
        self.fail_unanswered(now);
        let (plan, mut registry) = (&*self.plan, self.registry);
        let (locations_failed, location_requests_answered) = self.walk.counts();
        let sensor_answered = self.updates.values().any(|it| it.readings.is_some());
        let needs_nothing = plan.sensors.is_empty() && plan.locations.is_empty();
        let up = location_requests_answered > 0 || sensor_answered || needs_nothing;
        let summary = Summary {
            up,
            duration: now.saturating_duration_since(self.start),
            last_success: up.then_some(unix_now).or(registry.summary.last_success),
            locations_failed,
            interval: plan.interval,
            ..Summary::default()
        };
        registry.apply(plan, self.updates, &self.walk, summary, unix_now);
        (registry, self.failures)
    }

    /// Cancels the collection: its replies are discarded.
    pub fn cancel(self) -> SensorRegistry {
        self.registry
    }

    fn fail_unanswered(&mut self, now: Instant) {
        self.walk.fail_pending();
        let locations = self.walk.take_to_request().into_iter().map(Job::Location);
        // It may have been too late to request sensors that turned out to be in no location.
        let never_added = locations.chain(self.sensors_to_request_directly());
        let unanswered = self.queue.end(now, never_added);
        for job in unanswered.keys() {
            self.fail(job, RequestError::out_of_time());
        }
        self.registry.carried_over = unanswered;
    }

    /// Returns the configured sensors to request directly now: in no location so far, not queued at the start, and without a
    /// result.
    fn sensors_to_request_directly(&self) -> Vec<Job> {
        let (registry, walk) = (&self.registry, &self.walk);
        let in_locations = walk.sensors_in_replies();
        let ids = self.plan.sensors.keys();
        let uncovered = ids.filter(|id| {
            !registry.is_known_outside_locations(id)
                && !in_locations.contains(&***id)
                && !registry.was_in_location_without_reply(id, walk)
                && !self.updates.contains_key(*id)
        });
        uncovered.cloned().map(Job::Sensor).collect()
    }
}
