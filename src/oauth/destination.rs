//! Where the refresh token of a login goes: the token store, a file, standard output.
//!
//! `cli/login` chooses the destination and checks that it is writable before it sends a person to log in.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use super::{
    atomic_file::{self, FileError},
    credentials::read_credential,
    store::Store,
};
use crate::config::{Credential, Oauth, Secret};

/// How the refresh token is written to standard output and to a file that is not configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum TokenFormat {
    /// The bare token
    #[default]
    Token,
    /// A manifest for `kubectl apply`
    KubernetesSecret,
}

/// Where a refresh token goes, and in which format.
#[derive(Debug)]
pub struct TokenDestination {
    file: Option<DestinationFile>,
    format: TokenFormat,
    print: bool,
    /// The refresh token in the configuration. The token store must win over it.
    configured: Option<Credential>,
}

#[derive(Debug)]
struct DestinationFile {
    path: PathBuf,
    /// The key that names the file; `None` for a file of `--out`.
    key: Option<&'static str>,
}

const TOKEN_STORE: &str = "oauth.token_store";

const REFRESH_TOKEN_FILE: &str = "oauth.refresh_token_file";

/// Why a refresh token cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// Neither the configuration nor a flag names a destination.
    #[error(
        "no destination for the refresh token: set oauth.token_store or oauth.refresh_token_file, or use --out or --print"
    )]
    Missing,
    /// The configured files hold other formats.
    #[error("{0} cannot hold a Kubernetes Secret: use --print, or name another file with --out")]
    NotForManifest(&'static str),
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Standard output is closed.
    #[error("cannot print it: {0}")]
    Print(#[from] io::Error),
}

impl TokenDestination {
    /// Chooses `out`, or what is configured where `out` is not given.
    pub fn choose(
        oauth: &Oauth,
        out: Option<&Path>,
        format: TokenFormat,
        print: bool,
    ) -> Result<Self, DestinationError> {
        let is_manifest = format == TokenFormat::KubernetesSecret;
        let mut configured = configured_files(oauth).into_iter();
        let file = match out {
            Some(out) => configured
                .find(|file| is_same_file(&file.path, out))
                .or_else(|| {
                    let path = out.to_owned();
                    Some(DestinationFile { path, key: None })
                }),
            // A printed manifest is for another machine, so the configured files stay as they are.
            None if is_manifest && print => None,
            None => configured.next(),
        };
        match &file {
            None if !print => return Err(DestinationError::Missing),
            Some(DestinationFile { key: Some(key), .. }) if is_manifest => {
                return Err(DestinationError::NotForManifest(key));
            }
            _ => {}
        }
        Ok(Self {
            file,
            format,
            print,
            configured: oauth.refresh_token.clone(),
        })
    }

    /// Checks that the refresh token can be written.
    pub fn check_writable(&self) -> Result<(), DestinationError> {
        match &self.file {
            Some(file) if file.is_token_store() => {
                Store::open(&file.path)?;
            }
            Some(file) => atomic_file::check_writable(&file.path)?,
            None => {}
        }
        Ok(())
    }

    /// Returns whether the refresh token goes to standard output.
    pub fn prints(&self) -> bool {
        self.print
    }

    /// Writes the refresh token to its file and to `output`. If one of them fails, the other is still written, because a
    /// new token takes a new login. `now` is the Unix time of the login.
    pub fn write(
        &self,
        refresh_token: &Secret,
        now: f64,
        output: &mut impl Write,
    ) -> Result<(), DestinationError> {
        let text = self.text(refresh_token);
        let text = text.expose().as_bytes();
        let printed = match self.print {
            true => output.write_all(text).and_then(|()| output.flush()),
            false => Ok(()),
        };
        match &self.file {
            Some(file) if file.is_token_store() => {
                let configured = self.configured.as_ref();
                let configured =
                    configured.and_then(|token| read_credential(REFRESH_TOKEN_FILE, token).ok());
                Store::create(&file.path, refresh_token, configured.as_ref(), now)?;
            }
            Some(file) => atomic_file::write(&file.path, text)?,
            None => {}
        }
        Ok(printed?)
    }

    /// Says where the refresh token is and what to do next.
    pub fn next_step(&self) -> String {
        let Some(file) = &self.file else {
            return "The refresh token is on standard output only: keep it like a password."
                .to_owned();
        };
        let next = match (file.key, self.format) {
            (Some(_), _) => "A running exporter uses it within 10 seconds; otherwise start one now",
            (None, TokenFormat::Token) => {
                "Set oauth.refresh_token_file to this path and start the exporter"
            }
            (None, TokenFormat::KubernetesSecret) => {
                "Apply it with `kubectl apply -f`, then delete the file"
            }
        };
        format!("The refresh token is in {}. {next}.", file.path.display())
    }

    fn text(&self, refresh_token: &Secret) -> Secret {
        // A JSON string is also a YAML string.
        let quoted = serde_json::Value::from(refresh_token.expose());
        Secret::new(match self.format {
            TokenFormat::Token => format!("{}\n", refresh_token.expose()),
            TokenFormat::KubernetesSecret => format!(
                "apiVersion: v1\nkind: Secret\nmetadata:\n  name: lightfi-exporter\ntype: Opaque\n\
                 stringData:\n  refresh-token: {quoted}\n"
            ),
        })
    }
}

impl DestinationFile {
    fn is_token_store(&self) -> bool {
        self.key == Some(TOKEN_STORE)
    }
}

/// Returns the files of the configuration that hold a refresh token, the preferred one first.
fn configured_files(oauth: &Oauth) -> Vec<DestinationFile> {
    let file = match &oauth.refresh_token {
        Some(Credential::File(path)) => Some(path),
        _ => None,
    };
    [
        (oauth.token_store.as_ref(), TOKEN_STORE),
        (file, REFRESH_TOKEN_FILE),
    ]
    .into_iter()
    .filter_map(|(path, key)| {
        Some(DestinationFile {
            path: path?.clone(),
            key: Some(key),
        })
    })
    .collect()
}

/// Returns whether two paths lead to the same file, which need not exist.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let resolved = |path| atomic_file::resolve(path).ok();
    one == other || resolved(one).is_some_and(|one| resolved(other) == Some(one))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::config::ClientAuth;

    fn oauth(token_store: Option<PathBuf>, refresh_token_file: Option<PathBuf>) -> Oauth {
        Oauth {
            token_url: "http://127.0.0.1/token".parse().unwrap(),
            authorize_url: "http://127.0.0.1/authorize".parse().unwrap(),
            scope: String::new(),
            client_id: Credential::Inline(Secret::new("id")),
            client_secret: None,
            refresh_token: refresh_token_file.map(Credential::File),
            client_auth: ClientAuth::Body,
            expiry_margin: Duration::from_secs(60),
            token_store,
            allow_insecure: false,
        }
    }

    #[test]
    fn flags_and_configuration_choose_the_destination() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let none = oauth(None, None);
        let file = oauth(None, Some(at("token")));
        let store = oauth(Some(at("store.json")), Some(at("token")));
        let (token, secret) = (TokenFormat::Token, TokenFormat::KubernetesSecret);
        for (oauth, out, format, print, expected) in [
            (&store, None, token, false, "store.json. A running exporter"),
            (&file, None, token, false, "token. A running exporter"),
            (&file, Some("token"), token, false, "A running exporter"),
            (&store, Some("out"), token, false, "out. Set oauth.refresh"),
            (&store, Some("out"), secret, false, "out. Apply it with"),
            (&none, None, token, true, "keep it like a password"),
            (&store, None, secret, true, "keep it like a password"),
            (&none, None, token, false, "set oauth.token_store or"),
            (
                &store,
                Some("store.json"),
                secret,
                false,
                "oauth.token_store cannot",
            ),
            (&store, None, secret, false, "oauth.token_store cannot"),
            (
                &file,
                None,
                secret,
                false,
                "oauth.refresh_token_file cannot",
            ),
            (
                &store,
                Some("token"),
                secret,
                false,
                "oauth.refresh_token_file cannot",
            ),
        ] {
            let out = out.map(at);
            let text = match TokenDestination::choose(oauth, out.as_deref(), format, print) {
                Ok(destination) => destination.next_step(),
                Err(error) => error.to_string(),
            };
            assert!(text.contains(expected), "{expected:?}: {text}");
        }
    }
}
