//! The simulated LightFi cloud, served by the test process: the fixture of most integration tests.

use std::path::Path;

use lightfi_simulator::{Fault, Options, Simulator};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub struct Cloud {
    pub simulator: Simulator,
    pub url: String,
    end: CancellationToken,
}

impl Cloud {
    /// Starts a cloud with default options.
    pub async fn with_sensors(sensors: usize) -> Self {
        Self::start(Options {
            sensors,
            ..Options::default()
        })
        .await
    }

    pub async fn start(options: Options) -> Self {
        Self::start_on(options, "127.0.0.1:0").await
    }

    pub async fn start_on(options: Options, address: &str) -> Self {
        let simulator = Simulator::new(options).unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let end = CancellationToken::new();
        tokio::spawn(
            simulator
                .clone()
                .serve(listener, end.clone().cancelled_owned()),
        );
        Self {
            simulator,
            url,
            end,
        }
    }

    /// Returns a configuration with the lines `oauth` instead of the refresh token, and `more` YAML at the end.
    pub fn config_without_token(&self, oauth: &str, more: &str) -> String {
        let yaml = self.config(more);
        let token = yaml
            .lines()
            .find(|line| line.trim_start().starts_with("refresh_token:"))
            .unwrap();
        yaml.replacen(&format!("{token}\n"), oauth, 1)
    }

    /// Returns a configuration with this token store, and `more` YAML at the end.
    pub fn config_with_store(&self, store: &Path, more: &str) -> String {
        let store = format!("oauth:\n  token_store: \"{}\"\n", store.display());
        self.config(more).replacen("oauth:\n", &store, 1)
    }

    /// Returns a configuration for this cloud, with `more` YAML at the end.
    pub fn config(&self, more: &str) -> String {
        format!("{}{more}", self.simulator.config_yaml(&self.url))
    }

    /// Returns a quoted value of the configuration. The refresh token is the one issued last.
    pub fn value(&self, key: &str) -> String {
        let config = self.config("");
        let (_, rest) = config.split_once(&format!("{key}: \"")).unwrap();
        let (value, _) = rest.split_once('"').unwrap();
        value.to_owned()
    }

    /// Switches a fault on or off.
    pub fn fault(&self, name: &str, on: bool) {
        let fault: Fault = name.parse().unwrap();
        self.simulator.set_fault(&fault, on);
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
