//! A collection without its network: replies go in, a snapshot comes out, by the steps of a real one. What a refresh
//! costs by itself is measured on it (`benches/stages`); nothing else calls it.

use std::sync::Arc;

use super::{
    ledger::{Direct, Ledger},
    survey::Survey,
};
use crate::{
    api,
    config::Sensor,
    snapshot::{Snapshot, Summary, UnixTime},
};

/// What outlives a collection of listed sensors.
pub struct Rehearsal {
    listed: Vec<Sensor>,
    ledger: Ledger,
}

/// The replies of one collection, decoded and sorted out.
pub struct Answers(Direct);

impl Rehearsal {
    /// Before the first collection.
    pub fn new(listed: Vec<Sensor>) -> Self {
        Self {
            listed,
            ledger: Ledger::default(),
        }
    }

    /// Decodes each sensor's body; one that is not of the known shape has failed.
    pub fn decode<'a>(
        &mut self,
        replies: impl Iterator<Item = (&'a Arc<str>, &'a [u8])>,
        now: UnixTime,
    ) -> Answers {
        let settled = |(id, body): (&Arc<str>, _)| {
            let reply = api::decode_sensor(body).ok();
            let settled = reply.map(|reply| self.ledger.settle(reply, now));
            (id.clone(), settled)
        };
        Answers(replies.map(settled).collect())
    }

    /// Closes the collection.
    pub fn close(&mut self, answers: Answers, now: UnixTime) -> Snapshot {
        let survey = Survey::new(&[], std::mem::take(&mut self.ledger.locations));
        let sensors_failed = self.ledger.close(&self.listed, answers.0, survey, now);
        self.ledger.snapshot(Summary {
            up: true,
            last_success: Some(now),
            sensors_failed,
            ..Summary::default()
        })
    }
}
