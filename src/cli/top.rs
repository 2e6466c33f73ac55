//! `concord top`: relays, outbox and passes on a whole terminal, as they are and as they change.

mod draw;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use clap::Args;
use concord::peer::Peer;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Failure,
    open::{self, Common},
};

/// What is shown is drawn anew at least so often: it counts seconds.
const ANEW: Duration = Duration::from_secs(1);
/// And at most so often, however much changes.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a key may wait.
const KEYS: Duration = Duration::from_millis(50);
/// Keys that wait to be looked at.
const KEYS_MAX: usize = 16;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: TopArgs) -> Result<(), Failure> {
    let TopArgs { common } = args;
    if common.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "concord top needs a terminal to draw on: programs read concord status --json",
        ));
    }
    let peer = open::peer(&common).await?;
    // It puts the terminal back also if something panics.
    let shown = match ratatui::try_init() {
        Ok(mut terminal) => show(&mut terminal, &peer).await,
        Err(error) => Err(error.into()),
    };
    ratatui::restore();
    peer.close().await?;
    shown
}

async fn show(terminal: &mut DefaultTerminal, peer: &Peer) -> Result<(), Failure> {
    // One that ends the process would leave the terminal as it is.
    let mut told_to_end = signal(SignalKind::terminate())?;
    let mut keys = keys();
    let mut overview = peer.watch_overview();
    loop {
        let now = overview.now();
        let entries = peer.outbox().await?;
        let drawn = Instant::now();
        terminal.draw(|frame| draw::all(frame, &now, &entries))?;
        loop {
            tokio::select! {
                key = keys.recv() => match key {
                    Some(Event::Key(key)) if ends(key) => return Ok(()),
                    Some(Event::Resize(..)) => break,
                    Some(_) => {}
                    // The terminal is gone.
                    None => return Ok(()),
                },
                _ = told_to_end.recv() => return Ok(()),
                changed = overview.changed() => {
                    changed?;
                    // What is typed meanwhile waits no longer than that.
                    sleep(PAUSE).await;
                    break;
                }
                () = sleep_until(drawn + ANEW) => break,
            }
        }
    }
}

/// Whether this is what ends it.
fn ends(key: event::KeyEvent) -> bool {
    let is_ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind != KeyEventKind::Release
        && (matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
            || is_ctrl && key.code == KeyCode::Char('c'))
}

/// What is typed. The thread that reads it ends soon after nobody listens.
fn keys() -> mpsc::Receiver<Event> {
    let (typed, keys) = mpsc::channel(KEYS_MAX);
    std::thread::spawn(move || {
        while !typed.is_closed() {
            let event = match event::poll(KEYS) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let Ok(event) = event else { return };
            if typed.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}
