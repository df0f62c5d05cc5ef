//! Waits on the terminal for the address that the browser ended up at, brought by the person.

use std::{
    io::{self, BufRead, Write},
    thread,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::Unfinished;
use crate::oauth::login::{Answer, Login, Stray};

/// Reads standard input until a line answers `login`, and has `finish` do what it leads to.
pub(super) async fn wait(
    login: &Login,
    patience: Duration,
    finish: impl AsyncFnOnce(Answer) -> Result<(), Unfinished>,
) -> Result<(), Unfinished> {
    let deadline = Instant::now() + patience;
    let mut lines = lines();
    prompt(
        "The browser ends up at an address that may fail to load. Paste that whole address here:",
    );
    // Of an address that was broken into lines on its way.
    let mut whole = String::new();
    let answer = loop {
        let line = match timeout_at(deadline, lines.recv()).await {
            Err(_) => return Err(Unfinished::TimedOut(patience)),
            Ok(None) => return Err(Unfinished::NothingPasted),
            Ok(Some(line)) => line,
        };
        let part = without_wrapping(&line);
        if part.is_empty() {
            continue;
        }
        if part.starts_with("http") {
            whole.clear();
        }
        whole.push_str(&part);
        let answer = login.answer(query_of(&part));
        match answer.or_else(|stray| login.answer(query_of(&whole)).map_err(|_| stray)) {
            Ok(answer) => break answer,
            Err(Stray::NoAnswer) => {
                prompt(
                    "That address holds no code. Paste the one the browser ends up at after the login:",
                );
            }
            Err(Stray::WrongState) => {
                prompt(
                    "That address belongs to another login. Open the address above, and paste where it ends up:",
                );
            }
        }
    };
    finish(answer).await
}

/// Its own thread: nothing can wake a read of the terminal, so it must hold up nothing when the time is over.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn prompt(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

/// A line without the blanks in it and the quotes around it that an address gets on its way.
fn without_wrapping(line: &str) -> String {
    let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    line.trim_matches(['"', '\'', '<', '>']).to_owned()
}

/// The query of an address; a bare query is taken too.
fn query_of(line: &str) -> &str {
    let line = line.split_once('#').map_or(line, |(before, _)| before);
    line.split_once('?').map_or(line, |(_, query)| query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_people_paste_it() {
        for line in [
            "http://localhost:3000/?code=a&state=b",
            " http://localhost:3000?code=a&state=b#\r",
            "<http://localhost:3000/?code=a &state=b>",
            "'http://localhost:3000/?code=a&state=b#_=_'",
            "?code=a&state=b",
            "code=a&state=b",
        ] {
            let line = without_wrapping(line);
            assert_eq!(query_of(&line), "code=a&state=b", "{line}");
        }
    }
}
