//! An ordinary exporter: the readings stand in `GaugeVec`s, each scrape gathers and encodes them, a layer compresses.
//!
//! `ordinary-rust-peer SERIES.jsonl PORT`: one series a line, `{"name", "help", "labels": {…}, "value"}`.

use std::{collections::BTreeMap, env, fs::File, io};

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use prometheus::{Encoder, GaugeVec, Opts, Registry, TextEncoder};
use tower_http::compression::CompressionLayer;

#[derive(serde::Deserialize)]
struct Series {
    name: String,
    help: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let series = arguments.next().ok_or("which file of series?")?;
    let port: u16 = arguments.next().ok_or("which port?")?.parse()?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .with_state(registry(&series)?)
        .layer(CompressionLayer::new());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, router).await?)
}

fn registry(path: &str) -> Result<Registry, Box<dyn std::error::Error>> {
    let registry = Registry::new();
    let mut families: BTreeMap<String, GaugeVec> = BTreeMap::new();
    for line in io::BufRead::lines(io::BufReader::new(File::open(path)?)) {
        let Series {
            name,
            help,
            labels,
            value,
        } = serde_json::from_str(&line?)?;
        if !families.contains_key(&name) {
            let names: Vec<&str> = labels.keys().map(String::as_str).collect();
            let family = GaugeVec::new(Opts::new(&name, help), &names)?;
            registry.register(Box::new(family.clone()))?;
            families.insert(name.clone(), family);
        }
        let values: Vec<&str> = labels.values().map(String::as_str).collect();
        families[&name]
            .get_metric_with_label_values(&values)?
            .set(value);
    }
    Ok(registry)
}

async fn metrics(State(registry): State<Registry>) -> impl IntoResponse {
    let encoder = TextEncoder::new();
    let mut body = Vec::new();
    encoder
        .encode(&registry.gather(), &mut body)
        .expect("the metrics are valid");
    (
        [(header::CONTENT_TYPE, encoder.format_type().to_owned())],
        body,
    )
}
