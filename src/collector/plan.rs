//! In which order and at what pace the requests of one collection are sent, and which are tried again. Pure: takes
//! `now`, does not wait.

use std::{
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

/// How a job stood at the end of the last collection, if it had not been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// There was no time to send it: first in line.
    Unsent,
    /// Sent, and no answer came: next in line, but these never take more than half of the slots from the others.
    Hung,
}

/// A job on its way.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// What is asked for.
    pub job: Job,
    number: u32,
    hung: bool,
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
        jobs.sort_by_key(|(_, unanswered)| match unanswered {
            Some(Unanswered::Unsent) => 0,
            Some(Unanswered::Hung) => 1,
            None => 2,
        });
        let part = spread.as_secs_f64() / jobs.len().max(1) as f64;
        for (index, (job, unanswered)) in jobs.into_iter().enumerate() {
            let offset = if spread.is_zero() {
                0.0
            } else {
                part * (index as f64 + jitter())
            };
            let hung = unanswered == Some(Unanswered::Hung);
            self.enqueue(
                start + Duration::from_secs_f64(offset),
                Attempt {
                    job,
                    number: 1,
                    hung,
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
        let hung_may_go = self.queue.is_empty() || self.hung_in_flight < (self.slots / 2).max(1);
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
        self.queue
            .values()
            .chain(self.hung_queue.values())
            .map(|attempt| {
                (
                    &attempt.job,
                    if attempt.number == 1 {
                        Unanswered::Unsent
                    } else {
                        Unanswered::Hung
                    },
                )
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
        jobs.extend((10..14).map(|id| (sensor(id), Some(Unanswered::Hung))));
        jobs.push((sensor(20), Some(Unanswered::Unsent)));
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
            .map(|(job, how)| (job.clone(), how as usize))
            .collect();
        let expected = [
            (sensor(0), Unanswered::Hung as usize),
            (sensor(1), Unanswered::Unsent as usize),
        ];
        assert_eq!(unsent, BTreeMap::from(expected));
    }

    proptest! {
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
            let standing = |fate: &u8| (*fate == 3).then_some(Unanswered::Hung);
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
