//! Prometheus exporter for the LightFi sensor cloud.
//!
//! A refresh token becomes an access token, the API's replies become one immutable snapshot, and the snapshot becomes
//! the text that Prometheus reads:
//!
//! `config → http → oauth → api → snapshot (+ catalog) → collector → exposition → publisher → web → cli → main`
//!
//! ARCHITECTURE.md follows a reading, a token, a configuration key, a reload and a scrape through these modules, and
//! explains the words that the code uses.
//!
//! Modules in reading order:
//! - [`cli`]: one file per command; `cli/serve.rs` connects all components;
//! - [`config`]: defaults, file, environment and flags become one `Config`;
//! - [`http`]: the HTTP client, the limit of a body, `Retry-After`;
//! - [`oauth`]: gets access tokens and keeps the refresh token;
//! - [`api`]: sends the requests for sensors and locations, and decodes the replies;
//! - [`catalog`] and [`snapshot`]: the table from variable to metric, and the result of one collection;
//! - [`collector`]: asks for all sensors on a schedule;
//! - [`exposition`] and [`publisher`]: the text of a snapshot, and its bodies kept for scrapes;
//! - [`web`]: the routes.
//!
//! A module may use only the modules before it in the flow. [`blocking`], [`catalog`], [`clock`], [`duration`], [`http`],
//! [`stats`] and `text` may be used by all of them, `test_logs` by their tests, and [`telemetry`] by [`cli`] alone.
//! `tests/it/architecture.rs` checks this.
//!
//! What never happens:
//! - nothing before `web` knows that anything is served over HTTP;
//! - only `config`, while it loads, and `oauth` hold the text of a refresh token or a client secret; elsewhere both are an
//!   opaque `Secret`;
//! - `snapshot`, `catalog` and `exposition` do no I/O and read no clock: callers pass values and the time;
//! - a snapshot never changes: a collection yields a new one.

pub mod api;
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
