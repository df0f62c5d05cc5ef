//! When to collect, whom to ask in which order, and what is then known: yields one snapshot per collection.
//!
//! The policies are pure and stand by themselves: [`schedule`] (when), [`plan`] (order, pace, retries), [`survey`] and
//! [`path`] (what locations contain, and where), [`readings`] and [`ledger`] (what is kept), and [`round`], which makes one
//! collection of them. This file is the loop around them: it waits, asks `api`, and hands each snapshot to whoever publishes
//! it. A scrape meets it only through [`Handle`].

mod ledger;
mod path;
mod plan;
mod readings;
mod round;
mod schedule;
mod survey;

pub use ledger::Ledger;
pub use plan::{Attempt, Job};
pub use round::{Listed, Problem, Reply, Round, Step, Targets};
pub use schedule::{Course, Schedule};

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    mem::take,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    api::{Client, RequestError, Session},
    aside::aside,
    catalog::Catalog,
    clock::unix_now,
    config::{Config, Mode},
    oauth::TokenSource,
    snapshot::{Snapshot, Summary},
    stats::Reason,
};

/// Scrapes that may wait for one collection; more are answered with what there is.
const MAX_WAITING: usize = 1024;
/// How long the collector may be past its time before it counts as stuck: no machine is that busy for that long.
const GRACE: Duration = Duration::from_secs(60);

/// What to collect, and how: what one configuration says.
pub struct Assignment {
    client: Client,
    tokens: Arc<TokenSource>,
    targets: Arc<Targets>,
    mode: Mode,
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
            targets: Arc::new(Targets {
                sensors: config.sensors.clone().into(),
                locations: config.locations.iter().cloned().collect(),
                slots: config.api.max_concurrency,
                interval: config.effective_interval(),
                max_series: config.collect.max_series,
                reading_timestamps: config.metrics.reading_timestamps,
            }),
            mode: config.collect.mode,
            catalog,
        }
    }
}

/// Asks for the configured sensors and locations for as long as it runs.
pub struct Collector {
    assignment: Assignment,
    schedule: Schedule,
    ledger: Ledger,
    /// Reasons of the last collection's failures: the log tells of changes only.
    failing: BTreeSet<Reason>,
    /// Whether the last collection left something out, for the same reason.
    drops: bool,
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
    /// By then the collector will have gone on; `None` while it waits for a scrape.
    due: Mutex<Option<Instant>>,
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
    /// Waits for the collection that a scrape at this moment must wait for, if there is one, but no longer than `patience`:
    /// the first one, and in scrape mode the one that is due or under way.
    pub async fn settled(&self, patience: impl FnOnce() -> Duration) {
        let must_wait = match self.mode() {
            Mode::Interval => !self.has_ended_once(),
            Mode::Scrape => self
                .shared
                .fresh_until()
                .is_none_or(|until| Instant::now() >= until),
        };
        if !must_wait {
            return;
        }
        let (done, wait) = oneshot::channel();
        if self.orders.try_send(Order::Scrape(done)).is_ok() {
            let _ = timeout(patience(), wait).await;
        }
    }

    /// Whether a first collection has ended, well or badly.
    pub fn has_ended_once(&self) -> bool {
        self.shared.ended_once.load(Ordering::Acquire)
    }

    /// Whether collections are still being made.
    pub fn pulse(&self, now: Instant) -> Pulse {
        let due = *lock(&self.shared.due);
        if !self.shared.alive.load(Ordering::Acquire) {
            Pulse::Ended
        } else if due.is_some_and(|due| now >= due + GRACE) {
            Pulse::Stuck
        } else {
            Pulse::Alive
        }
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

/// How the collector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// It collects, or waits for its time to.
    Alive,
    /// Its time is long past, and it has not gone on.
    Stuck,
    /// Its task is no more.
    Ended,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn set_due(&self, due: Option<Instant>) {
        *lock(&self.due) = due;
    }

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
        *lock(&self.fresh_until)
    }

    fn set_fresh_until(&self, until: Option<Instant>) {
        *lock(&self.fresh_until) = until;
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
        let (mode, interval) = (assignment.mode, assignment.targets.interval);
        let shared = Arc::new(Shared {
            scrape_mode: AtomicBool::new(mode == Mode::Scrape),
            alive: AtomicBool::new(true),
            ended_once: AtomicBool::new(false),
            due: Mutex::new(None),
            fresh_until: Mutex::new(None),
        });
        let (orders, received) = mpsc::channel(MAX_WAITING);
        let collector = Self {
            assignment,
            schedule: Schedule::new(mode, interval),
            ledger: Ledger::new(interval),
            failing: BTreeSet::new(),
            drops: false,
            orders: received,
            shared: shared.clone(),
        };
        (collector, Handle { shared, orders })
    }

    /// What is shown before the first collection has ended: nothing of any sensor.
    pub fn before_the_first(&mut self) -> Snapshot {
        self.ledger.snapshot()
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
                self.shared.set_due(Some(Instant::now()));
                self.assign(assignment);
                recovered = self.assignment.tokens.recovered();
                publish(self.ledger.snapshot(), self.assignment.catalog.clone()).await;
                drop::<oneshot::Sender<()>>(done);
            } else {
                let next = self.schedule.next_start(Instant::now());
                self.shared.set_due(next);
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
        self.ledger.reassign(&assignment.targets);
        self.schedule = Schedule::new(assignment.mode, assignment.targets.interval);
        self.shared.set_mode(assignment.mode);
        self.shared.set_fresh_until(None);
        self.assignment = assignment;
    }

    /// One collection by itself, for a command that ends after it. `progress` is told how many requests have their result
    /// and how many are known of.
    pub async fn once(mut self, progress: &Progress<'_>) -> (Snapshot, Vec<Problem>) {
        match self.collect(&mut Vec::new(), progress).await {
            End::Whole(snapshot, problems) => (snapshot, problems),
            // Nobody holds a handle that could give another assignment.
            End::Interrupted(..) => (self.ledger.snapshot(), Vec::new()),
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
        self.shared.set_due(Some(course.deadline));
        let Assignment {
            client, targets, ..
        } = &self.assignment;
        let session = Arc::new(Session::new(course.deadline));
        let (targets, ledger) = (targets.clone(), take(&mut self.ledger));
        let begin = move || Round::begin(targets, ledger, start, course, fastrand::Rng::new());
        let mut round = aside(begin).await;
        let mut in_flight = FuturesUnordered::<Flight>::new();
        loop {
            let wake = match round.next(Instant::now()) {
                Step::Send(attempt) => {
                    in_flight.push(ask(client, session.clone(), attempt));
                    continue;
                }
                Step::Wait(until) => until,
                Step::Done => break,
            };
            tokio::select! {
                Some((attempt, result)) = in_flight.next() => {
                    let is_large = !matches!(attempt.job, Job::Sensor(_));
                    round.ended(attempt, result, Instant::now(), unix_now());
                    let (ended, known) = round.progress();
                    progress(ended, known);
                    // Such answers, where many come together, would hold up the scrapes that came with them.
                    if is_large {
                        yield_now().await;
                    }
                }
                () = sleep_until(wake.into()) => {}
                Some(order) = self.orders.recv() => match order {
                    Order::Scrape(scrape) => {
                        if waiting.len() >= MAX_WAITING {
                            waiting.retain(|scrape| !scrape.is_closed());
                        }
                        if waiting.len() < MAX_WAITING {
                            waiting.push(scrape);
                        }
                    }
                    Order::Assign(assignment, done) => {
                        self.ledger = round.abandon();
                        return End::Interrupted(assignment, done);
                    }
                },
            }
        }
        drop(in_flight);
        let close = move || {
            let (ledger, problems) = round.close(Instant::now(), unix_now());
            (ledger.snapshot(), ledger, problems)
        };
        let (snapshot, ledger, problems) = aside(close).await;
        self.ledger = ledger;
        End::Whole(snapshot, problems)
    }

    /// One line for each reason when failures for it begin, one when all have ended.
    fn log(&mut self, snapshot: &Snapshot, problems: &[Problem]) {
        let Summary {
            sensors_failed,
            locations_failed,
            sensors_dropped,
            readings_dropped,
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
        // Where nothing was asked, for want of a token, what failed before may still.
        if problems.is_empty() || !failing.is_empty() {
            if failing.is_empty() && !self.failing.is_empty() {
                info!(
                    sensors,
                    "collection is whole again: every request succeeded"
                );
            }
            self.failing = failing.into_keys().collect();
        }
        // What a location that fails holds may be left out as before.
        let drops = sensors_dropped + readings_dropped > 0 || self.drops && locations_failed > 0;
        if drops && !self.drops {
            warn!(
                sensors_dropped,
                readings_dropped,
                max_series = self.assignment.targets.max_series,
                "the API tells of more than may be shown, the rest is left out: raise collect.max_series, or list \
                 fewer locations; of a sensor with hundreds of variables only the first by name are shown"
            );
        } else if !drops && self.drops {
            info!(sensors, "nothing is left out any more");
        }
        self.drops = drops;
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

type Flight<'a> = Pin<Box<dyn Future<Output = (Attempt, Result<Reply, RequestError>)> + Send + 'a>>;

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use crate::{
        api::SharedRateLimiter,
        config::{self, Flags, Purpose},
        heard::Log,
        http::{Proxies, http_client},
        stats::Stats,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Of nothing, so that it needs nobody to ask.
    async fn assignment(mode: &str) -> Assignment {
        assigned(&format!(
            "oauth: {{client_id: a, client_secret: b, refresh_token: c}}\ncollect: {{mode: {mode}, interval: 100ms}}\n"
        ))
        .await
    }

    async fn assigned(text: &str) -> Assignment {
        let flags = Flags::default();
        let loaded = config::load_text("a test", text, &flags, std::iter::empty(), Purpose::Serve);
        let config = loaded.unwrap().config;
        let stats = Arc::new(Stats::new(0.0));
        let http = http_client(&config.api, Proxies::None).unwrap();
        let tokens = TokenSource::new(&config.oauth, http.clone(), stats.clone());
        let tokens = tokens.await.unwrap();
        let client = Client::new(
            &config.api,
            http,
            tokens.clone(),
            stats,
            SharedRateLimiter::default(),
        );
        let catalog = Catalog::new(&BTreeMap::new(), LONG, false);
        Assignment::new(&config, client, tokens, Arc::new(catalog))
    }

    /// What takes requests and never answers, and a configuration that asks it.
    fn hanging() -> (std::net::TcpListener, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let text = format!(
            "oauth: {{client_id: a, client_secret: b, refresh_token: c, token_url: 'http://{address}/'}}\n\
             api: {{url: 'http://{address}/', timeout: 10m}}\n\
             collect: {{interval: 1h}}\n\
             sensors: [A]\n"
        );
        (listener, text)
    }

    #[tokio::test]
    async fn without_a_token_what_failed_is_not_whole_again() {
        let (mut collector, _) = Collector::new(assignment("interval").await);
        let problem = |reason, no_token| Problem {
            of: "sensor A".to_owned(),
            reason,
            what: String::new(),
            no_token,
        };
        let failed = problem(Reason::ServerError, false);
        let unasked = problem(Reason::Unauthorized, true);
        let said = |collector: &mut Collector, problems: &[Problem]| {
            let log = Log::default();
            let _guard = log.start();
            collector.log(&Snapshot::default(), problems);
            log.lines().join("")
        };
        for (problems, words) in [
            (vec![], ""),
            (vec![unasked.clone()], ""),
            (
                vec![failed.clone(), unasked.clone()],
                "requests to the API fail",
            ),
            (vec![failed.clone()], ""),
            (vec![unasked], ""),
            (vec![], "collection is whole again"),
            (vec![], ""),
            (vec![failed], "requests to the API fail"),
        ] {
            let line = said(&mut collector, &problems);
            assert!(
                line.contains(words) && line.is_empty() == words.is_empty(),
                "{problems:?}: {line}"
            );
        }
    }

    #[tokio::test]
    async fn sensors_or_readings_left_out_are_told_of() {
        let (mut collector, _) = Collector::new(assignment("interval").await);
        let (begins, ends) = ("more than may be shown", "nothing is left out any more");
        let collections = [
            (0, 0, 1, ""),
            (1, 0, 0, begins),
            (0, 0, 0, ends),
            (0, 0, 0, ""),
            (0, 1, 0, begins),
            (0, 2, 0, ""),
            (0, 0, 1, ""),
            (0, 0, 0, ends),
            (2, 2, 2, begins),
            (0, 0, 0, ends),
        ];
        for (sensors_dropped, readings_dropped, locations_failed, words) in collections {
            let log = Log::default();
            let _guard = log.start();
            let snapshot = Snapshot {
                sensors: Vec::new(),
                summary: Summary {
                    sensors_dropped,
                    readings_dropped,
                    locations_failed,
                    ..Summary::default()
                },
            };
            collector.log(&snapshot, &[]);
            let line = log.lines().join("");
            let expected = line.contains(words) && line.is_empty() == words.is_empty();
            assert!(expected, "{:?}: {line}", snapshot.summary);
        }
    }

    #[tokio::test]
    async fn a_collector_that_does_not_go_on_is_stuck_and_one_whose_task_is_gone_has_ended() {
        let (collector, handle) = Collector::new(assignment("interval").await);
        let (reached, mut publishing) = mpsc::channel(1);
        let publish = move |_, _| {
            let reached = reached.clone();
            async move {
                let _ = reached.send(()).await;
                std::future::pending().await
            }
        };
        let task = tokio::spawn(collector.run(publish, CancellationToken::new()));
        publishing.recv().await.unwrap();
        assert_eq!(handle.pulse(Instant::now()), Pulse::Alive);
        assert_eq!(handle.pulse(Instant::now() + LONG), Pulse::Stuck);
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(handle.pulse(Instant::now()), Pulse::Ended);
    }

    #[tokio::test]
    async fn a_collector_that_goes_on_is_due_later_each_time() {
        let (collector, handle) = Collector::new(assignment("interval").await);
        let (reached, mut publishing) = mpsc::channel(1);
        let publish = move |_, _| {
            let reached = reached.clone();
            async move {
                let _ = reached.send(()).await;
            }
        };
        tokio::spawn(collector.run(publish, CancellationToken::new()));
        let mut due = Vec::new();
        for _ in 0..3 {
            publishing.recv().await.unwrap();
            due.push(*lock(&handle.shared.due));
        }
        assert!(due.is_sorted_by(|a, b| a < b), "{due:?}");
    }

    #[tokio::test]
    async fn what_is_newly_assigned_is_collected_in_its_own_mode() {
        let (mut collector, handle) = Collector::new(assignment("interval").await);
        assert_eq!(handle.mode(), Mode::Interval);
        let interval = Duration::from_millis(100);
        assert_eq!(collector.before_the_first().summary.interval, interval);
        tokio::spawn(collector.run(|_, _| std::future::ready(()), CancellationToken::new()));
        for (mode, name) in [(Mode::Scrape, "scrape"), (Mode::Interval, "interval")] {
            handle.assign(assignment(name).await).await;
            assert_eq!(handle.mode(), mode);
        }
    }

    #[tokio::test]
    async fn neither_scrapes_nor_a_new_assignment_wait_for_the_collection_under_way() {
        let (listener, hanging) = hanging();
        let (collector, handle) = Collector::new(assignment("interval").await);
        tokio::spawn(collector.run(|_, _| std::future::ready(()), CancellationToken::new()));
        handle.settled(|| LONG).await;
        assert!(handle.has_ended_once());
        handle.assign(assigned(&hanging).await).await;
        let (connection, _) = tokio::task::spawn_blocking(move || listener.accept())
            .await
            .unwrap()
            .unwrap();
        handle.settled(|| LONG).await;
        handle.assign(assignment("interval").await).await;
        drop(connection);
    }

    #[tokio::test]
    async fn only_so_many_scrapes_wait_and_those_that_have_gone_make_room() {
        let (_listener, hanging) = hanging();
        let (collector, handle) = Collector::new(assigned(&hanging).await);
        tokio::spawn(collector.run(|_, _| std::future::ready(()), CancellationToken::new()));
        let sent = Arc::new(AtomicUsize::new(0));
        let scrape = || {
            let (handle, sent) = (handle.clone(), sent.clone());
            let patience = move || {
                sent.fetch_add(1, Ordering::Relaxed);
                LONG
            };
            tokio::spawn(async move { handle.settled(patience).await })
        };
        let waiting = [(); MAX_WAITING].map(|()| scrape());
        while sent.load(Ordering::Relaxed) < MAX_WAITING || handle.orders.capacity() < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        let beyond = timeout(Duration::from_secs(10), handle.settled(|| LONG)).await;
        assert!(beyond.is_ok(), "it waits");
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        for gone in waiting {
            assert!(gone.await.unwrap_err().is_cancelled());
        }
        let waits = timeout(Duration::from_millis(50), scrape()).await;
        assert!(waits.is_err(), "there is room again");
    }

    #[tokio::test]
    async fn a_scrape_brings_a_collection_again_once_the_last_is_no_longer_fresh() {
        let (collector, handle) = Collector::new(assignment("scrape").await);
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let publish = move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        };
        tokio::spawn(collector.run(publish, CancellationToken::new()));
        for collections in 1..4 {
            handle.settled(|| LONG).await;
            assert_eq!(made.load(Ordering::Relaxed), collections);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    #[tokio::test]
    async fn a_collector_that_waits_for_a_scrape_is_never_stuck() {
        let (collector, handle) = Collector::new(assignment("scrape").await);
        tokio::spawn(collector.run(|_, _| std::future::ready(()), CancellationToken::new()));
        handle.settled(|| LONG).await;
        tokio::task::yield_now().await;
        assert_eq!(handle.pulse(Instant::now() + 24 * LONG), Pulse::Alive);
    }
}
