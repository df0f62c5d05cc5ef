//! Where the refresh token of a login goes: the token store, a file of its own, a Kubernetes Secret, the terminal.
//!
//! Which of them, and in which form, is decided and proved before anybody is asked to log in. `cli/login` calls this.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    credentials::read_credential,
    replace::{Irreplaceable, directory_of, end_of_links, prove, replace},
    store::{Store, StoreError},
};
use crate::config::{Credential, Oauth, Secret};

/// The name of the Secret that is written.
const SECRET_NAME: &str = "lightfi-exporter";

/// The key in it.
const SECRET_KEY: &str = "refresh-token";

/// How a refresh token is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The token and a line feed.
    Token,
    /// A manifest that `kubectl apply` takes.
    KubernetesSecret,
}

/// A place that was proved.
#[derive(Debug)]
pub struct Deposit {
    place: Option<Place>,
    form: Form,
    print: bool,
}

#[derive(Debug)]
enum Place {
    /// With what is configured now, whose token the new one wins over.
    Store {
        path: PathBuf,
        configured: Option<Credential>,
    },
    File {
        path: PathBuf,
        /// It is `oauth.refresh_token_file`.
        is_configured: bool,
    },
}

/// Why a refresh token cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum DepositError {
    /// Nobody has said where to.
    #[error(
        "no place for the refresh token: set oauth.token_store (or oauth.refresh_token_file), or name one with --out, or show it with --print"
    )]
    NoPlace,
    /// The configured places hold other forms.
    #[error(
        "a Kubernetes Secret is not what {0} holds: name another file with --out, or show it with --print"
    )]
    ManifestElsewhere(&'static str),
    /// The token store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A pipe, a device, a directory.
    #[error("{} is no regular file: name another with --out, or use --print", path.display())]
    NoFile {
        /// As named.
        path: PathBuf,
    },
    /// It cannot be replaced.
    #[error("cannot write {}: {why}", path.display())]
    Unwritable {
        /// As named.
        path: PathBuf,
        /// What stands against it.
        why: Irreplaceable,
    },
}

impl Deposit {
    /// Decides where to — `out`, else what is configured — and proves that it can be written.
    pub fn prove(
        oauth: &Oauth,
        out: Option<&Path>,
        form: Form,
        print: bool,
    ) -> Result<Self, DepositError> {
        let place = place(oauth, out, form, print)?;
        match &place {
            Some(Place::Store { path, .. }) => {
                Store::open(path)?;
            }
            Some(Place::File { path, .. }) => {
                prove(&target(path)?).map_err(|why| unwritable(path, why))?;
            }
            None => {}
        }
        Ok(Self { place, form, print })
    }

    /// Whether the refresh token is to be shown on standard output.
    pub fn prints(&self) -> bool {
        self.print
    }

    /// Writes it where it was decided. `now` is the time of the login, in seconds since 1970.
    pub fn keep(&self, refresh_token: &Secret, now: f64) -> Result<(), DepositError> {
        match &self.place {
            Some(Place::Store { path, configured }) => {
                let seed = configured.as_ref().and_then(|credential| {
                    read_credential("oauth.refresh_token_file", credential).ok()
                });
                Store::create(path, refresh_token, seed.as_ref(), now)?;
            }
            Some(Place::File { path, .. }) => {
                replace(&target(path)?, self.text(refresh_token).expose().as_bytes())
                    .map_err(|why| unwritable(path, why))?;
            }
            None => {}
        }
        Ok(())
    }

    /// Shows it.
    pub fn print(&self, refresh_token: &Secret, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "{}", self.text(refresh_token).expose())?;
        to.flush()
    }

    /// Where it is now and what to do next, in a sentence or two.
    pub fn advice(&self) -> String {
        match &self.place {
            Some(Place::Store { path, .. }) => format!(
                "The refresh token is in the token store {}. An exporter that waits for it takes it up within \
                 10 seconds; otherwise start one now.",
                path.display()
            ),
            Some(Place::File {
                path,
                is_configured: true,
            }) => format!(
                "The refresh token is in {}. An exporter that waits for it takes it up within 10 seconds; otherwise \
                 start one now.",
                path.display()
            ),
            Some(Place::File { path, .. }) if self.form == Form::KubernetesSecret => format!(
                "The Secret is in {}. Apply it with `kubectl apply -f`, then delete the file.",
                path.display()
            ),
            Some(Place::File { path, .. }) => format!(
                "The refresh token is in {}. Set oauth.refresh_token_file to this path and start the exporter.",
                path.display()
            ),
            None if self.form == Form::KubernetesSecret => {
                "The Secret is on standard output and nowhere else: `kubectl apply -f -` takes it from there.".to_owned()
            }
            None => "The refresh token is on standard output and nowhere else: keep it as you keep a password."
                .to_owned(),
        }
    }

    /// Without the line feed at its end.
    fn text(&self, refresh_token: &Secret) -> Secret {
        match self.form {
            Form::Token => refresh_token.clone(),
            Form::KubernetesSecret => Secret::new(format!(
                "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {SECRET_NAME}\ntype: Opaque\nstringData:\n  \
                 {SECRET_KEY}: {}",
                // A JSON string is a YAML string too.
                serde_json::Value::from(refresh_token.expose())
            )),
        }
    }
}

fn place(
    oauth: &Oauth,
    out: Option<&Path>,
    form: Form,
    print: bool,
) -> Result<Option<Place>, DepositError> {
    let store = oauth.token_store.as_deref();
    let file = match &oauth.refresh_token {
        Some(Credential::File(path)) => Some(path.as_path()),
        _ => None,
    };
    let manifest = form == Form::KubernetesSecret;
    let named = |configured: Option<&Path>| {
        out.is_some_and(|out| configured.is_some_and(|path| is_same(out, path)))
    };
    match (named(store), named(file)) {
        (true, _) if manifest => return Err(DepositError::ManifestElsewhere("oauth.token_store")),
        (_, true) if manifest => {
            return Err(DepositError::ManifestElsewhere("oauth.refresh_token_file"));
        }
        _ => {}
    }
    let in_store = |path: &Path| Place::Store {
        path: path.to_owned(),
        configured: oauth.refresh_token.clone(),
    };
    let in_file = |path: &Path, is_configured| Place::File {
        path: path.to_owned(),
        is_configured,
    };
    Ok(match (out, store, file) {
        (Some(_), Some(store), _) if named(Some(store)) => Some(in_store(store)),
        (Some(out), _, file) => Some(in_file(out, named(file))),
        // Meant for elsewhere: what is configured here stays as it is.
        (None, _, _) if manifest && print => None,
        (None, Some(_), _) if manifest => {
            return Err(DepositError::ManifestElsewhere("oauth.token_store"));
        }
        (None, None, Some(_)) if manifest => {
            return Err(DepositError::ManifestElsewhere("oauth.refresh_token_file"));
        }
        (None, Some(store), _) => Some(in_store(store)),
        (None, None, Some(file)) => Some(in_file(file, true)),
        (None, None, None) if print => None,
        (None, None, None) => return Err(DepositError::NoPlace),
    })
}

/// Whether two paths lead to one file, which need not exist.
fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| {
        let end = end_of_links(path)?;
        let directory = fs::canonicalize(directory_of(&end)).ok()?;
        Some(directory.join(end.file_name()?))
    };
    one == other || whole(one).is_some_and(|one| whole(other) == Some(one))
}

/// The file to replace: a link to it stays a link.
fn target(path: &Path) -> Result<PathBuf, DepositError> {
    let no_file = || DepositError::NoFile {
        path: path.to_owned(),
    };
    let target = end_of_links(path).ok_or_else(no_file)?;
    match fs::metadata(&target) {
        Ok(metadata) if !metadata.is_file() => Err(no_file()),
        _ => Ok(target),
    }
}

fn unwritable(path: &Path, why: Irreplaceable) -> DepositError {
    DepositError::Unwritable {
        path: path.to_owned(),
        why,
    }
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
    fn each_place_is_told_with_what_to_do_next() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let nothing = oauth(None, None);
        let file = oauth(None, Some(at("token")));
        let both = oauth(Some(at("store.json")), Some(at("token")));
        let (token, secret) = (Form::Token, Form::KubernetesSecret);
        for (oauth, out, form, print, told) in [
            (&both, None, token, false, "store.json. An exporter that"),
            (&file, None, token, false, "token. An exporter that waits"),
            (&file, Some("token"), token, false, "An exporter that waits"),
            (&both, Some("out"), token, false, "out. Set oauth.refresh"),
            (&both, Some("out"), secret, false, "out. Apply it with"),
            (&nothing, None, token, true, "as you keep a password"),
            (&nothing, None, secret, true, "`kubectl apply -f -`"),
            (&both, None, secret, true, "`kubectl apply -f -`"),
        ] {
            let out = out.map(at);
            let advice = Deposit::prove(oauth, out.as_deref(), form, print)
                .unwrap()
                .advice();
            assert!(advice.contains(told), "{told:?}: {advice}");
        }
    }

    #[test]
    fn a_manifest_does_not_go_where_a_bare_token_is_looked_for() {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let file = oauth(None, Some(at("token")));
        let both = oauth(Some(at("store.json")), Some(at("token")));
        for (oauth, out, key) in [
            (&both, Some("store.json"), "what oauth.token_store holds"),
            (&both, Some("token"), "what oauth.refresh_token_file holds"),
            (&both, None, "what oauth.token_store holds"),
            (&file, None, "what oauth.refresh_token_file holds"),
        ] {
            let out = out.map(at);
            let proved = Deposit::prove(oauth, out.as_deref(), Form::KubernetesSecret, false);
            let error = proved.unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
