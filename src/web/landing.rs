//! `/`: what this is, and links.

use axum::{extract::State, response::Html};

use super::Context;

/// Plain HTML without scripts or outside assets.
pub(super) async fn page(State(context): State<Context>) -> Html<String> {
    // The path is from the configuration, which lets characters through that HTML knows.
    let path = context
        .telemetry_path
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;");
    let version = env!("CARGO_PKG_VERSION");
    Html(format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LightFi exporter</title>
</head>
<body>
<h1>LightFi exporter</h1>
<p>Prometheus exporter for the LightFi sensor cloud. Version {version}</p>
<ul>
<li><a href="{path}">Metrics</a></li>
<li><a href="/-/healthy">Healthy</a></li>
<li><a href="/-/ready">Ready</a></li>
</ul>
</body>
</html>
"#
    ))
}
