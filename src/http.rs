//! The HTTP client shared by token requests and API requests: its setup, its errors, bodies with a size limit, and the
//! `Retry-After` header.
//!
//! `oauth` and `api` call this. What they send and what a reply means is decided there.

use std::{
    error::Error,
    fmt::{Display, Write as _},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, ClientBuilder, Response,
    header::{DATE, HeaderMap, HeaderName, RETRY_AFTER},
    redirect,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{config::Api, stats::Reason};

const USER_AGENT: &str = concat!("lightfi-exporter/", env!("CARGO_PKG_VERSION"));

/// A longer `Retry-After` is shortened to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The proxies that requests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxies {
    /// Use `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
    FromEnvironment,
    /// Use no proxy. For loopback, which no proxy can reach.
    None,
}

/// Returns a client with the timeout and the certificate authorities of section `api`. It speaks HTTP/1.1 only, because
/// a dead HTTP/2 connection would be used for every retry. It follows no redirect, so that no secret and no access
/// token reaches a host that is not configured.
pub fn http_client(api: &Api, proxies: Proxies) -> Result<Client, ClientError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &api.ca_file {
        for authority in read_authorities(path)? {
            roots.add(authority).map_err(setup_failed)?;
        }
    }
    if roots.is_empty() {
        // Not an error: `demo` talks to loopback only.
        tracing::warn!(
            "no certificate authorities found on this system: HTTPS requests will fail until api.ca_file is set"
        );
    }
    let builder = match proxies {
        Proxies::FromEnvironment => client_builder(roots)?,
        Proxies::None => client_builder(roots)?.no_proxy(),
    };
    builder
        .user_agent(USER_AGENT)
        .timeout(api.timeout)
        .redirect(redirect::Policy::none())
        .referer(false)
        .tcp_nodelay(true)
        .build()
        .map_err(|error| setup_failed(describe(error)))
}

/// Returns the builder of an HTTP/1.1 client that uses `ring` for TLS and trusts only `roots`.
pub fn client_builder(roots: RootCertStore) -> Result<ClientBuilder, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup_failed)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only())
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let path_text = path.display();
    let pem = fs::read(path)
        .map_err(|error| ClientError(format!("api.ca_file: cannot read {path_text}: {error}")))?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(ClientError(format!(
            "api.ca_file: {path_text} holds no certificate in PEM form"
        ))),
    }
}

/// Why no HTTP client can be built.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(String);

/// Returns the error for a setup that the TLS or HTTP library refuses.
fn setup_failed(error: impl Display) -> ClientError {
    ClientError(format!(
        "cannot set up the HTTP client: {error}; check api.ca_file"
    ))
}

/// Reads the whole body, or fails once it is longer than `limit` bytes after decompression.
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

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than the limit.
    #[error("the response body is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The connection or the decoding failed.
    #[error("{}", describe_chain(.0))]
    Broken(#[from] reqwest::Error),
}

impl BodyError {
    /// Returns the value for the label `reason`.
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Broken(error) => reason_of(error),
        }
    }
}

/// Returns how long `Retry-After` asks to wait, at most an hour; `None` where it is missing or invalid. It holds seconds
/// or an HTTP date. A date is compared with the `Date` of the same response where there is one, so that a wrong clock on
/// the server does no harm.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.trim());
    let date = |name| httpdate::parse_http_date(text(name)?).ok();
    let value = text(RETRY_AFTER)?;
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        value.parse().map_or(Duration::MAX, Duration::from_secs)
    } else {
        let until = date(RETRY_AFTER)?;
        until
            .duration_since(date(DATE).unwrap_or(now))
            .unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Returns the value of the label `reason` for an error of the client.
pub fn reason_of(error: &reqwest::Error) -> Reason {
    if error.is_timeout() {
        Reason::Timeout
    } else if error.is_decode() && !is_connection_error(error) {
        Reason::Malformed
    } else if error.is_redirect() {
        Reason::Redirect
    } else if error.is_request() || error.is_body() || error.is_decode() {
        Reason::Connect
    } else {
        Reason::Other
    }
}

/// reqwest reports a body that ends too early as one that cannot be decoded.
fn is_connection_error(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| cause.is::<hyper::Error>())
}

/// Returns an error of the client and its causes on one line, without the URL, because a query may be private.
pub fn describe(error: reqwest::Error) -> String {
    describe_chain(&error.without_url())
}

fn describe_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        // Some errors already end with the text of their cause.
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            write!(text, ": {cause}").expect("writing to a string cannot fail");
        }
    }
    text
}

fn causes<'a>(error: &'a dyn Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read as _, Write as _};

    use axum::{Router, http::StatusCode, routing::get};
    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::config::{Flags, Purpose, load_text};

    fn api(ca_file: Option<&Path>) -> Api {
        let yaml = "oauth: {client_id: i, client_secret: s}\napi: {timeout: 500ms, max_response_bytes: 1024}";
        let (flags, environment) = (Flags::default(), std::iter::empty());
        let loaded = load_text("test", yaml, &flags, environment, Purpose::Login).unwrap();
        Api {
            ca_file: ca_file.map(Path::to_owned),
            ..loaded.config.api
        }
    }

    fn client() -> Client {
        http_client(&api(None), Proxies::None).unwrap()
    }

    async fn serve(router: Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    async fn read_gzip_body(zip: Vec<u8>, limit: usize) -> Result<Bytes, BodyError> {
        let url = serve(Router::new().route(
            "/",
            get(move || async move { ([("content-encoding", "gzip")], zip) }),
        ))
        .await;
        read_limited(client().get(url).send().await.unwrap(), limit).await
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_on_the_servers_clock() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let hour_ahead = Some("Sun, 06 Nov 1994 09:49:37 GMT");
        let cases = [
            ("120", None, Some(120)),
            (" 7 ", None, Some(7)),
            ("0", None, Some(0)),
            ("99999999999999999999999", None, Some(3600)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", None, Some(30)),
            ("Sun, 06 Nov 1994 09:50:07 GMT", hour_ahead, Some(30)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some("now"), Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None, Some(0)),
            ("Sat, 06 Nov 2094 08:00:00 GMT", None, Some(3600)),
            ("soon", None, None),
            ("-5", None, None),
            ("1.5", None, None),
            ("1e9", None, None),
            ("", None, None),
        ];
        for (value, date, seconds) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            headers.extend(date.map(|date| (DATE, date.parse().unwrap())));
            let wait = retry_after(&headers, now);
            assert_eq!(wait.map(|wait| wait.as_secs()), seconds, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[tokio::test]
    async fn a_body_is_decompressed_and_the_limit_counts_decompressed_bytes() {
        let zip = gzip(&[b'0'; 100_000]);
        assert!(zip.len() < 1000);
        let body = read_gzip_body(zip.clone(), 100_000).await.unwrap();
        assert_eq!(body.len(), 100_000);
        let error = read_gzip_body(zip, 99_999).await.unwrap_err();
        assert_eq!(error.reason(), Reason::TooLarge);
        let expected = "the response body is longer than 99999 bytes";
        assert_eq!(error.to_string(), expected);
        let error = read_gzip_body(b"no gzip".to_vec(), 1000).await;
        assert_eq!(error.unwrap_err().reason(), Reason::Malformed);
    }

    #[tokio::test]
    async fn a_truncated_body_is_a_connection_error() {
        for encoding in ["identity", "gzip"] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let half = gzip(&[b'0'; 1000])[..15].to_vec();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: 100\r\ncontent-encoding: {encoding}\r\n\r\n"
                )
                .unwrap();
                stream.write_all(&half).unwrap();
            });
            let response = client().get(url).send().await.unwrap();
            let error = read_limited(response, 1000).await.unwrap_err();
            assert_eq!(error.reason(), Reason::Connect, "{encoding}: {error}");
        }
    }

    #[tokio::test]
    async fn errors_name_their_cause_but_not_the_url() {
        let url = serve(Router::new().route(
            "/",
            get(|| async { tokio::time::sleep(Duration::from_secs(5)).await }),
        ))
        .await;
        let error = client()
            .get(format!("{url}?private"))
            .send()
            .await
            .unwrap_err();
        assert_eq!(reason_of(&error), Reason::Timeout);
        let text = describe(error);
        assert!(text.contains("timed out"), "{text}");
        assert!(!text.contains("private"), "{text}");
    }

    #[tokio::test]
    async fn the_client_sends_its_name_accepts_gzip_and_follows_no_redirect() {
        let url = serve(Router::new().route(
            "/",
            get(|headers: HeaderMap| async move {
                assert!(
                    headers["accept-encoding"]
                        .to_str()
                        .unwrap()
                        .contains("gzip")
                );
                (
                    StatusCode::FOUND,
                    [("location", "/elsewhere")],
                    headers["user-agent"].to_str().unwrap().to_owned(),
                )
            }),
        ))
        .await;
        let response = client().get(url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(
            read_limited(response, 1000).await.unwrap(),
            concat!("lightfi-exporter/", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn certificate_authorities_are_read_from_a_file_which_is_named_in_errors() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("ca.pem");
        let build = || http_client(&api(Some(&file)), Proxies::None);
        let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&file, authority.cert.pem()).unwrap();
        assert!(build().is_ok());

        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        fs::write(&file, broken).unwrap();
        let error = build().unwrap_err().to_string();
        assert!(error.contains("check api.ca_file"), "{error}");
        fs::write(&file, "no certificate").unwrap();
        let no_certificate = build().unwrap_err().to_string();
        fs::remove_file(&file).unwrap();
        let missing = build().unwrap_err().to_string();
        for error in [no_certificate, missing] {
            assert!(error.starts_with("api.ca_file: "), "{error}");
            assert!(error.contains(file.to_str().unwrap()), "{error}");
        }
    }
}
