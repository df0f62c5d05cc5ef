//! `login`: a person logs in with a browser, and the refresh token goes where the exporter finds it.
//!
//! What is said to the person and in which order belongs here; `loopback` waits for the browser, `paste` for the
//! terminal, `page` is what the browser shows at the end. The protocol is `oauth::login`'s.

mod loopback;
mod page;
mod paste;

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use tracing::warn;

use super::Failure;
use crate::{
    clock::unix_now,
    config::{self, duration},
    http::{Proxies, http_client},
    oauth::{
        deposit::{Deposit, DepositError, Form},
        login::{Answer, Login, LoginError, RedirectUri},
    },
    telemetry::Telemetry,
};

use loopback::Loopback;

/// For a person with a password manager and a second factor.
const PATIENCE: Duration = Duration::from_secs(300);

/// Every environment variable of ours, secrets among them, begins so.
const OUR_ENVIRONMENT: &str = "LIGHTFI_";

/// How to log in, and where the refresh token goes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only print the address to open, for a browser that is started by hand on this machine
    #[arg(long)]
    no_browser: bool,
    /// Take the address that the browser ends up at from standard input, for a machine without a browser
    #[arg(long)]
    paste: bool,
    /// Where the browser is sent back to: a URI registered for the client, letter by letter; off loopback only with
    /// --paste
    #[arg(long, value_name = "URI", default_value = "http://localhost:3000")]
    redirect_uri: String,
    /// Where the refresh token goes, readable by its owner only (default: oauth.token_store, else
    /// oauth.refresh_token_file)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show the refresh token on standard output too, or only there where no file is named
    #[arg(long)]
    print: bool,
    /// How --out and --print write it; the configured files always hold what the exporter reads
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    format: Format,
}

/// How the refresh token is written.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// The bare token
    #[default]
    Token,
    /// A manifest for kubectl apply
    KubernetesSecret,
}

/// Why no refresh token was kept, once the login was under way.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("logged in, but the refresh token is lost: {0}")]
    Deposit(DepositError),
    #[error("logged in, but the refresh token cannot be printed: {0}")]
    Print(io::Error),
    #[error(
        "nobody has logged in within {}: run `lightfi-exporter login` again",
        duration::format(*.0)
    )]
    TimedOut(Duration),
    #[error("standard input ended before the address that the browser ended up at")]
    NothingPasted,
}

/// Sends a person to log in, waits for them, and keeps the refresh token.
pub(super) async fn run(
    flags: &config::Flags,
    arguments: Arguments,
    environment: Vec<(String, String)>,
) -> Result<(), Failure> {
    let loaded = config::load(flags, environment.into_iter(), config::Purpose::Login)
        .map_err(|errors| Failure::Configuration(errors.into()))?;
    let config = loaded.config;
    Telemetry::install(config.log.level, config.log.format);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let redirect_uri = redirect_uri(&arguments).map_err(Failure::Configuration)?;
    let form = match arguments.format {
        Format::Token => Form::Token,
        Format::KubernetesSecret => Form::KubernetesSecret,
    };
    let deposit = Deposit::prove(
        &config.oauth,
        arguments.out.as_deref(),
        form,
        arguments.print,
    )
    .map_err(|error| Failure::Configuration(error.into()))?;
    let http = http_client(&config.api, Proxies::FromEnvironment)
        .map_err(|error| Failure::Configuration(error.into()))?;
    let login = Login::begin(&config.oauth, redirect_uri.clone(), http)
        .map_err(|error| Failure::Configuration(error.into()))?;
    let loopback = match arguments.paste {
        true => None,
        false => Some(Loopback::bind(&redirect_uri).await?),
    };
    login.look_first().await?;

    let voice = Voice {
        to_stderr: deposit.prints(),
    };
    voice.say(format_args!("To log in, open\n\n{}\n", login.url()))?;
    if loopback.is_some() && !arguments.no_browser {
        open_browser(login.url().as_str());
    }
    let finish = async |answer| finish(&login, &deposit, answer).await;
    match loopback {
        Some(loopback) => {
            let advice = deposit.advice();
            loopback.wait(&login, PATIENCE, finish, &advice).await?;
        }
        None => paste::wait(&login, PATIENCE, finish).await?,
    }
    voice.say(format_args!("Logged in. {}", deposit.advice()))?;
    Ok(())
}

/// The one that was given, if this machine can be reached at it or a person brings its answer.
fn redirect_uri(arguments: &Arguments) -> anyhow::Result<RedirectUri> {
    let given = &arguments.redirect_uri;
    let uri =
        RedirectUri::parse(given).map_err(|error| anyhow!("--redirect-uri {given} {error}"))?;
    anyhow::ensure!(
        arguments.paste || !uri.loopback().is_empty(),
        "--redirect-uri {given} is not http:// on a port of this machine's loopback: the browser's answer cannot be \
         received there; add --paste"
    );
    Ok(uri)
}

/// What an answer leads to: the refresh token in its place.
async fn finish(login: &Login, deposit: &Deposit, answer: Answer) -> Result<(), Unfinished> {
    let refresh_token = login.redeem(answer).await?;
    // It cannot be had again without a person: what works is done even where the other fails.
    let printed = match deposit.prints() {
        true => deposit.print(&refresh_token, &mut io::stdout()),
        false => Ok(()),
    };
    deposit
        .keep(&refresh_token, unix_now())
        .map_err(Unfinished::Deposit)?;
    printed.map_err(Unfinished::Print)
}

/// Results go to standard output, which with `--print` belongs to the token alone.
struct Voice {
    to_stderr: bool,
}

impl Voice {
    fn say(&self, what: fmt::Arguments<'_>) -> io::Result<()> {
        if self.to_stderr {
            return writeln!(io::stderr(), "{what}");
        }
        let mut out = io::stdout();
        writeln!(out, "{what}")?;
        out.flush()
    }
}

/// Asks the desktop to open `url`, which holds no secret of the client. That it cannot is no failure: the address is
/// on the terminal.
fn open_browser(url: &str) {
    let opener = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let mut command = Command::new(opener);
    command
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // A browser has no business with our secrets.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(OUR_ENVIRONMENT) {
            command.env_remove(name);
        }
    }
    let failed = move |why: &dyn fmt::Display| {
        let _ = writeln!(
            io::stderr(),
            "No browser could be started here ({opener}: {why}): open the address yourself, or use --paste where the \
             browser is on another machine."
        );
    };
    match command.spawn() {
        // It may live as long as the browser does.
        Ok(mut child) => {
            thread::spawn(move || match child.wait() {
                Ok(status) if !status.success() => failed(&status),
                Ok(_) => {}
                Err(error) => failed(&error),
            });
        }
        Err(error) => failed(&error),
    }
}
