//! From values to the bytes that Prometheus reads: a snapshot under a catalogue at a moment ([`View`]), and the
//! exporter's own metrics ([`render_own`]), each in two formats, plain or gzipped.
//!
//! A body is a prefix and a tail. The prefix is a view's [`Rendering`] and changes only with the snapshot, the catalogue,
//! or the next expiry of a reading ([`View::valid_until`]); the tail is the exporter's own metrics and changes with
//! every request made. [`gzip`] joins the two without touching the prefix again.
//!
//! Pure: no I/O, no clock, no knowledge of requests but the bytes of two headers ([`negotiate`]). What is shown is
//! decided in `view`, how it is spelt in `writer`. Called by `publisher` and `web`.

pub mod gzip;
pub mod negotiate;
mod own;
mod view;
mod writer;

use std::collections::HashSet;

pub use own::render_own;
pub use view::{Rendering, Shown, View};

/// How a body is spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Both, for whoever keeps a body of each.
    pub const ALL: [Self; 2] = [Self::Text, Self::OpenMetrics];

    /// The header that goes with the body.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// [`gzip`]
    Gzip,
}

/// The families a scrape asks for, by the names exposed in the text format; the same names hold in OpenMetrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(HashSet<String>);

impl Filter {
    /// Whether it lets every family through: nothing in particular was asked for.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    fn allows(&self, name: &str) -> bool {
        self.is_everything() || self.0.contains(name)
    }
}

impl FromIterator<String> for Filter {
    /// The names asked for; none means everything.
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}
