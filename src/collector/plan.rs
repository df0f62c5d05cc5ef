//! In which order and at what pace the requests of one collection are sent, and which are tried again. Pure: takes
//! `now`, does not wait.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// A request that fails in a way that may pass is sent this often at most.
const MAX_ATTEMPTS: u32 = 3;
/// Before the second attempt; doubled before the third; jittered by half either way.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);

/// One thing to ask the API for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Job {
    /// The account's base location.
    Base,
    /// One location with all its sensors.
    Location(Arc<str>),
    /// One sensor.
    Sensor(Arc<str>),
}

/// How a job stood at the end of the last collection, if it had not been answered. It goes ahead of the others, but those
/// that have hung never take more than half of the slots from those that have not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unanswered {
    /// When it was last sent, no answer came.
    hung: bool,
    /// In so many collections there has been no time to send it: so each has its turn.
    passed_over: u32,
}

impl Unanswered {
    /// It was sent, and no answer came.
    pub(super) const HUNG: Self = Self {
        hung: true,
        passed_over: 0,
    };

    /// There was no time to send it, and it stood like this before.
    pub(super) fn passed_over(before: Option<Self>) -> Self {
        Self {
            hung: before.is_some_and(|before| before.hung),
            passed_over: before.map_or(0, |before| before.passed_over) + 1,
        }
    }
}

/// A job on its way.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// What is asked for.
    pub job: Job,
    number: u32,
    hung: bool,
    /// How the job stood before this collection.
    before: Option<Unanswered>,
}

impl Attempt {
    fn is_first_of_location(&self) -> bool {
        self.number == 1 && !matches!(self.job, Job::Sensor(_))
    }
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base => f.write_str("the base location"),
            Self::Location(id) => write!(f, "location {id}"),
            Self::Sensor(id) => write!(f, "sensor {id}"),
        }
    }
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this now.
    Send(Attempt),
    /// Nothing before then, unless an answer comes.
    Wait(Instant),
    /// Nothing until an answer comes; with nothing in flight: the end.
    Nothing,
}

type Queue = BTreeMap<(Instant, u64), Attempt>;

/// The requests of one collection.
#[derive(Debug)]
pub(super) struct Plan {
    slots: usize,
    deadline: Instant,
    /// By the instant before which it is not sent, then by order of arrival.
    queue: Queue,
    hung_queue: Queue,
    arrivals: u64,
    in_flight: usize,
    hung_in_flight: usize,
    untried_locations: usize,
}

impl Plan {
    pub(super) fn new(slots: usize, deadline: Instant) -> Self {
        let [queue, hung_queue] = [Queue::new(), Queue::new()];
        Self {
            slots: slots.max(1),
            deadline,
            queue,
            hung_queue,
            arrivals: 0,
            in_flight: 0,
            hung_in_flight: 0,
            untried_locations: 0,
        }
    }

    /// Adds jobs, spread evenly from `start` over `spread`, each jittered within its part; what went unanswered last time
    /// goes first. `jitter` gives numbers from 0 to 1.
    pub(super) fn add(
        &mut self,
        mut jobs: Vec<(Job, Option<Unanswered>)>,
        start: Instant,
        spread: Duration,
        mut jitter: impl FnMut() -> f64,
    ) {
        jobs.sort_by_key(|(_, before)| {
            let order = |it: Unanswered| (it.hung, Reverse(it.passed_over));
            (before.is_none(), before.map(order))
        });
        let part = spread.as_secs_f64() / jobs.len().max(1) as f64;
        for (index, (job, before)) in jobs.into_iter().enumerate() {
            let offset = if spread.is_zero() {
                0.0
            } else {
                part * (index as f64 + jitter())
            };
            let hung = before.is_some_and(|before| before.hung);
            self.enqueue(
                start + Duration::from_secs_f64(offset),
                Attempt {
                    job,
                    number: 1,
                    hung,
                    before,
                },
            );
        }
    }

    fn enqueue(&mut self, not_before: Instant, attempt: Attempt) {
        self.arrivals += 1;
        self.untried_locations += usize::from(attempt.is_first_of_location());
        let queue = if attempt.hung {
            &mut self.hung_queue
        } else {
            &mut self.queue
        };
        queue.insert((not_before, self.arrivals), attempt);
    }

    /// The next request to send.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.in_flight >= self.slots {
            return Next::Nothing;
        }
        let first = |queue: &Queue| queue.first_key_value().map(|(key, _)| *key);
        let hung_may_go = self.queue.is_empty() || self.hung_in_flight < self.slots / 2;
        let hung = first(&self.hung_queue).filter(|_| hung_may_go);
        let (key, queue) = match (first(&self.queue), hung) {
            (Some(key), Some(hung)) if hung < key => (hung, &mut self.hung_queue),
            (Some(key), _) => (key, &mut self.queue),
            (None, Some(hung)) => (hung, &mut self.hung_queue),
            (None, None) => return Next::Nothing,
        };
        if key.0 > now {
            return Next::Wait(key.0);
        }
        let Some(attempt) = queue.remove(&key) else {
            return Next::Nothing;
        };
        self.in_flight += 1;
        self.hung_in_flight += usize::from(attempt.hung);
        Next::Send(attempt)
    }

    /// An attempt has ended: answered, or failed for good.
    pub(super) fn ended(&mut self, attempt: &Attempt) {
        self.in_flight -= 1;
        self.hung_in_flight -= usize::from(attempt.hung);
        self.untried_locations -= usize::from(attempt.is_first_of_location());
    }

    /// An attempt has failed in a way that may pass. False if there is no further one: it has failed for good.
    pub(super) fn try_again(
        &mut self,
        attempt: Attempt,
        timed_out: bool,
        now: Instant,
        jitter: f64,
    ) -> bool {
        self.ended(&attempt);
        let backoff = FIRST_BACKOFF
            .saturating_mul(1 << (attempt.number - 1))
            .mul_f64(0.5 + jitter);
        let not_before = now + backoff;
        if attempt.number >= MAX_ATTEMPTS || not_before >= self.deadline {
            return false;
        }
        let hung = attempt.hung || timed_out;
        self.enqueue(
            not_before,
            Attempt {
                number: attempt.number + 1,
                hung,
                ..attempt
            },
        );
        true
    }

    /// Whether every location known of has been tried once: then nothing new is to be expected soon.
    pub(super) fn has_tried_locations(&self) -> bool {
        self.untried_locations == 0
    }

    /// How many requests wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.hung_queue.len()
    }

    /// What is still waiting to be sent, at the end: first attempts were never sent, others hang.
    pub(super) fn unsent(&self) -> impl Iterator<Item = (&Job, Unanswered)> {
        let attempts = self.queue.values().chain(self.hung_queue.values());
        attempts.map(|attempt| {
            let how = match attempt.number {
                1 => Unanswered::passed_over(attempt.before),
                _ => Unanswered::HUNG,
            };
            (&attempt.job, how)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sensor(id: usize) -> Job {
        Job::Sensor(id.to_string().into())
    }

    fn plan(
        slots: usize,
        jobs: Vec<(Job, Option<Unanswered>)>,
        start: Instant,
        spread: Duration,
    ) -> Plan {
        let mut plan = Plan::new(slots, start + 60 * SECOND);
        plan.add(jobs, start, spread, || 0.5);
        plan
    }

    fn sent(plan: &mut Plan, now: Instant) -> Vec<Attempt> {
        std::iter::from_fn(|| match plan.next(now) {
            Next::Send(attempt) => Some(attempt),
            _ => None,
        })
        .collect()
    }

    fn ids(attempts: &[Attempt]) -> Vec<Job> {
        attempts.iter().map(|attempt| attempt.job.clone()).collect()
    }

    #[test]
    fn slots_bound_what_is_in_flight() {
        let now = Instant::now();
        let mut plan = plan(
            3,
            (0..10).map(|id| (sensor(id), None)).collect(),
            now,
            Duration::ZERO,
        );
        let first = sent(&mut plan, now);
        assert_eq!(ids(&first), [sensor(0), sensor(1), sensor(2)]);
        plan.ended(&first[1]);
        assert_eq!(ids(&sent(&mut plan, now)), [sensor(3)]);
    }

    #[test]
    fn jobs_are_spread() {
        let start = Instant::now();
        let mut plan = plan(
            8,
            (0..3).map(|id| (sensor(id), None)).collect(),
            start,
            30 * SECOND,
        );
        let starts: Vec<_> = std::iter::from_fn(|| match plan.next(start) {
            Next::Wait(at) => {
                let Next::Send(_) = plan.next(at) else {
                    panic!("nothing to send when its time has come")
                };
                Some((at - start).as_secs())
            }
            _ => None,
        })
        .collect();
        assert_eq!(starts, [5, 15, 25]);
    }

    #[test]
    fn the_unanswered_go_first_and_those_that_hang_leave_half_of_the_slots() {
        let now = Instant::now();
        let mut jobs: Vec<_> = (0..4).map(|id| (sensor(id), None)).collect();
        jobs.extend((10..14).map(|id| (sensor(id), Some(Unanswered::HUNG))));
        jobs.push((sensor(20), Some(Unanswered::passed_over(None))));
        let mut plan = plan(4, jobs, now, Duration::ZERO);
        let first = sent(&mut plan, now);
        assert_eq!(ids(&first), [sensor(20), sensor(10), sensor(11), sensor(0)]);
        plan.ended(&first[3]);
        assert_eq!(
            ids(&sent(&mut plan, now)),
            [sensor(1)],
            "no third one that hangs"
        );
        plan.ended(&first[1]);
        assert_eq!(ids(&sent(&mut plan, now)), [sensor(12)], "one in its place");
    }

    #[test]
    fn what_times_out_leaves_half_of_the_slots_from_then_on() {
        let now = Instant::now();
        let jobs = (0..8).map(|id| (sensor(id), None)).collect();
        let mut plan = plan(4, jobs, now, 8 * SECOND);
        let half_way = now + 4 * SECOND;
        for attempt in sent(&mut plan, half_way) {
            assert!(plan.try_again(attempt, true, half_way, 0.0));
        }
        let again = sent(&mut plan, now + 8 * SECOND);
        assert_eq!(ids(&again), [sensor(0), sensor(1), sensor(4), sensor(5)]);
    }

    #[test]
    fn locations_have_been_tried_once_each_has_been_answered_or_has_failed_once() {
        let now = Instant::now();
        let jobs = [Job::Base, Job::Location("one".into()), sensor(0)];
        let jobs = jobs.map(|job| (job, None)).into();
        let mut plan = plan(3, jobs, now, Duration::ZERO);
        assert_eq!(plan.waiting(), 3);
        let sent = sent(&mut plan, now);
        let [base, one, sensor] = sent.try_into().unwrap();
        plan.ended(&sensor);
        plan.ended(&base);
        assert!(!plan.has_tried_locations(), "one is out");
        assert!(plan.try_again(one, true, now, 0.0));
        assert!(plan.has_tried_locations());
        assert_eq!(plan.waiting(), 1);
        let Next::Send(again) = plan.next(now + SECOND) else {
            panic!()
        };
        plan.ended(&again);
        assert!(plan.has_tried_locations());
        assert_eq!(plan.waiting(), 0);
    }

    #[test]
    fn a_passing_failure_is_tried_three_times_with_growing_jittered_backoff() {
        let start = Instant::now();
        let mut plan = plan(1, vec![(sensor(0), None)], start, Duration::ZERO);
        let Next::Send(attempt) = plan.next(start) else {
            panic!()
        };
        assert!(plan.try_again(attempt, false, start, 0.5));
        let Next::Wait(at) = plan.next(start) else {
            panic!()
        };
        assert_eq!(at - start, SECOND / 2);
        let Next::Send(attempt) = plan.next(at) else {
            panic!()
        };
        assert!(plan.try_again(attempt, false, at, 1.0));
        let Next::Wait(then) = plan.next(at) else {
            panic!()
        };
        assert_eq!(then - at, SECOND * 3 / 2);
        let Next::Send(attempt) = plan.next(then) else {
            panic!()
        };
        assert!(!plan.try_again(attempt, false, then, 0.0));
        assert!(matches!(plan.next(then + 60 * SECOND), Next::Nothing));
    }

    #[test]
    fn what_was_never_sent_and_what_hangs_are_told_apart() {
        let start = Instant::now();
        let mut plan = plan(
            1,
            vec![(sensor(0), None), (sensor(1), None)],
            start,
            Duration::ZERO,
        );
        let Next::Send(attempt) = plan.next(start) else {
            panic!()
        };
        assert!(plan.try_again(attempt, true, start, 0.0));
        let unsent: BTreeMap<_, _> = plan
            .unsent()
            .map(|(job, how)| (job.clone(), how.hung))
            .collect();
        let expected = [(sensor(0), true), (sensor(1), false)];
        assert_eq!(unsent, BTreeMap::from(expected));
    }

    /// One collection in which these jobs hang to its end and the others answer at once: which are sent, and how they stand
    /// after it.
    fn collection(
        slots: usize,
        hangs: &[bool],
        unanswered: &BTreeMap<Job, Unanswered>,
        spread: Duration,
    ) -> (Vec<Job>, BTreeMap<Job, Unanswered>) {
        let start = Instant::now();
        let jobs = (0..hangs.len()).map(sensor);
        let jobs = jobs.map(|job| (job.clone(), unanswered.get(&job).copied()));
        let mut plan = plan(slots, jobs.collect(), start, spread);
        let (mut now, mut sent, mut out) = (start, Vec::new(), Vec::new());
        loop {
            match plan.next(now) {
                Next::Send(attempt) => {
                    sent.push(attempt.job.clone());
                    let Job::Sensor(id) = &attempt.job else {
                        panic!()
                    };
                    if hangs[id.parse::<usize>().unwrap()] {
                        out.push(attempt.job);
                    } else {
                        plan.ended(&attempt);
                    }
                }
                Next::Wait(at) => now = at,
                Next::Nothing => break,
            }
        }
        let unsent = plan.unsent().map(|(job, how)| (job.clone(), how));
        let hung = out.into_iter().map(|job| (job, Unanswered::HUNG));
        (sent, unsent.chain(hung).collect())
    }

    proptest! {
        /// However many hang until the end: soon all others are sent each time, and each that hangs has its turn.
        #[test]
        fn what_hangs_holds_up_no_other_for_long_and_is_asked_again(
            slots in 1_usize..9,
            hangs in proptest::collection::vec(any::<bool>(), 1..40),
            spread in 0_u32..50,
        ) {
            let hanging = hangs.iter().filter(|hangs| **hangs).count();
            let mut unanswered = BTreeMap::new();
            // Each of these finds a slot's worth that hangs.
            for _ in 0..=hanging.div_ceil(slots) {
                unanswered = collection(slots, &hangs, &unanswered, spread * SECOND).1;
            }
            let mut asked = std::collections::BTreeSet::new();
            for _ in 0..=hanging.div_ceil((slots / 2).max(1)) {
                let (sent, after) = collection(slots, &hangs, &unanswered, spread * SECOND);
                for (id, hangs) in hangs.iter().enumerate() {
                    prop_assert!(*hangs || sent.contains(&sensor(id)), "{id} is held up");
                }
                asked.extend(sent);
                unanswered = after;
            }
            prop_assert_eq!(asked.len(), hangs.len());
        }

        /// Whatever hangs, fails and answers, in virtual time: every job is sent, none more than three times, never more
        /// than the slots at once.
        #[test]
        fn every_job_has_its_turn(
            slots in 1_usize..6,
            fates in proptest::collection::vec(0_u8..4, 1..40),
            jitters in proptest::collection::vec(0.0_f64..1.0, 8),
        ) {
            let start = Instant::now();
            let mut turn = 0;
            let mut jitter = || { turn += 1; jitters[turn % jitters.len()] };
            let mut plan = Plan::new(slots, start + 3600 * SECOND);
            let standing = |fate: &u8| (*fate == 3).then_some(Unanswered::HUNG);
            plan.add(fates.iter().enumerate().map(|(id, fate)| (sensor(id), standing(fate))).collect(), start, 30 * SECOND, &mut jitter);
            let mut sends = BTreeMap::<Job, u32>::new();
            let mut in_flight: Vec<(Instant, Attempt)> = Vec::new();
            let mut now = start;
            loop {
                let wake = loop {
                    match plan.next(now) {
                        Next::Send(attempt) => {
                            *sends.entry(attempt.job.clone()).or_default() += 1;
                            in_flight.push((now + SECOND, attempt));
                            prop_assert!(in_flight.len() <= slots);
                        }
                        Next::Wait(at) => break Some(at),
                        Next::Nothing => break None,
                    }
                };
                in_flight.sort_by_key(|(at, _)| *at);
                let Some(at) = in_flight.first().map(|(at, _)| *at).into_iter().chain(wake).min() else { break };
                now = at;
                while in_flight.first().is_some_and(|(at, _)| *at <= now) {
                    let (_, attempt) = in_flight.remove(0);
                    let Job::Sensor(id) = &attempt.job else { panic!() };
                    match fates[id.parse::<usize>().unwrap()] {
                        0 => plan.ended(&attempt),
                        fate => { plan.try_again(attempt, fate > 1, now, jitter()); }
                    }
                }
            }
            prop_assert_eq!(sends.len(), fates.len());
            for (id, fate) in fates.iter().enumerate() {
                prop_assert_eq!(sends[&sensor(id)], if *fate == 0 { 1 } else { 3 });
            }
        }
    }
}
