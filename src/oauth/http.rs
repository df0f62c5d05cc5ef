//! The one HTTP client that token requests and API requests share, what its errors mean, and bodies with a limit.
//!
//! What is asked for and what an answer says belong to `request` here and to `api`; both call this, and only this knows
//! how the client is set up.

use std::{error::Error, fmt::Write as _, fs, path::PathBuf};

use bytes::{Bytes, BytesMut};
use reqwest::{Certificate, Client, ClientBuilder, Response, redirect};

use crate::{config::Api, stats::Reason};

const USER_AGENT: &str = concat!("lightfi-exporter/", env!("CARGO_PKG_VERSION"));

/// A client as section `api` describes it: time-out, certificate authorities, the environment's proxies. It follows no
/// redirect, so that no secret and no bearer reaches a host that nobody configured.
pub fn http_client(api: &Api) -> Result<Client, ClientError> {
    let authorities = match &api.ca_file {
        None => Vec::new(),
        Some(path) => read_authorities(path)?,
    };
    match builder(api)
        .tls_certs_merge(authorities.iter().cloned())
        .build()
    {
        Ok(client) => Ok(client),
        // A machine without a single authority can still talk to loopback, which is all that `demo` needs.
        Err(error) if authorities.is_empty() => {
            tracing::warn!(
                error = describe(error),
                "this system has no certificate authorities: https fails until api.ca_file names some"
            );
            builder(api)
                .tls_certs_only([])
                .build()
                .map_err(|error| ClientError::Build(describe(error)))
        }
        Err(error) => Err(ClientError::Build(describe(error))),
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file cannot be read.
    #[error("api.ca_file: cannot read {}: {error}", path.display())]
    ReadAuthorities {
        /// As configured.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file holds no certificate.
    #[error("api.ca_file: {} holds no certificate in PEM form", path.display())]
    NoAuthorities {
        /// As configured.
        path: PathBuf,
    },
    /// The TLS library refuses its set-up.
    #[error("cannot set up the HTTP client: {0}; look at api.ca_file")]
    Build(String),
}

/// The whole body, after decompression, if it is not longer than `limit`.
pub async fn read_limited(mut response: Response, limit: usize) -> Result<Bytes, BodyError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if chunk.len() > limit - body.len() {
            return Err(BodyError::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Why there is no whole body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Longer than the limit.
    #[error("the answer is longer than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// It stopped coming.
    #[error("{}", chain(.0))]
    Broken(#[from] reqwest::Error),
}

impl BodyError {
    /// Its label value.
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Broken(error) => reason_of(error),
        }
    }
}

/// What an error of the client means to an operator.
pub fn reason_of(error: &reqwest::Error) -> Reason {
    if error.is_timeout() {
        Reason::Timeout
    } else if error.is_decode() {
        Reason::Malformed
    } else if error.is_redirect() {
        Reason::Redirect
    } else if error.is_connect() || error.is_request() || error.is_body() {
        Reason::Connect
    } else {
        Reason::Other
    }
}

/// An error of the client with its causes in one line, and without the URL, whose query may be private.
pub fn describe(error: reqwest::Error) -> String {
    chain(&error.without_url())
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Layers that only repeat the layer below would say the same thing twice.
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            write!(text, ": {cause_text}").expect("writing to a string cannot fail");
        }
        source = cause.source();
    }
    text
}

fn builder(api: &Api) -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .timeout(api.timeout)
        .redirect(redirect::Policy::none())
        .referer(false)
        .tcp_nodelay(true)
}

fn read_authorities(path: &PathBuf) -> Result<Vec<Certificate>, ClientError> {
    let pem = fs::read(path).map_err(|error| ClientError::ReadAuthorities {
        path: path.clone(),
        error,
    })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(ClientError::NoAuthorities { path: path.clone() }),
    }
}
