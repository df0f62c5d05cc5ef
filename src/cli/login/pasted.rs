//! Reads the callback from standard input: the user pastes the address that the browser ended up at.

use std::io::{self, Write};

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::oauth::login::{Callback, Login};

/// Reads lines until one answers the login; `None` at the end of standard input.
pub(super) async fn read_callback(login: &Login) -> io::Result<Option<Callback>> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    ask(
        "After the login the browser opens an address that may fail to load. Paste that whole address here:",
    );
    while let Some(line) = lines.next_line().await? {
        let address = without_quotes(&line);
        if address.is_empty() {
            continue;
        }
        match login.parse_callback(query_of(&address)) {
            Ok(callback) => return Ok(Some(callback)),
            Err(error) => ask(&format!(
                "Error: {error}. Log in at the address above, and paste the one that the browser opens then:"
            )),
        }
    }
    Ok(None)
}

/// Standard output may belong to the token alone.
fn ask(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Removes the spaces, line breaks and quotes that copying an address may add.
fn without_quotes(line: &str) -> String {
    let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    line.trim_matches(['"', '\'', '<', '>']).to_owned()
}

/// Returns the query of an address. A query alone is accepted too.
fn query_of(address: &str) -> &str {
    let address = address.split('#').next().unwrap_or_default();
    address.split_once('?').map_or(address, |(_, query)| query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_address_may_have_quotes_spaces_and_a_fragment() {
        for line in [
            "http://localhost:3000/?code=a&state=b",
            " http://localhost:3000?code=a&state=b#\r",
            "<http://localhost:3000/?code=a &state=b>",
            "'http://localhost:3000/?code=a&state=b#_=_'",
            "?code=a&state=b",
            "code=a&state=b",
        ] {
            let address = without_quotes(line);
            assert_eq!(query_of(&address), "code=a&state=b", "{line}");
        }
    }
}
