//! Keeps the current snapshot and its rendered text between collections and scrapes. The collector publishes here, and
//! `web` reads only this.
//!
//! The readings of a snapshot are rendered and compressed once per format and encoding, and again when one of them becomes
//! stale. The exporter's own metrics are rendered when one of them has changed, and follow the readings in every response.
//! Long work runs on the blocking pool, and snapshots are replaced whole: a scrape never sees parts of two.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::sync::{Mutex, OnceCell};

use crate::{
    blocking,
    catalog::Catalog,
    clock::unix_now,
    exposition::{
        Encoding, Filter, Format, View,
        gzip::{self, Part},
        render_self_metrics,
    },
    snapshot::{Snapshot, UnixTime},
    stats::{PROCESS_SAMPLE_INTERVAL, Stats},
};

/// The state of the exporter that scrapes and the status page show.
pub struct Publisher {
    current: ArcSwap<Published>,
    /// Held while the current snapshot is replaced.
    replacing: Mutex<()>,
    stats: Arc<Stats>,
    /// One per format.
    self_metrics: [ArcSwapOption<SelfMetrics>; Format::ALL.len()],
}

/// A snapshot at one moment, with the text of its readings.
struct Published {
    view: Arc<View>,
    /// One per format.
    rendered: [RenderedReadings; Format::ALL.len()],
}

/// The readings in one format.
#[derive(Default)]
struct RenderedReadings {
    text: OnceCell<Bytes>,
    gzip: OnceCell<Arc<Part>>,
    gzip_was_requested: AtomicBool,
}

/// The exporter's own metrics in one format.
struct SelfMetrics {
    /// The number of changes in [`Stats`] before they were rendered.
    changes: u64,
    rendered_at: Instant,
    text: Bytes,
    gzip: Part,
}

impl Publisher {
    /// Returns a publisher that shows `snapshot` until the first one is published.
    pub fn new(snapshot: Snapshot, catalog: Arc<Catalog>, stats: Arc<Stats>) -> Self {
        let view = View::new(Arc::new(snapshot), catalog, unix_now());
        Self {
            current: ArcSwap::from_pointee(Published::new(view)),
            replacing: Mutex::default(),
            stats,
            self_metrics: Default::default(),
        }
    }

    /// Replaces the current snapshot.
    pub async fn publish(&self, snapshot: Snapshot, catalog: Arc<Catalog>) {
        let _replacing = self.replacing.lock().await;
        self.replace(Arc::new(snapshot), catalog, unix_now()).await;
    }

    /// Returns the view that is shown now.
    pub async fn view(&self) -> Arc<View> {
        self.current().await.view.clone()
    }

    /// Returns the body of a response, in pieces to be sent one after the other.
    pub async fn body(&self, format: Format, encoding: Encoding, filter: Filter) -> Vec<Bytes> {
        let published = self.current().await;
        if !filter.allows_all() {
            let (view, stats) = (published.view.clone(), self.stats.clone());
            let render = move || {
                let mut text = text(&view, format, &filter);
                text.push_str(&render_self_metrics(&stats.gather(), format, &filter));
                match encoding {
                    Encoding::Identity => vec![text.into()],
                    Encoding::Gzip => gzip::join(&Part::first(|_| ()), &Part::last(&text)).into(),
                }
            };
            return blocking::run(render).await;
        }
        match encoding {
            Encoding::Identity => {
                let readings = published.text(format).await;
                vec![readings, self.self_metrics(format).text.clone()]
            }
            Encoding::Gzip => {
                let readings = published.gzip(format).await;
                gzip::join(&readings, &self.self_metrics(format).gzip).into()
            }
        }
    }

    async fn current(&self) -> Arc<Published> {
        let current = self.current.load_full();
        if unix_now() <= current.view.valid_until {
            return current;
        }
        let _replacing = self.replacing.lock().await;
        // Another scrape may have replaced it meanwhile.
        let current = self.current.load_full();
        let now = unix_now();
        if now > current.view.valid_until {
            let view = &current.view;
            self.replace(view.snapshot().clone(), view.catalog().clone(), now)
                .await;
        }
        self.current.load_full()
    }

    /// Renders a snapshot and makes it the current one. The caller holds the lock; if the caller is cancelled, the current
    /// snapshot stays.
    async fn replace(&self, snapshot: Arc<Snapshot>, catalog: Arc<Catalog>, now: UnixTime) {
        let previous = self.current.load_full();
        let next = blocking::run(move || {
            let next = Published::new(View::new(snapshot, catalog, now));
            next.render_requested(&previous);
            next
        });
        let previous = self.current.swap(Arc::new(next.await));
        // A large snapshot takes a while to free.
        tokio::task::spawn_blocking(|| drop(previous));
    }

    /// Returns the exporter's own metrics. A rendering is good until a metric changes or the process is sampled again.
    fn self_metrics(&self, format: Format) -> Arc<SelfMetrics> {
        let cached = &self.self_metrics[format as usize];
        let changes = self.stats.changes();
        if let Some(rendered) = cached.load_full()
            && rendered.changes == changes
            && rendered.rendered_at.elapsed() < PROCESS_SAMPLE_INTERVAL
        {
            return rendered;
        }
        let text = render_self_metrics(&self.stats.gather(), format, &Filter::default());
        let rendered = Arc::new(SelfMetrics {
            changes,
            rendered_at: Instant::now(),
            gzip: Part::last(&text),
            text: text.into(),
        });
        cached.store(Some(rendered.clone()));
        rendered
    }
}

impl Published {
    fn new(view: View) -> Self {
        Self {
            view: Arc::new(view),
            rendered: Default::default(),
        }
    }

    /// Compresses the formats that scrapes requested of the previous snapshot, so that no scrape waits for it. Plain text is
    /// rendered quickly, and in advance it would be in memory together with the previous one.
    fn render_requested(&self, previous: &Self) {
        for format in Format::ALL {
            let previous = &previous.rendered[format as usize];
            if previous.gzip_was_requested.load(Ordering::Relaxed) {
                let part = compressed(&self.view, format);
                // The cell is empty, because no other thread has it yet.
                let _ = self.rendered[format as usize].gzip.set(part);
            }
        }
    }

    async fn text(&self, format: Format) -> Bytes {
        let view = self.view.clone();
        let render = || blocking::run(move || text(&view, format, &Filter::default()).into());
        let rendered = &self.rendered[format as usize];
        rendered.text.get_or_init(render).await.clone()
    }

    async fn gzip(&self, format: Format) -> Arc<Part> {
        let view = self.view.clone();
        let compress = || blocking::run(move || compressed(&view, format));
        let rendered = &self.rendered[format as usize];
        rendered.gzip_was_requested.store(true, Ordering::Relaxed);
        rendered.gzip.get_or_init(compress).await.clone()
    }
}

fn text(view: &View, format: Format, filter: &Filter) -> String {
    let mut text = String::new();
    view.render(format, filter, &mut |chunk| text.push_str(chunk));
    text
}

fn compressed(view: &View, format: Format) -> Arc<Part> {
    Part::first(|push| view.render(format, &Filter::default(), push)).into()
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
    use crate::snapshot::{Identity, Reading, Sensor, SkippedReadings, Summary};

    const STALE_AFTER: Duration = Duration::from_secs(1000);

    /// A snapshot of sensors with one reading each, as old as given.
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
            skipped: SkippedReadings::default(),
            read: Some(true),
            last_success: None,
        };
        Snapshot {
            sensors: (0..sensors).map(sensor).collect(),
            summary: Summary::default(),
        }
    }

    fn catalog() -> Arc<Catalog> {
        Arc::new(Catalog::new(&BTreeMap::new(), STALE_AFTER, false))
    }

    fn publisher(snapshot: Snapshot) -> Publisher {
        Publisher::new(snapshot, catalog(), Arc::new(Stats::new(0.0)))
    }

    async fn body(publisher: &Publisher, encoding: Encoding) -> Vec<Bytes> {
        let all = Filter::default();
        publisher.body(Format::Text, encoding, all).await
    }

    /// Whether two bodies share the readings, and the exporter's own metrics.
    fn shared(one: &[Bytes], other: &[Bytes]) -> [bool; 2] {
        [0, 1].map(|piece| one[piece].as_ptr() == other[piece].as_ptr())
    }

    #[tokio::test]
    async fn scrapes_share_the_rendered_readings_until_the_next_snapshot() {
        let publisher = publisher(snapshot(1, 0.0));
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            let first = body(&publisher, encoding).await;
            assert!(shared(&first, &body(&publisher, encoding).await)[0]);
            publisher.publish(snapshot(2, 0.0), catalog()).await;
            assert!(!shared(&first, &body(&publisher, encoding).await)[0]);
        }
    }

    #[tokio::test]
    async fn the_exporters_own_metrics_are_rendered_again_when_one_changes() {
        let publisher = publisher(snapshot(1, 0.0));
        let first = body(&publisher, Encoding::Identity).await;
        publisher.stats.refresh_token_valid.set(0.0);
        let second = body(&publisher, Encoding::Identity).await;
        assert_eq!(shared(&first, &second), [true, false]);
        let text = String::from_utf8(second.concat()).expect("UTF-8");
        assert!(text.contains("\nlightfi_exporter_refresh_token_valid 0\n"));
    }

    #[tokio::test]
    async fn the_next_snapshot_is_compressed_in_advance_if_scrapes_asked_for_it() {
        let publisher = publisher(snapshot(1, 0.0));
        let is_compressed = || {
            let current = publisher.current.load();
            Format::ALL.map(|format| current.rendered[format as usize].gzip.initialized())
        };
        publisher.publish(snapshot(1, 0.0), catalog()).await;
        assert_eq!(is_compressed(), [false, false]);
        body(&publisher, Encoding::Gzip).await;
        publisher.publish(snapshot(1, 0.0), catalog()).await;
        assert_eq!(is_compressed(), [true, false]);
        publisher.publish(snapshot(1, 0.0), catalog()).await;
        let reason = "no scrape asked for the last one";
        assert_eq!(is_compressed(), [false, false], "{reason}");
    }

    #[tokio::test]
    async fn a_cancelled_scrape_does_not_replace_a_newer_snapshot() {
        // Some readings must become stale while the test is running, however slow the machine is.
        let mut margin = 1.0;
        let (publisher, first) = loop {
            let publisher = publisher(snapshot(20_000, STALE_AFTER.as_secs_f64() - margin));
            let first = publisher.view().await;
            if first.valid_until.is_finite() {
                break (publisher, first);
            }
            margin *= 2.0;
        };
        body(&publisher, Encoding::Gzip).await;
        while unix_now() <= first.valid_until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        {
            let mut scrape = pin!(publisher.view());
            let mut context = Context::from_waker(Waker::noop());
            assert!(scrape.as_mut().poll(&mut context).is_pending());
        }
        publisher.publish(snapshot(1, 0.0), catalog()).await;
        // Long enough for the work that the cancelled scrape has started.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(publisher.view().await.snapshot().sensors.len(), 1);
    }
}
