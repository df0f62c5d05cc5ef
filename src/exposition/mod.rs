//! Renders metrics as text: the readings of a snapshot at one moment ([`View`]) and the exporter's own metrics
//! ([`render_self_metrics`]), in two formats.
//!
//! `view` decides which samples exist, `writer` how they are written, [`gzip`] compresses the text in two parts, and
//! [`negotiate`] picks the format and encoding that a request asks for. Everything here is pure: no I/O and no clock.
//! Caching belongs to `publisher`, HTTP to `web`; these two call this module.

pub mod gzip;
pub mod negotiate;
mod self_metrics;
mod view;
mod writer;

use std::collections::HashSet;

pub use self_metrics::render_self_metrics;
pub use view::{ShownReading, View};

/// The text format of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// All formats, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Text, Self::OpenMetrics];

    /// Returns the value of the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The content encoding of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Plain text.
    Identity,
    /// See [`gzip`].
    Gzip,
}

/// The families that a scrape asks for with `?name[]=`, by their names in the text format (also for OpenMetrics).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(HashSet<String>);

impl Filter {
    /// Returns whether the filter allows every family.
    pub fn allows_all(&self) -> bool {
        self.0.is_empty()
    }

    fn allows(&self, name: &str) -> bool {
        self.allows_all() || self.0.contains(name)
    }
}

impl FromIterator<String> for Filter {
    /// Allows the families with these names; no names allow every family.
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}
