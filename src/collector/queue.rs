//! The order and the times of one collection's requests, and which of them are repeated. Pure: sends nothing, takes `now`,
//! never waits. Called by `run`.
//!
//! There is one order: the request that was not sent for the longest time goes first. Requests that hung in the last
//! collection keep their place in it, but are at most half of the requests in flight, so that they never hold up the others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use super::plan::BASE_LOCATION;

/// How often a request is sent at most, if its failures may be temporary.
const MAX_ATTEMPTS: u32 = 3;
/// The backoff before the second attempt. It doubles before the third, and is jittered by half either way.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// A request in flight at the end counts as hung if it has waited for at least this share of the collection's time. A younger
/// one may only have had too little time.
const HUNG_SHARE: f64 = 0.1;

/// One thing to request from the API, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Job {
    /// A location with all its sensors; `base` is the account's base location.
    Location(Arc<str>),
    /// One sensor.
    Sensor(Arc<str>),
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Location(id) if **id == *BASE_LOCATION => f.write_str("the base location"),
            Self::Location(id) => write!(f, "location {id}"),
            Self::Sensor(id) => write!(f, "sensor {id}"),
        }
    }
}

/// The next thing that a collection has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this request.
    Send(Job),
    /// Wait until then, or for a reply.
    Wait(Instant),
    /// Finish the collection.
    Done,
}

/// How a job went so far: in the collections before, and in this one once it has timed out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CarriedOver {
    /// The higher, the sooner it is sent: 0 if it was answered or failed for good, 1 if it was sent without an answer, and one
    /// more for each collection that had no time to send it.
    pub(super) priority: u32,
    /// Whether it got no response at least once since it was last answered.
    pub(super) hung: bool,
}

impl CarriedOver {
    fn not_sent(self) -> Self {
        Self {
            priority: self.priority.max(1) + 1,
            ..self
        }
    }
}

/// A job that waits to be sent or is in flight.
#[derive(Debug)]
struct Request {
    job: Job,
    /// The number of times it was sent in this collection.
    attempts: u32,
    history: CarriedOver,
}

/// The requests of one collection.
#[derive(Debug)]
pub(super) struct RequestQueue {
    max_in_flight: usize,
    deadline: Instant,
    /// How long a request must have been in flight at the end to count as hung.
    hung_after: Duration,
    rng: fastrand::Rng,
    carried_over: BTreeMap<Job, CarriedOver>,
    /// By the time before which it is not sent, then by the order of arrival.
    waiting: BTreeMap<(Instant, usize), Request>,
    /// The same for requests that hung when they were last sent.
    waiting_hung: BTreeMap<(Instant, usize), Request>,
    /// Each with the time at which it was sent.
    in_flight: HashMap<Job, (Request, Instant)>,
    arrivals: usize,
}

impl RequestQueue {
    /// Returns an empty queue. `carried_over` comes from the last collection.
    pub(super) fn new(
        max_in_flight: usize,
        start: Instant,
        deadline: Instant,
        carried_over: BTreeMap<Job, CarriedOver>,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            max_in_flight: max_in_flight.max(1),
            deadline,
            hung_after: (deadline - start).mul_f64(HUNG_SHARE),
            rng,
            carried_over,
            waiting: BTreeMap::new(),
            waiting_hung: BTreeMap::new(),
            in_flight: HashMap::new(),
            arrivals: 0,
        }
    }

    /// Adds jobs, spread evenly from `start` over `spread`, each at a random time within its part.
    pub(super) fn add(
        &mut self,
        jobs: impl IntoIterator<Item = Job>,
        start: Instant,
        spread: Duration,
    ) {
        let mut requests: Vec<Request> = jobs
            .into_iter()
            .map(|job| Request {
                history: self.history_of(&job),
                job,
                attempts: 0,
            })
            .collect();
        requests.sort_by_key(|request| Reverse(request.history.priority));
        let part = spread.div_f64(requests.len().max(1) as f64);
        for (index, request) in requests.into_iter().enumerate() {
            let offset = part.mul_f64(index as f64 + self.rng.f64());
            self.enqueue(start + offset, request);
        }
    }

    fn history_of(&self, job: &Job) -> CarriedOver {
        self.carried_over.get(job).copied().unwrap_or_default()
    }

    fn enqueue(&mut self, not_before: Instant, request: Request) {
        self.arrivals += 1;
        let waiting = match request.history.hung {
            true => &mut self.waiting_hung,
            false => &mut self.waiting,
        };
        waiting.insert((not_before, self.arrivals), request);
    }

    /// Returns what to do at `now`, and counts a request that is to be sent as sent.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        if self.in_flight.len() >= self.max_in_flight {
            return Step::Wait(self.deadline);
        }
        let may_send_one_that_hung = self.may_send_one_that_hung();
        let hung = self
            .waiting_hung
            .first_entry()
            .filter(|_| may_send_one_that_hung);
        let candidates = self.waiting.first_entry().into_iter().chain(hung);
        match candidates.min_by_key(|entry| *entry.key()) {
            Some(entry) if entry.key().0 <= now => {
                let mut request = entry.remove();
                request.attempts += 1;
                let job = request.job.clone();
                self.in_flight.insert(job.clone(), (request, now));
                Step::Send(job)
            }
            Some(entry) => Step::Wait(entry.key().0.min(self.deadline)),
            None if self.in_flight.is_empty() => Step::Done,
            None => Step::Wait(self.deadline),
        }
    }

    /// Returns whether one more request that hung may be sent. With `max_in_flight` 1 it must wait until nothing else does.
    fn may_send_one_that_hung(&self) -> bool {
        let in_flight = self.in_flight.values();
        let hung_in_flight = in_flight.filter(|(it, _)| it.history.hung).count();
        hung_in_flight < self.max_in_flight / 2
            || (self.in_flight.is_empty() && self.waiting.is_empty())
    }

    /// Removes a request that was answered, or has failed for good.
    pub(super) fn remove(&mut self, job: &Job) {
        self.in_flight.remove(job);
    }

    /// Queues a failed request again, after a backoff. Returns false if there is no further attempt; the request is then removed.
    pub(super) fn retry(&mut self, job: &Job, timed_out: bool, now: Instant) -> bool {
        let Some((mut request, _)) = self.in_flight.remove(job) else {
            return false;
        };
        let backoff = FIRST_BACKOFF
            .saturating_mul(1 << (request.attempts - 1))
            .mul_f64(0.5 + self.rng.f64());
        let not_before = now + backoff;
        let is_retried = request.attempts < MAX_ATTEMPTS && not_before < self.deadline;
        if is_retried {
            request.history.hung |= timed_out;
            self.enqueue(not_before, request);
        }
        is_retried
    }

    /// Ends the collection: returns the jobs without an answer, those that were `never_added` included.
    pub(super) fn end(
        &mut self,
        now: Instant,
        never_added: impl IntoIterator<Item = Job>,
    ) -> BTreeMap<Job, CarriedOver> {
        let never_added = never_added.into_iter();
        let mut unanswered: BTreeMap<Job, CarriedOver> = never_added
            .map(|job| (job.clone(), self.history_of(&job).not_sent()))
            .collect();
        let waiting = [&mut self.waiting, &mut self.waiting_hung];
        for request in waiting.into_iter().flat_map(|it| take(it).into_values()) {
            let history = match request.attempts {
                0 => request.history.not_sent(),
                _ => CarriedOver {
                    priority: 1,
                    ..request.history
                },
            };
            unanswered.insert(request.job, history);
        }
        for (job, (_, sent_at)) in take(&mut self.in_flight) {
            let hung = now.saturating_duration_since(sent_at) >= self.hung_after;
            unanswered.insert(job, CarriedOver { priority: 1, hung });
        }
        unanswered
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sensor(index: usize) -> Job {
        Job::Sensor(index.to_string().into())
    }

    fn index(job: &Job) -> usize {
        let Job::Sensor(id) = job else {
            panic!("{job} is not a sensor")
        };
        id.parse().unwrap_or(usize::MAX)
    }

    type Unanswered = BTreeMap<Job, CarriedOver>;

    /// A collection of a minute.
    fn queue(max_in_flight: usize, start: Instant, carried_over: Unanswered) -> RequestQueue {
        let rng = fastrand::Rng::with_seed(7);
        RequestQueue::new(max_in_flight, start, start + 60 * SECOND, carried_over, rng)
    }

    fn carried_over(priority: u32, hung: bool) -> CarriedOver {
        CarriedOver { priority, hung }
    }

    fn send_all(queue: &mut RequestQueue, now: Instant) -> Vec<Job> {
        std::iter::from_fn(|| match queue.next(now) {
            Step::Send(job) => Some(job),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn requests_are_spread_evenly() {
        let start = Instant::now();
        let mut queue = queue(8, start, Unanswered::new());
        queue.add((0..3).map(sensor), start, 30 * SECOND);
        for part in 0..3 {
            let Step::Wait(at) = queue.next(start) else {
                panic!("nothing is sent at the start")
            };
            let earliest = start + 10 * SECOND * part;
            assert!((earliest..earliest + 10 * SECOND).contains(&at));
            assert_eq!(queue.next(at), Step::Send(sensor(part as usize)));
        }
    }

    #[test]
    fn requests_unsent_for_longest_go_first_and_those_that_hung_are_half_of_those_in_flight() {
        let now = Instant::now();
        let mut carried: Unanswered = (10..14)
            .map(|id| (sensor(id), carried_over(1, true)))
            .collect();
        carried.insert(sensor(2), carried_over(2, false));
        carried.insert(sensor(3), carried_over(3, false));
        let mut queue = queue(4, now, carried);
        queue.add(
            [0, 1, 2, 3, 10, 11, 12, 13].map(sensor),
            now,
            Duration::ZERO,
        );
        assert_eq!(send_all(&mut queue, now), [3, 2, 10, 11].map(sensor));
        queue.remove(&sensor(2));
        assert_eq!(
            send_all(&mut queue, now),
            [sensor(0)],
            "not a third that hung"
        );
        queue.remove(&sensor(10));
        assert_eq!(
            send_all(&mut queue, now),
            [sensor(12)],
            "in place of another"
        );
        for id in [0, 3] {
            queue.remove(&sensor(id));
        }
        assert_eq!(send_all(&mut queue, now), [sensor(1)]);
        queue.remove(&sensor(1));
        assert_eq!(send_all(&mut queue, now), [], "others may be added later");
    }

    #[test]
    fn requests_that_time_out_are_half_of_those_in_flight_when_repeated() {
        let start = Instant::now();
        let mut queue = queue(4, start, Unanswered::new());
        queue.add((0..4).map(sensor), start, Duration::ZERO);
        for job in send_all(&mut queue, start) {
            assert!(queue.retry(&job, true, start));
        }
        queue.add((4..8).map(sensor), start + SECOND, Duration::ZERO);
        let sent = send_all(&mut queue, start + SECOND);
        let repeated = sent.iter().filter(|job| index(job) < 4).count();
        assert_eq!((repeated, sent.len()), (2, 4));
    }

    #[test]
    fn a_request_is_sent_three_times_with_growing_backoff() {
        let mut now = Instant::now();
        let mut queue = queue(1, now, Unanswered::new());
        queue.add([sensor(0)], now, Duration::ZERO);
        for backoff_ms in [250..750, 500..1500] {
            assert_eq!(queue.next(now), Step::Send(sensor(0)));
            assert!(queue.retry(&sensor(0), false, now));
            let Step::Wait(at) = queue.next(now) else {
                panic!("it is sent again at once")
            };
            assert!(backoff_ms.contains(&(at - now).as_millis()));
            now = at;
        }
        assert_eq!(queue.next(now), Step::Send(sensor(0)));
        assert!(!queue.retry(&sensor(0), false, now));
        assert_eq!(queue.next(now), Step::Done);
    }

    #[test]
    fn requests_not_sent_and_requests_that_hang_are_carried_over_differently() {
        let start = Instant::now();
        let end = start + 60 * SECOND;
        let not_sent_before = Unanswered::from([(sensor(2), carried_over(2, true))]);
        let mut queue = queue(2, start, not_sent_before);
        queue.add([sensor(0), sensor(1)], start, Duration::ZERO);
        send_all(&mut queue, start);
        queue.remove(&sensor(1));
        queue.add([sensor(3), sensor(4)], end - SECOND, Duration::ZERO);
        send_all(&mut queue, end - SECOND);
        let expected = [
            (sensor(0), carried_over(1, true)),
            (sensor(2), carried_over(3, true)),
            (sensor(3), carried_over(1, false)),
            (sensor(4), carried_over(2, false)),
        ];
        assert_eq!(queue.end(end, [sensor(2)]), Unanswered::from(expected));
    }

    /// Runs one collection in which some jobs hang until its end and the others are answered at once. Returns which are sent,
    /// and what the next collection has to know.
    fn collect(
        max_in_flight: usize,
        hangs: &[bool],
        before: Unanswered,
        spread: Duration,
    ) -> (Vec<Job>, Unanswered) {
        let start = Instant::now();
        let mut queue = queue(max_in_flight, start, before);
        queue.add((0..hangs.len()).map(sensor), start, spread);
        let (mut now, mut sent) = (start, Vec::new());
        let end = start + 60 * SECOND;
        loop {
            match queue.next(now) {
                Step::Send(job) => {
                    if !hangs[index(&job)] {
                        queue.remove(&job);
                    }
                    sent.push(job);
                }
                Step::Wait(at) if at < end => now = at,
                Step::Wait(_) | Step::Done => break,
            }
        }
        (sent, queue.end(end, []))
    }

    proptest! {
        /// After a few collections all others are sent in each, and each job that hangs has its turn.
        #[test]
        fn requests_that_hang_do_not_hold_up_the_others_and_are_sent_again(
            max_in_flight in 1_usize..9,
            hangs in proptest::collection::vec(any::<bool>(), 1..40),
            spread in 0_u32..50,
        ) {
            let hanging = hangs.iter().filter(|hangs| **hangs).count();
            let mut unanswered = Unanswered::new();
            for _ in 0..=hanging.div_ceil(max_in_flight) {
                unanswered = collect(max_in_flight, &hangs, unanswered, spread * SECOND).1;
            }
            let mut requested = BTreeSet::new();
            for _ in 0..=hanging.div_ceil((max_in_flight / 2).max(1)) {
                let (sent, after) = collect(max_in_flight, &hangs, unanswered, spread * SECOND);
                for (id, hangs) in hangs.iter().enumerate() {
                    prop_assert!(*hangs || sent.contains(&sensor(id)), "{id} is held up");
                }
                requested.extend(sent);
                unanswered = after;
            }
            prop_assert_eq!(requested.len(), hangs.len());
        }

        /// Every job is sent, at most three times, and never more than `max_in_flight` at once.
        #[test]
        fn every_job_is_sent_until_it_is_answered_or_has_failed(
            max_in_flight in 1_usize..6,
            fails in proptest::collection::vec(any::<Option<bool>>(), 1..40),
        ) {
            let mut now = Instant::now();
            let mut queue = queue(max_in_flight, now, Unanswered::new());
            queue.deadline += 3600 * SECOND;
            queue.add((0..fails.len()).map(sensor), now, 30 * SECOND);
            let mut attempts = vec![0; fails.len()];
            let mut in_flight = Vec::new();
            loop {
                match queue.next(now) {
                    Step::Send(job) => {
                        attempts[index(&job)] += 1;
                        in_flight.push(job);
                        prop_assert!(in_flight.len() <= max_in_flight);
                        continue;
                    }
                    Step::Wait(at) if in_flight.is_empty() => now = at,
                    Step::Wait(_) => now += SECOND,
                    Step::Done => break,
                }
                for job in in_flight.drain(..) {
                    match fails[index(&job)] {
                        Some(timed_out) if queue.retry(&job, timed_out, now) => {}
                        _ => queue.remove(&job),
                    }
                }
            }
            for (attempts, fails) in attempts.into_iter().zip(&fails) {
                prop_assert_eq!(attempts, if fails.is_some() { 3 } else { 1 });
            }
        }
    }
}
