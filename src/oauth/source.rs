//! The only place that refreshes the access token: the I/O around `schedule`. `api` and `collector` take tokens from
//! here; however many callers wait, there is one request at a time.
//!
//! Each request runs in a task of its own, so that a caller who gives up does not cancel it for the others.

use std::{
    panic::resume_unwind,
    slice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    AccessToken, TokenError,
    credentials::{CredentialStore, Credentials},
    redact::Redactor,
    request::{GrantType, TokenRequest, TokenResponse},
    schedule::{OnDemand, RefreshSchedule, Success},
    store::StoreError,
};
use crate::{
    clock::unix_now,
    config::Oauth,
    stats::{Reason, Stats},
};

/// From the end of one request to the start of the next, so that the server sees at most one a second.
const MIN_REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// How often files are read again while the refresh token or the client is refused or missing. New credentials must be
/// noticed within 5 s.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long shutdown waits for a request in flight, which may return a rotated token. The process must end within 5 s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Gives out access tokens and renews them.
pub struct TokenSource {
    oauth: Oauth,
    credentials: Arc<CredentialStore>,
    http: Mutex<Client>,
    stats: Arc<Stats>,
    redactor: Redactor,
    created: Instant,
    schedule: Mutex<RefreshSchedule>,
    /// Notified when a request has ended or a token was rejected.
    state_changed: watch::Sender<()>,
    recovered: watch::Sender<()>,
    /// Held during a request; contains the time at which the last one ended. A reload hands it on to the new source, so
    /// that requests stay one at a time and one a second.
    refresh_lock: Arc<AsyncMutex<Option<Instant>>>,
    shut_down: AtomicBool,
}

/// The state of a token source, for the status page.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenStatus {
    /// The current access token has not ended.
    pub access_token_valid: bool,
    /// Unix time at which the last access token ends.
    pub access_token_expires_at: Option<f64>,
    /// `false` while a new login is needed.
    pub refresh_token_valid: bool,
    /// Unix time of the login, if known.
    pub refresh_token_obtained_at: Option<f64>,
    /// The current failure and what to do about it. Contains no secret.
    pub last_error: Option<String>,
}

/// Why no token source can be created with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The token store cannot be used.
    #[error("oauth.token_store: {0}")]
    Store(StoreError),
    /// Nothing is configured that could hold a refresh token.
    #[error(
        "no refresh token: set oauth.refresh_token or oauth.refresh_token_file, or set oauth.token_store and run `lightfi-exporter login`"
    )]
    NoRefreshToken,
}

impl TokenSource {
    /// Checks the token store and reads the credentials. Sends no request.
    pub async fn new(
        oauth: &Oauth,
        http: Client,
        stats: Arc<Stats>,
    ) -> Result<Arc<Self>, StartError> {
        Self::open(oauth, http, stats, Arc::default()).await
    }

    /// Returns the source to use after a reload: this one, unless section `oauth` has changed. Requests use `http`.
    pub async fn rebuild_with(
        self: &Arc<Self>,
        oauth: &Oauth,
        http: Client,
    ) -> Result<Arc<Self>, StartError> {
        if *oauth != self.oauth {
            let lock = self.refresh_lock.clone();
            return Self::open(oauth, http, self.stats.clone(), lock).await;
        }
        *self.http.lock().unwrap_or_else(PoisonError::into_inner) = http;
        Ok(self.clone())
    }

    async fn open(
        oauth: &Oauth,
        http: Client,
        stats: Arc<Stats>,
        refresh_lock: Arc<AsyncMutex<Option<Instant>>>,
    ) -> Result<Arc<Self>, StartError> {
        if oauth.refresh_token.is_none() && oauth.token_store.is_none() {
            return Err(StartError::NoRefreshToken);
        }
        let section = oauth.clone();
        let credentials = blocking(move || CredentialStore::open(section)).await;
        let source = Arc::new(Self {
            oauth: oauth.clone(),
            credentials: Arc::new(credentials.map_err(StartError::Store)?),
            http: Mutex::new(http),
            stats,
            redactor: Redactor::default(),
            created: Instant::now(),
            schedule: Mutex::new(RefreshSchedule::new(oauth.expiry_margin)),
            state_changed: watch::Sender::new(()),
            recovered: watch::Sender::new(()),
            refresh_lock,
            shut_down: AtomicBool::new(false),
        });
        match source.read_credentials().await {
            Ok(found) => source.show_login(&found[0]),
            Err(TokenError::RefreshTokenMissing(_)) => source.stats.refresh_token_valid.set(0.0),
            Err(_) => {}
        }
        Ok(source)
    }

    /// Returns the access token, without waiting while there is a valid one. Otherwise waits for the request in flight,
    /// or starts one. While requests fail, returns the last error at once.
    pub async fn token(self: &Arc<Self>) -> Result<Arc<AccessToken>, TokenError> {
        let mut state_changed = self.state_changed.subscribe();
        loop {
            let on_demand = self.schedule().on_demand(self.now());
            match on_demand {
                OnDemand::Use(token) => return Ok(token),
                OnDemand::Refuse(error) => return Err(error),
                OnDemand::Start => self.spawn_refresh(),
                OnDemand::Wait => {}
            }
            // `self` holds the sender, so this cannot fail.
            let _ = state_changed.changed().await;
        }
    }

    /// Renews a token that the API does not accept. If it is not the current one any more, does nothing.
    pub fn reject(&self, rejected: &Arc<AccessToken>) {
        self.schedule().rejected(rejected);
        self.state_changed.send_replace(());
    }

    /// Renews the token ahead of its end and notices new credentials, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut state_changed = self.state_changed.subscribe();
        let mut file_check = interval(FILE_CHECK_INTERVAL);
        file_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.schedule().start_if_due(self.now());
            if due {
                self.spawn_refresh();
            }
            let refresh_at = self.schedule().next_refresh_at();
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = state_changed.changed() => {}
                _ = file_check.tick() => self.check_files().await,
                () = sleep(refresh_at.saturating_sub(self.now())) => {}
            }
        }
        self.shut_down.store(true, Ordering::Relaxed);
        let request_ended = async {
            while self.schedule().is_in_flight() && state_changed.changed().await.is_ok() {}
        };
        if timeout(SHUTDOWN_TIMEOUT, request_ended).await.is_err() {
            tracing::debug!("shut down with a token request in flight");
        }
    }

    /// Returns a receiver that is notified when a token is available again after there was none.
    pub fn recovered(&self) -> watch::Receiver<()> {
        self.recovered.subscribe()
    }

    /// Returns the current state.
    pub fn status(&self) -> TokenStatus {
        let known = |value: f64| (!value.is_nan()).then_some(value);
        let schedule = self.schedule();
        TokenStatus {
            access_token_valid: schedule.has_valid_token(self.now()),
            access_token_expires_at: known(self.stats.access_token_expiry.get()),
            refresh_token_valid: self.stats.refresh_token_valid.get() == 1.0,
            refresh_token_obtained_at: known(self.stats.refresh_token_obtained.get()),
            last_error: schedule
                .last_error()
                .map(|error| format!("{error}: {}", error.advice())),
        }
    }

    /// Whether the server has rotated the refresh token and the new one is in no file, so that it is lost when the
    /// process ends.
    pub fn is_rotated_in_memory_only(&self) -> bool {
        self.credentials.is_in_memory_only()
    }

    /// Returns a server's text on one line, without any secret that this source has used.
    pub fn redact(&self, text: &str) -> String {
        self.redactor.redact(text)
    }

    /// Returns a name or an id from a server unchanged but for such secrets.
    pub fn redact_name(&self, name: String) -> String {
        self.redactor.redact_name(name)
    }

    fn spawn_refresh(self: &Arc<Self>) {
        tokio::spawn(Arc::clone(self).refresh());
    }

    /// Makes one request, which the schedule already counts as in flight.
    async fn refresh(self: Arc<Self>) {
        let _guard = RefreshGuard(&self);
        let mut last_ended = self.refresh_lock.lock().await;
        if let Some(ended) = *last_ended {
            sleep_until((ended + MIN_REQUEST_INTERVAL).into()).await;
        }
        if self.shut_down.load(Ordering::Relaxed) {
            let error = TokenError::Unavailable {
                reason: Reason::Other,
                what: "the token source is shut down".to_owned(),
                retry_after: None,
            };
            self.schedule().failed(self.now(), error, 1.0);
            return;
        }
        match self.read_credentials().await {
            Ok(found) => {
                self.request_token(&found).await;
                *last_ended = Some(Instant::now());
            }
            Err(error) => self.record_failure(error),
        }
    }

    async fn request_token(&self, found: &[Credentials]) {
        let used = self.schedule().first_untried(found).unwrap_or(&found[0]);
        let http = self
            .http
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let response = TokenRequest {
            token_url: &self.oauth.token_url,
            client_auth: self.oauth.client_auth,
            client_id: &used.client_id,
            client_secret: used.client_secret.as_ref(),
            grant_type: GrantType::RefreshToken(&used.record.refresh_token),
        }
        .send(&http, &self.redactor)
        .await;
        let received = (self.now(), unix_now());
        let reason = response.as_ref().err().map(TokenError::reason);
        self.stats.token_refresh(reason);
        match response {
            Ok(response) => self.record_success(received, response, used).await,
            Err(error) if self.finds_others(&error, found, used).await => {
                tracing::info!(%error, "credentials refused; trying others");
            }
            Err(error) => self.record_failure(error),
        }
    }

    /// After a refusal, reads files and store again. Returns whether they contain credentials that were not refused.
    async fn finds_others(
        &self,
        error: &TokenError,
        found: &[Credentials],
        used: &Credentials,
    ) -> bool {
        self.schedule().refuse(match error {
            TokenError::InvalidGrant(_) => slice::from_ref(used),
            // With this client, none of them would be accepted.
            TokenError::InvalidClient(_) => found,
            _ => return false,
        });
        let found = self.read_credentials().await.unwrap_or_default();
        self.schedule().first_untried(&found).is_some()
    }

    async fn record_success(
        &self,
        (received, unix_received): (Duration, f64),
        response: TokenResponse,
        used: &Credentials,
    ) {
        // Before the access token is used, so that a crash after this loses nothing.
        if let Some(rotated) = response.refresh_token
            && rotated != used.record.refresh_token
        {
            self.redactor.register_secret(&rotated);
            let (credentials, record) = (self.credentials.clone(), used.record.clone());
            blocking(move || credentials.save(rotated, &record)).await;
        }
        self.show_login(used);
        self.stats.refresh_token_valid.set(1.0);
        let lifetime = response.lifetime;
        self.stats
            .access_token_expiry
            .set(unix_received + lifetime.as_secs_f64());
        let success = self
            .schedule()
            .succeeded(received, response.access_token, lifetime);
        let lifetime_seconds = lifetime.as_secs();
        match success {
            Success::First => tracing::info!(lifetime_seconds, "access token received"),
            Success::Renewed => tracing::debug!(lifetime_seconds, "access token renewed"),
            Success::Recovered { had_no_token } => {
                tracing::info!(lifetime_seconds, "token refresh recovered");
                if had_no_token {
                    self.recovered.send_replace(());
                }
            }
        }
    }

    fn record_failure(&self, error: TokenError) {
        if error.reason() == Reason::InvalidGrant {
            self.stats.refresh_token_valid.set(0.0);
        }
        let now = self.now();
        let mut schedule = self.schedule();
        let current_token_valid = schedule.has_valid_token(now);
        if !schedule.failed(now, error.clone(), fastrand::f64()) {
            return;
        }
        drop(schedule);
        let reason = error.reason().as_str();
        let advice = error.advice();
        if matches!(error, TokenError::Unavailable { .. }) {
            tracing::warn!(%error, reason, current_token_valid, advice, "token refresh failed");
        } else {
            tracing::error!(%error, reason, current_token_valid, advice, "token refresh failed");
        }
    }

    /// Writes what could not be written before, and notices new credentials where the old ones are refused or missing.
    async fn check_files(&self) {
        let credentials = self.credentials.clone();
        blocking(move || credentials.retry_pending_write()).await;
        let needs_credentials = self.schedule().needs_credentials();
        if needs_credentials && let Ok(found) = self.read_credentials().await {
            self.schedule().credentials_found(&found);
        }
    }

    async fn read_credentials(&self) -> Result<Vec<Credentials>, TokenError> {
        let credentials = self.credentials.clone();
        let found = blocking(move || credentials.read()).await?;
        for credentials in &found {
            self.redactor.register_secret(&credentials.client_id);
            if let Some(secret) = &credentials.client_secret {
                self.redactor.register_secret(secret);
            }
            self.redactor
                .register_secret(&credentials.record.refresh_token);
        }
        Ok(found)
    }

    fn show_login(&self, credentials: &Credentials) {
        let obtained_at = credentials.record.obtained_at.unwrap_or(f64::NAN);
        self.stats.refresh_token_obtained.set(obtained_at);
    }

    fn now(&self) -> Duration {
        self.created.elapsed()
    }

    fn schedule(&self) -> MutexGuard<'_, RefreshSchedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the request in flight when its task ends, even by a panic, so that the next one can start.
struct RefreshGuard<'a>(&'a TokenSource);

impl Drop for RefreshGuard<'_> {
    fn drop(&mut self) {
        self.0.schedule().ended();
        self.0.state_changed.send_replace(());
    }
}

/// Runs file I/O on a blocking thread. `blocking::run` is not used, because a file that hangs would hold one of its few
/// threads for good.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(result) => result,
        // Only a shutdown of the runtime cancels it, and then nobody waits here.
        Err(error) => resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests;
