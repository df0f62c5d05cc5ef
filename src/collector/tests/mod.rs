//! Tests of whole collections, in virtual time and without requests, and of the collector's task.

mod fixture;
mod locations;
mod registry;
mod run;
mod task;
