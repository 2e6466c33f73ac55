//! How long the guard and the codecs take over one change: `cargo run --release --example
//! guard_speed -p concord-protocol`.

use std::{hint::black_box, time::Instant};

use automerge::{AutoCommit, ObjType, ROOT, ReadDoc, transaction::Transactable};
use bytes::Bytes;
use concord_protocol::{
    ChangeHash, DocumentId, Limits, Message, PeerId, codec, guard,
    sync::{Bloom, Have, SyncFlags, SyncMessage, SyncVersion},
};

const ROUNDS: u32 = 100_000;

fn measure<T>(what: &str, rounds: u32, mut work: impl FnMut() -> T) {
    for _ in 0..rounds / 10 {
        black_box(work());
    }
    let start = Instant::now();
    for _ in 0..rounds {
        black_box(work());
    }
    println!("{what:<58} {:>9.3} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limits = Limits::default();
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text)?;
    doc.splice_text(&text, 0, 0, "hello")?;
    doc.commit();
    doc.splice_text(&text, doc.length(&text), 0, "x")?;
    doc.commit();
    let mut change = doc.get_last_local_change().ok_or("no change")?;
    let small = Bytes::copy_from_slice(&change.bytes());
    let hash = ChangeHash(change.hash().0);
    doc.splice_text(&text, 0, 0, &"All the world's a stage. ".repeat(800))?;
    doc.commit();
    let mut change = doc.get_last_local_change().ok_or("no change")?;
    let large = Bytes::copy_from_slice(&change.bytes());

    for (name, chunk, rounds) in [("one letter", &small, ROUNDS), ("20,000 letters", &large, 500)] {
        guard::check_change(chunk, &limits)?;
        let what = format!("check_change, {name}, {} bytes", chunk.len());
        measure(&what, rounds, || guard::check_change(chunk, &limits));
    }

    let message = SyncMessage {
        version: SyncVersion::V1,
        heads: vec![hash],
        need: vec![],
        have: vec![Have { last_sync: vec![hash], bloom: Bloom::default() }],
        changes: vec![small],
        flags: Some(SyncFlags::default()),
    };
    let data = message.encode();
    measure("SyncMessage::encode, one letter", ROUNDS, || message.encode());
    measure("SyncMessage::decode, one letter", ROUNDS, || SyncMessage::decode(&data, &limits));

    let document = DocumentId::from_bytes(&[7; 16]);
    let sender: PeerId = "storage-server-5f3c9a".parse()?;
    let target: PeerId = "peer-8kq2m4x7".parse()?;
    measure("encode_sync", ROUNDS, || codec::encode_sync(&document, &sender, &target, &data));
    let frame = codec::encode(&Message::Sync { document, sender, target, data });
    let what = format!("decode, a sync frame of {} bytes", frame.len());
    measure(&what, ROUNDS, || codec::decode(&frame, &limits));
    Ok(())
}
