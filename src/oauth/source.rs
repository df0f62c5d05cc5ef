//! THE place a token is refreshed: the loop round `policy`. Callers take tokens from here; one request at a time goes
//! out however many of them wait.
//!
//! Each request runs as a task of its own, so that a caller who gives up takes nobody's token away.

use std::{
    mem::Discriminant,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use tokio::{
    sync::watch,
    task,
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    AccessToken, TokenError,
    credentials::{Credentials, Fingerprint, Grant, Keeping, Vault},
    policy::{Demand, Policy, Renewal, SPACING, Setback},
    request::{Exchanged, Reply, TokenRequest},
    scrub::Scrubber,
    store::StoreError,
};
use crate::{
    clock::unix_now,
    config::{Oauth, Secret},
    stats::{Reason, Stats},
};

/// While something is wrong, files are looked at this often: cheap, and soon enough for who has just mended one.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A request under way at shutdown may bring a rotated token, which is worth this wait; exit is due within 5 s.
const LAST_ANSWER: Duration = Duration::from_secs(3);

/// A request and what is read and written around it take less, unless a file hangs, or a server under a longer
/// `api.timeout`: the source after it waits no longer.
const LONGEST_TURN: Duration = Duration::from_secs(30);

/// Refused credentials remembered in one trouble: more than people try.
const REFUSED_REMEMBERED: usize = 32;

/// Gives out access tokens and keeps them fresh.
pub struct TokenSource {
    oauth: Oauth,
    vault: Arc<Vault>,
    http: Mutex<Client>,
    stats: Arc<Stats>,
    scrubber: Scrubber,
    started: Instant,
    state: Mutex<State>,
    /// Something in `state` has changed.
    moved: watch::Sender<()>,
    recoveries: watch::Sender<()>,
    turns: Arc<Turns>,
    /// Another source has taken its place, or the process ends: it asks no more.
    retired: AtomicBool,
}

/// When the last request ended; held while one is under way. A source and those that reloads make of it share it, so that
/// however often there is a reload, requests go out one at a time and one a second.
type Turns = tokio::sync::Mutex<Option<Instant>>;

struct State {
    policy: Policy,
    /// There whenever `policy` says that it is usable.
    token: Option<Arc<AccessToken>>,
    generation: u64,
    expires_at: Option<f64>,
    refresh_token_valid: bool,
    /// Somebody asked in vain since the last token came.
    denied: bool,
    /// Of the present trouble, and what of it was logged.
    last_error: Option<TokenError>,
    logged: Vec<(Discriminant<TokenError>, Reason)>,
    /// Of the present trouble.
    refused: Vec<Fingerprint>,
    asked_with: Option<Fingerprint>,
}

/// For the status page.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// There is an access token that lives.
    pub access_token_valid: bool,
    /// Unix time at which the last access token ends.
    pub access_token_expires_at: Option<f64>,
    /// `false` while a person must log in.
    pub refresh_token_valid: bool,
    /// Unix time of the login, where known.
    pub refresh_token_obtained_at: Option<f64>,
    /// What is wrong now and what to do; never a secret.
    pub last_error: Option<String>,
}

/// Why no token source can be had: the configuration must change first.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error("oauth.token_store: {0}")]
    Store(StoreError),
    /// There is no place a refresh token could come from.
    #[error(
        "no refresh token: set oauth.refresh_token or oauth.refresh_token_file, or set oauth.token_store and run `lightfi-exporter login`"
    )]
    NoRefreshToken,
    /// The store was not read to the end.
    #[error("{0}")]
    Interrupted(TokenError),
}

impl From<StoreError> for StartError {
    // Written out, as a derived one would make it a source too, and its words would be told twice.
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl TokenSource {
    /// Proves the token store and looks what there is. Sends nothing.
    pub async fn new(
        oauth: &Oauth,
        http: Client,
        stats: Arc<Stats>,
    ) -> Result<Arc<Self>, StartError> {
        Self::open(oauth, http, stats, Arc::default()).await
    }

    /// The source after a reload: this one, unless tokens are to come from elsewhere. Requests go through `http`.
    pub async fn successor(
        self: &Arc<Self>,
        oauth: &Oauth,
        http: Client,
    ) -> Result<Arc<Self>, StartError> {
        let mut but_for_the_margin = oauth.clone();
        but_for_the_margin.expiry_margin = self.oauth.expiry_margin;
        if but_for_the_margin != self.oauth {
            return Self::open(oauth, http, self.stats.clone(), self.turns.clone()).await;
        }
        *self.http() = http;
        self.state().policy.set_margin(oauth.expiry_margin);
        Ok(self.clone())
    }

    async fn open(
        oauth: &Oauth,
        http: Client,
        stats: Arc<Stats>,
        turns: Arc<Turns>,
    ) -> Result<Arc<Self>, StartError> {
        if oauth.refresh_token.is_none() && oauth.token_store.is_none() {
            return Err(StartError::NoRefreshToken);
        }
        let section = oauth.clone();
        let (vault, credentials) = off_thread(move || {
            let vault = Vault::open(section)?;
            let credentials = vault.read();
            Ok::<_, StoreError>((vault, credentials))
        })
        .await
        .map_err(StartError::Interrupted)??;
        let source = Arc::new(Self {
            oauth: oauth.clone(),
            vault: Arc::new(vault),
            http: Mutex::new(http),
            stats,
            scrubber: Scrubber::default(),
            started: Instant::now(),
            state: Mutex::new(State {
                policy: Policy::new(oauth.expiry_margin),
                token: None,
                generation: 0,
                expires_at: None,
                refresh_token_valid: true,
                denied: false,
                last_error: None,
                logged: Vec::new(),
                refused: Vec::new(),
                asked_with: None,
            }),
            moved: watch::Sender::new(()),
            recoveries: watch::Sender::new(()),
            turns,
            retired: AtomicBool::new(false),
        });
        match &credentials {
            Ok(credentials) => {
                source.learn(credentials);
                source.note_login(&credentials.best);
            }
            Err(TokenError::RefreshTokenMissing(_)) => source.note_refresh_token(false),
            Err(_) => {}
        }
        Ok(source)
    }

    /// The access token. Never waits while there is one that lives; else waits for the one request, starting it where
    /// nobody has; while requests fail, says at once why the last one did.
    pub async fn token(self: &Arc<Self>) -> Result<Arc<AccessToken>, TokenError> {
        let mut moved = self.moved.subscribe();
        loop {
            let demand = {
                let mut state = self.state();
                let demand = state.policy.demand(self.now());
                match demand {
                    Demand::Use => {
                        if let Some(token) = &state.token {
                            return Ok(Arc::clone(token));
                        }
                    }
                    Demand::Refuse => {
                        state.denied = true;
                        if let Some(error) = &state.last_error {
                            return Err(error.clone());
                        }
                    }
                    Demand::Join | Demand::Start | Demand::Later(_) => {}
                }
                demand
            };
            let until = match demand {
                Demand::Start => {
                    tokio::spawn(Arc::clone(self).refresh());
                    None
                }
                Demand::Later(at) => Some(at),
                Demand::Join | Demand::Use | Demand::Refuse => None,
            };
            tokio::select! {
                _ = moved.changed() => {}
                () = self.sleep_until(until.unwrap_or_default()), if until.is_some() => {}
            }
        }
    }

    /// The API does not accept `rejected`: it is given out no more. A newer one stays.
    pub async fn reject(&self, rejected: &AccessToken) {
        let mut state = self.state();
        if state
            .token
            .as_ref()
            .is_some_and(|token| token.generation() == rejected.generation())
        {
            state.token = None;
            state.policy.rejected();
            drop(state);
            self.moved.send_replace(());
        }
    }

    /// Renews the token ahead of its end and takes up changed files, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut moved = self.moved.subscribe();
        let mut looks = time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let renewal = self.state().policy.renewal(self.now());
            let until = match renewal {
                Renewal::Start => {
                    tokio::spawn(Arc::clone(&self).refresh());
                    continue;
                }
                Renewal::At(at) => Some(at),
                Renewal::Idle => None,
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = moved.changed() => {}
                _ = looks.tick() => self.look_at_files().await,
                () = self.sleep_until(until.unwrap_or_default()), if until.is_some() => {}
            }
        }
        self.retire();
        let answered =
            async { while self.state().policy.in_flight() && moved.changed().await.is_ok() {} };
        if time::timeout(LAST_ANSWER, answered).await.is_err() {
            tracing::debug!("stopped without the answer to a token request");
        }
    }

    /// From here on it asks no more, whoever still waits for it.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Changes when a token can be had again after one could not: a collection is worth while at once.
    pub fn recovered(&self) -> watch::Receiver<()> {
        self.recoveries.subscribe()
    }

    /// What a person wants to know.
    pub fn status(&self) -> Status {
        let state = self.state();
        let obtained = self.stats.refresh_token_obtained.get();
        Status {
            access_token_valid: state.policy.usable(self.now()),
            access_token_expires_at: state.expires_at,
            refresh_token_valid: state.refresh_token_valid,
            refresh_token_obtained_at: (!obtained.is_nan()).then_some(obtained),
            last_error: state
                .last_error
                .as_ref()
                .map(|error| format!("{error}: {}", error.advice())),
        }
    }

    /// The server has rotated the refresh token and there is no file that keeps the new one: it ends with this process,
    /// and the configured one has ended.
    pub fn is_rotated_in_memory_only(&self) -> bool {
        self.vault.is_in_memory_only()
    }

    /// `text` on one line and without any secret that this process has seen. For whatever a server said.
    pub fn scrub(&self, text: &str) -> String {
        self.scrubber.scrub(text)
    }

    /// A name, an id or the like that came from a server, as it is unless such a secret shows in it.
    pub fn conceal(&self, text: String) -> String {
        self.scrubber.conceal(text)
    }

    /// One request, from reading the credentials to the new state. `policy` has counted it as under way.
    async fn refresh(self: Arc<Self>) {
        let _under_way = UnderWay(&self);
        // Without it after that long: files of the source before may hang.
        let mut turn = time::timeout(LONGEST_TURN, self.turns.lock()).await.ok();
        if let Some(ended) = turn.as_ref().and_then(|last_ended| **last_ended) {
            time::sleep_until((ended + SPACING).into()).await;
        }
        if self.retired.load(Ordering::Relaxed) {
            self.state().policy.abandoned(self.now());
            self.moved.send_replace(());
            return;
        }
        let vault = Arc::clone(&self.vault);
        match off_thread(move || vault.read()).await.flatten() {
            Ok(credentials) => {
                self.ask(&credentials).await;
                if let Some(last_ended) = &mut turn {
                    **last_ended = Some(Instant::now());
                }
            }
            Err(error) => {
                self.state().asked_with = None;
                if matches!(error, TokenError::RefreshTokenMissing(_)) {
                    self.note_refresh_token(false);
                }
                self.settle_failure(Setback::Missing, error);
            }
        }
    }

    async fn ask(&self, credentials: &Credentials) {
        self.learn(credentials);
        let grant = self.worth_asking(credentials).unwrap_or(&credentials.best);
        self.state().asked_with = Some(credentials.fingerprint_with(grant));
        let http = self.http().clone();
        let answer = TokenRequest {
            token_url: &self.oauth.token_url,
            client_auth: self.oauth.client_auth,
            client_id: &credentials.client_id,
            client_secret: credentials.client_secret.as_ref(),
            exchanged: Exchanged::RefreshToken(&grant.refresh_token),
        }
        .send(&http, &self.scrubber)
        .await;
        let received = self.now();
        self.stats
            .token_refresh(answer.as_ref().err().map(TokenError::reason));
        match answer {
            Ok(mut reply) => {
                // Before the access token is used: a kill after this loses nothing.
                if let Some(rotated) = reply.refresh_token.take()
                    && rotated.expose() != grant.refresh_token.expose()
                {
                    self.keep(rotated, grant.clone()).await;
                }
                self.note_login(grant);
                self.settle_success(received, reply);
            }
            Err(error) => {
                let setback = self.setback(&error, credentials, grant).await;
                if setback == Setback::Refused && matches!(error, TokenError::InvalidGrant(_)) {
                    self.note_refresh_token(false);
                }
                self.settle_failure(setback, error);
            }
        }
    }

    /// What a failed request leads to; after a refusal everything is read once more.
    async fn setback(
        &self,
        error: &TokenError,
        credentials: &Credentials,
        grant: &Grant,
    ) -> Setback {
        let refused = match error {
            TokenError::InvalidGrant(_) => credentials.fingerprint_with(grant),
            TokenError::InvalidClient(_) => credentials.client_fingerprint(),
            TokenError::Unavailable { retry_after, .. } => {
                return Setback::Transient {
                    retry_after: *retry_after,
                };
            }
            TokenError::RefreshTokenMissing(_) | TokenError::ClientMissing(_) => {
                return Setback::Missing;
            }
        };
        {
            let mut state = self.state();
            if !state.refused.contains(&refused) {
                state.refused.push(refused);
                let surplus = state.refused.len().saturating_sub(REFUSED_REMEMBERED);
                state.refused.drain(..surplus);
            }
        }
        if self.others_known().await {
            Setback::OthersKnown
        } else {
            Setback::Refused
        }
    }

    /// Whether files or store hold something that was not asked with in this trouble.
    async fn others_known(&self) -> bool {
        let vault = Arc::clone(&self.vault);
        let Ok(credentials) = off_thread(move || vault.read()).await.flatten() else {
            return false;
        };
        let asked_with = self.state().asked_with;
        self.worth_asking(&credentials)
            .is_some_and(|grant| Some(credentials.fingerprint_with(grant)) != asked_with)
    }

    /// The best refresh token that was not refused in this trouble.
    fn worth_asking<'a>(&self, credentials: &'a Credentials) -> Option<&'a Grant> {
        let state = self.state();
        if state.refused.contains(&credentials.client_fingerprint()) {
            return None;
        }
        credentials
            .grants()
            .find(|grant| !state.refused.contains(&credentials.fingerprint_with(grant)))
    }

    async fn look_at_files(&self) {
        let vault = Arc::clone(&self.vault);
        if off_thread(move || vault.save_again()).await == Ok(true) {
            tracing::info!("the rotated refresh token is in the token store now");
        }
        let troubled = self.state().policy.troubled();
        if troubled && self.others_known().await {
            self.state().policy.credentials_changed();
        }
    }

    async fn keep(&self, rotated: Secret, grant: Grant) {
        self.scrubber.learn(&rotated);
        let vault = Arc::clone(&self.vault);
        match off_thread(move || vault.keep(rotated, &grant)).await {
            Ok(Keeping::Stored) => {
                tracing::debug!("the rotated refresh token is in the token store")
            }
            Ok(Keeping::NoStore) => tracing::warn!(
                "the server rotates refresh tokens and there is no oauth.token_store: the new one is in memory only and lost at the next restart"
            ),
            Ok(Keeping::InMemoryAsBefore) => {}
            Ok(Keeping::Overtaken) => tracing::info!(
                "somebody has logged in: the refresh token of that login is asked with from here on"
            ),
            Ok(Keeping::Failed(error)) => tracing::error!(
                %error,
                "the rotated refresh token is in memory only; writing it is tried again by itself"
            ),
            Err(error) => tracing::error!(%error, "the rotated refresh token may be lost"),
        }
    }

    fn settle_success(&self, received: Duration, reply: Reply) {
        let mut state = self.state();
        let recovers = std::mem::take(&mut state.denied);
        let troubled = !state.logged.is_empty();
        state.policy.succeeded(received, reply.lifetime);
        state.generation += 1;
        state.token = Some(Arc::new(AccessToken::new(reply.bearer, state.generation)));
        let remaining = reply
            .lifetime
            .saturating_sub(self.now().saturating_sub(received));
        let expires_at = unix_now() + remaining.as_secs_f64();
        state.expires_at = Some(expires_at);
        state.last_error = None;
        state.logged.clear();
        state.refused.clear();
        let first = state.generation == 1;
        drop(state);
        self.stats.access_token_expiry.set(expires_at);
        self.note_refresh_token(true);
        let lifetime_seconds = reply.lifetime.as_secs();
        if troubled {
            tracing::info!(lifetime_seconds, "access tokens can be had again");
        } else if first {
            tracing::info!(lifetime_seconds, "access token received");
        } else {
            tracing::debug!(lifetime_seconds, "access token renewed");
        }
        self.moved.send_replace(());
        if recovers {
            self.recoveries.send_replace(());
        }
    }

    fn settle_failure(&self, setback: Setback, error: TokenError) {
        let now = self.now();
        let mut state = self.state();
        state.policy.failed(now, setback, fastrand::f64());
        let usable = state.policy.usable(now);
        let kind = (std::mem::discriminant(&error), error.reason());
        // Each kind of failure once in a trouble, however often and in whatever order they come.
        let new = !state.logged.contains(&kind);
        if new {
            state.logged.push(kind);
        }
        state.last_error = Some(error.clone());
        drop(state);
        self.moved.send_replace(());
        if !new {
            return;
        }
        let reason = error.reason().as_str();
        let advice = error.advice();
        if setback == Setback::OthersKnown {
            tracing::warn!(%error, reason, "another refresh token or client is configured by now: trying that");
        } else if matches!(error, TokenError::Unavailable { .. }) {
            tracing::warn!(%error, reason, old_token_lives = usable, advice, "cannot renew the access token");
        } else {
            tracing::error!(%error, reason, old_token_lives = usable, advice, "cannot renew the access token");
        }
    }

    fn learn(&self, credentials: &Credentials) {
        self.scrubber.learn(&credentials.client_id);
        if let Some(secret) = &credentials.client_secret {
            self.scrubber.learn(secret);
        }
        for grant in credentials.grants() {
            self.scrubber.learn(&grant.refresh_token);
        }
    }

    fn note_login(&self, grant: &Grant) {
        self.stats
            .refresh_token_obtained
            .set(grant.obtained_at.unwrap_or(f64::NAN));
    }

    fn note_refresh_token(&self, valid: bool) {
        self.state().refresh_token_valid = valid;
        self.stats
            .refresh_token_valid
            .set(if valid { 1.0 } else { 0.0 });
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep_until(&self, at: Duration) {
        time::sleep(at.saturating_sub(self.now())).await;
    }

    fn http(&self) -> MutexGuard<'_, Client> {
        self.http.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the request under way where its task dies, so that the next caller starts another.
struct UnderWay<'a>(&'a TokenSource);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // Otherwise `policy` knows how it ended, and may have started the next one already.
        if std::thread::panicking() {
            self.0.state().policy.abandoned(self.0.now());
            self.0.moved.send_replace(());
        }
    }
}

/// Files are read and written where they hold up no request.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TokenError> {
    task::spawn_blocking(work)
        .await
        .map_err(|error| TokenError::Unavailable {
            reason: Reason::Other,
            what: if error.is_panic() {
                "reading or writing credentials failed in an unforeseen way".to_owned()
            } else {
                "the exporter is stopping".to_owned()
            },
            retry_after: None,
        })
}

#[cfg(test)]
mod tests;
