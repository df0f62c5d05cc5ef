//! The web configuration of the Prometheus exporter-toolkit for axum and hyper services.
