//! The end of every body: the exporter's own families, rendered and deflated when one of them has changed, not for each
//! scrape. There are more of them than a small building has readings.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::{
    exposition::{Filter, Format, gzip, render_own},
    stats::{SAMPLED_EVERY, Stats},
};

/// The ends of bodies, one per format.
pub struct Tails {
    stats: Arc<Stats>,
    kept: [ArcSwapOption<Tail>; Format::ALL.len()],
}

/// One of them.
pub struct Tail {
    /// Of [`Stats`] before they were gathered.
    version: u64,
    made: Instant,
    /// As it is.
    pub text: Bytes,
    gzip: OnceLock<gzip::Tail>,
}

impl Tails {
    /// Nothing is made yet.
    pub fn new(stats: Arc<Stats>) -> Self {
        Self {
            stats,
            kept: Default::default(),
        }
    }

    /// What the exporter says of itself now.
    pub fn current(&self, format: Format) -> Arc<Tail> {
        let kept = &self.kept[usize::from(format == Format::OpenMetrics)];
        let version = self.stats.version();
        if let Some(tail) = &*kept.load()
            && tail.version == version
            && tail.made.elapsed() < SAMPLED_EVERY
        {
            return tail.clone();
        }
        let tail = Arc::new(Tail {
            version,
            made: Instant::now(),
            text: self.text(format, &Filter::default()),
            gzip: OnceLock::new(),
        });
        kept.store(Some(tail.clone()));
        tail
    }

    /// The same with the families that `filter` lets through, made for this one scrape.
    pub fn filtered(&self, format: Format, filter: &Filter) -> Tail {
        Tail {
            version: 0,
            made: Instant::now(),
            text: self.text(format, filter),
            gzip: OnceLock::new(),
        }
    }

    fn text(&self, format: Format, filter: &Filter) -> Bytes {
        let mut text = Vec::new();
        render_own(&self.stats.gather(), format, filter, &mut text);
        text.into()
    }
}

impl Tail {
    /// As the end of a gzip member.
    pub fn gzip(&self) -> &gzip::Tail {
        self.gzip.get_or_init(|| gzip::Tail::new(&self.text))
    }
}
