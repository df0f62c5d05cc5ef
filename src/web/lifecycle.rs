//! `/-/reload` and `/config`: the configuration in force, and another one.

use std::io::Write;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use flate2::{
    Compression,
    write::{DeflateDecoder, DeflateEncoder},
};
use tokio::sync::oneshot;

use super::Context;
use crate::config::{self, Config};

/// The effective configuration as YAML, without secrets; packed, as that of many sensors is long and seldom asked for.
pub(super) struct Effective(Box<[u8]>);

impl Effective {
    pub(super) fn of(config: &Config) -> Self {
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::fast());
        let packed = packer
            .write_all(config::to_yaml(config).as_bytes())
            .and_then(|()| packer.finish());
        Self(packed.expect("a Vec takes everything").into())
    }

    fn text(&self) -> Vec<u8> {
        let mut unpacker = DeflateDecoder::new(Vec::new());
        let text = unpacker.write_all(&self.0).and_then(|()| unpacker.finish());
        text.expect("it was packed by the same crate, and a Vec takes everything")
    }
}

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
        context.config.text(),
    )
}
