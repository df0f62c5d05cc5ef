//! `/-/reload` loads the configuration again, `/config` shows it.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use tokio::sync::oneshot;

use super::SharedState;
use crate::{blocking, config};

/// Reloads the configuration. 403 unless `web.enable_lifecycle` is on, 500 with the reason if the configuration is refused.
pub(super) async fn reload(State(state): State<SharedState>) -> (StatusCode, String) {
    if !state.config.web.enable_lifecycle {
        let error = "the lifecycle API is off: use --web.enable-lifecycle, or send SIGHUP\n";
        return (StatusCode::FORBIDDEN, error.to_owned());
    }
    let (sender, result) = oneshot::channel();
    let sent = state.reloads.send(sender).await;
    let error = match (sent, result.await) {
        (Ok(()), Ok(Ok(()))) => return (StatusCode::OK, "configuration reloaded\n".to_owned()),
        (Ok(()), Ok(Err(error))) => error,
        _ => "the exporter is shutting down".to_owned(),
    };
    let error = format!("failed to reload: {error}\n");
    (StatusCode::INTERNAL_SERVER_ERROR, error)
}

/// Shows the effective configuration as YAML, with `<secret>` for secrets. It is a valid configuration itself.
pub(super) async fn config(State(state): State<SharedState>) -> impl IntoResponse {
    // That of thousands of sensors takes some milliseconds.
    let yaml = blocking::run(move || config::to_yaml(&state.config)).await;
    let content_type = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (content_type, yaml)
}
