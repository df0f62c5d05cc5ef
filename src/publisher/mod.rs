//! Between collections and scrapes: each snapshot becomes bodies once, off the threads that serve, and is swapped in
//! whole. `web` reads only this.
//!
//! A body (one format in one encoding) is made when it is first asked for, and a packed one from then on with each snapshot
//! for as long as it is asked for. A plain one, which takes less time than its first scrape, is made by that one, when the
//! one before has left; too long to keep, it is rendered anew for each scrape, chunk by chunk. When a reading
//! falls stale, the first scrape after that has the bodies made anew, once for all that wait. The exporter's own families
//! end every body: [`Tails`].

mod tail;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};

pub use self::tail::{Tail, Tails};
use crate::{
    aside::aside,
    catalog::Catalog,
    clock::unix_now,
    exposition::{Encoding, Filter, Format, Rendering, View, gzip},
    snapshot::{Snapshot, UnixTime},
};

/// A body that nobody has asked for during this many snapshots is not made ahead any more.
const KEPT_AHEAD: u32 = 5;

/// A plain body up to about this size is kept. Rendering a longer one costs less than sending it, and two generations of
/// it would be most of what the exporter takes in memory.
const KEPT_PLAIN: usize = 2 * 1024 * 1024;

/// Every kind of body, in the order of [`Published::bodies`].
const KINDS: [(Format, Encoding); 4] = [
    (Format::Text, Encoding::Identity),
    (Format::Text, Encoding::Gzip),
    (Format::OpenMetrics, Encoding::Identity),
    (Format::OpenMetrics, Encoding::Gzip),
];

/// What scrapes are answered with.
pub struct Publisher {
    current: Arc<ArcSwap<Published>>,
    /// For how many snapshots more each kind of body is made ahead.
    wanted: [AtomicU32; 4],
    /// Held while bodies are made anew, so that it happens once, and one after the other.
    renewing: Arc<Mutex<()>>,
}

/// One snapshot as it is at one moment, with its bodies.
pub struct Published {
    /// What is shown.
    pub view: Arc<View>,
    bodies: [OnceCell<Prefix>; 4],
}

/// The part of a body that is the same for every scrape of one snapshot; the exporter's own families follow it.
#[derive(Debug, Clone)]
pub enum Prefix {
    /// The text, in pieces.
    Kept(Arc<[Bytes]>),
    /// The text, to be rendered.
    Anew(Rendering),
    /// The beginning of a gzip member.
    Gzip(gzip::Prefix),
}

impl Publisher {
    /// Shows `snapshot` until the first one is published.
    pub fn new(snapshot: Snapshot, catalog: Arc<Catalog>) -> Self {
        let published = Published::new(Arc::new(snapshot), catalog, unix_now(), [false; 4]);
        Self {
            current: Arc::new(ArcSwap::from_pointee(published)),
            wanted: Default::default(),
            renewing: Arc::default(),
        }
    }

    /// Makes the bodies that are in demand, then swaps the snapshot in.
    pub async fn publish(&self, snapshot: Snapshot, catalog: Arc<Catalog>) {
        let renewing = self.renewing.clone().lock_owned().await;
        let wanted = self.wanted.each_ref().map(take_one);
        self.swap_in(renewing, Arc::new(snapshot), catalog, unix_now(), wanted)
            .await;
    }

    /// What is to be shown now.
    pub async fn current(&self) -> Arc<Published> {
        let current = self.current.load_full();
        if unix_now() <= current.view.valid_until {
            return current;
        }
        let renewing = self.renewing.clone().lock_owned().await;
        let current = self.current.load_full();
        let now = unix_now();
        if now <= current.view.valid_until {
            return current;
        }
        let wanted = self
            .wanted
            .each_ref()
            .map(|left| left.load(Ordering::Relaxed) > 0);
        let (snapshot, catalog) = (current.view.snapshot(), current.view.catalog());
        self.swap_in(renewing, snapshot.clone(), catalog.clone(), now, wanted)
            .await;
        self.current.load_full()
    }

    /// The beginning of the body of `published` in this format and encoding.
    pub async fn prefix(
        &self,
        published: &Arc<Published>,
        format: Format,
        encoding: Encoding,
    ) -> Prefix {
        let kind = usize::from(format == Format::OpenMetrics) * 2
            + usize::from(encoding == Encoding::Gzip);
        self.wanted[kind].store(KEPT_AHEAD, Ordering::Relaxed);
        let body = &published.bodies[kind];
        if let Some(made) = body.get() {
            return made.clone();
        }
        let view = published.view.clone();
        let make = || aside(move || Prefix::kept(view, format, encoding));
        body.get_or_init(make).await.clone()
    }

    async fn swap_in(
        &self,
        renewing: OwnedMutexGuard<()>,
        snapshot: Arc<Snapshot>,
        catalog: Arc<Catalog>,
        now: UnixTime,
        wanted: [bool; 4],
    ) {
        let current = self.current.clone();
        aside(move || {
            // A scrape that has gone must not have its older snapshot shown over a newer one.
            let _renewing = renewing;
            // The one before ends here too: it is as large.
            current.store(Arc::new(Published::new(snapshot, catalog, now, wanted)));
        })
        .await;
    }
}

impl Published {
    fn new(
        snapshot: Arc<Snapshot>,
        catalog: Arc<Catalog>,
        now: UnixTime,
        wanted: [bool; 4],
    ) -> Self {
        let view = Arc::new(View::new(snapshot, catalog, now));
        let mut bodies = <[OnceCell<Prefix>; 4]>::default();
        for ((body, (format, encoding)), wanted) in bodies.iter_mut().zip(KINDS).zip(wanted) {
            if wanted && encoding == Encoding::Gzip {
                let made = Prefix::kept(view.clone(), format, encoding);
                *body = OnceCell::new_with(Some(made));
            }
        }
        Self { view, bodies }
    }

    /// The beginning of a body with the families that `filter` lets through, made for this one scrape.
    pub async fn filtered(&self, format: Format, encoding: Encoding, filter: Filter) -> Prefix {
        let rendering = self.view.clone().rendering(format, filter);
        match encoding {
            Encoding::Identity => Prefix::Anew(rendering),
            Encoding::Gzip => aside(move || Prefix::gzip(rendering, 0)).await,
        }
    }
}

impl Prefix {
    /// Made for all scrapes of one snapshot.
    fn kept(view: Arc<View>, format: Format, encoding: Encoding) -> Self {
        let expected = view.estimated_size();
        let rendering = view.rendering(format, Filter::default());
        match encoding {
            Encoding::Gzip => Self::gzip(rendering, expected),
            Encoding::Identity if expected > KEPT_PLAIN => Self::Anew(rendering),
            Encoding::Identity => Self::Kept(rendering.map(Bytes::from).collect()),
        }
    }

    fn gzip(mut rendering: Rendering, expected: usize) -> Self {
        let mut member = gzip::Deflater::new(expected);
        let mut text = Vec::with_capacity(Rendering::CHUNK);
        while rendering.fill(&mut text) {
            member.push(&text);
            text.clear();
        }
        Self::Gzip(member.finish())
    }
}

/// Whether there was one left.
fn take_one(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    })
    .is_ok()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        future::Future,
        pin::pin,
        task::{Context, Waker},
        time::Duration,
    };

    use super::*;
    use crate::snapshot::{Identity, Reading, Sensor, Skipped, Summary};

    const LIMIT: Duration = Duration::from_secs(1000);

    /// So many sensors with one reading of this age.
    fn snapshot(sensors: usize, age: f64) -> Snapshot {
        let time = unix_now() - age;
        let sensor = |number| Sensor {
            identity: Arc::new(Identity::new(
                format!("AQ2-{number}").into(),
                None,
                None,
                None,
                BTreeMap::new(),
            )),
            readings: [Reading {
                var_name: "CO2ppm".into(),
                time,
                value: 500.0,
            }]
            .into(),
            skipped: Skipped::default(),
            read: Some(true),
            last_success: None,
        };
        Snapshot::new((0..sensors).map(sensor).collect(), Summary::default())
    }

    #[tokio::test]
    async fn a_scrape_that_has_gone_shows_no_older_snapshot_over_a_newer_one() {
        let catalog = Arc::new(Catalog::new(&BTreeMap::new(), LIMIT, false));
        // However slow this machine is, some of the large one's readings are to fall stale while the test looks on.
        let mut margin = 1.0;
        let (publisher, first) = loop {
            let large = snapshot(20_000, LIMIT.as_secs_f64() - margin);
            let publisher = Publisher::new(large, catalog.clone());
            let first = publisher.current().await;
            if first.view.valid_until.is_finite() {
                break (publisher, first);
            }
            margin *= 2.0;
        };
        publisher.prefix(&first, Format::Text, Encoding::Gzip).await;
        while unix_now() <= first.view.valid_until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        {
            let mut scrape = pin!(publisher.current());
            let mut idle = Context::from_waker(Waker::noop());
            assert!(scrape.as_mut().poll(&mut idle).is_pending());
        }
        publisher.publish(snapshot(1, 0.0), catalog).await;
        // Ample for what it had begun.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(publisher.current().await.view.snapshot().sensors.len(), 1);
    }
}
