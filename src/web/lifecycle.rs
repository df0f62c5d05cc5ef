//! `/-/reload` and `/config`: the configuration in force, and another one.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use tokio::sync::oneshot;

use super::Context;

/// Loads the configuration again. 403 unless `web.enable_lifecycle`; 500 with the reason when it is refused.
pub(super) async fn reload(State(context): State<Context>) -> (StatusCode, String) {
    if !context.lifecycle {
        let words =
            "the lifecycle API is off, turn it on with --web.enable-lifecycle or send SIGHUP\n";
        return (StatusCode::FORBIDDEN, words.to_owned());
    }
    let (answer, result) = oneshot::channel();
    let asked = context.app.reloads.send(answer).await;
    match (asked, result.await) {
        (Ok(()), Ok(Ok(()))) => (StatusCode::OK, "configuration reloaded\n".to_owned()),
        (Ok(()), Ok(Err(reason))) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("failed to reload: {reason}\n"),
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "failed to reload: the exporter is ending\n".to_owned(),
        ),
    }
}

/// The effective configuration as YAML: itself a valid configuration, with `<secret>` for secrets.
pub(super) async fn config(State(context): State<Context>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        context.config.to_string(),
    )
}
