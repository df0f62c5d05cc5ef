//! Text that must never be shown.

use secrecy::{ExposeSecret, SecretString};

/// A secret: `Debug` is redacted, there is no `Display`, and [`Secret::expose`] is the one way to the text, which is
/// wiped from memory when the last owner goes.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself: for a request's form or header, a hash, or the token store; nothing else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// For telling whether a configuration has changed; not for checking what somebody sent.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}
