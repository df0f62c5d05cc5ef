//! Writes the refresh token of a login to the token store, a file or standard output.
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
    store::TokenStore,
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

/// The place of a refresh token, and its format there.
#[derive(Debug)]
pub struct TokenDestination {
    /// The file, and the key or the flag that names it.
    file: Option<(PathBuf, &'static str)>,
    format: TokenFormat,
    print: bool,
    /// The refresh token in the configuration. The token store must win over it.
    configured: Option<Credential>,
}

const TOKEN_STORE: &str = "oauth.token_store";

const REFRESH_TOKEN_FILE: &str = "oauth.refresh_token_file";

const OUT: &str = "--out";

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
    #[error("cannot write the refresh token to standard output: {0}")]
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
        let token_store = oauth.token_store.clone().map(|path| (path, TOKEN_STORE));
        let token_file = match &oauth.refresh_token {
            Some(Credential::File(path)) => Some((path.clone(), REFRESH_TOKEN_FILE)),
            _ => None,
        };
        let mut configured = token_store.into_iter().chain(token_file);
        let is_manifest = format == TokenFormat::KubernetesSecret;
        let file = match out {
            // A configured file keeps its format, even if `--out` names it.
            Some(out) => configured
                .find(|(path, _)| is_same_file(path, out))
                .or_else(|| Some((out.to_owned(), OUT))),
            // A printed manifest is for another machine, so the configured files stay as they are.
            None if is_manifest && print => None,
            None => configured.next(),
        };
        match file {
            None if !print => return Err(DestinationError::Missing),
            Some((_, key)) if is_manifest && key != OUT => {
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
            Some((path, TOKEN_STORE)) => drop(TokenStore::open(path)?),
            Some((path, _)) => atomic_file::check_writable(path)?,
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
            Some((path, TOKEN_STORE)) => {
                let configured = self.configured.as_ref();
                let configured =
                    configured.and_then(|token| read_credential(REFRESH_TOKEN_FILE, token).ok());
                TokenStore::create(path, refresh_token, configured.as_ref(), now)?;
            }
            Some((path, _)) => atomic_file::write(path, text)?,
            None => {}
        }
        Ok(printed?)
    }

    /// Says where the refresh token is and what to do next.
    pub fn next_step(&self) -> String {
        let Some((path, key)) = &self.file else {
            return "The refresh token is on standard output only: keep it like a password."
                .to_owned();
        };
        let next = match (*key, self.format) {
            (OUT, TokenFormat::Token) => {
                "Set oauth.refresh_token_file to this path and start the exporter"
            }
            (OUT, TokenFormat::KubernetesSecret) => {
                "Apply it with `kubectl apply -f`, then delete the file"
            }
            _ => {
                "A running exporter uses it at its next refresh, or within 10 seconds if it waits for a valid refresh token; \
                 otherwise start one now"
            }
        };
        format!("The refresh token is in {}. {next}.", path.display())
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

/// Returns whether two paths lead to the same file, which need not exist.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let resolved = |path| atomic_file::resolve(path).ok();
    one == other || resolved(one).is_some_and(|one| resolved(other) == Some(one))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::oauth::test_fixtures;

    #[test]
    fn flags_and_configuration_choose_the_destination() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let none = Oauth {
            refresh_token: None,
            ..test_fixtures::oauth()
        };
        let file = Oauth {
            refresh_token: Some(Credential::File(at("token"))),
            ..none.clone()
        };
        let store = Oauth {
            token_store: Some(at("store.json")),
            ..file.clone()
        };
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
            (&store, Some("store.json"), secret, false, "store cannot"),
            (&store, None, secret, false, "oauth.token_store cannot"),
            (&file, None, secret, false, "token_file cannot"),
            (&store, Some("token"), secret, false, "token_file cannot"),
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
