//! The simulated LightFi cloud, served in the test's own process.

use lightfi_exporter::simulator::{Fault, Options, Simulator};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub struct Cloud {
    pub simulator: Simulator,
    pub url: String,
    end: CancellationToken,
}

impl Cloud {
    pub async fn start(options: Options) -> Self {
        Self::start_on(options, "127.0.0.1:0").await
    }

    pub async fn start_on(options: Options, address: &str) -> Self {
        let simulator = Simulator::new(options).expect("the options make a building");
        let listener = TcpListener::bind(address)
            .await
            .expect("loopback can be bound");
        let url = format!(
            "http://{}",
            listener
                .local_addr()
                .expect("a bound listener has an address")
        );
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

    /// A configuration for this cloud, with `more` YAML after it.
    pub fn config(&self, more: &str) -> String {
        format!("{}{more}", self.simulator.config_yaml(&self.url))
    }

    pub fn fault(&self, name: &str, on: bool) {
        let fault: Fault = name.parse().expect("a known fault");
        self.simulator.set_fault(&fault, on);
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
