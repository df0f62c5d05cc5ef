//! The library as a service uses it: files, a server in this process, and real clients.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub)] // a panic is how a test fails

mod config_files;
mod go_table;
#[allow(dead_code)] // the tests of the exporter use the rest
mod pki;
mod reload;
mod requests;
mod server;
mod tls;
