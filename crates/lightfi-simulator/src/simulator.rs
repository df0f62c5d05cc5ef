//! The handle of a simulated cloud: builds it, serves it, and lets tests look inside.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    building::Building,
    cloud::{Cloud, Requests, Source, unix_now},
    fault_responses::Connection,
    faults::Fault,
    listing,
    options::Options,
    reading::Reading,
    routes,
    world::World,
};

/// A simulated cloud. Clones are handles of the same one.
#[derive(Clone)]
pub struct Simulator(Arc<Cloud>);

/// Why a cloud cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The building would be empty.
    #[error("a simulated building needs at least one sensor")]
    NoSensors,
    /// A fault names a sensor or location that does not exist.
    #[error(
        "fault {0}: there is no sensor or location with that id; the ids follow from the seed and the number of sensors"
    )]
    UnknownId(Fault),
}

impl Simulator {
    /// Builds the cloud. A replay starts now.
    pub fn new(options: Options) -> Result<Self, SimulatorError> {
        let source = match &options.replay {
            Some(replay) => Source::Recorded {
                building: Building::recorded(replay.sensors()),
                replay: replay.clone(),
                // A whole second, so that times keep the digits of the recording.
                start: unix_now().floor(),
            },
            None if options.sensors == 0 => return Err(SimulatorError::NoSensors),
            None => Source::Simulated(World::new(options.seed, options.sensors)),
        };
        let cloud = Cloud::new(source, options);
        let mut faults = cloud.options.faults.iter();
        match faults.find(|fault| !fault.exists_in(cloud.building())) {
            Some(fault) => Err(SimulatorError::UnknownId(fault.clone())),
            None => Ok(Self(Arc::new(cloud))),
        }
    }

    /// Serves until `shutdown`, then closes every connection at once, also those with a request in flight.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let router = routes::router(&self.0);
        let mut connections = JoinSet::new();
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        connections.spawn(serve_connection(stream, router.clone()));
                        while connections.try_join_next().is_some() {}
                    }
                    // Perhaps the process is out of file descriptors: wait until some are closed.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = accept => {}
        }
    }

    /// Returns a complete exporter configuration for this cloud, served at `base_url`.
    pub fn config_yaml(&self, base_url: &str) -> String {
        let cloud = &self.0;
        listing::config_yaml(
            cloud.options.listing,
            cloud.building(),
            &cloud.tokens,
            base_url,
        )
    }

    /// Returns the ids of all sensors.
    pub fn sensors(&self) -> Vec<String> {
        let sensors = self.0.building().sensors.iter();
        sensors.map(|sensor| sensor.id.clone()).collect()
    }

    /// Switches a fault on or off, from the next request on.
    pub fn set_fault(&self, fault: &Fault, on: bool) {
        self.0.faults.set(fault, on);
    }

    /// Revokes all refresh tokens and returns a new one, as after a new login.
    pub fn replace_refresh_token(&self) -> String {
        self.0.tokens.replace_refresh_token()
    }

    /// Returns the refresh token that was issued last.
    pub fn newest_refresh_token(&self) -> String {
        self.0.tokens.newest_refresh_token()
    }

    /// Returns the numbers of requests answered so far.
    pub fn requests(&self) -> Requests {
        self.0.requests()
    }

    /// Returns the readings of a sensor that were sent last, by either route.
    pub fn served(&self, sensor_id: &str) -> Vec<Reading> {
        let sensor = self.0.building().sensor(sensor_id);
        sensor.map_or_else(Vec::new, |sensor| self.0.served(sensor))
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    // Responses are small and sent in one piece.
    let _ = stream.set_nodelay(true);
    let router = router.layer(Extension(Connection::of(&stream)));
    let server = auto::Builder::new(TokioExecutor::new());
    let service = TowerToHyperService::new(router);
    // The client notices a broken connection.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[cfg(test)]
mod tests;
