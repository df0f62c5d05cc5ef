//! Sends one request to the API: within the rate limit, with an access token, counted, bounded, and with a reason if it fails.
//!
//! Belongs here: what one request does, including one retry after a 401 and the pause after a 429. Does not belong here: when
//! to ask, for what, and how often to try again (`collector`). Called by `collector` and `cli`. Redirects are not
//! followed, so that the access token goes to the configured scheme, host and port only.

use std::{
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime},
};

use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER},
};
use tokio::time::sleep_until;
use url::Url;

use super::{
    model::{
        LocationReply, Malformed, Redact, SensorReply, decode_base_location, decode_location,
        decode_openapi, decode_sensor,
    },
    rate_limit::{Admission, SharedRateLimiter},
};
use crate::{
    blocking, config, http,
    oauth::{AccessToken, TokenError, TokenSource},
    stats::{Reason, Route, Stats},
};

/// The routes that readings come from, as the API's OpenAPI document would list them.
const ROUTES: [&str; 3] = ["/sensors/{}", "/locations/{}/", "/locations"];

/// A longer body is decoded on a blocking thread: decoding this much takes a tenth of a millisecond.
const MAX_INLINE_DECODE_BYTES: usize = 16 * 1024;

/// Decodes a body, and takes out the secrets that the token source knows.
type Decode<T> = fn(&[u8], Redact<'_>) -> Result<T, Malformed>;

/// The API under one configuration.
pub struct Client {
    http: reqwest::Client,
    api: config::Api,
    tokens: Arc<TokenSource>,
    stats: Arc<Stats>,
    rate_limiter: SharedRateLimiter,
}

/// The state shared by the requests of one collection: its deadline, and the one token refresh that it may force.
pub struct Session {
    deadline: Instant,
    /// The first access token that was rejected with a 401.
    rejected: OnceLock<Arc<AccessToken>>,
}

impl Session {
    /// Starts a session whose requests do not wait past `deadline`.
    pub fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            rejected: OnceLock::new(),
        }
    }
}

/// A request that brought no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// For the counters and the log.
    pub reason: Reason,
    /// For the log and the user; contains no secret and no body.
    pub message: String,
    /// Whether sending the request again may help.
    pub retryable: bool,
    /// Whether there was no access token, so that nothing was sent.
    pub no_token: bool,
}

impl RequestError {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        let retryable = matches!(
            reason,
            Reason::Timeout | Reason::Connect | Reason::ServerError | Reason::RateLimited
        );
        Self {
            reason,
            message: message.into(),
            retryable,
            no_token: false,
        }
    }

    /// The reply holds more than a collection may hold.
    pub fn over_limit(message: impl Into<String>) -> Self {
        Self::new(Reason::TooLarge, message)
    }

    /// The collection ended before there was a reply.
    pub fn out_of_time() -> Self {
        Self::new(
            Reason::Timeout,
            "no response before the end of the collection",
        )
    }
}

impl From<TokenError> for RequestError {
    fn from(error: TokenError) -> Self {
        Self {
            reason: Reason::Unauthorized,
            message: error.to_string(),
            retryable: false,
            no_token: true,
        }
    }
}

impl Client {
    /// Creates a client for the API of section `api`. `http` has the timeout, the CA file and the redirect policy of that section.
    /// `rate_limiter` is the one of the previous client for the same API, and takes over the rate of `api`.
    pub fn new(
        api: &config::Api,
        http: reqwest::Client,
        tokens: Arc<TokenSource>,
        stats: Arc<Stats>,
        rate_limiter: SharedRateLimiter,
    ) -> Self {
        rate_limiter
            .lock()
            .set_rate(api.requests_per_second, Instant::now());
        Self {
            http,
            api: api.clone(),
            tokens,
            stats,
            rate_limiter,
        }
    }

    /// Sends `GET /sensors/{id}?project=latest&project=value`.
    pub async fn sensor(&self, session: &Session, id: &str) -> Result<SensorReply, RequestError> {
        let mut url = self.url(&["sensors", id]);
        url.set_query(Some("project=latest&project=value"));
        self.get(session, Route::Sensor, url, decode_sensor).await
    }

    /// Sends `GET /locations/{id}/`.
    pub async fn location(
        &self,
        session: &Session,
        id: &str,
    ) -> Result<LocationReply, RequestError> {
        let url = self.url(&["locations", id, ""]);
        self.get(session, Route::Location, url, decode_location)
            .await
    }

    /// Sends `GET /locations`.
    pub async fn base_location(&self, session: &Session) -> Result<LocationReply, RequestError> {
        let url = self.url(&["locations"]);
        self.get(session, Route::BaseLocation, url, decode_base_location)
            .await
    }

    /// Sends `GET /openapi.json`, and returns those of [`ROUTES`] that the document does not list.
    pub async fn routes_not_documented(
        &self,
        session: &Session,
    ) -> Result<Vec<&'static str>, RequestError> {
        let url = self.url(&["openapi.json"]);
        let decode: Decode<_> = |body, _| decode_openapi(body);
        let listed = self.get(session, Route::Openapi, url, decode).await?;
        let mut missing = ROUTES.to_vec();
        missing.retain(|route| !listed.iter().any(|known| known == route));
        Ok(missing)
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.api.url.clone();
        // An http(s) URL always has a path, and `config` allows no other scheme.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Sends a GET request, and once more after a 401 if there is another access token.
    async fn get<T: Send + 'static>(
        &self,
        session: &Session,
        route: Route,
        url: Url,
        decode: Decode<T>,
    ) -> Result<T, RequestError> {
        // Wait for the access token before taking a slot of the rate limit: otherwise all that wait for a token are sent at once.
        self.tokens.token().await?;
        self.wait_for_slot(session).await?;
        let token = self.tokens.token().await?;
        let deadline = session.deadline;
        let result = self.send(route, deadline, url.clone(), &token, decode);
        match result.await {
            Err(error) if error.reason == Reason::Unauthorized => {
                let Some(token) = self.refresh_after_401(&token, session).await? else {
                    return Err(error);
                };
                self.wait_for_slot(session).await?;
                self.send(route, deadline, url, &token, decode).await
            }
            result => result,
        }
    }

    /// Waits until the rate limit allows a request. Fails at once if a pause lasts past the deadline.
    async fn wait_for_slot(&self, session: &Session) -> Result<(), RequestError> {
        loop {
            let now = Instant::now();
            let admission = self.rate_limiter.lock().admit(now);
            match admission {
                Admission::SendAt(slot) => {
                    sleep_until(slot.into()).await;
                    // A pause may have begun meanwhile.
                    let now = Instant::now();
                    if self.rate_limiter.lock().paused_until(now).is_none() {
                        return Ok(());
                    }
                }
                Admission::PausedUntil(until) if until >= session.deadline => {
                    let seconds = (until - now).as_secs();
                    let message =
                        format!("not sent: the API asked for a pause, which ends in {seconds} s");
                    return Err(RequestError {
                        retryable: false,
                        ..RequestError::new(Reason::RateLimited, message)
                    });
                }
                Admission::PausedUntil(until) => sleep_until(until.into()).await,
            }
        }
    }

    /// Returns an access token other than the one that was rejected, if there is one. Only the first token that a session
    /// finds rejected is replaced, so that a session forces at most one refresh.
    async fn refresh_after_401(
        &self,
        rejected: &Arc<AccessToken>,
        session: &Session,
    ) -> Result<Option<Arc<AccessToken>>, RequestError> {
        let first_rejected = session.rejected.get_or_init(|| rejected.clone());
        let token = match Arc::ptr_eq(first_rejected, rejected) {
            true => self.tokens.replace(rejected).await?,
            false => self.tokens.token().await?,
        };
        Ok((!Arc::ptr_eq(&token, rejected)).then_some(token))
    }

    async fn send<T: Send + 'static>(
        &self,
        route: Route,
        deadline: Instant,
        url: Url,
        token: &AccessToken,
        decode: Decode<T>,
    ) -> Result<T, RequestError> {
        self.stats.api_request_sent(route);
        let mut metrics = RequestMetricsGuard {
            stats: &self.stats,
            route,
            sent_at: Instant::now(),
            deadline,
            failure: None,
        };
        let result = self.exchange(url, token, decode).await;
        metrics.failure = Some(result.as_ref().err().map(|error| error.reason));
        result
    }

    async fn exchange<T: Send + 'static>(
        &self,
        url: Url,
        token: &AccessToken,
        decode: Decode<T>,
    ) -> Result<T, RequestError> {
        let path = url.path().to_owned();
        let request = self.http.get(url).header(AUTHORIZATION, token.bearer());
        let response = request.send().await;
        let response = response.map_err(|error| self.transport_error(error.into()))?;
        self.apply_retry_after(&response);
        let status = response.status().as_u16();
        if let Some(reason) = Reason::of_status(status) {
            return Err(RequestError::new(
                reason,
                format!("the API answered HTTP {status}"),
            ));
        }
        let body = http::read_limited(response, self.api.max_response_bytes).await;
        let body = body.map_err(|error| self.transport_error(error))?;
        let is_long = body.len() > MAX_INLINE_DECODE_BYTES;
        let tokens = self.tokens.clone();
        let decode = move || decode(&body, &|text| tokens.redact_name(text));
        let decoded = match is_long {
            true => blocking::run(decode).await,
            false => decode(),
        };
        decoded.map_err(|malformed| {
            // The message names keys of the body, which are the server's words.
            let message = self.tokens.redact(&format!("GET {path}: {malformed}"));
            RequestError::new(Reason::Malformed, message)
        })
    }

    /// Pauses all requests if the response is a 429 or has a `Retry-After`.
    fn apply_retry_after(&self, response: &Response) {
        let retry_after = http::retry_after(response.headers(), SystemTime::now());
        let refused = response.status() == StatusCode::TOO_MANY_REQUESTS;
        let mut rate_limiter = self.rate_limiter.lock();
        if refused || response.headers().contains_key(RETRY_AFTER) {
            rate_limiter.pause(Instant::now(), retry_after, fastrand::f64());
        }
        if !refused {
            rate_limiter.not_refused();
        }
    }

    fn transport_error(&self, error: http::BodyError) -> RequestError {
        let message = match error.reason() {
            Reason::Timeout => format!(
                "no complete response within {:?} (api.timeout)",
                self.api.timeout
            ),
            _ => error.to_string(),
        };
        RequestError::new(error.reason(), message)
    }
}

/// Counts a request however it ends. A request that is dropped at its deadline has timed out. One that is dropped earlier was
/// given up for a new configuration, and is counted neither as failed nor as answered.
struct RequestMetricsGuard<'a> {
    stats: &'a Stats,
    route: Route,
    sent_at: Instant,
    deadline: Instant,
    /// `None` until the request has ended; then why it failed, if it did.
    failure: Option<Option<Reason>>,
}

impl Drop for RequestMetricsGuard<'_> {
    fn drop(&mut self) {
        let is_late = Instant::now() >= self.deadline;
        let timeout = is_late.then_some(Some(Reason::Timeout));
        if let Some(failure) = self.failure.or(timeout) {
            let duration = self.sent_at.elapsed();
            self.stats.api_request_ended(self.route, duration, failure);
        }
    }
}
