//! Users of the Automerge profile: real documents, through the production peer.

use std::collections::BTreeMap;

use automerge::{
    Automerge, ObjType, ROOT, ReadDoc as _, ScalarValue, Value,
    transaction::{Transactable as _, Transaction},
};
use concord::peer::{
    ChangeError, DocumentEvent, EditError,
    simulation::{DocumentState, EditId, PeerInput},
};
use concord_protocol::{ChangeHash, SessionId};

use super::{NodeId, World, brain::News, entity, quarrel, short};
use crate::{
    coverage::State,
    ledger::{Decision, Fate, Invariant},
    opaque::{Hashes, noise},
    plan::Edit,
    random::fate,
    trace::Kind as Told,
};

/// Fields of the map that users write; few, so that they meet.
const FIELDS: u64 = 4;

/// What the world keeps of a real peer.
#[derive(Debug, Default)]
pub(super) struct Author {
    pub(super) calls: BTreeMap<EditId, (u8, ChangeHash)>,
    /// Changes that events told of, by document, since it was opened.
    told: BTreeMap<u8, Hashes>,
    edits: u64,
    broadcasts: u64,
}

impl World<'_> {
    /// A user opens a document; who has it first makes it.
    pub(super) fn author_open(&mut self, id: NodeId, document: u8) {
        let now = self.nodes[id].now(self.now_us);
        let name = self.documents[usize::from(document)].clone();
        let is_maker = id == usize::from(self.plan.relays);
        // A name is given once: where all of it was damaged it is opened, and brought by others.
        let is_new = is_maker
            && !self.nodes[id].is_rotten
            && self.stored(id, document).is_ok_and(|found| found.is_empty());
        let Some(process) = &mut self.nodes[id].process else { return };
        let Some(peer) = process.brain.as_peer() else { return };
        if peer.state(&name).is_some() {
            return;
        }
        process.author.told.insert(document, Hashes::default());
        if is_new {
            match peer.create(now, name.clone()) {
                Ok(edit) => {
                    let head = peer
                        .read(&name, Automerge::get_heads)
                        .and_then(|heads| heads.first().map(|head| ChangeHash(head.0)));
                    if let Some(hash) = head {
                        process.author.calls.insert(edit, (document, hash));
                        let number = self.peer_number(id);
                        self.ledger.wrote(hash, document, number);
                    }
                }
                Err(error) => {
                    let detail = format!("document {document} cannot be made: {error}");
                    self.did(id, || detail);
                }
            }
        } else {
            peer.open(now, name);
        }
        self.carry_out(id);
    }

    pub(super) fn author_shut(&mut self, id: NodeId, document: u8) {
        let now = self.nodes[id].now(self.now_us);
        let name = self.documents[usize::from(document)].clone();
        let Some(process) = &mut self.nodes[id].process else { return };
        let Some(peer) = process.brain.as_peer() else { return };
        peer.close_document(now, &name);
        process.author.told.remove(&document);
        self.carry_out(id);
    }

    /// A user writes.
    pub(super) fn author_edit(&mut self, id: NodeId, document: u8, edit: Edit) {
        let changes = match edit {
            Edit::Type(count) | Edit::Erase(count) => count,
            Edit::Decide(which) => return self.author_decides(id, document, which),
            _ => 1,
        };
        for _ in 0..changes {
            self.author_edit_once(id, document, edit);
        }
        self.carry_out(id);
    }

    fn author_edit_once(&mut self, id: NodeId, document: u8, edit: Edit) {
        let now = self.nodes[id].now(self.now_us);
        let life = self.nodes[id].life;
        let name = self.documents[usize::from(document)].clone();
        let Some(process) = &mut self.nodes[id].process else { return };
        let Some(peer) = process.brain.as_peer() else { return };
        if peer.state(&name) != Some(DocumentState::Ready) {
            return;
        }
        process.author.edits += 1;
        let number = (u64::from(life) << 32) | process.author.edits;
        let choice = fate(self.plan.seed, 0xA070 + id as u64, number);
        let mut added = 0;
        let documents = &self.documents;
        let made = peer.edit(now, &name, |tx| {
            if !entity::write(tx, edit, choice, documents)? {
                added = write(tx, edit, choice)?;
            }
            Ok(())
        });
        match made {
            Ok(Some((hash, call))) => {
                self.author_wrote(id, document, hash, call);
                self.ledger.added(hash, document, added);
                self.trace.mix(choice);
            }
            Ok(None) => {}
            Err(error) => {
                let error = error.to_string();
                self.did(id, || format!("cannot edit document {document}: {error}"));
            }
        }
    }

    fn author_wrote(&mut self, id: NodeId, document: u8, hash: ChangeHash, call: EditId) {
        let narrow_bytes = self.plan.settings.narrow_bytes as usize;
        let name = self.documents[usize::from(document)].clone();
        let Some(process) = &mut self.nodes[id].process else { return };
        process.author.calls.insert(call, (document, hash));
        let Some(peer) = process.brain.as_peer() else { return };
        let bytes = peer.read(&name, |doc| {
            let change = doc.get_change_by_hash(&automerge::ChangeHash(hash.0));
            change.map_or(0, |change| change.raw_bytes().len())
        });
        if narrow_bytes > 0 && bytes > Some(narrow_bytes) {
            self.ledger.is_large(hash);
        }
        let number = self.peer_number(id);
        self.ledger.wrote(hash, document, number);
        self.trace.note(self.now_us, || Told::Wrote { node: id, document, change: short(&hash) });
    }

    /// A user decides one of the conflicts that are open.
    fn author_decides(&mut self, id: NodeId, document: u8, which: u8) {
        let now = self.nodes[id].now(self.now_us);
        let life = self.nodes[id].life;
        let name = self.documents[usize::from(document)].clone();
        let Some(process) = &mut self.nodes[id].process else { return };
        let Some(peer) = process.brain.as_peer() else { return };
        let mut open = match peer.conflicts(&name) {
            None => return,
            Some(Ok(open)) => open,
            Some(Err(error)) => return self.broken(Invariant::NoPanic, error.to_string()),
        };
        // What users counted in it is known, and nobody takes it back.
        open.retain(|conflict| !quarrel::is_counter(conflict));
        let Some(conflict) = open.get(usize::from(which) % open.len().max(1)) else { return };
        process.author.edits += 1;
        let number = (u64::from(life) << 32) | process.author.edits;
        let choice = quarrel::choice(conflict, fate(self.plan.seed, 0xA070 + id as u64, number));
        match peer.resolve(now, &name, conflict, &choice) {
            Ok((change, call)) => {
                self.did(id, || format!("decides {}: {choice:?}", conflict.id));
                self.author_wrote(id, document, change, call);
                let (conflict, place) = (conflict.id, conflict.place.clone());
                self.ledger.decisions.push(Decision { document, change, conflict, place });
            }
            Err(error) => {
                let error = error.to_string();
                self.did(id, || format!("cannot decide {}: {error}", conflict.id));
            }
        }
        self.carry_out(id);
    }

    pub(super) fn author_broadcast(&mut self, id: NodeId, document: u8) {
        let life = self.nodes[id].life;
        let name = self.documents[usize::from(document)].clone();
        let Some(process) = &mut self.nodes[id].process else { return };
        process.author.broadcasts += 1;
        let count = process.author.broadcasts;
        let Ok(session) = format!("s{id}-{life}").parse::<SessionId>() else { return };
        let mut data = session.as_str().as_bytes().to_vec();
        data.extend(count.to_be_bytes());
        let input = PeerInput::Broadcast { document: name, count, session, data: data.into() };
        self.tell_news(id, News::Peer(input));
    }

    /// Takes in what the peer says of calls and documents.
    pub(super) fn hear_author(&mut self, id: NodeId) {
        loop {
            let Some(process) = &mut self.nodes[id].process else { return };
            let Some(peer) = process.brain.as_peer() else { return };
            let Some((call, result)) = peer.poll_edit() else { break };
            let Some((document, hash)) = process.author.calls.remove(&call) else {
                return self.broken(Invariant::AtMostOnce, "a call returned twice".to_owned());
            };
            self.author_answered(id, document, hash, result);
        }
        self.hear_of_taken_out(id);
        for document in 0..self.plan.documents {
            let name = self.documents[usize::from(document)].clone();
            let Some(process) = &mut self.nodes[id].process else { return };
            let Some(peer) = process.brain.as_peer() else { return };
            for event in peer.events(&name) {
                self.author_told(id, document, event);
            }
        }
    }

    fn author_answered(
        &mut self,
        id: NodeId,
        document: u8,
        hash: ChangeHash,
        result: Result<(), ChangeError>,
    ) {
        let Some(process) = &self.nodes[id].process else { return };
        match result {
            Ok(()) => {
                if !process.on_disk.contains(&hash) {
                    let detail =
                        format!("a call returned for {} which is not on disk", short(&hash));
                    return self.broken(Invariant::Durability, detail);
                }
                self.ledger.settle(hash, Fate::Promised);
            }
            Err(ChangeError::NotDurable(reason)) => {
                self.ledger.settle(hash, Fate::Unknown);
                self.met(State::UserToldOfDisk);
                self.store_failed(id, &concord::replica::StorageFailure::Passing(reason));
            }
            Err(ChangeError::Refused { code, reason, .. }) => {
                self.ledger.settle(hash, Fate::Refused);
                if process.has_failed || self.nodes[id].is_rotten {
                    self.met(State::RefusedAtHome);
                    return;
                }
                let detail = format!(
                    "an honest change of document {document} was refused at home ({}): {reason}",
                    code.as_str()
                );
                self.broken(Invariant::NoSilentLoss, detail);
            }
            Err(error) => {
                self.ledger.settle(hash, Fate::Unknown);
                let error = error.to_string();
                self.did(id, || format!("a call failed: {error}"));
            }
        }
    }

    fn author_told(&mut self, id: NodeId, document: u8, event: DocumentEvent) {
        match event {
            DocumentEvent::Changed { changes, .. } => {
                let Some(process) = &mut self.nodes[id].process else { return };
                let has_failed = process.has_failed;
                let told = process.author.told.entry(document).or_default();
                let mut twice = None;
                for change in changes {
                    if !told.insert(change.hash) {
                        twice = Some(change.hash);
                    }
                }
                if let (Some(hash), false) = (twice, has_failed) {
                    let detail = format!("{} was shown twice", short(&hash));
                    self.broken(Invariant::AtMostOnce, detail);
                }
                if self.trace.is_on() {
                    let name = self.documents[usize::from(document)].clone();
                    let Some(process) = &mut self.nodes[id].process else { return };
                    let Some(peer) = process.brain.as_peer() else { return };
                    let heads = peer.read(&name, Automerge::get_heads).unwrap_or_default();
                    let heads = heads.iter().map(|head| short(&ChangeHash(head.0))).collect();
                    self.trace.note(self.now_us, || Told::Heads { node: id, document, heads });
                }
            }
            DocumentEvent::Refused { hash, code, .. }
                if self.ledger.may_be_refused(&hash, code) =>
            {
                self.met(State::LetterOpened);
            }
            DocumentEvent::Refused { hash, code, reason }
                if self.ledger.who(&hash).is_some() && self.ledger.attacked == 0 =>
            {
                let detail = format!(
                    "an honest change {} was refused ({}): {reason}",
                    short(&hash),
                    code.as_str()
                );
                self.broken(Invariant::NoSilentLoss, detail);
            }
            DocumentEvent::Withheld { reason } => self.withheld(id, document, &reason),
            DocumentEvent::Quarantined { reason } if !self.nodes[id].is_rotten => {
                let detail = format!("document {document} was given up: {reason}");
                self.broken(Invariant::NoSilentLoss, detail);
            }
            DocumentEvent::Damaged { reason } => {
                let Some(process) = &mut self.nodes[id].process else { return };
                // What is left, and comes back, is shown anew.
                process.author.told.remove(&document);
                self.told_of_damage(id, document, &reason);
            }
            DocumentEvent::Failed { reason } => {
                self.store_failed(id, &concord::replica::StorageFailure::Passing(reason));
            }
            DocumentEvent::Ephemeral { data, .. } => self.presence(id, document, &data),
            DocumentEvent::Lagged { missed } => {
                let detail = format!("a watcher that is asked at once missed {missed} events");
                self.broken(Invariant::AtMostOnce, detail);
            }
            _ => {}
        }
    }

    /// What a real peer shows of a document: its changes, and its contents in words.
    pub(super) fn author_shows(&mut self, id: NodeId, document: u8) -> Option<(Hashes, String)> {
        let name = self.documents[usize::from(document)].clone();
        let process = self.nodes[id].process.as_mut()?;
        let peer = process.brain.as_peer()?;
        peer.read(&name, |doc| {
            let changes = doc.get_changes(&[]);
            let changes = changes.iter().map(|change| ChangeHash(change.hash().0)).collect();
            (changes, contents(doc))
        })
    }
}

/// All that is in a document, conflicts too.
pub(super) fn contents(doc: &Automerge) -> String {
    let mut words = serde_json::to_string(&automerge::AutoSerde::from(doc)).unwrap_or_default();
    for key in doc.keys(ROOT) {
        let mut values: Vec<String> = doc
            .get_all(ROOT, key.as_str())
            .unwrap_or_default()
            .into_iter()
            .map(|(value, by)| format!("{value} by {by}"))
            .collect();
        values.sort_unstable();
        words.extend(["\n", &key, ": ", &values.join(" | ")]);
    }
    words
}

/// The counter of a document: two who make it at the same time make two, and what is added when
/// both are seen is added to both.
pub(super) fn counters(doc: &Automerge) -> Vec<i64> {
    let sides = doc.get_all(ROOT, "counter").unwrap_or_default();
    sides.iter().filter_map(|(value, _)| value.as_i64()).collect()
}

/// Does an edit; gives what it added to the counter.
fn write(tx: &mut Transaction<'_>, edit: Edit, choice: u64) -> Result<i64, EditError> {
    let field = format!("field {}", choice % FIELDS);
    let value = i64::try_from(choice >> 33).unwrap_or(0);
    let at = |len: usize| usize::try_from((choice >> 8) % (len as u64 + 1)).unwrap_or(0);
    match edit {
        Edit::Type(_) => {
            let text = object(tx, "text", ObjType::Text)?;
            let at = at(tx.length(&text));
            let letter = char::from(b'a' + u8::try_from(choice % 26).unwrap_or(0));
            tx.splice_text(&text, at, 0, &letter.to_string())?;
        }
        Edit::Erase(_) => {
            let text = object(tx, "text", ObjType::Text)?;
            let len = tx.length(&text);
            if len > 0 {
                tx.splice_text(&text, at(len - 1), 1, "")?;
            }
        }
        Edit::Put | Edit::Restore => tx.put(ROOT, field, value)?,
        Edit::Paste(kib) => {
            let bytes = noise(choice, usize::from(kib) * 1024);
            tx.put(ROOT, "picture", ScalarValue::Bytes(bytes))?;
        }
        Edit::Remove => {
            if tx.get(ROOT, field.as_str())?.is_some() {
                tx.delete(ROOT, field)?;
            }
        }
        Edit::Disagree => tx.put(ROOT, "title", format!("title {value}"))?,
        Edit::Count => {
            if tx.get(ROOT, "counter")?.is_none() {
                return Ok(0);
            }
            let by = 1 + value % 9;
            tx.increment(ROOT, "counter", by)?;
            return Ok(by);
        }
        Edit::Insert => {
            let list = object(tx, "list", ObjType::List)?;
            let at = at(tx.length(&list));
            tx.insert(&list, at, value)?;
        }
        Edit::Take => {
            let list = object(tx, "list", ObjType::List)?;
            let len = tx.length(&list);
            if len > 0 {
                tx.delete(&list, at(len - 1))?;
            }
        }
        _ => quarrel::write(tx, edit, choice)?,
    }
    Ok(0)
}

/// The object of this name, made if there is none; the first to write makes the counter too.
fn object(
    tx: &mut Transaction<'_>,
    name: &str,
    kind: ObjType,
) -> Result<automerge::ObjId, EditError> {
    if let Some((Value::Object(_), id)) = tx.get(ROOT, name)? {
        return Ok(id);
    }
    let made = tx.put_object(ROOT, name, kind)?;
    if tx.keys(ROOT).count() == 1 {
        tx.put(ROOT, "counter", ScalarValue::counter(0))?;
    }
    Ok(made)
}
