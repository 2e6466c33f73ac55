//! One key for each choice, and lines of text, asked for at a terminal.

use std::io::{self, IsTerminal as _};

use console::{Key, Term};

use super::{Failure, open::Common, output};

/// The terminal at which somebody can be asked; where there is none, programs are told what to use
/// `instead`.
pub(super) fn term(common: &Common, instead: &str) -> Result<Term, Failure> {
    let term = Term::stdout();
    if common.json || !term.is_term() || !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("this asks at a terminal: programs use {instead}")));
    }
    Ok(term)
}

/// Waits for a key, and shows it. [`Key::CtrlC`] too if the terminal is gone.
pub(super) async fn key(term: &Term, prompt: &str) -> Result<Key, Failure> {
    term.write_str(prompt)?;
    let key = match read(term, Term::read_key).await {
        Ok(key) => key,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Interrupted
                    | io::ErrorKind::NotConnected
                    | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Key::CtrlC
        }
        Err(error) => return Err(error.into()),
    };
    let shown = if let Key::Char(c) = key { c.to_string() } else { String::new() };
    output::line(&shown)?;
    Ok(key)
}

/// Whether a key ends what asks.
pub(super) fn ends(key: &Key) -> bool {
    matches!(key, Key::Char('q' | '\u{3}' | '\u{4}') | Key::Escape | Key::CtrlC)
}

/// Waits for a line; nothing for an empty one.
pub(super) async fn line(term: &Term, prompt: &str) -> Result<Option<String>, Failure> {
    term.write_str(prompt)?;
    let typed = read(term, Term::read_line).await?;
    Ok(Some(typed.trim().to_owned()).filter(|typed| !typed.is_empty()))
}

/// Waits for somebody beside what else goes on: documents come in meanwhile.
async fn read<T: Send + 'static>(
    term: &Term,
    reading: fn(&Term) -> io::Result<T>,
) -> io::Result<T> {
    let term = term.clone();
    tokio::task::spawn_blocking(move || reading(&term)).await.map_err(io::Error::other)?
}
