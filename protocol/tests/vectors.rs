//! What the real JavaScript packages wrote, recorded (`vectors/README.md`).

#![allow(clippy::unwrap_used, reason = "in a test, a failure to prepare is a failure")]

use std::{collections::BTreeSet, path::PathBuf};

use bytes::Bytes;
use concord_protocol::{
    Limits, Message, codec,
    guard::{self, ChunkKind},
    sync::SyncMessage,
};

/// The recordings of a kind: name of the file, and its lines as names and bytes.
fn recorded(kind: &str) -> Vec<(String, Vec<(String, Bytes)>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with(kind) {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            files.push((name, lines.map(parse).collect()));
        }
    }
    files.sort();
    files
}

fn parse(line: &str) -> (String, Bytes) {
    let (name, hex) = line.split_once(' ').unwrap();
    let digits = hex.as_bytes().chunks_exact(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    (name.to_owned(), digits.map(byte).collect())
}

fn kind(message: &Message) -> &'static str {
    match message {
        Message::Join { .. } => "join",
        Message::Peer { .. } => "peer",
        Message::Request { .. } => "request",
        Message::Sync { .. } => "sync",
        Message::DocUnavailable { .. } => "doc-unavailable",
        Message::Ephemeral { .. } => "ephemeral",
        Message::RemoteSubscriptionChange { .. } => "remote-subscription-change",
        Message::RemoteHeadsChanged { .. } => "remote-heads-changed",
        other => panic!("not recorded: {other:?}"),
    }
}

#[test]
fn every_recorded_frame_is_read_and_written_again() {
    let limits = Limits::default();
    let files = recorded("frames-");
    assert_eq!(files.len(), 3);
    for (file, frames) in files {
        let mut kinds = BTreeSet::new();
        for (number, (side, frame)) in frames.iter().enumerate() {
            let at = format!("{file}: frame {number} by the {side}");
            let read =
                codec::decode(frame, &limits).unwrap_or_else(|error| panic!("{at}: {error}"));
            let [message] = &read[..] else { panic!("{at}: {read:?}") };
            assert_eq!(codec::decode(&codec::encode(message), &limits).as_ref(), Ok(&read), "{at}");
            kinds.insert(kind(message));
            let (sender, target) = ends(message);
            assert!(["alice", "bob", "server"].contains(&sender), "{at}: {message:?}");
            assert!(target.is_none_or(|target| (target == "server") == (side == "client")), "{at}");
            content(message, &at);
        }
        let all = [
            "doc-unavailable",
            "ephemeral",
            "join",
            "peer",
            "remote-heads-changed",
            "remote-subscription-change",
            "request",
            "sync",
        ];
        assert!(kinds.iter().eq(all.iter()), "{file}: {kinds:?}");
    }
}

fn ends(message: &Message) -> (&str, Option<&str>) {
    match message {
        Message::Join { sender, .. } => (sender.as_str(), None),
        Message::Peer { sender, target, .. }
        | Message::Request { sender, target, .. }
        | Message::Sync { sender, target, .. }
        | Message::DocUnavailable { sender, target, .. }
        | Message::Ephemeral { sender, target, .. }
        | Message::RemoteSubscriptionChange { sender, target, .. }
        | Message::RemoteHeadsChanged { sender, target, .. } => {
            (sender.as_str(), Some(target.as_str()))
        }
        other => panic!("not recorded: {other:?}"),
    }
}

/// What the session must have said, message by message.
fn content(message: &Message, at: &str) {
    match message {
        Message::Join { metadata, versions, .. } => {
            assert_eq!(versions, &["1"], "{at}");
            assert!(metadata.storage_id.is_some() && metadata.is_ephemeral == Some(false), "{at}");
        }
        Message::Peer { metadata, version, .. } => {
            assert_eq!(version, "1", "{at}");
            assert!(metadata.storage_id.is_some() && metadata.is_ephemeral == Some(false), "{at}");
        }
        Message::Ephemeral { count, session, data, .. } => {
            assert!(*count >= 1 && !session.as_str().is_empty(), "{at}");
            assert!(data.windows(6).any(|part| part == b"cursor"), "{at}");
        }
        Message::RemoteSubscriptionChange { add, remove, .. } => {
            assert_eq!((add.len(), remove.len()), (1, 0), "{at}");
        }
        Message::RemoteHeadsChanged { heads, .. } => {
            let [store] = &heads[..] else { panic!("{at}: {heads:?}") };
            assert!(!store.heads.is_empty() && store.timestamp_ms > 1.6e12, "{at}");
        }
        Message::Request { data, .. } | Message::Sync { data, .. } => sync(data, at),
        _ => {}
    }
}

/// The message inside comes back, and what it carries passes the guard.
fn sync(data: &Bytes, at: &str) {
    let limits = Limits::default();
    let message =
        SyncMessage::decode(data, &limits).unwrap_or_else(|error| panic!("{at}: {error}"));
    let written = message.encode();
    assert_eq!(SyncMessage::decode(&written, &limits).as_ref(), Ok(&message), "{at}");
    // Clients of 1.x list in the flags what they read; later ones have bits there.
    if !data.ends_with(&[2, 1, 2]) {
        assert_eq!(written, data, "{at}");
    }
    for change in &message.changes {
        for chunk in guard::split(change, &limits).unwrap() {
            match chunk.kind {
                ChunkKind::Document => guard::check_document(&chunk.bytes, &limits).unwrap(),
                _ => drop(guard::check_change(&chunk.bytes, &limits).unwrap()),
            }
        }
    }
}

#[test]
fn every_recorded_change_passes_the_guard() {
    let limits = Limits::default();
    let files = recorded("changes-");
    assert_eq!(files.len(), 5);
    // Only the JavaScript encoder deflates what it sends; 2.0 and later send changes as they are.
    let mut deflated = 0;
    for (file, changes) in files {
        let (mut others, mut made) = (0, 0);
        for (name, chunk) in &changes {
            let at = format!("{file}: {name}");
            let header =
                guard::check_change(chunk, &limits).unwrap_or_else(|error| panic!("{at}: {error}"));
            let theirs = automerge::Change::from_bytes(chunk.to_vec()).unwrap();
            assert_eq!(header.hash.as_bytes(), &theirs.hash().0, "{at}");
            assert_eq!(header.actor.as_bytes(), theirs.actor_id().to_bytes(), "{at}");
            assert_eq!(u64::from(header.seq), theirs.seq(), "{at}");
            assert_eq!(u64::from(header.start_op), theirs.start_op().get(), "{at}");
            assert_eq!(header.ops as usize, theirs.len(), "{at}");
            assert_eq!(header.time, theirs.timestamp(), "{at}");
            assert_eq!(header.deps.len(), theirs.deps().len(), "{at}");
            assert_eq!(header.inflated_bytes as usize, theirs.raw_bytes().len(), "{at}");
            deflated += usize::from(chunk[8] == 2);
            others = others.max(header.other_actors.len());
            made += header.objects_made.len();
        }
        assert!(changes.len() >= 22, "{file}");
        assert!(others >= 2 && made >= 5, "{file}: {others} other actors, {made} objects");
        let run = changes.iter().flat_map(|(_, chunk)| chunk.iter().copied()).collect();
        assert_eq!(guard::split(&run, &limits).unwrap().len(), changes.len(), "{file}");
    }
    assert!(deflated >= 4, "{deflated}");
}
