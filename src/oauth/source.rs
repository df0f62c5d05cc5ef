//! The only place that refreshes the access token: the I/O around `schedule`. `api` and `collector` take tokens from
//! here; however many callers wait, there is one request at a time.

use std::{
    slice,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use reqwest::Client;
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    AccessToken, TokenError,
    credentials::{CredentialStore, Credentials},
    lock,
    redact::Redactor,
    request::{TokenResponse, request_token},
    schedule::{OnDemand, RefreshSchedule},
    store::FileError,
};
use crate::{
    clock::unix_now,
    config::Oauth,
    stats::{Reason, Stats},
};

/// The minimum time from the end of one request to the start of the next: the server gets at most one request a second.
const MIN_REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// How often a pending write is tried again, and files are read again while credentials are refused or missing. New
/// credentials must be noticed within 5 s.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long shutdown waits for a request in flight, which may return a rotated token. The process must end within 5 s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// Gives out access tokens and renews them.
pub struct TokenSource {
    oauth: Oauth,
    credential_store: Arc<CredentialStore>,
    http: Mutex<Client>,
    stats: Arc<Stats>,
    redactor: Redactor,
    created: Instant,
    schedule: Mutex<RefreshSchedule>,
    recovered: watch::Sender<()>,
    /// Held during a request, so that callers wait for its end; contains the earliest time of the next one. A reload hands
    /// it on to the new source, so that requests stay one at a time and one a second.
    refresh_lock: Arc<AsyncMutex<Instant>>,
}

/// The state of a token source, for the status page.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenStatus {
    /// The current access token has not expired and the API has not rejected it.
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

/// Why the token store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("oauth.token_store: {0}")]
pub struct TokenStoreError(FileError);

impl TokenSource {
    /// Checks the token store. Sends no request.
    pub async fn new(
        oauth: &Oauth,
        http: Client,
        stats: Arc<Stats>,
    ) -> Result<Arc<Self>, TokenStoreError> {
        let refresh_lock = Arc::new(AsyncMutex::new(Instant::now()));
        Self::open(oauth, http, stats, refresh_lock).await
    }

    /// Returns the source to use after a reload: this one, unless section `oauth` has changed. Requests use `http`.
    pub async fn rebuild_with(
        self: &Arc<Self>,
        oauth: &Oauth,
        http: Client,
    ) -> Result<Arc<Self>, TokenStoreError> {
        if *oauth != self.oauth {
            let refresh_lock = self.refresh_lock.clone();
            return Self::open(oauth, http, self.stats.clone(), refresh_lock).await;
        }
        *lock(&self.http) = http;
        Ok(self.clone())
    }

    async fn open(
        oauth: &Oauth,
        http: Client,
        stats: Arc<Stats>,
        refresh_lock: Arc<AsyncMutex<Instant>>,
    ) -> Result<Arc<Self>, TokenStoreError> {
        let section = oauth.clone();
        let credentials = on_file_thread(move || CredentialStore::open(section)).await;
        Ok(Arc::new(Self {
            oauth: oauth.clone(),
            credential_store: Arc::new(credentials.map_err(TokenStoreError)?),
            http: Mutex::new(http),
            stats,
            redactor: Redactor::default(),
            created: Instant::now(),
            schedule: Mutex::new(RefreshSchedule::new(oauth.expiry_margin)),
            recovered: watch::Sender::new(()),
            refresh_lock,
        }))
    }

    /// Returns the access token, without waiting while there is a valid one. Otherwise waits for the request in flight,
    /// or starts one. While requests fail, returns the last error at once.
    pub async fn token(self: &Arc<Self>) -> Result<Arc<AccessToken>, TokenError> {
        self.token_after(None).await
    }

    /// Renews a token that the API has rejected, if it is still the current one, and returns the current token afterwards.
    /// While the renewal fails, this and other callers get the rejected token until it expires, because some routes of the API
    /// may accept it; then the error.
    pub async fn replace(
        self: &Arc<Self>,
        rejected: &Arc<AccessToken>,
    ) -> Result<Arc<AccessToken>, TokenError> {
        self.schedule().mark_rejected(rejected);
        self.token_after(Some(rejected)).await
    }

    async fn token_after(
        self: &Arc<Self>,
        rejected: Option<&Arc<AccessToken>>,
    ) -> Result<Arc<AccessToken>, TokenError> {
        loop {
            let on_demand = self.schedule().on_demand(self.now(), rejected);
            match on_demand {
                OnDemand::Use(token) => return Ok(token),
                OnDemand::Fail(error) => return Err(error),
                OnDemand::Refresh => self.refresh_in_own_task().await,
            }
        }
    }

    /// Renews the token ahead of its end and notices new credentials, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let work = async {
            loop {
                let due_in = self.schedule().next_refresh_at().saturating_sub(self.now());
                sleep(due_in.min(FILE_CHECK_INTERVAL)).await;
                self.check_files().await;
                self.refresh_in_own_task().await;
            }
        };
        let _: Option<()> = shutdown.run_until_cancelled(work).await;
        // From here on no request is due.
        let error = TokenError::Unavailable {
            reason: Reason::Other,
            what: "the token source is shut down".to_owned(),
            retry_after: Some(Duration::MAX),
        };
        self.schedule().failed(self.now(), error, 0.0);
        let request_ended = self.refresh_lock.lock();
        if timeout(SHUTDOWN_TIMEOUT, request_ended).await.is_err() {
            tracing::debug!("shutdown abandoned a token request in flight");
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

    /// Returns whether the server has rotated the refresh token and the new one is in no file, so that it is lost when
    /// the process ends.
    pub fn is_rotated_in_memory_only(&self) -> bool {
        self.credential_store.is_in_memory_only()
    }

    /// Returns a server's text on one line, without any secret that this source has used.
    pub fn redact(&self, text: &str) -> String {
        self.redactor.redact(text)
    }

    /// Returns a name or an id from a server unchanged but for such secrets.
    pub fn redact_name(&self, name: String) -> String {
        self.redactor.redact_name(name)
    }

    /// Waits for the request in flight, and makes one if one is still due. Runs in a task of its own, so that a caller
    /// that gives up does not cancel it for the others, and a panic ends only this request.
    async fn refresh_in_own_task(self: &Arc<Self>) {
        let source = Arc::clone(self);
        let _ = tokio::spawn(async move { source.refresh_if_due().await }).await;
    }

    async fn refresh_if_due(&self) {
        let mut next_request_at = self.refresh_lock.lock().await;
        let is_due = || self.now() >= self.schedule().next_refresh_at();
        if is_due() {
            sleep_until(*next_request_at).await;
        }
        // After a shutdown during the sleep, no request is due.
        if !is_due() {
            return;
        }
        // Set now too, in case the request panics.
        *next_request_at = Instant::now() + MIN_REQUEST_INTERVAL;
        match self.read_credentials().await {
            Ok(found) => self.request_with(&found).await,
            Err(error) => self.record_failure(error),
        }
        *next_request_at = Instant::now() + MIN_REQUEST_INTERVAL;
    }

    async fn request_with(&self, found: &[Credentials]) {
        // If all were refused, the preferred ones are tried again.
        let used = self
            .schedule()
            .first_not_refused(found)
            .unwrap_or(&found[0]);
        let obtained_at = used.token.obtained_at.unwrap_or(f64::NAN);
        self.stats.refresh_token_obtained.set(obtained_at);
        let http = lock(&self.http).clone();
        let grant = [
            ("grant_type", "refresh_token"),
            ("refresh_token", used.token.refresh_token.expose()),
        ];
        let response =
            request_token(&http, &self.oauth, &used.client, &grant, &self.redactor).await;
        let received = (self.now(), unix_now());
        let reason = response.as_ref().err().map(TokenError::reason);
        self.stats.token_refresh(reason);
        match response {
            Ok(response) => self.record_success(received, response, used).await,
            // No failure is recorded, so the next request is due at once and uses the others.
            Err(error) if self.refuse_and_find_others(&error, found, used).await => {
                tracing::info!(%error, "credentials refused; retrying with other credentials");
            }
            Err(error) => self.record_failure(error),
        }
    }

    /// After a refusal, reads files and store again. Returns whether they contain credentials that were not refused.
    async fn refuse_and_find_others(
        &self,
        error: &TokenError,
        found: &[Credentials],
        used: &Credentials,
    ) -> bool {
        let refused = match error {
            TokenError::InvalidGrant(_) => slice::from_ref(used),
            // With this client, none of them would be accepted.
            TokenError::InvalidClient(_) => found,
            _ => return false,
        };
        for credentials in refused {
            self.schedule().mark_refused(credentials);
        }
        let found = self.read_credentials().await.unwrap_or_default();
        self.schedule().first_not_refused(&found).is_some()
    }

    async fn record_success(
        &self,
        (received, unix_received): (Duration, f64),
        response: TokenResponse,
        used: &Credentials,
    ) {
        // Before the access token is used, so that a crash after this loses nothing. Where the store cannot be written, memory
        // keeps the token and `check_files` tries again.
        if let Some(rotated) = response.refresh_token
            && rotated != used.token.refresh_token
        {
            self.redactor.register_secret(&rotated);
            let (credentials, used) = (self.credential_store.clone(), used.token.clone());
            on_file_thread(move || credentials.save(rotated, &used)).await;
        }
        self.stats.refresh_token_valid.set(1.0);
        let lifetime = response.lifetime;
        self.stats
            .access_token_expiry
            .set(unix_received + lifetime.as_secs_f64());
        let lifetime_seconds = lifetime.as_secs();
        let mut schedule = self.schedule();
        let had_failed = schedule.last_error().is_some();
        let had_no_token = !schedule.has_valid_token(received);
        schedule.succeeded(received, response.access_token, lifetime);
        if !had_failed {
            tracing::debug!(lifetime_seconds, "access token received");
            return;
        }
        tracing::info!(lifetime_seconds, "token refresh recovered");
        if had_no_token {
            self.recovered.send_replace(());
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
        let credentials = self.credential_store.clone();
        on_file_thread(move || credentials.retry_pending_write()).await;
        let needs_credentials = self.schedule().needs_credentials();
        if needs_credentials && let Ok(found) = self.read_credentials().await {
            self.schedule().credentials_found(&found);
        }
    }

    async fn read_credentials(&self) -> Result<Vec<Credentials>, TokenError> {
        let credentials = self.credential_store.clone();
        let found = on_file_thread(move || credentials.read()).await?;
        for credentials in &found {
            let Credentials { client, token } = credentials;
            for secret in [&client.id, &token.refresh_token]
                .into_iter()
                .chain(&client.secret)
            {
                self.redactor.register_secret(secret);
            }
        }
        Ok(found)
    }

    fn now(&self) -> Duration {
        self.created.elapsed()
    }

    fn schedule(&self) -> MutexGuard<'_, RefreshSchedule> {
        lock(&self.schedule)
    }
}

/// Runs file I/O on a blocking thread. `blocking::run` is not used, because a file that hangs would hold one of its few
/// threads for good.
async fn on_file_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let result = spawn_blocking(work).await;
    result.expect("reading and writing files does not panic")
}

#[cfg(test)]
mod tests;
