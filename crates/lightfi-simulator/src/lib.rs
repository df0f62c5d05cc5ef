//! A simulated LightFi cloud: OAuth server, API and building.
