//! One request to the API: admitted by the gate, with a bearer, counted, bounded, and its failure named.
//!
//! Called by `collector` and by the commands that ask the API themselves. Redirects are not followed, so the bearer
//! goes to the configured scheme, host and port only.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER},
};
use tokio::{sync::Semaphore, time::timeout};
use url::Url;

use super::{
    bounds,
    gate::{Pace, Pass},
    model::{self, LocationReply, Malformed, SensorReply},
};
use crate::{
    aside::aside,
    config, http,
    oauth::{AccessToken, TokenError, TokenSource},
    stats::{Reason, Route, Stats},
};

/// The routes that readings come from, as the API's document would list them.
const ROUTES: [&str; 3] = ["/sensors/{}", "/locations/{}/", "/locations"];

/// A longer body is decoded beside the thread that serves: this much takes it a tenth of a millisecond.
const DECODED_AT_ONCE: usize = 16 * 1024;

/// The API under one configuration.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    timeout: Duration,
    max_response_bytes: usize,
    tokens: Arc<TokenSource>,
    stats: Arc<Stats>,
    pace: Pace,
    /// Over TLS its only permit is the first request's; closed once the others may go.
    first: Semaphore,
}

/// What a body says, without the secrets that the token source knows.
type Decode<T> = fn(&[u8], &TokenSource) -> Result<T, Malformed>;

/// The first request has this long for itself, but no more than a quarter of its collection.
const ALONE: Duration = Duration::from_secs(1);

/// What the requests of one collection share: its end, and the one refresh it may force.
pub struct Session {
    deadline: Instant,
    forced: OnceLock<Arc<AccessToken>>,
}

/// The first request of a client: the others go when it ends.
struct First<'a>(&'a Semaphore);

impl Drop for First<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Session {
    /// Nothing is waited for past `deadline`.
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            forced: OnceLock::new(),
        }
    }
}

/// Why there is no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// For the counters and the log.
    pub reason: Reason,
    /// For a person; no secret, no body.
    pub what: String,
    /// Whether asking again may help.
    pub again: bool,
    /// Whether it failed for want of a token, so that nothing was sent.
    pub no_token: bool,
}

impl Failure {
    fn new(reason: Reason, what: impl Into<String>) -> Self {
        let again = matches!(
            reason,
            Reason::Timeout | Reason::Connect | Reason::ServerError | Reason::RateLimited
        );
        Self {
            reason,
            what: what.into(),
            again,
            no_token: false,
        }
    }

    /// What came is more than a collection may hold.
    pub fn over_limit(what: impl Into<String>) -> Self {
        Self::new(Reason::TooLarge, what)
    }

    /// Nothing came before the collection's end.
    pub fn out_of_time() -> Self {
        Self::new(
            Reason::Timeout,
            "no answer before the end of the collection",
        )
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        Self {
            reason: Reason::Unauthorized,
            what: error.to_string(),
            again: false,
            no_token: true,
        }
    }
}

impl Client {
    /// `http` carries the time-out, the CA file and the redirect policy of `api`; `pace` is that of the client before, where
    /// there was one; from here on it has the rate of `api`.
    pub fn new(
        api: &config::Api,
        http: reqwest::Client,
        tokens: Arc<TokenSource>,
        stats: Arc<Stats>,
        pace: Pace,
    ) -> Self {
        pace.gate()
            .set_rate(api.requests_per_second, Instant::now());
        let first = Semaphore::new(1);
        if api.url.scheme() == "http" {
            // Each request at a time takes a connection of its own anyway, and a cheap one.
            first.close();
        }
        Self {
            http,
            base: api.url.clone(),
            timeout: api.timeout,
            max_response_bytes: api.max_response_bytes,
            tokens,
            stats,
            pace,
            first,
        }
    }

    /// `GET /sensors/{id}?project=latest&project=value`
    pub async fn sensor(&self, session: &Session, id: &str) -> Result<SensorReply, Failure> {
        let mut url = self.url(&["sensors", id]);
        url.query_pairs_mut()
            .append_pair("project", "latest")
            .append_pair("project", "value");
        self.get(session, Route::Sensor, url, |body, tokens| {
            let reply = model::sensor(body)?;
            Ok(bounds::sensor(reply, |text| tokens.conceal(text)))
        })
        .await
    }

    /// `GET /locations/{id}/`
    pub async fn location(&self, session: &Session, id: &str) -> Result<LocationReply, Failure> {
        self.get(
            session,
            Route::Location,
            self.url(&["locations", id, ""]),
            |body, tokens| bounds::location(model::location(body)?, |text| tokens.conceal(text)),
        )
        .await
    }

    /// `GET /locations`
    pub async fn base_location(&self, session: &Session) -> Result<LocationReply, Failure> {
        self.get(
            session,
            Route::BaseLocation,
            self.url(&["locations"]),
            |body, tokens| {
                bounds::location(model::base_location(body)?, |text| tokens.conceal(text))
            },
        )
        .await
    }

    /// `GET /openapi.json`: which of [`ROUTES`] the API's own document does not list.
    pub async fn routes_not_documented(
        &self,
        session: &Session,
    ) -> Result<Vec<&'static str>, Failure> {
        let listed = self
            .get(
                session,
                Route::Openapi,
                self.url(&["openapi.json"]),
                |body, _| model::openapi(body),
            )
            .await?;
        Ok(ROUTES
            .into_iter()
            .filter(|route| !listed.iter().any(|known| known == route))
            .collect())
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // An http(s) URL always has a path; `config` lets no other through.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn get<T: Send + 'static>(
        &self,
        session: &Session,
        route: Route,
        url: Url,
        decode: Decode<T>,
    ) -> Result<T, Failure> {
        // A place in the line is taken once there is a token: requests that waited for one would all leave together.
        self.tokens.token().await?;
        let _first = self.enter(session).await;
        self.admit(session).await?;
        let token = self.tokens.token().await?;
        let end = session.deadline;
        match self.send(route, end, url.clone(), &token, decode).await {
            Err(failure) if failure.reason == Reason::Unauthorized => {
                let Some(fresh) = self.fresher_than(&token, session).await? else {
                    return Err(failure);
                };
                self.admit(session).await?;
                self.send(route, end, url, &fresh, decode).await
            }
            result => result,
        }
    }

    /// Waits until the first request has shown what the server speaks: before that, each one beside it would shake hands
    /// for a connection of its own. Sixty of them take more memory than a thousand sensors, and HTTP/2 uses one.
    async fn enter(&self, session: &Session) -> Option<First<'_>> {
        let left = session.deadline.saturating_duration_since(Instant::now());
        match timeout(ALONE.min(left / 4), self.first.acquire()).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Some(First(&self.first))
            }
            Ok(Err(_closed)) => None,
            // It hangs, which is its own matter.
            Err(_elapsed) => {
                self.first.close();
                None
            }
        }
    }

    /// Waits for the gate. Fails at once if a pause lasts past the end of the collection.
    async fn admit(&self, session: &Session) -> Result<(), Failure> {
        loop {
            let now = Instant::now();
            let pass = self.pace.gate().ask(now);
            match pass {
                Pass::Now => return Ok(()),
                Pass::At(at) => {
                    tokio::time::sleep_until(at.into()).await;
                    if self.pace.gate().paused(Instant::now()).is_none() {
                        return Ok(());
                    }
                }
                Pass::Paused(until) if until >= session.deadline => {
                    let left = (until - now).as_secs();
                    let what =
                        format!("not sent: the API asked for a pause that lasts {left} s more");
                    return Err(Failure {
                        again: false,
                        ..Failure::new(Reason::RateLimited, what)
                    });
                }
                Pass::Paused(until) => tokio::time::sleep_until(until.into()).await,
            }
        }
    }

    /// A token other than the one that was refused: somebody's newer one, or one that is forced now, once a session.
    async fn fresher_than(
        &self,
        refused: &Arc<AccessToken>,
        session: &Session,
    ) -> Result<Option<Arc<AccessToken>>, Failure> {
        if Arc::ptr_eq(session.forced.get_or_init(|| refused.clone()), refused) {
            self.tokens.reject(refused).await;
        }
        let token = self.tokens.token().await?;
        Ok((!Arc::ptr_eq(&token, refused)).then_some(token))
    }

    async fn send<T: Send + 'static>(
        &self,
        route: Route,
        end: Instant,
        url: Url,
        token: &AccessToken,
        decode: Decode<T>,
    ) -> Result<T, Failure> {
        self.stats.api_request_sent(route);
        let count = Count {
            stats: &self.stats,
            route,
            sent: Instant::now(),
            end,
            ended: false,
        };
        let result = self.exchange(url, token, decode).await;
        count.ended(result.as_ref().err().map(|failure| failure.reason));
        result
    }

    async fn exchange<T: Send + 'static>(
        &self,
        url: Url,
        token: &AccessToken,
        decode: Decode<T>,
    ) -> Result<T, Failure> {
        let path = url.path().to_owned();
        let request = self.http.get(url).header(AUTHORIZATION, token.bearer());
        let response = request
            .send()
            .await
            .map_err(|error| self.broken(error.into()))?;
        self.heed(&response);
        if let Some(reason) = Reason::of_status(response.status().as_u16()) {
            return Err(Failure::new(
                reason,
                format!("HTTP {}", response.status().as_u16()),
            ));
        }
        let body = http::read_limited(response, self.max_response_bytes)
            .await
            .map_err(|error| self.broken(error))?;
        // The keys it names are the server's words.
        let what = |malformed| self.tokens.scrub(&format!("GET {path}: {malformed}"));
        let decoded = if body.len() > DECODED_AT_ONCE {
            let tokens = self.tokens.clone();
            aside(move || decode(&body, &tokens)).await
        } else {
            decode(&body, &self.tokens)
        };
        decoded.map_err(|malformed| Failure::new(Reason::Malformed, what(malformed)))
    }

    /// Takes a pause from any answer that asks for one.
    fn heed(&self, response: &Response) {
        let asked = http::retry_after(response.headers(), SystemTime::now());
        let refused = response.status() == StatusCode::TOO_MANY_REQUESTS;
        let mut gate = self.pace.gate();
        if refused || response.headers().contains_key(RETRY_AFTER) {
            gate.pause(Instant::now(), asked, fastrand::f64());
        }
        if !refused {
            gate.answered();
        }
    }

    fn broken(&self, error: http::BodyError) -> Failure {
        match error.reason() {
            Reason::Timeout => Failure::new(
                Reason::Timeout,
                format!("no whole answer within {:?}", self.timeout),
            ),
            reason => Failure::new(reason, error.to_string()),
        }
    }
}

/// Counts one request however it ends. One that is dropped at the end of its collection has timed out; one that is dropped
/// before that was given up for a new configuration: it has neither failed nor an answer.
struct Count<'a> {
    stats: &'a Stats,
    route: Route,
    sent: Instant,
    end: Instant,
    ended: bool,
}

impl Count<'_> {
    fn ended(mut self, failure: Option<Reason>) {
        self.ended = true;
        self.note(failure);
    }

    fn note(&self, failure: Option<Reason>) {
        self.stats
            .api_request_ended(self.route, self.sent.elapsed(), failure);
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        if !self.ended && Instant::now() >= self.end {
            self.note(Some(Reason::Timeout));
        }
    }
}
