//! A to-do list that two people share in their terminals, with a network or without.
//!
//! ```text
//! concord serve &
//! cargo run --example todo -- /tmp/ann ws://localhost:3030
//! cargo run --example todo -- /tmp/ben ws://localhost:3030 automerge:...   # as the first printed
//! ```
//! A line that is typed is one more thing to do; `x 2` says that the second is done.

use std::{env, error::Error, fmt::Write as _, io::BufRead as _, thread, time::Duration};

use automerge::{ObjId, ObjType, ROOT, ReadDoc, transaction::Transactable as _};
use concord::peer::{Document, DocumentEvent, Peer};

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut args = env::args().skip(1);
    let (Some(directory), Some(relay)) = (args.next(), args.next()) else {
        return Err("usage: todo DIRECTORY RELAY_URL [DOCUMENT]".into());
    };
    // Whoever shares a list shows it to somebody at once.
    let peer = Peer::builder(directory).relay(relay).debounce(Duration::ZERO, Duration::ZERO);
    let peer = peer.open()?;
    let list = if let Some(url) = args.next() {
        peer.find(&url).await?
    } else {
        let list = peer.create().await?;
        list.change(|tx| Ok(tx.put_object(ROOT, "items", ObjType::List)?)).await?;
        list
    };
    println!("{}", list.url());
    show(&list)?;
    let (typed, mut lines) = tokio::sync::mpsc::channel(1);
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if typed.blocking_send(line).is_err() {
                break;
            }
        }
    });
    let mut changes = list.watch();
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => if let Err(error) = write(&list, line.trim()).await {
                    eprintln!("{error}");
                },
                None => break,
            },
            event = changes.next() => if let DocumentEvent::Changed { .. } = event {
                show(&list)?;
            },
        }
    }
    if let Err(error) = peer.flush(Duration::from_secs(5)).await {
        eprintln!("{error}");
    }
    Ok(peer.close().await?)
}

fn items(doc: &impl ReadDoc) -> Result<ObjId, Failed> {
    Ok(doc.get(ROOT, "items")?.ok_or("it is no to-do list")?.1)
}

async fn write(list: &Document, line: &str) -> Result<(), Failed> {
    let done = line.strip_prefix("x ").and_then(|number| number.parse::<usize>().ok());
    list.change(|tx| {
        let items = items(tx)?;
        if let Some(number) = done {
            let item = tx.get(&items, number.saturating_sub(1))?;
            tx.put(item.ok_or("there is no such thing to do")?.1, "done", true)?;
        } else {
            let item = tx.insert_object(&items, tx.length(&items), ObjType::Map)?;
            tx.put(item, "title", line)?;
        }
        Ok(())
    })
    .await?;
    Ok(())
}

fn show(list: &Document) -> Result<(), Failed> {
    let shown = list.read(|doc| {
        let items = items(doc)?;
        let mut shown = "---\n".to_owned();
        for (number, item) in (1..).zip(doc.list_range(&items, ..)) {
            let (title, done) = (doc.get(item.id(), "title")?, doc.get(item.id(), "done")?);
            let title = title.and_then(|(title, _)| title.into_string().ok()).unwrap_or_default();
            let mark = if done.is_some() { 'x' } else { ' ' };
            writeln!(shown, "{number} [{mark}] {title}")?;
        }
        Ok::<_, Failed>(shown)
    })?;
    print!("{}", shown?);
    Ok(())
}
