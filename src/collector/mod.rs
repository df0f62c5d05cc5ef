//! When to collect, whom to ask in which order, and what is then known: yields one snapshot per collection.
//!
//! The policies are pure and stand by themselves: [`schedule`] (when), [`plan`] (order, pace, retries), [`survey`] (what
//! locations contain), [`readings`] and [`ledger`] (what is kept). This file is the loop around them: it waits, asks
//! `api`, and hands each snapshot to whoever publishes it. A scrape meets it only through [`Handle`].

mod ledger;
mod plan;
mod readings;
mod rehearsal;
mod schedule;
mod survey;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::rehearsal::{Answers, Rehearsal};

use self::{
    ledger::{Direct, Ledger},
    plan::{Attempt, Job, Next, Plan, Unanswered},
    schedule::{Course, Schedule},
    survey::Survey,
};
use crate::{
    api::{Client, Failure, LocationReply, SensorReply, Session},
    catalog::Catalog,
    config::{Config, Location, Mode, Sensor},
    oauth::TokenSource,
    snapshot::{Snapshot, Summary, UnixTime},
    stats::Reason,
};

/// Scrapes that may wait for one collection; more are answered with what there is.
const MAX_WAITING: usize = 1024;
/// Share of a collection's time after which listed sensors wait no longer for locations that may cover them: later than
/// the last location of a spread collection is asked for, and with time enough left for the sensors.
const PATIENCE_SHARE: f64 = 2.0 / 3.0;

/// What to collect, and how: what one configuration says.
pub struct Assignment {
    client: Client,
    tokens: Arc<TokenSource>,
    sensors: Vec<Sensor>,
    locations: Vec<Location>,
    slots: usize,
    mode: Mode,
    interval: Duration,
    /// Goes with each snapshot, so that the two are published together.
    catalog: Arc<Catalog>,
}

impl Assignment {
    /// What `config` says.
    pub fn new(
        config: &Config,
        client: Client,
        tokens: Arc<TokenSource>,
        catalog: Arc<Catalog>,
    ) -> Self {
        Self {
            client,
            tokens,
            sensors: config.sensors.clone(),
            locations: config.locations.clone(),
            slots: config.api.max_concurrency,
            mode: config.collect.mode,
            interval: config.effective_interval(),
            catalog,
        }
    }
}

/// Asks for the configured sensors and locations for as long as it runs.
pub struct Collector {
    assignment: Assignment,
    schedule: Schedule,
    ledger: Ledger,
    unanswered: HashMap<Job, Unanswered>,
    summary: Summary,
    /// Reasons of the last collection's failures: the log tells of changes only.
    failing: BTreeSet<Reason>,
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
}

/// What a [`Handle`] asks of the collector. Dropping the sender answers.
enum Order {
    /// A scrape waits for the collection that is under way or due.
    Scrape(oneshot::Sender<()>),
    /// From now on this is to be collected.
    Assign(Box<Assignment>, oneshot::Sender<()>),
}

/// What a scrape may know of the collector.
struct Shared {
    scrape_mode: AtomicBool,
    alive: AtomicBool,
    ended_once: AtomicBool,
    /// Scrape mode: until when no scrape needs a collection.
    fresh_until: Mutex<Option<Instant>>,
}

/// The scrapes' side of a collector.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
}

impl Handle {
    /// Waits for the collection that a scrape at this moment must wait for, if there is one, but not past `deadline`:
    /// the first one, and in scrape mode the one that is due or under way.
    pub async fn settled(&self, deadline: Instant) {
        if !self.must_wait(Instant::now()) {
            return;
        }
        let (done, wait) = oneshot::channel();
        if self.orders.try_send(Order::Scrape(done)).is_ok() {
            let _ = timeout_at(deadline.into(), wait).await;
        }
    }

    fn must_wait(&self, now: Instant) -> bool {
        match self.mode() {
            Mode::Interval => !self.has_ended_once(),
            Mode::Scrape => self.shared.fresh_until().is_none_or(|until| now >= until),
        }
    }

    /// Whether a first collection has ended, well or badly.
    pub fn has_ended_once(&self) -> bool {
        self.shared.ended_once.load(Ordering::Acquire)
    }

    /// Whether collections are still being made.
    pub fn is_alive(&self) -> bool {
        self.shared.alive.load(Ordering::Acquire)
    }

    /// When collections are made.
    pub fn mode(&self) -> Mode {
        self.shared.mode()
    }

    /// Has something else collected, at once. Sensors that stay keep their readings. Ends when what is known is shown
    /// under the new assignment; its first collection is then under way.
    pub async fn assign(&self, assignment: Assignment) {
        let (done, wait) = oneshot::channel();
        if self
            .orders
            .send(Order::Assign(Box::new(assignment), done))
            .await
            .is_ok()
        {
            let _ = wait.await;
        }
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        if self.scrape_mode.load(Ordering::Acquire) {
            Mode::Scrape
        } else {
            Mode::Interval
        }
    }

    fn set_mode(&self, mode: Mode) {
        self.scrape_mode
            .store(mode == Mode::Scrape, Ordering::Release);
    }

    fn fresh_until(&self) -> Option<Instant> {
        *self
            .fresh_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn set_fresh_until(&self, until: Option<Instant>) {
        *self
            .fresh_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Marks the collector dead however its task ends.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Release);
    }
}

impl Collector {
    /// A collector that has not started.
    pub fn new(assignment: Assignment) -> (Self, Handle) {
        let Assignment { mode, interval, .. } = assignment;
        let shared = Arc::new(Shared {
            scrape_mode: AtomicBool::new(mode == Mode::Scrape),
            alive: AtomicBool::new(true),
            ended_once: AtomicBool::new(false),
            fresh_until: Mutex::new(None),
        });
        let (orders, received) = mpsc::channel(MAX_WAITING);
        let collector = Self {
            assignment,
            schedule: Schedule::new(mode, interval),
            ledger: Ledger::default(),
            unanswered: HashMap::new(),
            summary: Summary {
                interval,
                ..Summary::default()
            },
            failing: BTreeSet::new(),
            orders: received,
            shared: shared.clone(),
        };
        (collector, Handle { shared, orders })
    }

    /// What is shown before the first collection has ended: nothing of any sensor.
    pub fn before_the_first(&self) -> Snapshot {
        self.ledger.snapshot(self.summary)
    }

    /// Collects until `shutdown`. Each snapshot is given to `publish`; scrapes that waited go on once it has returned.
    pub async fn run<F: Future<Output = ()>>(
        mut self,
        publish: impl Fn(Snapshot, Arc<Catalog>) -> F,
        shutdown: CancellationToken,
    ) {
        let _alive = Alive(self.shared.clone());
        let mut recovered = self.assignment.tokens.recovered();
        let mut waiting = Vec::new();
        let mut new = None;
        loop {
            if let Some((assignment, done)) = new.take() {
                self.assign(assignment);
                recovered = self.assignment.tokens.recovered();
                publish(
                    self.ledger.snapshot(self.summary),
                    self.assignment.catalog.clone(),
                )
                .await;
                drop::<oneshot::Sender<()>>(done);
            } else {
                let next = self.schedule.next_start(Instant::now());
                let order = tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep_until_some(next) => None,
                    // Readings need not wait for the next turn when a token can be had again.
                    Ok(()) = recovered.changed(), if next.is_some() => None,
                    order = self.orders.recv() => match order {
                        None => return,
                        order => order,
                    },
                };
                match order {
                    Some(Order::Assign(assignment, done)) => {
                        new = Some((*assignment, done));
                        continue;
                    }
                    Some(Order::Scrape(scrape)) if self.schedule.is_due(Instant::now()) => {
                        waiting.push(scrape)
                    }
                    // Nothing to wait for.
                    Some(Order::Scrape(_)) => continue,
                    None => {}
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                end = self.collect(&mut waiting, &|_, _| ()) => match end {
                    End::Interrupted(assignment, done) => {
                        new = Some((*assignment, done));
                        continue;
                    }
                    End::Whole(snapshot, problems) => {
                        self.log(&snapshot, &problems);
                        publish(snapshot, self.assignment.catalog.clone()).await;
                    }
                }
            }
            self.shared.set_fresh_until(self.schedule.fresh_until());
            self.shared.ended_once.store(true, Ordering::Release);
            waiting.clear();
        }
    }

    /// Takes over a new assignment: what it no longer wants is forgotten, the rest is known by its new names.
    fn assign(&mut self, assignment: Assignment) {
        let Assignment { mode, interval, .. } = assignment;
        self.ledger
            .reassign(&assignment.sensors, &assignment.locations);
        self.schedule = Schedule::new(mode, interval);
        self.summary.interval = interval;
        self.assignment = assignment;
        self.shared.set_mode(mode);
        self.shared.set_fresh_until(None);
    }

    /// One collection by itself, for a command that ends after it. `progress` is told how many requests have their result
    /// and how many are known of.
    pub async fn once(mut self, progress: &Progress<'_>) -> (Snapshot, Vec<Problem>) {
        match self.collect(&mut Vec::new(), progress).await {
            End::Whole(snapshot, problems) => (snapshot, problems),
            // Nobody holds a handle that could give another assignment.
            End::Interrupted(..) => (self.ledger.snapshot(self.summary), Vec::new()),
        }
    }

    /// One collection, from its start to its snapshot. Scrapes that come meanwhile join `waiting`.
    async fn collect(
        &mut self,
        waiting: &mut Vec<oneshot::Sender<()>>,
        progress: &Progress<'_>,
    ) -> End {
        let start = Instant::now();
        let course = self.schedule.started(start, fastrand::f64());
        let Assignment {
            client,
            sensors,
            locations,
            slots,
            ..
        } = &self.assignment;
        let mut round = Round {
            client,
            sensors,
            session: Arc::new(Session::until(course.deadline)),
            plan: Plan::new(*slots, course.deadline),
            survey: Survey::new(locations, std::mem::take(&mut self.ledger.locations)),
            ledger: &mut self.ledger,
            direct: Direct::new(),
            sensors_wait: false,
            problems: Vec::new(),
            progress,
            known: 0,
            unanswered: std::mem::take(&mut self.unanswered),
        };
        let interruption = round.run(start, course, &mut self.orders, waiting).await;

        let Round {
            survey,
            direct,
            problems,
            unanswered,
            ..
        } = round;
        self.unanswered = unanswered;
        if let Some((assignment, done)) = interruption {
            self.ledger.locations = survey.abandon();
            return End::Interrupted(assignment, done);
        }
        let now = unix_now();
        let (locations_failed, locations_good) = survey.tally();
        let succeeded = locations_good > 0 || direct.values().any(Option::is_some);
        let up = succeeded || (sensors.is_empty() && locations.is_empty());
        let sensors_failed = self.ledger.close(sensors, direct, survey, now);
        self.summary = Summary {
            up,
            duration: start.elapsed(),
            last_success: if up {
                Some(now)
            } else {
                self.summary.last_success
            },
            sensors_failed,
            locations_failed,
            interval: self.assignment.interval,
        };
        End::Whole(self.ledger.snapshot(self.summary), problems)
    }

    /// One line for each reason when failures for it begin, one when all have ended.
    fn log(&mut self, snapshot: &Snapshot, problems: &[Problem]) {
        let Summary {
            sensors_failed,
            locations_failed,
            duration,
            ..
        } = snapshot.summary;
        let sensors = snapshot.sensors.len();
        debug!(
            sensors,
            sensors_failed,
            locations_failed,
            ?duration,
            "collection ended"
        );
        let mut failing = BTreeMap::<Reason, Vec<&Problem>>::new();
        // `oauth` has told of a missing token already.
        for problem in problems.iter().filter(|problem| !problem.no_token) {
            failing.entry(problem.reason).or_default().push(problem);
        }
        for (reason, problems) in &failing {
            if let (Some(first), false) = (problems.first(), self.failing.contains(reason)) {
                warn!(
                    reason = reason.as_str(),
                    failed = problems.len(),
                    example = first.of,
                    error = first.what,
                    "requests to the API fail; last readings are kept until they are stale"
                );
            }
        }
        if failing.is_empty() && !self.failing.is_empty() {
            info!(
                sensors,
                "collection is whole again: every request succeeded"
            );
        }
        self.failing = failing.into_keys().collect();
    }
}

/// How a collection ended.
enum End {
    /// It has come to its end.
    Whole(Snapshot, Vec<Problem>),
    /// There is something else to collect now.
    Interrupted(Box<Assignment>, oneshot::Sender<()>),
}

/// Told how many requests have their result, and how many are known of.
pub type Progress<'a> = dyn Fn(usize, usize) + Sync + 'a;

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
struct Round<'a, 'l> {
    client: &'a Client,
    sensors: &'a [Sensor],
    session: Arc<Session>,
    plan: Plan,
    survey: Survey<'a>,
    ledger: &'l mut Ledger,
    direct: Direct,
    /// Listed sensors that locations may cover are not in the plan yet.
    sensors_wait: bool,
    problems: Vec<Problem>,
    progress: &'l Progress<'l>,
    /// Jobs so far.
    known: usize,
    unanswered: HashMap<Job, Unanswered>,
}

type Flight<'a> = Pin<Box<dyn Future<Output = (Attempt, Result<Reply, Failure>)> + Send + 'a>>;

enum Reply {
    Sensor(SensorReply),
    Location(LocationReply),
}

impl<'a> Round<'a, '_> {
    async fn run(
        &mut self,
        start: Instant,
        course: Course,
        orders: &mut mpsc::Receiver<Order>,
        waiting: &mut Vec<oneshot::Sender<()>>,
    ) -> Option<(Box<Assignment>, oneshot::Sender<()>)> {
        self.begin(start, course);
        let patience = start + (course.deadline - start).mul_f64(PATIENCE_SHARE);
        let mut in_flight = FuturesUnordered::<Flight<'a>>::new();
        let mut out = HashSet::<Job>::new();
        loop {
            let now = Instant::now();
            let wake = loop {
                match self.plan.next(now) {
                    Next::Send(attempt) => {
                        out.insert(attempt.job.clone());
                        in_flight.push(ask(self.client, self.session.clone(), attempt));
                    }
                    Next::Wait(at) => break Some(at),
                    Next::Nothing => break None,
                }
            };
            let have_waited = self.plan.has_tried_locations() || now >= patience;
            if self.sensors_wait && have_waited {
                self.add_sensors_not_covered(now);
                continue;
            }
            if in_flight.is_empty() && wake.is_none() {
                break;
            }
            tokio::select! {
                            () = sleep_until(course.deadline.into()) => break,
                            Some((attempt, result)) = in_flight.next() => {
                                out.remove(&attempt.job);
                                self.ended(attempt, result);
                                (self.progress)(self.known - self.plan.waiting() - out.len(), self.known);
                            }
                            () = sleep_until_some(wake) => {}
            () = sleep_until(patience.into()), if self.sensors_wait => {}
                            Some(order) = orders.recv() => match order {
                                Order::Scrape(scrape) => waiting.push(scrape),
                                Order::Assign(assignment, done) => return Some((assignment, done)),
                            },
                        }
        }
        self.give_up_on(out);
        None
    }

    /// Puts into the plan what can be asked for before anything is answered.
    fn begin(&mut self, start: Instant, course: Course) {
        let (base, locations) = self.survey.begin();
        let locations: Vec<_> = base
            .then_some(Job::Base)
            .into_iter()
            .chain(locations.into_iter().map(Job::Location))
            .collect();
        self.sensors_wait = !locations.is_empty();
        let ledger = &*self.ledger;
        let at_once = self
            .sensors
            .iter()
            .filter(|sensor| !self.sensors_wait || ledger.was_asked_directly(&sensor.id));
        let sensors = at_once.map(|sensor| Job::Sensor(sensor.id.as_str().into()));
        let jobs = locations.into_iter().chain(sensors).collect();
        self.add(jobs, start, course.spread);
    }

    /// Once the locations have told what they contain: the listed sensors that none of them covers.
    fn add_sensors_not_covered(&mut self, now: Instant) {
        self.sensors_wait = false;
        let jobs = self.not_covered().map(Job::Sensor).collect();
        self.add(jobs, now, Duration::ZERO);
    }

    fn not_covered(&self) -> impl Iterator<Item = Arc<str>> {
        let (seen, ledger, survey) = (self.survey.seen(), &*self.ledger, &self.survey);
        let late = self
            .sensors
            .iter()
            .filter(|sensor| !ledger.was_asked_directly(&sensor.id));
        late.filter(move |sensor| ledger.asks_directly(&sensor.id, survey, &seen))
            .map(|sensor| sensor.id.as_str().into())
    }

    fn add(&mut self, jobs: Vec<Job>, start: Instant, spread: Duration) {
        self.known += jobs.len();
        let jobs = jobs.into_iter().map(|job| {
            let unanswered = self.unanswered.remove(&job);
            (job, unanswered)
        });
        self.plan.add(jobs.collect(), start, spread, fastrand::f64);
    }

    fn ended(&mut self, attempt: Attempt, result: Result<Reply, Failure>) {
        match result {
            Ok(reply) => {
                self.plan.ended(&attempt);
                self.answered(&attempt.job, Some(reply));
            }
            Err(failure) => {
                let timed_out = failure.reason == Reason::Timeout;
                if !failure.again {
                    self.plan.ended(&attempt);
                } else if self.plan.try_again(
                    attempt.clone(),
                    timed_out,
                    Instant::now(),
                    fastrand::f64(),
                ) {
                    debug!(job = %attempt.job, error = %failure, "request failed, will be sent again");
                    return;
                }
                self.failed(&attempt.job, &failure);
                self.answered(&attempt.job, None);
            }
        }
    }

    /// A job has its result; `None` = it failed for good.
    fn answered(&mut self, job: &Job, reply: Option<Reply>) {
        let now = unix_now();
        let names = &mut self.ledger.names;
        let further = match (job, reply) {
            (Job::Sensor(id), Some(Reply::Sensor(reply))) => {
                let settled = self.ledger.settle(reply, now);
                self.direct.insert(id.clone(), Some(settled));
                Vec::new()
            }
            (Job::Sensor(id), _) => {
                self.direct.insert(id.clone(), None);
                Vec::new()
            }
            (Job::Base, Some(Reply::Location(reply))) => {
                self.survey.base_answered(Some(reply), now, names)
            }
            (Job::Base, _) => self.survey.base_answered(None, now, names),
            (Job::Location(id), Some(Reply::Location(reply))) => {
                self.survey.answered(id, Some(reply), now, names)
            }
            (Job::Location(id), _) => self.survey.answered(id, None, now, names),
        };
        self.add(
            further.into_iter().map(Job::Location).collect(),
            Instant::now(),
            Duration::ZERO,
        );
    }

    fn failed(&mut self, job: &Job, failure: &Failure) {
        debug!(%job, error = %failure, "request failed");
        self.problems.push(Problem {
            of: job.to_string(),
            reason: failure.reason,
            what: failure.to_string(),
            no_token: failure.no_token,
        });
    }

    /// The end has come: what is `out` hangs, what waits was never sent, and both go first next time.
    fn give_up_on(&mut self, out: HashSet<Job>) {
        let mut unanswered: HashMap<Job, Unanswered> = self
            .plan
            .unsent()
            .map(|(job, how)| (job.clone(), how))
            .collect();
        unanswered.extend(out.into_iter().map(|job| (job, Unanswered::Hung)));
        if self.sensors_wait {
            unanswered.extend(
                self.not_covered()
                    .map(|id| (Job::Sensor(id), Unanswered::Unsent)),
            );
        }
        for job in unanswered.keys() {
            self.failed(job, &Failure::out_of_time());
            if let Job::Sensor(id) = job {
                self.direct.insert(id.clone(), None);
            }
        }
        self.unanswered = unanswered;
    }
}

fn ask<'a>(client: &'a Client, session: Arc<Session>, attempt: Attempt) -> Flight<'a> {
    Box::pin(async move {
        let result = match &attempt.job {
            Job::Base => client.base_location(&session).await.map(Reply::Location),
            Job::Location(id) => client.location(&session, id).await.map(Reply::Location),
            Job::Sensor(id) => client.sensor(&session, id).await.map(Reply::Sensor),
        };
        (attempt, result)
    })
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn unix_now() -> UnixTime {
    // A clock before 1970 makes every reading one of the future, which is then said.
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
