//! Makes collections: decides when, what to request and in which order, and turns the replies into one snapshot per
//! collection.
//!
//! The decisions are pure and have files of their own: [`schedule`] (when), [`plan`] (what), [`queue`] (order, pace,
//! retries), [`discovery`] (which sensors the locations hold, and where), [`readings`] and [`registry`] (what is kept), and
//! [`run`], which uses them to make one collection. [`log`] reports it, [`path`] joins names. This file is the task around
//! them: it waits, sends requests through `api`, and hands each snapshot to the publisher. Scrapes and reloads reach it
//! through [`Handle`].

mod discovery;
mod log;
mod path;
mod plan;
mod queue;
mod readings;
mod registry;
mod run;
mod schedule;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

pub use plan::CollectionPlan;
pub use queue::{Job, Step};
pub use registry::SensorRegistry;
pub use run::{CollectionRun, Reply, RequestFailure};
pub use schedule::{CollectionWindow, Schedule};

use std::{
    future::{Future, pending},
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Client, RequestError, Session},
    blocking,
    catalog::Catalog,
    clock::unix_now,
    config::{Config, Mode},
    oauth::TokenSource,
    snapshot::Snapshot,
};
use log::CollectionLog;
use plan::BASE_LOCATION;

/// Commands that may wait for the collector. If there are that many, a scrape need not add another one.
const MAX_COMMANDS: usize = 16;
/// How late the collector may be before it counts as stuck: no machine is that busy for that long.
const MAX_LATENESS: Duration = Duration::from_secs(60);

/// The part of a configuration that the collector needs.
pub struct CollectorConfig {
    client: Client,
    plan: Arc<CollectionPlan>,
    mode: Mode,
    /// Published together with each snapshot.
    catalog: Arc<Catalog>,
    /// Changes when an access token is available again.
    token_recovered: watch::Receiver<()>,
}

impl CollectorConfig {
    /// Takes what the collector needs out of `config`.
    pub fn new(
        config: &Config,
        client: Client,
        tokens: &TokenSource,
        catalog: Arc<Catalog>,
    ) -> Self {
        Self {
            client,
            plan: Arc::new(CollectionPlan::new(config)),
            mode: config.collect.mode,
            catalog,
            token_recovered: tokens.recovered(),
        }
    }
}

/// The task that makes collections for as long as it runs.
pub struct Collector {
    config: CollectorConfig,
    schedule: Schedule,
    registry: SensorRegistry,
    log: CollectionLog,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<Status>,
}

/// A request from a [`Handle`] to the collector.
enum Command {
    /// Collect if a collection is due.
    Collect,
    /// Collect under another configuration, at once.
    /// The sender is dropped when the readings are published under it.
    Reconfigure(Box<CollectorConfig>, oneshot::Sender<()>),
}

/// The state of the collector that scrapes and probes read.
#[derive(Debug, Clone, Copy)]
struct Status {
    mode: Mode,
    /// The number of collections that have finished.
    collections: u64,
    /// When the collector acts next at the latest: the next start, or the deadline of the running collection; `None` while it
    /// waits for a scrape.
    next_event_by: Option<Instant>,
    /// In scrape mode: the time until which no scrape needs another collection.
    fresh_until: Option<Instant>,
}

/// Gives scrapes, probes and reloads access to a collector.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

impl Handle {
    /// Waits until a scrape may be answered, at most `max_wait`. In interval mode it waits for the first collection only; in
    /// scrape mode for the collection that is due or running.
    pub async fn wait_until_fresh(&self, max_wait: impl FnOnce() -> Duration) {
        let status = *self.status.borrow();
        let is_fresh = match status.mode {
            Mode::Interval => status.collections > 0,
            Mode::Scrape => status
                .fresh_until
                .is_some_and(|until| Instant::now() < until),
        };
        if is_fresh {
            return;
        }
        let _ = self.commands.try_send(Command::Collect);
        let mut changes = self.status.clone();
        let finished = changes.wait_for(|now| now.collections > status.collections);
        let _ = timeout(max_wait(), finished).await;
    }

    /// Returns whether a first collection has finished, successful or not.
    pub fn has_collected(&self) -> bool {
        self.status.borrow().collections > 0
    }

    /// Returns whether collections are still made.
    pub fn liveness(&self, now: Instant) -> Liveness {
        let due = self.status.borrow().next_event_by;
        if self.commands.is_closed() {
            Liveness::Ended
        } else if due.is_some_and(|due| now >= due + MAX_LATENESS) {
            Liveness::Stuck
        } else {
            Liveness::Alive
        }
    }

    /// Returns when collections are made.
    pub fn mode(&self) -> Mode {
        self.status.borrow().mode
    }

    /// Collects under another configuration, at once. Sensors that stay keep their readings. Returns when they are published
    /// under the new configuration; its first collection is then running.
    pub async fn reconfigure(&self, config: CollectorConfig) {
        let (done, wait) = oneshot::channel();
        let command = Command::Reconfigure(Box::new(config), done);
        if self.commands.send(command).await.is_ok() {
            let _ = wait.await;
        }
    }
}

/// Whether the collector works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It collects, or waits until a collection is due.
    Alive,
    /// It is long overdue.
    Stuck,
    /// Its task has ended.
    Ended,
}

impl Collector {
    /// Returns a collector that has not started, and its handle.
    pub fn new(config: CollectorConfig) -> (Self, Handle) {
        let interval = config.plan.interval;
        let (commands, received) = mpsc::channel(MAX_COMMANDS);
        let (status, changes) = watch::channel(Status {
            mode: config.mode,
            collections: 0,
            next_event_by: None,
            fresh_until: None,
        });
        let collector = Self {
            schedule: Schedule::new(config.mode, interval),
            registry: SensorRegistry::new(interval),
            log: CollectionLog::default(),
            config,
            commands: received,
            status,
        };
        let handle = Handle {
            commands,
            status: changes,
        };
        (collector, handle)
    }

    /// Returns what is published before the first collection has finished: nothing of any sensor.
    pub fn initial_snapshot(&self) -> Snapshot {
        self.registry.snapshot()
    }

    /// Collects until `shutdown`. Each snapshot is given to `publish`; scrapes that wait go on once it has returned.
    pub async fn run<F: Future<Output = ()>>(
        mut self,
        publish: impl Fn(Snapshot, Arc<Catalog>) -> F,
        shutdown: CancellationToken,
    ) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.collect_forever(publish) => {}
        }
    }

    /// Makes one collection, for a sub-command that then ends.
    pub async fn run_once(mut self) -> (Snapshot, Vec<RequestFailure>) {
        let collected = self.collect().await;
        // Only a reload interrupts a collection, and a sub-command has no reloads.
        collected.unwrap_or_else(|_| (self.registry.snapshot(), Vec::new()))
    }

    async fn collect_forever<F: Future<Output = ()>>(
        &mut self,
        publish: impl Fn(Snapshot, Arc<Catalog>) -> F,
    ) {
        while let Some(mut command) = self.wait_for_start().await {
            let (snapshot, failures) = loop {
                if let Command::Reconfigure(config, done) = command {
                    self.activate(*config);
                    publish(self.registry.snapshot(), self.config.catalog.clone()).await;
                    drop(done); // The reload may go on.
                }
                match self.collect().await {
                    Ok(collected) => break collected,
                    Err(interrupting) => command = interrupting,
                }
            };
            let max_series = self.config.plan.max_series;
            self.log.report(&snapshot, &failures, max_series);
            publish(snapshot, self.config.catalog.clone()).await;
            self.status.send_modify(|status| {
                status.collections += 1;
                status.fresh_until = self.schedule.fresh_until();
            });
        }
    }

    /// Waits until a collection is due. Returns the command that starts it, or `None` when there are no handles.
    async fn wait_for_start(&mut self) -> Option<Command> {
        loop {
            let next = self.schedule.next_start(Instant::now());
            self.status
                .send_modify(|status| status.next_event_by = next);
            tokio::select! {
                () = sleep_until_or_forever(next) => return Some(Command::Collect),
                // When a token is available again, the next start is too late. In scrape mode (`next` is `None`) a scrape starts it.
                Ok(()) = self.config.token_recovered.changed(), if next.is_some() => {
                    return Some(Command::Collect);
                }
                command = self.commands.recv() => match command {
                    Some(Command::Collect) if !self.schedule.is_due(Instant::now()) => {}
                    command => return command,
                },
            }
        }
    }

    /// Replaces the configuration: sensors that it no longer contains leave, the others get the names that it gives them.
    fn activate(&mut self, config: CollectorConfig) {
        self.registry.reconfigure(&config.plan);
        self.schedule = Schedule::new(config.mode, config.plan.interval);
        self.status.send_modify(|status| {
            status.mode = config.mode;
            status.fresh_until = None;
            status.next_event_by = Some(Instant::now());
        });
        self.config = config;
    }

    /// Makes one collection, from its start to its snapshot. Returns the command that interrupts it, if there is one.
    async fn collect(&mut self) -> Result<(Snapshot, Vec<RequestFailure>), Command> {
        let start = Instant::now();
        let window = self.schedule.start_collection(start, fastrand::f64());
        self.status
            .send_modify(|status| status.next_event_by = Some(window.deadline));
        let (client, plan) = (&self.config.client, self.config.plan.clone());
        let session = Session::new(window.deadline);
        let registry = take(&mut self.registry);
        let rng = fastrand::Rng::new();
        let mut run =
            blocking::run(move || CollectionRun::start(plan, registry, start, window, rng)).await;
        let mut in_flight = FuturesUnordered::new();
        loop {
            let wake = match run.next(Instant::now()) {
                Step::Send(job) => {
                    in_flight.push(send(client, &session, job));
                    continue;
                }
                Step::Wait(until) => until,
                Step::Done => break,
            };
            tokio::select! {
                Some((job, result)) = in_flight.next() => {
                    run.handle_result(&job, result, Instant::now(), unix_now());
                }
                () = sleep_until(wake.into()) => {}
                Some(command) = self.commands.recv() => {
                    if matches!(command, Command::Reconfigure(..)) {
                        self.registry = run.cancel();
                        return Err(command);
                    }
                }
            }
        }
        drop(in_flight);
        let finish = move || {
            let (registry, failures) = run.finish(Instant::now(), unix_now());
            (registry.snapshot(), registry, failures)
        };
        let (snapshot, registry, failures) = blocking::run(finish).await;
        self.registry = registry;
        Ok((snapshot, failures))
    }
}

async fn send(client: &Client, session: &Session, job: Job) -> (Job, Result<Reply, RequestError>) {
    let result = match &job {
        Job::Location(id) if **id == *BASE_LOCATION => {
            client.base_location(session).await.map(Reply::Location)
        }
        Job::Location(id) => client.location(session, id).await.map(Reply::Location),
        Job::Sensor(id) => client.sensor(session, id).await.map(Reply::Sensor),
    };
    (job, result)
}

async fn sleep_until_or_forever(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}
