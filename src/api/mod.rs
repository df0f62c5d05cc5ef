//! The vendor's API: one method per route, one request per call.
//!
//! What belongs here: the wire as it is ([`model`]), and what one request may do ([`client`]: bearer, one retry after a
//! 401, the pause after a 429, classification of failures). What does not: when to ask, whom, and how often to try
//! again; that is `collector`'s.

mod bounds;
mod client;
mod gate;
mod model;

pub use client::{Client, Failure, Session};
pub use gate::Pace;
pub use model::{
    Found, Item, LocationReply, Malformed, SensorReply, base_location as decode_base_location,
    openapi as decode_openapi, sensor as decode_sensor,
};
