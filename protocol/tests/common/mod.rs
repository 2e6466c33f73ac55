//! What several tests share: documents of all sorts, made from random numbers.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "in a test, a failure to prepare is a failure")]

use std::path::PathBuf;

use automerge::{
    ActorId, AutoCommit, ObjType, ROOT, ReadDoc, ScalarValue,
    marks::{ExpandMark, Mark},
    transaction::Transactable,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Inputs shared between projects, or `None` with a line that says so.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CONCORD_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no {} (set CONCORD_SHARED to the shared folder)", path.display());
    None
}

/// Files of a folder, with their names, in order.
pub(crate) fn files(folder: &std::path::Path) -> Vec<(String, Bytes)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, Bytes::from(std::fs::read(path).unwrap()))
        })
        .collect();
    files.sort();
    files
}

/// A document that several actors wrote by a script: each byte pair is an actor and an edit.
pub(crate) fn document(script: &[(u8, u8)]) -> AutoCommit {
    let mut replicas: Vec<AutoCommit> = (0..4_u8)
        .map(|n| AutoCommit::new().with_actor(ActorId::from(vec![n + 1; 1 + 5 * usize::from(n)])))
        .collect();
    let (first, others) = replicas.split_first_mut().unwrap();
    first.put_object(ROOT, "text", ObjType::Text).unwrap();
    first.put_object(ROOT, "list", ObjType::List).unwrap();
    first.put(ROOT, "count", ScalarValue::counter(0)).unwrap();
    first.commit();
    for other in others {
        other.merge(first).unwrap();
    }
    for &(who, what) in script.iter().take(30) {
        let who = usize::from(who) % replicas.len();
        edit(&mut replicas[who], what);
        if what % 5 != 0 {
            replicas[who].commit();
        }
        if what % 7 == 0 {
            let other = &mut replicas[usize::from(what / 7) % 4];
            other.commit();
            let mut other = other.clone();
            replicas[who].merge(&mut other).unwrap();
        }
    }
    let (first, others) = replicas.split_first_mut().unwrap();
    for other in others {
        first.merge(other).unwrap();
    }
    edit(first, 3);
    first.commit();
    replicas.remove(0)
}

fn edit(doc: &mut AutoCommit, what: u8) {
    let id = |doc: &AutoCommit, key: &str| doc.get(ROOT, key).unwrap().unwrap().1;
    let (text, list) = (id(doc, "text"), id(doc, "list"));
    let (len, n) = (doc.length(&text), usize::from(what));
    match what % 12 {
        0 => doc.splice_text(&text, n % (len + 1), 0, "grüße 👋").unwrap(),
        1 => {
            doc.splice_text(&text, n % (len + 1), 0, &"a long run of text ".repeat(n % 32))
                .unwrap();
        }
        2 if len > 2 => doc.splice_text(&text, n % (len - 1), 2, "").unwrap(),
        3 => doc.insert(&list, 0, ScalarValue::F64(f64::from(what) / 3.0)).unwrap(),
        4 => drop(doc.insert_object(&list, 0, ObjType::Map).unwrap()),
        5 => doc.increment(ROOT, "count", i64::from(what) - 100).unwrap(),
        6 if len > 3 => {
            let mark = Mark::new("bold".to_owned(), ScalarValue::Boolean(true), 1, len - 1);
            doc.mark(&text, mark, ExpandMark::Both).unwrap();
        }
        7 => doc.put(ROOT, format!("key{}", what % 16), vec![what; n]).unwrap(),
        8 => doc.delete(ROOT, format!("key{}", what % 16).as_str()).unwrap_or(()),
        9 => {
            let map = doc.put_object(ROOT, "map", ObjType::Map).unwrap();
            doc.put(&map, "when", ScalarValue::Timestamp(-i64::from(what))).unwrap();
            doc.put(&map, "huge", u64::MAX).unwrap();
            doc.put(&map, "null", ()).unwrap();
            doc.put_object(&map, "inner", ObjType::List).unwrap();
        }
        10 if doc.length(&list) > 0 => doc.delete(&list, 0).unwrap(),
        11 => doc.put(ROOT, "s", ScalarValue::Str("\u{0}\u{fffd}".repeat(n).into())).unwrap(),
        _ => doc.put(ROOT, "same", false).unwrap(),
    }
}

/// The changes of a document as they are sent: deflated where automerge does that.
pub(crate) fn chunks(doc: &mut AutoCommit) -> Vec<(automerge::Change, Bytes)> {
    doc.get_changes(&[])
        .into_iter()
        .map(|mut change| {
            let bytes = Bytes::copy_from_slice(&change.bytes());
            (change, bytes)
        })
        .collect()
}

/// A change chunk around a body, with the right checksum.
pub(crate) fn framed(kind: u8, body: &[u8]) -> Bytes {
    let mut hashed = vec![1_u8.max(kind * u8::from(kind != 2))];
    hashed.extend(leb(body.len() as u64));
    hashed.extend(body);
    let hash = Sha256::digest(&hashed);
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend(&hash[..4]);
    chunk.push(kind);
    chunk.extend(leb(body.len() as u64));
    chunk.extend(body);
    chunk.into()
}

/// A number as the format writes it.
pub(crate) fn leb(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}
