//! One collection: what to send next, what became of it, and what is known in the end.
//!
//! A state machine around [`Plan`], [`Survey`] and [`Ledger`] that takes `now` and does not wait: the same in the loop of
//! the collector and in a test's virtual time. It owns what it works on, so that its beginning and its end can be made on
//! another thread: with thousands of sensors they take milliseconds.

use std::{
    collections::{BTreeMap, HashSet},
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::debug;

use super::{
    ledger::{Direct, Ledger},
    plan::{Attempt, Job, Next, Plan, Unanswered},
    schedule::Course,
    survey::Survey,
};
use crate::{
    api::{LocationReply, RequestError, SensorReply},
    config::{Location, Sensor},
    snapshot::{Summary, UnixTime},
    stats::Reason,
};

/// Share of a collection's time after which listed sensors wait no longer for locations that may cover them: later than
/// the last location of a spread collection is asked for, and with time enough left for the sensors.
const PATIENCE_SHARE: f64 = 2.0 / 3.0;

/// What was sent this share of a collection's time before its end, and has no answer then, hangs.
const HUNG_SHARE: f64 = 0.1;

/// Sensors that a configuration lists, by id, each once.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Shared with the configuration, in its order.
    sensors: Arc<[Sensor]>,
    /// Where they stand there.
    by_id: Box<[u32]>,
}

impl From<Arc<[Sensor]>> for Listed {
    fn from(sensors: Arc<[Sensor]>) -> Self {
        let id = |at: &u32| &sensors[*at as usize].id;
        let mut by_id: Vec<u32> = (0..).take(sensors.len()).collect();
        by_id.sort_by(|a, b| id(a).cmp(id(b)));
        by_id.dedup_by(|later, first| id(later) == id(first));
        Self {
            by_id: by_id.into(),
            sensors,
        }
    }
}

impl Listed {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Sensor> {
        self.by_id.iter().map(|at| self.at(*at))
    }

    pub(super) fn get(&self, id: &str) -> Option<&Sensor> {
        let place = self.by_id.binary_search_by(|at| (*self.at(*at).id).cmp(id));
        place.ok().map(|place| self.at(self.by_id[place]))
    }

    fn is_empty(&self) -> bool {
        self.sensors.is_empty()
    }

    fn at(&self, at: u32) -> &Sensor {
        &self.sensors[at as usize]
    }
}

/// What one configuration has collected.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Asked for one by one, where no location covers them.
    pub sensors: Listed,
    /// Asked for whole.
    pub locations: Arc<[Location]>,
    /// Requests in flight at most.
    pub slots: usize,
    /// Between the starts of two collections, in force.
    pub interval: Duration,
    /// Of all sensors together.
    pub max_series: usize,
    /// Whether the time of each reading is a series too.
    pub reading_timestamps: bool,
}

/// A good answer.
#[derive(Debug)]
pub enum Reply {
    /// To [`Job::Sensor`].
    Sensor(SensorReply),
    /// To [`Job::Location`] and [`Job::Base`].
    Location(LocationReply),
}

/// What to do now.
#[derive(Debug)]
pub enum Step {
    /// Send this.
    Send(Attempt),
    /// Nothing before then, unless an answer comes.
    Wait(Instant),
    /// Close the round.
    Done,
}

/// What could not be read in a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Such as `sensor AQ2-FE753C0D7ADF`.
    pub of: String,
    /// As it is counted.
    pub reason: Reason,
    /// For a person; no secret.
    pub what: String,
    /// For want of a token, so that nothing was sent.
    pub no_token: bool,
}

/// One collection under way.
#[derive(Debug)]
pub struct Round {
    targets: Arc<Targets>,
    ledger: Ledger,
    start: Instant,
    deadline: Instant,
    /// Until then listed sensors wait for locations that may cover them.
    patience: Instant,
    luck: fastrand::Rng,
    plan: Plan,
    survey: Survey,
    direct: Direct,
    /// Listed sensors that locations may cover are not in the plan yet.
    sensors_wait: bool,
    problems: Vec<Problem>,
    /// Sent and not answered yet, since when.
    out: BTreeMap<Job, Instant>,
    /// Jobs so far.
    known: usize,
    unanswered: BTreeMap<Job, Unanswered>,
}

impl Round {
    /// Puts into the plan what can be asked for before anything is answered.
    pub fn begin(
        targets: Arc<Targets>,
        mut ledger: Ledger,
        start: Instant,
        course: Course,
        luck: fastrand::Rng,
    ) -> Self {
        let Course { deadline, spread } = course;
        let mut survey = Survey::new(targets.locations.clone(), take(&mut ledger.locations));
        let (base, locations) = survey.begin();
        let locations = locations.into_iter().map(Job::Location);
        let mut jobs: Vec<Job> = base
            .then_some(Job::Base)
            .into_iter()
            .chain(locations)
            .collect();
        let sensors_wait = !jobs.is_empty();
        let at_once = targets
            .sensors
            .iter()
            .filter(|sensor| !sensors_wait || ledger.was_asked_directly(&sensor.id));
        jobs.extend(at_once.map(|sensor| Job::Sensor(sensor.id.clone())));
        let mut round = Self {
            unanswered: take(&mut ledger.unanswered),
            plan: Plan::new(targets.slots, deadline),
            targets,
            ledger,
            start,
            deadline,
            patience: start + (deadline - start).mul_f64(PATIENCE_SHARE),
            luck,
            survey,
            direct: Direct::new(),
            sensors_wait,
            problems: Vec::new(),
            out: BTreeMap::new(),
            known: 0,
        };
        round.add(jobs, start, spread);
        round
    }

    /// What to do at this moment.
    pub fn next(&mut self, now: Instant) -> Step {
        if now >= self.deadline {
            return Step::Done;
        }
        loop {
            let wake = match self.plan.next(now) {
                Next::Send(attempt) => {
                    self.out.insert(attempt.job.clone(), now);
                    return Step::Send(attempt);
                }
                Next::Wait(at) => Some(at),
                Next::Nothing => None,
            };
            if self.sensors_wait {
                if self.plan.has_tried_locations() || now >= self.patience {
                    self.add_sensors_not_covered(now);
                    continue;
                }
                return Step::Wait(wake.unwrap_or(self.deadline).min(self.patience));
            }
            return match wake {
                Some(at) => Step::Wait(at.min(self.deadline)),
                None if self.out.is_empty() => Step::Done,
                None => Step::Wait(self.deadline),
            };
        }
    }

    /// An attempt has its result.
    pub fn ended(
        &mut self,
        attempt: Attempt,
        result: Result<Reply, RequestError>,
        now: Instant,
        unix_now: UnixTime,
    ) {
        self.out.remove(&attempt.job);
        let job = attempt.job.clone();
        let max_series = self.targets.max_series;
        let result = result.and_then(|reply| match reply {
            Reply::Location(reply) => {
                let room = self.survey.make_room(&reply, max_series);
                room.map_err(RequestError::over_limit)?;
                let found = reply.sensors.iter();
                for garbled in found.filter(|found| found.items.is_none()) {
                    self.problems.push(Problem {
                        of: format!("sensor {} in {job}", garbled.id),
                        reason: Reason::Malformed,
                        what: "its `data` is no array".to_owned(),
                        no_token: false,
                    });
                }
                Ok(Reply::Location(reply))
            }
            reply => Ok(reply),
        });
        let failure = match result {
            Ok(reply) => {
                self.plan.ended(&attempt);
                return self.answered(&job, Some(reply), now, unix_now);
            }
            Err(failure) => failure,
        };
        if failure.retryable {
            let timed_out = failure.reason == Reason::Timeout;
            if self
                .plan
                .try_again(attempt, timed_out, now, self.luck.f64())
            {
                debug!(%job, error = %failure, "request failed, will be sent again");
                return;
            }
        } else {
            self.plan.ended(&attempt);
        }
        self.failed(&job, &failure);
        self.answered(&job, None, now, unix_now);
    }

    /// How many requests have their result, and how many are known of.
    pub fn progress(&self) -> (usize, usize) {
        let ahead = self.plan.waiting() + self.out.len();
        (self.known - ahead, self.known)
    }

    /// The end: what is out hangs, what waits was never sent, and both go first next time. The ledger then holds what
    /// this collection has found; what it has not is given back.
    pub fn close(mut self, now: Instant, unix_now: UnixTime) -> (Ledger, Vec<Problem>) {
        self.give_up(now);
        let (targets, mut ledger) = (&*self.targets, self.ledger);
        let (locations_failed, locations_good) = self.survey.tally();
        let succeeded = locations_good > 0 || self.direct.iter().any(|(_, own)| own.is_some());
        let needs_none = targets.sensors.is_empty() && targets.locations.is_empty();
        let up = succeeded || needs_none;
        ledger.close(&targets.sensors, self.direct, self.survey, unix_now);
        let excess = ledger.excess();
        let (sensors_dropped, readings_dropped) = ledger.keep_within(targets);
        ledger.unanswered = self.unanswered;
        ledger.summary = Summary {
            up,
            duration: now.saturating_duration_since(self.start),
            last_success: up.then_some(unix_now).or(ledger.summary.last_success),
            sensors_failed: ledger.unread(),
            locations_failed,
            sensors_dropped,
            readings_dropped: excess + readings_dropped,
            interval: targets.interval,
        };
        (ledger, self.problems)
    }

    /// There is something else to collect now: nothing of this collection is kept.
    pub fn abandon(mut self) -> Ledger {
        self.ledger.unanswered = self.unanswered;
        self.ledger.locations = self.survey.abandon();
        self.ledger
    }

    /// Once the locations have told what they contain: the listed sensors that none of them covers.
    fn add_sensors_not_covered(&mut self, now: Instant) {
        self.sensors_wait = false;
        let jobs = self.not_covered().map(Job::Sensor).collect();
        self.add(jobs, now, Duration::ZERO);
    }

    fn not_covered(&self) -> impl Iterator<Item = Arc<str>> {
        let (seen, ledger, survey) = (self.survey.seen(), &self.ledger, &self.survey);
        let late = self
            .targets
            .sensors
            .iter()
            .filter(|sensor| !ledger.was_asked_directly(&sensor.id));
        late.filter(move |sensor| ledger.asks_directly(&sensor.id, survey, &seen))
            .map(|sensor| sensor.id.clone())
    }

    fn add(&mut self, jobs: Vec<Job>, start: Instant, spread: Duration) {
        self.known += jobs.len();
        let jobs = jobs.into_iter().map(|job| {
            let unanswered = self.unanswered.remove(&job);
            (job, unanswered)
        });
        self.plan
            .add(jobs.collect(), start, spread, || self.luck.f64());
    }

    /// A job has its result; `None` = it failed for good.
    fn answered(&mut self, job: &Job, reply: Option<Reply>, now: Instant, unix_now: UnixTime) {
        let names = &mut self.ledger.names;
        let location = |reply| match reply {
            Some(Reply::Location(reply)) => Some(reply),
            _ => None,
        };
        let further = match job {
            Job::Sensor(id) => {
                let settled = match reply {
                    Some(Reply::Sensor(reply)) => Some(self.ledger.settle(reply, unix_now)),
                    _ => None,
                };
                self.direct.push((id.clone(), settled));
                Vec::new()
            }
            Job::Base => self.survey.base_answered(location(reply), unix_now, names),
            Job::Location(id) => self.survey.answered(id, location(reply), unix_now, names),
        };
        if !further.is_empty() {
            let further = further.into_iter().map(Job::Location).collect();
            self.add(further, now, Duration::ZERO);
        }
    }

    fn failed(&mut self, job: &Job, failure: &RequestError) {
        debug!(%job, error = %failure, "request failed");
        self.problems.push(Problem {
            of: job.to_string(),
            reason: failure.reason,
            what: failure.to_string(),
            no_token: failure.no_token,
        });
    }

    fn give_up(&mut self, now: Instant) {
        let mut unanswered: BTreeMap<Job, Unanswered> = self
            .plan
            .unsent()
            .map(|(job, how)| (job.clone(), how))
            .collect();
        // Of one that was sent just before the end nobody knows that it hangs.
        let long = (self.deadline - self.start).mul_f64(HUNG_SHARE);
        let out = take(&mut self.out).into_iter().map(|(job, sent)| {
            let hangs = now.saturating_duration_since(sent) >= long;
            let how = if hangs {
                Unanswered::HUNG
            } else {
                Unanswered::passed_over(None)
            };
            (job, how)
        });
        unanswered.extend(out);
        // What stood in no line yet stands as it did before.
        let before = take(&mut self.unanswered);
        let unsent = |job: Job| {
            let how = Unanswered::passed_over(before.get(&job).copied());
            (job, how)
        };
        let never_asked = self.survey.give_up().into_iter().map(Job::Location);
        unanswered.extend(never_asked.map(unsent));
        // Also those whose location turned out not to cover them when it was too late to ask.
        if !self.targets.locations.is_empty() {
            let answered: HashSet<&str> = self.direct.iter().map(|(id, _)| &**id).collect();
            let not_covered = self.not_covered();
            let not_asked = not_covered.filter(|id| !answered.contains(&**id));
            for (job, how) in not_asked.map(Job::Sensor).map(unsent) {
                unanswered.entry(job).or_insert(how);
            }
        }
        for job in unanswered.keys() {
            self.failed(job, &RequestError::out_of_time());
            if let Job::Sensor(id) = job {
                self.direct.push((id.clone(), None));
            }
        }
        self.unanswered = unanswered;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::api::{Item, LocationEntry};

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: UnixTime = 1_716_301_234.0;

    fn targets(sensors: &[&str], locations: &[&str]) -> Arc<Targets> {
        let listed = sensors.iter().map(|id| Sensor {
            id: (*id).into(),
            ..Sensor::default()
        });
        let locations = locations.iter().map(|id| Location {
            id: (*id).to_owned(),
            name: None,
            recursive: true,
        });
        Arc::new(Targets {
            sensors: listed.collect::<Arc<[_]>>().into(),
            locations: locations.collect(),
            slots: 8,
            interval: 60 * SECOND,
            max_series: 1000,
            reading_timestamps: false,
        })
    }

    fn begin(targets: &Arc<Targets>, ledger: Ledger, start: Instant) -> Round {
        let course = Course {
            deadline: start + 54 * SECOND,
            spread: Duration::ZERO,
        };
        let luck = fastrand::Rng::with_seed(7);
        Round::begin(targets.clone(), ledger, start, course, luck)
    }

    /// All that is sent now, by name.
    fn sent(round: &mut Round, now: Instant) -> BTreeMap<String, Attempt> {
        std::iter::from_fn(|| match round.next(now) {
            Step::Send(attempt) => Some((attempt.job.to_string(), attempt)),
            _ => None,
        })
        .collect()
    }

    fn names(attempts: &BTreeMap<String, Attempt>) -> Vec<&str> {
        attempts.keys().map(String::as_str).collect()
    }

    fn items() -> Vec<Item> {
        vec![Item::Reading {
            var_name: "CO2ppm".to_owned(),
            time: NOW,
            value: 500.0,
        }]
    }

    fn of_sensor() -> Result<Reply, RequestError> {
        Ok(Reply::Sensor(SensorReply {
            name: None,
            items: items(),
        }))
    }

    fn of_location(sensors: &[&str]) -> Result<Reply, RequestError> {
        let found = sensors.iter().map(|id| LocationEntry {
            id: (*id).to_owned(),
            name: None,
            parent: None,
            items: Some(items()),
        });
        Ok(Reply::Location(LocationReply {
            sensors: found.collect(),
            ..LocationReply::default()
        }))
    }

    #[test]
    fn listed_sensors_that_no_location_can_cover_are_asked_for_at_once() {
        let start = Instant::now();
        let mut round = begin(&targets(&["A", "B"], &[]), Ledger::default(), start);
        assert_eq!(round.progress(), (0, 2));
        let sent = sent(&mut round, start);
        assert_eq!(names(&sent), ["sensor A", "sensor B"]);
        for attempt in sent.into_values() {
            assert!(matches!(round.next(start), Step::Wait(_)));
            round.ended(attempt, of_sensor(), start, NOW);
        }
        assert!(matches!(round.next(start), Step::Done));
        assert_eq!(round.progress(), (2, 2));
        let (ledger, problems) = round.close(start + SECOND, NOW);
        assert!(problems.is_empty(), "{problems:?}");
        let Summary {
            up,
            duration,
            last_success,
            ..
        } = ledger.summary;
        assert_eq!((up, duration, last_success), (true, SECOND, Some(NOW)));
    }

    #[test]
    fn what_one_sensor_has_too_much_and_what_all_have_is_left_out_together() {
        let start = Instant::now();
        let mut targets = targets(&["A", "B"], &[]);
        Arc::make_mut(&mut targets).max_series = 205;
        let mut round = begin(&targets, Ledger::default(), start);
        for (name, attempt) in sent(&mut round, start) {
            let items = match &*name {
                "sensor A" => (0..203)
                    .map(|n| Item::Reading {
                        var_name: format!("variable {n}"),
                        time: NOW,
                        value: 1.0,
                    })
                    .collect(),
                _ => items(),
            };
            let reply = Reply::Sensor(SensorReply { name: None, items });
            round.ended(attempt, Ok(reply), start, NOW);
        }
        let (ledger, _) = round.close(start + SECOND, NOW);
        let Summary {
            sensors_dropped,
            readings_dropped,
            ..
        } = ledger.summary;
        assert_eq!((sensors_dropped, readings_dropped), (1, 3 + 1));
    }

    #[test]
    fn listed_sensors_wait_for_the_locations_that_may_cover_them() {
        let start = Instant::now();
        let targets = targets(&["A", "B"], &["1"]);
        let mut round = begin(&targets, Ledger::default(), start);
        let mut first = sent(&mut round, start);
        assert_eq!(names(&first), ["location 1"]);
        let attempt = first.remove("location 1").unwrap();
        round.ended(attempt, of_location(&["A"]), start + SECOND, NOW);
        let mut second = sent(&mut round, start + SECOND);
        assert_eq!(names(&second), ["sensor B"]);
        assert_eq!(round.progress(), (1, 2));
        let attempt = second.remove("sensor B").unwrap();
        round.ended(attempt, of_sensor(), start + SECOND, NOW);
        assert!(matches!(round.next(start + SECOND), Step::Done));

        // The next time it is known which one no location covers.
        let (ledger, _) = round.close(start + SECOND, NOW);
        let mut round = begin(&targets, ledger, start);
        let next = sent(&mut round, start);
        assert_eq!(names(&next), ["location 1", "sensor B"]);
    }

    #[test]
    fn what_lies_below_a_location_is_asked_for_and_one_good_answer_will_do() {
        let start = Instant::now();
        let mut round = begin(&targets(&[], &["1"]), Ledger::default(), start);
        let mut first = sent(&mut round, start);
        let below = LocationEntry {
            id: "2".to_owned(),
            name: None,
            parent: None,
            items: None,
        };
        let reply = Reply::Location(LocationReply {
            children: vec![below],
            ..LocationReply::default()
        });
        let attempt = first.remove("location 1").unwrap();
        round.ended(attempt, Ok(reply), start, NOW);
        assert_eq!(names(&sent(&mut round, start)), ["location 2"]);
        let (ledger, problems) = round.close(start, NOW);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(ledger.summary.up);
    }

    #[test]
    fn listed_sensors_do_not_wait_for_a_location_that_hangs_for_ever() {
        let start = Instant::now();
        let mut round = begin(&targets(&["A"], &["1"]), Ledger::default(), start);
        assert_eq!(names(&sent(&mut round, start)), ["location 1"]);
        let Step::Wait(until) = round.next(start + SECOND) else {
            panic!("there is nothing to do yet");
        };
        assert_eq!(until, start + 36 * SECOND);
        let mut late = sent(&mut round, until);
        assert_eq!(names(&late), ["sensor A"]);
        let attempt = late.remove("sensor A").unwrap();
        round.ended(attempt, of_sensor(), until, NOW);
        let end = start + 54 * SECOND;
        assert!(matches!(round.next(until), Step::Wait(at) if at == end));
        assert!(matches!(round.next(end), Step::Done));
        let (ledger, problems) = round.close(end, NOW);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].of, "location 1");
        assert_eq!(ledger.summary.locations_failed, 1);
        assert!(ledger.summary.up, "a sensor was read");
    }

    #[test]
    fn what_there_was_no_time_for_has_failed_and_goes_first_next_time() {
        let start = Instant::now();
        let targets = targets(&["A"], &["1"]);
        let mut round = begin(&targets, Ledger::default(), start);
        assert_eq!(names(&sent(&mut round, start)), ["location 1"]);
        let (ledger, problems) = round.close(start + 54 * SECOND, NOW);
        let mut failed: Vec<_> = problems.iter().map(|problem| &*problem.of).collect();
        failed.sort_unstable();
        assert_eq!(failed, ["location 1", "sensor A"]);
        assert!(!ledger.summary.up);
        assert_eq!(ledger.summary.sensors_failed, 1);
        assert_eq!(
            ledger.unanswered.into_iter().collect::<Vec<_>>(),
            [
                (Job::Location("1".into()), Unanswered::HUNG),
                (Job::Sensor("A".into()), Unanswered::passed_over(None)),
            ]
        );
    }

    #[test]
    fn what_timed_out_leaves_half_of_the_slots_to_the_others() {
        let start = Instant::now();
        let ids: Vec<_> = (0..16).map(|id| id.to_string()).collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        let course = Course {
            deadline: start + 54 * SECOND,
            spread: 16 * SECOND,
        };
        let luck = fastrand::Rng::with_seed(7);
        let targets = targets(&ids, &[]);
        let mut round = Round::begin(targets, Ledger::default(), start, course, luck);
        let half_way = start + 8 * SECOND;
        let first = sent(&mut round, half_way);
        assert_eq!(first.len(), 8);
        let names: std::collections::BTreeSet<_> = first.keys().cloned().collect();
        for attempt in first.into_values() {
            round.ended(attempt, Err(RequestError::out_of_time()), half_way, NOW);
        }
        let again = sent(&mut round, start + 17 * SECOND);
        let repeated = again.keys().filter(|name| names.contains(*name));
        assert_eq!((repeated.count(), again.len()), (4, 8));
    }

    #[test]
    fn where_there_is_no_time_for_all_each_is_read_in_turn() {
        let mut start = Instant::now();
        let ids: Vec<_> = (0..100).map(|id| id.to_string()).collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        let mut targets = Arc::unwrap_or_clone(targets(&ids, &[]));
        targets.slots = 1;
        let targets = Arc::new(targets);
        let mut ledger = Ledger::default();
        let mut last_read = vec![0; ids.len()];
        for collection in 1..200 {
            let mut round = begin(&targets, ledger, start);
            // Each answer takes a second: some half of them come in time, and one is cut off.
            let mut now = start;
            while let Step::Send(attempt) = round.next(now) {
                now += SECOND + SECOND / 100;
                if now < start + 54 * SECOND {
                    let Job::Sensor(id) = &attempt.job else {
                        panic!()
                    };
                    last_read[id.parse::<usize>().unwrap()] = collection;
                    round.ended(attempt, of_sensor(), now, NOW);
                }
            }
            ledger = round.close(start + 54 * SECOND, NOW).0;
            let longest = last_read.iter().map(|read| collection - read).max();
            assert!(longest < Some(4), "{longest:?} in collection {collection}");
            start += 60 * SECOND;
        }
    }

    #[test]
    fn who_asks_for_nothing_has_all_there_is() {
        let start = Instant::now();
        for (sensors, locations, up) in [
            (&[][..], &[][..], true),
            (&["A"], &[], false),
            (&[], &["1"], false),
        ] {
            let round = begin(&targets(sensors, locations), Ledger::default(), start);
            let (ledger, _) = round.close(start, NOW);
            assert_eq!(ledger.summary.up, up, "{sensors:?} {locations:?}");
        }
    }
}
