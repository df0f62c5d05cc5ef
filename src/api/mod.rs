//! The LightFi API: one method per route, one request per call.
//!
//! Belongs here: what one request does ([`client`]), when it may be sent ([`rate_limit`]), and what the replies look like
//! ([`model`]). Does not belong here: when to ask, for which sensors and locations, and how often to try again, which
//! `collector` decides.

mod client;
mod model;
mod rate_limit;

pub use client::{Client, RequestError, Session};
pub use model::{
    Item, LocationEntry, LocationReply, Malformed, SensorReply, decode_base_location,
    decode_openapi, decode_sensor,
};
pub use rate_limit::SharedRateLimiter;
