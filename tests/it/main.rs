//! What users and their tools see, tried on the real binary, the simulated cloud and the real tools.
#![allow(unreachable_pub, clippy::panic, clippy::unwrap_used)] // nobody else uses it; a panic is a test's word

mod architecture;
mod cloud;
mod collection;
mod commands;
mod config;
mod demo;
mod exporter;
mod exposition;
mod lifecycle;
mod readme;
mod rotation;
mod tokens;
mod tools;
