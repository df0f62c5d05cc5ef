//! `--web.config.file`: TLS, users, headers and a rate limit, by the file that all Prometheus exporters take.
//!
//! `file` reads it, `tls` and `client_certificate` make of it what a connection is accepted with, `transport` accepts one,
//! `users` and `limit` judge a request. [`Toolkit`] holds what is in force, [`Toolkit::watch`] takes up changes of the file
//! and [`Toolkit::follow`] goes by another. Routes and limits of the server itself are not here. `cli` makes one; `server`
//! and the router ask it.
//!
//! Order of a request: rate limit (429), headers, user (401), route. Health and readiness pass the first and the third.

mod client_certificate;
mod file;
mod limit;
mod tls;
pub(super) mod transport;
mod users;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{
    file::{RateLimit, Settings, Tls},
    limit::Bucket,
    tls::Serving,
    users::{Login, Logins, Users, Verdict},
};
use crate::{
    clock::unix_now,
    config::{Errors, Secret, problem::Problem},
    stats::Stats,
};

/// Kubernetes swaps a link, editors rename a file: looking at what is there sees it all, and a few small files cost
/// nothing. The contract is 5 s; a bad file is looked at twice before it is told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Probes come from where neither users nor limits are known.
const OPEN_PATHS: [&str; 4] = ["/-/healthy", "/healthz", "/-/ready", "/readyz"];

/// The web configuration in force.
pub struct Toolkit {
    followed: tokio::sync::Mutex<Followed>,
    live: ArcSwap<Live>,
    /// Of the start, as are TLS on or off and the rate limit.
    http2: bool,
    rate_limit: Option<RateLimit>,
    bucket: Option<Mutex<Bucket>>,
    logins: Logins,
}

/// Where the web configuration comes from.
struct Followed {
    /// `None`: nowhere, so everybody comes in.
    path: Option<PathBuf>,
    /// Of what is in force.
    in_force: Fingerprint,
}

/// A web configuration without a mistake, to be put in force.
pub struct Prepared {
    followed: Followed,
    /// `None`: without TLS, or with what is in force.
    serving: Option<Serving>,
    headers: Vec<(HeaderName, HeaderValue)>,
    users: BTreeMap<String, Secret>,
    warnings: Vec<String>,
}

/// What a reload replaces.
struct Live {
    tls: Option<Front>,
    headers: Vec<(HeaderName, HeaderValue)>,
    users: Users,
}

/// What new connections are accepted with.
struct Front {
    serving: Serving,
    /// Cancelled when another takes its place: connections end once what they are answering is answered.
    replaced: CancellationToken,
}

type Fingerprint = [u8; 32];

impl fmt::Debug for Toolkit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toolkit").finish_non_exhaustive()
    }
}

/// The files as they are at one moment.
struct Look {
    settings: Result<Settings, Errors>,
    contents: tls::Contents,
    fingerprint: Fingerprint,
}

impl Look {
    /// Where there is no file.
    fn of_nothing() -> Self {
        Self {
            settings: Ok(Settings::default()),
            contents: tls::Contents::default(),
            fingerprint: Fingerprint::default(),
        }
    }

    /// Reads the file and all that it names.
    fn at(path: &Path) -> Self {
        let text = tls::read_file(path).map_err(|error| tls::words(&error));
        let settings = match &text {
            Ok(text) => match std::str::from_utf8(text) {
                Ok(text) => file::read(path, text),
                Err(_) => Err(errors(path, "yaml: the file is not UTF-8".to_owned())),
            },
            Err(error) => Err(errors(path, format!("cannot be read: {error}"))),
        };
        let named = settings.as_ref().ok().and_then(|it| it.tls.as_ref());
        let contents = named.map(tls::contents).unwrap_or_default();
        let mut digest = Sha256::new();
        for content in [&text].into_iter().chain(contents.values()) {
            let (mark, bytes): (u8, &[u8]) = match content {
                Ok(bytes) => (0, bytes),
                Err(error) => (1, error.as_bytes()),
            };
            digest.update([mark]);
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        }
        Self {
            settings,
            contents,
            fingerprint: digest.finalize().into(),
        }
    }
}

fn errors(path: &Path, message: String) -> Errors {
    Errors::new(vec![Problem {
        origin: path.to_string_lossy().into_owned(),
        line: None,
        message,
    }])
}

/// Reads the text of a web configuration, as far as that goes without the files that it names; yields what its writer
/// should know.
pub fn check_text(path: &Path, text: &str) -> Result<Vec<String>, Errors> {
    Ok(file::read(path, text)?.warnings)
}

impl Toolkit {
    /// Loads the file for the first time, with what its writer should know; without a file everybody comes in.
    pub fn load(path: Option<&Path>) -> Result<(Self, Vec<String>), Errors> {
        let look = path.map_or_else(Look::of_nothing, Look::at);
        let settings = look.settings?;
        let wrong = |message| errors(path.unwrap_or(Path::new("")), message);
        let tls = settings
            .tls
            .map(|tls| Serving::new(tls, look.contents, settings.http2))
            .transpose()
            .map_err(wrong)?;
        let rate_limit = settings.rate_limit;
        let toolkit = Self {
            followed: tokio::sync::Mutex::new(Followed {
                path: path.map(Path::to_owned),
                in_force: look.fingerprint,
            }),
            live: ArcSwap::from_pointee(Live {
                tls: tls.map(Front::new),
                headers: settings.headers,
                users: Users::new(settings.users),
            }),
            http2: settings.http2,
            rate_limit,
            bucket: rate_limit.map(|limit| Mutex::new(Bucket::new(limit, Instant::now()))),
            logins: Logins::new(),
        };
        Ok((toolkit, settings.warnings))
    }

    /// Reads another file, or none, to go by; `None` if it is the one that counts already. Blocks: not for a thread that
    /// serves.
    pub fn prepare(&self, path: Option<&Path>) -> Result<Option<Prepared>, Errors> {
        if self.followed.blocking_lock().path.as_deref() == path {
            return Ok(None);
        }
        let look = path.map_or_else(Look::of_nothing, Look::at);
        self.prepared(path, look).map(Some)
    }

    /// Goes by what was prepared from now on. Yields what its writer should know.
    pub async fn follow(&self, prepared: Prepared, stats: &Stats) -> Vec<String> {
        let mut followed = self.followed.lock().await;
        self.put_in_force(prepared, &mut followed, stats)
    }

    /// Whether connections are TLS: known at the start, and for good.
    pub fn is_tls(&self) -> bool {
        self.live.load().tls.is_some()
    }

    /// Takes up changes of the file and of what it names until `shutdown`. What is bad leaves in force what was good.
    pub async fn watch(self: Arc<Self>, stats: Arc<Stats>, shutdown: CancellationToken) {
        let mut looked_at = None;
        // Contents that failed, and whether that was told.
        let mut failed: Option<(Fingerprint, bool)> = None;
        let mut told = None;
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let (path, in_force) = {
                let followed = self.followed.lock().await;
                (followed.path.clone(), followed.in_force)
            };
            if looked_at != path {
                (failed, told) = (None, None);
                looked_at.clone_from(&path);
            }
            let Some(path) = path else {
                continue;
            };
            let at = path.clone();
            let Ok(look) = tokio::task::spawn_blocking(move || Look::at(&at)).await else {
                continue;
            };
            let fingerprint = look.fingerprint;
            if failed == Some((fingerprint, true)) || (fingerprint == in_force && failed.is_none())
            {
                continue;
            }
            let (preparing, at) = (self.clone(), path.clone());
            let prepare = move || preparing.prepared(Some(&at), look);
            let Ok(prepared) = tokio::task::spawn_blocking(prepare).await else {
                continue;
            };
            let mut followed = self.followed.lock().await;
            if followed.path.as_ref() != Some(&path) {
                // Meanwhile another counts.
                continue;
            }
            match prepared {
                Ok(prepared) => {
                    (failed, told) = (None, None);
                    for warning in self.put_in_force(prepared, &mut followed, &stats) {
                        warn!("{warning}");
                    }
                    info!(file = %path.display(), "web configuration reloaded");
                }
                // Certificate and key are written one after the other: one look may fall between.
                Err(_) if failed.is_none_or(|(seen, _)| seen != fingerprint) => {
                    failed = Some((fingerprint, false));
                }
                Err(error) => {
                    failed = Some((fingerprint, true));
                    stats.web_config_reload_successful.set(0.0);
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) {
                        error!(
                            error,
                            "the new web configuration is refused, the old one stays in force"
                        );
                        told = Some(error);
                    }
                }
            }
        }
    }

    /// All of what was seen that may be wrong.
    fn prepared(&self, path: Option<&Path>, look: Look) -> Result<Prepared, Errors> {
        let settings = look.settings?;
        let live = self.live.load();
        let old = live.tls.as_ref();
        let has_tls = settings.tls.is_some();
        let is_new = |tls: &Tls| !old.is_some_and(|old| old.serving.is_of(tls, &look.contents));
        let serving = settings
            .tls
            .filter(is_new)
            .map(|tls| Serving::new(tls, look.contents, self.http2))
            .transpose();
        let serving = serving.map_err(|message| errors(path.unwrap_or(Path::new("")), message))?;
        let restart = [
            (
                "http_server_config.http2",
                settings.http2 != self.http2 && has_tls && old.is_some(),
            ),
            ("rate_limit", settings.rate_limit != self.rate_limit),
            (
                "whether tls_server_config asks for TLS",
                has_tls != old.is_some(),
            ),
        ];
        let mut warnings = settings.warnings;
        warnings.extend(
            restart
                .into_iter()
                .filter(|(_, changed)| *changed)
                .map(|(what, _)| format!("{what} has changed: it takes effect after a restart")),
        );
        Ok(Prepared {
            followed: Followed {
                path: path.map(Path::to_owned),
                in_force: look.fingerprint,
            },
            serving,
            headers: settings.headers,
            users: settings.users,
            warnings,
        })
    }

    /// Puts it in force, except for what takes a restart, which is told.
    fn put_in_force(
        &self,
        prepared: Prepared,
        followed: &mut Followed,
        stats: &Stats,
    ) -> Vec<String> {
        let live = self.live.load();
        let old = live.tls.as_ref();
        let new = prepared.serving.filter(|_| old.is_some());
        let replaced = old
            .filter(|_| new.is_some())
            .map(|old| old.replaced.clone());
        self.live.store(Arc::new(Live {
            tls: new.map(Front::new).or_else(|| old.map(Front::again)),
            headers: prepared.headers,
            users: Users::new(prepared.users),
        }));
        if let Some(replaced) = replaced {
            replaced.cancel();
        }
        *followed = prepared.followed;
        stats.web_config_reload_successful.set(1.0);
        stats.web_config_reload_success_timestamp.set(unix_now());
        prepared.warnings
    }

    /// Before the routes: who may ask at all.
    pub(super) async fn guard<B, F: Future<Output = Response>>(
        &self,
        request: Request<B>,
        next: impl FnOnce(Request<B>) -> F,
    ) -> Response {
        let open = OPEN_PATHS.contains(&request.uri().path());
        if !open
            && let Some(bucket) = &self.bucket
            && !bucket
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .admit(Instant::now())
        {
            return (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n").into_response();
        }
        let live = self.live.load_full();
        let mut response = if open || live.users.is_empty() {
            next(request).await
        } else {
            match self.verdict(&live.users, request.headers()).await {
                Verdict::Welcome => next(request).await,
                Verdict::Unauthorized => (
                    StatusCode::UNAUTHORIZED,
                    [(header::WWW_AUTHENTICATE, "Basic")],
                    "Unauthorized\n",
                )
                    .into_response(),
                Verdict::Busy => {
                    (StatusCode::SERVICE_UNAVAILABLE, "too many logins at once\n").into_response()
                }
            }
        };
        // What a page sets itself it knows better.
        for (name, value) in &live.headers {
            if !response.headers().contains_key(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }

    async fn verdict(&self, users: &Users, headers: &HeaderMap) -> Verdict {
        match Login::of(headers) {
            Some(login) => self.logins.check(users, login).await,
            None => Verdict::Unauthorized,
        }
    }
}

impl Front {
    fn new(serving: Serving) -> Self {
        Self {
            serving,
            replaced: CancellationToken::new(),
        }
    }

    fn again(&self) -> Self {
        Self {
            serving: self.serving.clone(),
            replaced: self.replaced.clone(),
        }
    }
}
