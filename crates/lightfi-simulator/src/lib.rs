//! A simulated LightFi cloud: the vendor's token endpoint and API in front of a simulated building, or of recorded
//! readings. Used by `demo`, `simulate`, the tests and the benchmarks of the exporter.
//!
//! Written from what is known of the vendor's API. It does not depend on the exporter: if it shared a type with the
//! client, one typo would satisfy both sides.
//!
//! In the order of imports:
//! - `noise`: repeatable random numbers; [`Reading`]: a reading as it is sent;
//! - `building`: locations, sensors, rooms and devices; `people`: who is in; `climate`: air and light; `motion`: motion
//!   events; `world`: what every sensor reports at a time, a pure function of seed and time;
//! - `replay`: recorded readings instead;
//! - `faults`: what goes wrong on purpose; `responses` and `fault_responses`: what is sent then;
//! - [`Options`]; `authorization_codes` and `tokens`: the identity provider; `login_page`: its login form;
//! - `listing`: the configuration that makes an exporter use the cloud;
//! - `cloud`: the state that all requests share; `routes`: HTTP; [`Simulator`]: the handle of a running cloud.

mod authorization_codes;
mod building;
mod climate;
mod cloud;
mod fault_responses;
mod faults;
mod listing;
mod login_page;
mod motion;
mod noise;
mod options;
mod people;
mod reading;
mod replay;
mod responses;
mod routes;
mod simulator;
mod tokens;
mod world;

pub use cloud::Requests;
pub use faults::{Fault, FaultError, FaultKind, names as fault_names};
pub use options::{Listing, Options};
pub use reading::Reading;
pub use replay::{Replay, ReplayError};
pub use simulator::{Simulator, SimulatorError};
