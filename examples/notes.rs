//! Live notes in the terminal: run it twice, in two terminals, with two directories.
//!
//! ```text
//! concord serve &
//! cargo run --example notes -- /tmp/alice ws://localhost:3030
//! cargo run --example notes -- /tmp/bob ws://localhost:3030 automerge:...   # as the first printed
//! ```
//! Each line that is typed is added to the note. Stop the relay and go on typing: both notes are
//! whole again when it is back.

use std::{env, error::Error, io::BufRead as _, thread, time::Duration};

use automerge::{
    AutomergeError, ObjId, ObjType, ROOT, ReadDoc as _, transaction::Transactable as _,
};
use concord::peer::{Document, DocumentEvent, Peer, Status};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut args = env::args().skip(1);
    let (Some(directory), Some(relay)) = (args.next(), args.next()) else {
        return Err("usage: notes DIRECTORY RELAY_URL [DOCUMENT]".into());
    };
    // Others see what is typed at once.
    let peer = Peer::builder(directory).relay(relay).debounce(Duration::ZERO, Duration::ZERO);
    let peer = peer.open()?;
    let note = match args.next() {
        Some(url) => peer.find(&url).await?,
        None => create(&peer).await?,
    };
    println!("{}", note.url());
    print(&note)?;

    let (typed, mut lines) = mpsc::channel(1);
    // Standard input has no async form: a thread that waits for it.
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if typed.blocking_send(line).is_err() {
                break;
            }
        }
    });
    let (mut changes, mut status) = (note.watch(), peer.status());
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => add(&note, &line).await?,
                None => break,
            },
            event = changes.next() => {
                if let DocumentEvent::Changed { local: false, .. } = event {
                    print(&note)?;
                }
            }
            Ok(()) = status.changed() => match &*status.borrow_and_update() {
                Status::Online { relay } => println!("-- online: {relay}"),
                Status::Offline { reason, .. } => println!("-- offline, still saving: {reason}"),
                Status::Connecting => {}
            },
        }
    }
    if let Err(error) = note.wait_confirmed(Duration::from_secs(5)).await {
        eprintln!("{error}");
    }
    Ok(peer.close().await?)
}

async fn create(peer: &Peer) -> Result<Document, Box<dyn Error + Send + Sync>> {
    let note = peer.create().await?;
    note.change(|tx| Ok(tx.put_object(ROOT, "text", ObjType::Text)?)).await?;
    Ok(note)
}

/// The note's text, if it is there yet.
fn text(doc: &impl automerge::ReadDoc) -> Result<Option<ObjId>, AutomergeError> {
    Ok(doc.get(ROOT, "text")?.map(|(_, id)| id))
}

async fn add(note: &Document, line: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let line = format!("{line}\n");
    note.change_with(Some("typed"), |tx| {
        let id = text(tx)?.ok_or("the note has no text yet")?;
        let end = tx.length(&id);
        Ok(tx.splice_text(&id, end, 0, &line)?)
    })
    .await?;
    Ok(())
}

fn print(note: &Document) -> Result<(), Box<dyn Error + Send + Sync>> {
    let words = note.read(|doc| text(doc)?.map(|id| doc.text(id)).transpose())??;
    println!("---\n{}---", words.unwrap_or_default());
    Ok(())
}
