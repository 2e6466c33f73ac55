//! Decides conflicts by a rule, beside the people who decide the others: where two values were
//! written at the same time, the later one stands. Give it documents; it ends when none of them has
//! such a conflict and a relay has heard of it.
//!
//! ```text
//! cargo run --example reviewer -- /tmp/reviewer ws://localhost:3030 automerge:...
//! ```

use std::{env, error::Error, time::Duration};

use concord::{
    history::Stamp,
    peer::{Document, Peer},
    review::{Choice, Code, Conflict},
};
use concord_protocol::ChangeHash;

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut args = env::args().skip(1);
    let (Some(directory), Some(relay)) = (args.next(), args.next()) else {
        return Err("usage: reviewer DIRECTORY RELAY_URL DOCUMENT ...".into());
    };
    let peer = Peer::builder(directory).relay(relay).author("reviewer").open()?;
    for url in args {
        let document = peer.find(&url).await?;
        for conflict in document.conflicts()? {
            if conflict.code != Code::Value {
                println!("{} is for somebody else ({})", conflict.id, conflict.code.as_str());
                continue;
            }
            let latest = latest(&document, &conflict)?;
            let reason = Some("the later value stands".to_owned());
            document.resolve(&conflict, &Choice::Side(latest), reason).await?;
            println!("{} is decided: side {}", conflict.id, latest + 1);
        }
    }
    peer.flush(Duration::from_secs(10)).await?;
    Ok(peer.close().await?)
}

/// The side that was written last, by the clocks of those who wrote.
fn latest(document: &Document, conflict: &Conflict) -> Result<usize, Failed> {
    document.read(|doc| {
        let time = |number: &usize| {
            let changes = conflict.sides[*number].changes.iter();
            changes.filter_map(|change| Some(Stamp::of(doc, &ChangeHash(change.0))?.time_s)).max()
        };
        let sides = 0..conflict.sides.len();
        sides.max_by_key(time).ok_or_else(|| "a conflict without sides".into())
    })?
}
