//! `login`: a person logs in with a browser, and the refresh token goes where the exporter reads it.
//!
//! The messages to the user and the order of the steps belong here. `callback_server` waits for the browser, `pasted` for
//! the user's input. The protocol is in `oauth::login`.

mod callback_server;
mod pasted;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow};
use axum::http::StatusCode;
use clap::Args;
use tokio::time::timeout;
use tracing::warn;

use super::Failure;
use crate::{
    clock::unix_now,
    config::{self, Config, Flags, Purpose, duration},
    http::{Proxies, http_client},
    oauth::{
        destination::{TokenDestination, TokenFormat},
        login::{Callback, Login, RedirectUri},
    },
    telemetry::Telemetry,
};

use callback_server::CallbackServer;

/// Enough for a password manager and a second factor.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(300);

/// The authorization server shows this error to the browser only, so the exporter would wait in vain.
const REDIRECT_HINT: &str = "If the browser shows an error such as redirect_mismatch, stop this command and name a URI \
                             that is registered for your client with --redirect-uri, exactly, including the trailing \
                             slash.";

/// The prefix of the exporter's environment variables, which may hold secrets.
const ENVIRONMENT_PREFIX: &str = "LIGHTFI_";

/// The flags of `login`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only print the address to open instead of starting a browser
    #[arg(long)]
    no_browser: bool,
    /// Log in with a browser on another machine: paste the address at which the browser ends into standard input
    #[arg(long)]
    paste: bool,
    /// URI that the browser is sent back to, exactly as registered for the client; one that is not on loopback needs --paste
    #[arg(long, value_name = "URI", default_value = "http://localhost:3000")]
    redirect_uri: String,
    /// Write the refresh token to this file, readable by its owner only (default: oauth.token_store, else
    /// oauth.refresh_token_file)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the refresh token to standard output, even if it is also written to a file
    #[arg(long)]
    print: bool,
    /// Format of the token for --out and --print; files named in the configuration keep their own format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: TokenFormat,
}

/// Sends a person to log in, waits for the callback, and keeps the refresh token.
pub(super) async fn run(
    flags: Flags,
    arguments: Arguments,
    environment: Vec<(String, String)>,
) -> Result<(), Failure> {
    let loaded = config::load(&flags, environment.into_iter(), Purpose::Login)
        .map_err(Failure::configuration)?;
    Telemetry::install(loaded.config.log.level, loaded.config.log.format);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let prepared = prepare(&loaded.config, &arguments);
    let (login, destination) = prepared.map_err(Failure::Configuration)?;
    let login = Arc::new(login);
    let listeners = match arguments.paste {
        true => None,
        false => Some(callback_server::bind(login.redirect_uri()).await?),
    };

    let url = login.url();
    say(
        &destination,
        &format!("To log in, open\n\n{url}\n\n{REDIRECT_HINT}\n"),
    )?;
    let mut server = listeners.map(|listeners| CallbackServer::start(listeners, login.clone()));
    if server.is_some() && !arguments.no_browser {
        open_browser(url.as_str());
    }
    let callback = wait_for_callback(&login, server.as_mut(), LOGIN_TIMEOUT).await?;
    let outcome = finish(&login, &destination, callback).await;
    let next_step = destination.next_step();
    if let Some(server) = server {
        let page = match &outcome {
            Ok(()) => (
                StatusCode::OK,
                format!("Logged in. {next_step} You can close this window.\n"),
            ),
            Err(error) => (
                StatusCode::BAD_REQUEST,
                format!("Not logged in: {error:#}. The terminal shows the same message.\n"),
            ),
        };
        server.finish(page).await;
    }
    outcome?;
    say(&destination, &format!("Logged in. {next_step}"))?;
    Ok(())
}

/// Checks everything that can be checked before a person logs in.
fn prepare(config: &Config, arguments: &Arguments) -> anyhow::Result<(Login, TokenDestination)> {
    let redirect_uri = RedirectUri::parse(&arguments.redirect_uri)?;
    anyhow::ensure!(
        arguments.paste || !redirect_uri.loopback_addresses().is_empty(),
        "--redirect-uri is not an http:// URL with a port on loopback, so the exporter cannot receive the browser's \
         request: add --paste"
    );
    let (out, format) = (arguments.out.as_deref(), arguments.format);
    let destination = TokenDestination::choose(&config.oauth, out, format, arguments.print)?;
    destination.check_writable()?;
    let http = http_client(&config.api, Proxies::FromEnvironment)?;
    let login = Login::new(&config.oauth, redirect_uri, http)?;
    Ok((login, destination))
}

/// Waits for the browser, or without a server for the user's input.
async fn wait_for_callback(
    login: &Login,
    server: Option<&mut CallbackServer>,
    limit: Duration,
) -> anyhow::Result<Callback> {
    let callback = async {
        match server {
            Some(server) => Ok(server.callback().await),
            None => pasted::read_callback(login).await,
        }
    };
    match timeout(limit, callback).await {
        Ok(callback) => callback?.context(
            "standard input ended before an address with an authorization code was pasted: run \
                 `lightfi-exporter login --paste` again",
        ),
        Err(_) => Err(anyhow!(
            "no login within {}: run `lightfi-exporter login` again",
            duration::format(limit)
        )),
    }
}

/// Exchanges the code and keeps the refresh token.
async fn finish(
    login: &Login,
    destination: &TokenDestination,
    callback: Callback,
) -> anyhow::Result<()> {
    let refresh_token = login.exchange_code(callback).await?;
    destination
        .write(&refresh_token, unix_now(), &mut io::stdout())
        .context(
            "logged in, but the refresh token could not be written everywhere; fix the cause and run \
             `lightfi-exporter login` again",
        )
}

/// Writes a message to standard output, or with `--print` to standard error, as standard output is for the token then.
fn say(destination: &TokenDestination, text: &str) -> io::Result<()> {
    if destination.prints() {
        return writeln!(io::stderr(), "{text}");
    }
    writeln!(io::stdout(), "{text}")?;
    io::stdout().flush()
}

/// Opens the login page in the desktop's browser. A failure is only reported, as the user can open the address.
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
    // The browser must not inherit secrets.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(ENVIRONMENT_PREFIX) {
            command.env_remove(name);
        }
    }
    // The command may run as long as the browser does.
    thread::spawn(move || {
        let failure = match command.status() {
            Ok(status) if status.success() => return,
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let _ = writeln!(
            io::stderr(),
            "Cannot start a browser ({opener}: {failure}): open the address yourself, or use --paste if the browser is \
             on another machine."
        );
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::load_text;

    #[tokio::test]
    async fn a_login_times_out_and_frees_its_port() {
        let yaml = "oauth: {client_id: id, client_secret: secret}";
        let (flags, environment) = (Flags::default(), std::iter::empty());
        let loaded = load_text("test", yaml, &flags, environment, Purpose::Login).unwrap();
        let http = http_client(&loaded.config.api, Proxies::None).unwrap();
        let redirect_uri = RedirectUri::parse("http://127.0.0.1:3000").unwrap();
        let login = Arc::new(Login::new(&loaded.config.oauth, redirect_uri, http).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = CallbackServer::start(vec![listener], login.clone());
        let limit = Duration::from_millis(100);
        let outcome = wait_for_callback(&login, Some(&mut server), limit).await;
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "no login within 100ms: run `lightfi-exporter login` again"
        );
        let page = (StatusCode::BAD_REQUEST, "timed out".to_owned());
        server.finish(page).await;
        tokio::net::TcpListener::bind(address).await.unwrap();
    }
}
