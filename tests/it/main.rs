//! Tests of what users and their tools see, with the real binary, the simulated cloud and the real tools.
#![allow(unreachable_pub, clippy::panic, clippy::unwrap_used)] // no other crate uses this one; tests fail by a panic

mod architecture;
mod bounds;
mod browser;
mod budget;
mod chart;
mod cloud;
mod collection;
mod commands;
mod config;
mod dashboards;
mod demo;
mod exporter;
mod exposition;
mod faults;
mod image;
mod lifecycle;
mod login;
mod odd_cloud;
mod readme;
mod reload;
mod replay;
mod rotation;
mod rules;
mod scraper;
mod scrapers;
mod slow_clients;
mod sockets;
mod stack;
mod status_page;
#[path = "../../crates/exporter-toolkit/tests/web/pki.rs"]
#[allow(dead_code)] // the tests of the toolkit use the rest
mod tls;
mod tokens;
mod tools;
mod truth;
mod web_config;
