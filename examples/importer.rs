//! Takes tasks out of lines of JSON and into entities, with nobody watching: run it as often as you
//! like, the same line is the same task.
//!
//! ```text
//! echo '{"key":"1","title":"Buy milk"}' | cargo run --example importer -- /tmp/tasks ws://localhost:3030
//! ```

use std::{env, error::Error, io::BufRead as _, time::Duration};

use concord::{
    entity::{Schema, Value},
    peer::{Peer, Query, Test},
};
use serde::{Deserialize, Serialize};

/// Applications keep this in a file that all of them read.
const SCHEMA: &str = r#"
[types.task.fields]
title = { kind = "text", required = true }
status = { kind = "enum", values = ["open", "done"], default = "open" }
"#;

/// A task, as entities are read and written.
#[derive(Serialize, Deserialize)]
struct Task {
    title: String,
    status: String,
}

/// A line of what is imported.
#[derive(Deserialize)]
struct Line {
    key: String,
    title: String,
    #[serde(default)]
    done: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut args = env::args().skip(1);
    let (Some(directory), Some(relay)) = (args.next(), args.next()) else {
        return Err("usage: importer DIRECTORY RELAY_URL < LINES".into());
    };
    let schema = Schema::parse(SCHEMA)?;
    let peer = Peer::builder(directory).relay(relay).schema(schema.clone()).open()?;
    let task = &schema.types["task"];
    let mut imported = 0;
    for (number, line) in (1..).zip(std::io::stdin().lock().lines()) {
        let line: Line = match serde_json::from_str(&line?) {
            Ok(line) => line,
            Err(error) => {
                eprintln!("line {number}: {error}");
                continue;
            }
        };
        let put = peer.put(task, &line.key, |task: &mut Task| {
            task.title.clone_from(&line.title);
            if line.done { "done" } else { "open" }.clone_into(&mut task.status);
        });
        put.await?;
        imported += 1;
    }
    let open = Query::of("task").filter("status", Test::Is(Value::String("open".to_owned())));
    println!("{imported} imported, {} open", peer.count(&open).await?);
    match peer.flush(Duration::from_secs(10)).await {
        Ok(()) => println!("a relay has them all"),
        // They are on this disk, and go there at the next run.
        Err(error) => println!("{error}"),
    }
    Ok(peer.close().await?)
}
