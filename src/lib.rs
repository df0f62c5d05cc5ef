//! Prometheus exporter for the LightFi sensor cloud.
//!
//! A refresh token becomes an access token, the API's replies become one immutable snapshot, the snapshot becomes
//! the text that Prometheus reads:
//!
//! `config → http → oauth → api → snapshot (+ catalog) → collector → exposition → publisher → web → cli → main`
//!
//! Data flows along that line only, and so do imports: a module may use what stands before it. `catalog`, `clock`,
//! [`duration`], `text`, `stats`, [`blocking`] and [`config::Secret`] are leaves that anyone may use, as tests may
//! `test_logs`. A test
//! (`tests/it/architecture.rs`) holds this line.
//!
//! Absences that hold:
//! - nothing before `web` knows that anything is served over HTTP;
//! - nothing but `oauth` sees a refresh token or a client secret;
//! - `snapshot`, `catalog` and `exposition` do no I/O and read no clock: they take values and `now`;
//! - a snapshot never changes: a collection yields a new one.
//!
//! Where to look first: a new `var_name` is one row in [`catalog`]; the token is refreshed in `oauth/source.rs`; a
//! scrape is answered in `web/metrics.rs`.

pub mod api;
/// The former name of [`blocking`], until every module uses the new one.
pub mod aside {
    pub use crate::blocking::run as aside;
}
pub mod blocking;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod config;
pub mod duration;
pub mod exposition;
pub mod http;
pub mod oauth;
pub mod publisher;
pub mod snapshot;
pub mod stats;
pub mod telemetry;
#[cfg(test)]
mod test_logs;
mod text;
pub mod web;
