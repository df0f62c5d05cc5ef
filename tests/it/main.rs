//! The integration tests, one binary with a module per subject.
#![allow(clippy::unwrap_used, clippy::panic)]

mod config;
