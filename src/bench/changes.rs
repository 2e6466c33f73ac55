//! What is written: a text typed character by character, made before the clock runs.

use std::{collections::HashMap, num::NonZeroU64};

use automerge::{
    Automerge, Change, ExpandedChange, ObjType,
    legacy::{ElementId, Key, ObjectId, Op, OpId, OpType, SortedVec},
};
use bytes::Bytes;
use concord_protocol::ChangeHash;

use super::BenchError;

/// A document as a client uploads it: one chunk, and the heads that cannot be read off it.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) chunk: Bytes,
    pub(super) heads: Vec<ChangeHash>,
}

/// Somebody typing at the end of one text, a change a character.
pub(super) struct Typist {
    actor: automerge::ActorId,
    text: OpId,
    seq: u64,
    next_op: u64,
    last: Option<automerge::ChangeHash>,
}

impl Typist {
    /// Starts an empty text; the first change makes it.
    pub(super) fn new(actor: &[u8]) -> (Self, Change) {
        let actor = automerge::ActorId::from(actor);
        let mut typist = Self { text: OpId::new(1, &actor), actor, seq: 0, next_op: 1, last: None };
        let make = Op {
            action: OpType::Make(ObjType::Text),
            obj: ObjectId::Root,
            key: Key::Map("text".into()),
            pred: SortedVec::new(),
            insert: false,
        };
        let change = typist.commit(make);
        (typist, change)
    }

    /// Types one character after the last.
    pub(super) fn type_one(&mut self) -> Change {
        let after = if self.next_op == 2 {
            ElementId::Head
        } else {
            ElementId::Id(OpId::new(self.next_op - 1, &self.actor))
        };
        let letter = char::from(b'a' + u8::try_from(self.seq % 26).unwrap_or(0));
        self.commit(Op {
            action: OpType::Put(letter.to_string().into()),
            obj: ObjectId::Id(self.text.clone()),
            key: Key::Seq(after),
            pred: SortedVec::new(),
            insert: true,
        })
    }

    fn commit(&mut self, op: Op) -> Change {
        self.seq += 1;
        let start_op = NonZeroU64::new(self.next_op).unwrap_or(NonZeroU64::MIN);
        self.next_op += 1;
        let change = Change::from(ExpandedChange {
            operations: vec![op],
            actor_id: self.actor.clone(),
            hash: None,
            seq: self.seq,
            start_op,
            time: 0,
            message: None,
            deps: self.last.into_iter().collect(),
            extra_bytes: Vec::new(),
            author: None,
        });
        self.last = Some(change.hash());
        change
    }
}

/// A text of so many characters, each its own change as when it was typed, and its typist.
pub(super) fn typed_document(
    actor: &[u8],
    characters: usize,
) -> Result<(Typist, Document), BenchError> {
    let (mut typist, first) = Typist::new(actor);
    let mut changes = vec![first];
    changes.extend((0..characters).map(|_| typist.type_one()));
    let mut document = Automerge::new();
    document.apply_changes(changes).map_err(|error| BenchError::Document(error.to_string()))?;
    Ok((typist, saved(&document)))
}

/// A document as it is uploaded.
pub(super) fn saved(document: &Automerge) -> Document {
    Document {
        chunk: document.save().into(),
        heads: document.get_heads().iter().map(|head| ChangeHash(head.0)).collect(),
    }
}

/// The changes to come, each after the one before.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) chunks: Vec<Bytes>,
    pub(super) hashes: Vec<ChangeHash>,
    index: HashMap<ChangeHash, usize>,
}

impl Run {
    /// Types `count` more characters.
    pub(super) fn generate(typist: &mut Typist, count: usize, mut tick: impl FnMut()) -> Self {
        let mut run = Self {
            chunks: Vec::with_capacity(count),
            hashes: Vec::with_capacity(count),
            index: HashMap::with_capacity(count),
        };
        for position in 0..count {
            let change = typist.type_one();
            let hash = ChangeHash(change.hash().0);
            run.chunks.push(Bytes::copy_from_slice(change.raw_bytes()));
            run.hashes.push(hash);
            run.index.insert(hash, position);
            tick();
        }
        run
    }

    /// Where in the run a change is, if it is one of it.
    pub(super) fn position(&self, hash: &ChangeHash) -> Option<usize> {
        self.index.get(hash).copied()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use automerge::{ReadDoc, transaction::Transactable};

    use super::*;

    #[test]
    fn automerge_takes_what_is_typed() {
        let (mut typist, document) = typed_document(&[7; 16], 40).unwrap();
        let run = Run::generate(&mut typist, 10, || ());
        let mut real = Automerge::load(&document.chunk).unwrap();
        for chunk in &run.chunks {
            let change = Change::from_bytes(chunk.to_vec()).unwrap();
            real.apply_changes([change]).unwrap();
        }
        let (_, text) = real.get(automerge::ROOT, "text").unwrap().unwrap();
        let text = real.text(&text).unwrap();
        assert_eq!(text.len(), 50);
        assert!(text.starts_with("bcdef"), "{text}");
        assert_eq!(real.get_heads()[0].0, run.hashes[9].0);
        assert_eq!(run.position(&run.hashes[3]), Some(3));
        // What it saves loads again.
        Automerge::load(&real.save()).unwrap();
    }

    #[test]
    fn the_bytes_are_those_automerge_itself_writes() {
        let (_, document) = typed_document(&[7; 16], 3).unwrap();
        let typed = Automerge::load(&document.chunk).unwrap();
        let mut real = automerge::AutoCommit::new();
        real.set_actor(automerge::ActorId::from(&[7_u8; 16][..]));
        let text = real.put_object(automerge::ROOT, "text", ObjType::Text).unwrap();
        let options = || automerge::transaction::CommitOptions::default().with_time(0);
        real.commit_with(options());
        for (at, letter) in ["b", "c", "d"].into_iter().enumerate() {
            real.splice_text(&text, at, 0, letter).unwrap();
            real.commit_with(options());
        }
        assert_eq!(typed.get_heads(), real.get_heads());
    }
}
