//! Conflicts between documents: two live entities that claim one unique key, and references to what
//! somebody deleted.
//!
//! [`Between`] is told what each entity says ([`Facts`]) and gives what is open between them. It
//! depends on nothing but that: whoever has the same documents and the same schema finds the same.

use std::collections::{BTreeMap, BTreeSet};

use concord_protocol::DocumentId;
use serde_json::{Map, Value as Json};

use super::{
    By, Code, ConflictId, SideSummary, SideView, Summary, View,
    conflict::name_of,
    desk::Wanted,
    facts::{Claimed, Facts},
};
use crate::{digest::digest, entity::DELETED_KEY};

/// Entities of one unique key that are shown: the first by the names of their documents.
const MEMBERS_MAX: usize = 50;

/// See the module.
#[derive(Debug, Default)]
pub struct Between {
    facts: BTreeMap<DocumentId, Facts>,
    /// Who claims what.
    claims: BTreeMap<[u8; 16], BTreeSet<DocumentId>>,
    /// What refers to a document: from which, with which key.
    referrers: BTreeMap<DocumentId, BTreeSet<(DocumentId, String)>>,
    open: BTreeMap<Group, ConflictId>,
    groups: BTreeMap<ConflictId, Group>,
}

/// What there can be one conflict about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A unique key, by its digest.
    Claim([u8; 16]),
    /// A reference: the document and the key that it is in.
    Reference(DocumentId, String),
}

/// A conflict between documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Apart {
    /// With all that is shown of it. Each side says in which document it is.
    pub view: View,
    /// The documents, as the sides have them.
    pub documents: Vec<DocumentId>,
    /// What it is about.
    pub group: Group,
}

/// A change of one document that a decision takes: fields, and what is to be in them; `null` for
/// nothing. Without fields it says that all is to be as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Which document.
    pub document: DocumentId,
    /// Its fields, by their keys.
    pub fields: Map<String, Json>,
}

/// Such a decision cannot be made on such a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSo {
    /// Of a unique key.
    #[error(
        "say which side keeps it (the others' are cleared then), or let it be with now; to give one \
         of them another value, edit its document"
    )]
    Claim,
    /// Of a reference.
    #[error(
        "say side 1 (what is referred to comes back), side 2 (the reference is cleared), a value \
         for the reference, or let it be with now"
    )]
    Reference,
}

impl Between {
    /// What a document says now; `None` for one that is no entity. Gives what is open in each group
    /// that this may have changed.
    pub fn update(
        &mut self,
        document: &DocumentId,
        facts: Option<Facts>,
    ) -> BTreeMap<Group, Option<Apart>> {
        let old = self.facts.remove(document);
        let was_deleted = old.as_ref().map(|facts| facts.deleted.clone());
        let is_deleted = facts.as_ref().map(|facts| facts.deleted.clone());
        let mut groups = old.map(|old| self.forget(document, &old)).unwrap_or_default();
        if let Some(new) = facts {
            groups.extend(self.note(document, &new));
            self.facts.insert(document.clone(), new);
        }
        if was_deleted != is_deleted {
            let referrers = self.referrers.get(document).into_iter().flatten();
            groups.extend(referrers.map(|(from, key)| Group::Reference(from.clone(), key.clone())));
        }
        let mut found = BTreeMap::new();
        for group in groups {
            if let Some(before) = self.open.remove(&group) {
                self.groups.remove(&before);
            }
            let apart = self.look(&group);
            if let Some(apart) = &apart {
                self.open.insert(group.clone(), apart.view.id);
                self.groups.insert(apart.view.id, group.clone());
            }
            found.insert(group, apart);
        }
        found
    }

    fn note(&mut self, document: &DocumentId, facts: &Facts) -> BTreeSet<Group> {
        let groups = groups(document, facts);
        for group in &groups {
            if let Group::Claim(claim) = group {
                self.claims.entry(*claim).or_default().insert(document.clone());
            }
        }
        for refers in &facts.references {
            let Some(to) = refers.target() else { continue };
            let from = (document.clone(), refers.key.clone());
            self.referrers.entry(to).or_default().insert(from);
        }
        groups
    }

    fn forget(&mut self, document: &DocumentId, facts: &Facts) -> BTreeSet<Group> {
        let groups = groups(document, facts);
        for group in &groups {
            if let Group::Claim(claim) = group {
                take(&mut self.claims, claim, document);
            }
        }
        for refers in &facts.references {
            let Some(to) = refers.target() else { continue };
            take(&mut self.referrers, &to, &(document.clone(), refers.key.clone()));
        }
        groups
    }

    /// A conflict that is open.
    pub fn find(&self, id: &ConflictId) -> Option<Apart> {
        self.look(self.groups.get(id)?)
    }

    /// All that is open.
    pub fn open(&self) -> impl Iterator<Item = Apart> {
        self.open.keys().filter_map(|group| self.look(group))
    }

    fn look(&self, group: &Group) -> Option<Apart> {
        let apart = match group {
            Group::Claim(claim) => self.claimed_twice(group, claim),
            Group::Reference(from, key) => self.dangling(group, from, key),
        }?;
        let id = apart.view.id;
        let let_be =
            |document| self.facts.get(document).is_some_and(|facts| facts.decided.contains(&id));
        (!apart.documents.iter().any(let_be)).then_some(apart)
    }

    fn claimed_twice(&self, group: &Group, claim: &[u8; 16]) -> Option<Apart> {
        let live = |document: &DocumentId| -> Option<(DocumentId, &Facts, &Claimed)> {
            let facts = self.facts.get(document).filter(|facts| facts.deleted.is_none())?;
            let claimed =
                facts.claims.iter().find(|claimed| digest_of(facts, claimed) == *claim)?;
            Some((document.clone(), facts, claimed))
        };
        let members = self.claims.get(claim)?.iter().filter_map(live);
        let members: Vec<_> = members.take(MEMBERS_MAX).collect();
        let [(first, facts, claimed), _, ..] = members.as_slice() else { return None };
        let side = |(document, _, claimed): &(DocumentId, &Facts, &Claimed)| SideView {
            kind: "written".to_owned(),
            value: Some(Json::Object(claimed.values.clone())),
            document: Some(document.as_str().to_owned()),
            by: claimed.by.clone(),
        };
        let problem = format!(
            "{} live entities of type `{}` have the same {}, which is unique",
            members.len(),
            facts.type_name,
            claimed.path()
        );
        let sides: Vec<SideView> = members.iter().map(side).collect();
        let documents = members.iter().map(|(document, ..)| document.clone()).collect();
        let view = view(Code::Unique, first, claimed.path(), problem, sides);
        Some(Apart { view, documents, group: group.clone() })
    }

    fn dangling(&self, group: &Group, from: &DocumentId, key: &str) -> Option<Apart> {
        let facts = self.facts.get(from).filter(|facts| facts.deleted.is_none())?;
        let refers = facts.references.iter().find(|refers| refers.key == key)?;
        let to = refers.target()?;
        let deleted = self.facts.get(&to)?.deleted.as_ref()?;
        let problem = format!(
            "`{key}` refers to an entity that is deleted (the schema says `on_delete = \"{}\"`)",
            refers.on_delete
        );
        let side =
            |kind: &str, value: Option<Json>, document: &DocumentId, by: &Vec<By>| SideView {
                kind: kind.to_owned(),
                value,
                document: Some(document.as_str().to_owned()),
                by: by.clone(),
            };
        let value = Json::String(refers.to.clone());
        let sides = vec![
            side("written", Some(value), from, &refers.by),
            side("deleted", None, &to, deleted),
        ];
        let view = view(Code::Dangling, from, key.to_owned(), problem, sides);
        Some(Apart { view, documents: vec![from.clone(), to], group: group.clone() })
    }
}

impl Apart {
    /// What a decision on it writes, in which documents, and what it is called.
    ///
    /// # Errors
    /// [`NotSo`].
    pub fn steps(&self, wanted: &Wanted) -> Result<(String, Vec<Step>), NotSo> {
        let step = |document: &DocumentId, fields| Step { document: document.clone(), fields };
        let one = |key: &str, value| Map::from_iter([(key.to_owned(), value)]);
        let [first, second, ..] = self.documents.as_slice() else { return Err(NotSo::Claim) };
        if *wanted == Wanted::Now {
            return Ok(("now".to_owned(), vec![step(first, Map::new())]));
        }
        match (&self.group, wanted) {
            (Group::Claim(_), Wanted::Side(keeps)) => {
                if *keeps == 0 || *keeps > self.documents.len() {
                    return Err(NotSo::Claim);
                }
                let all = (1..).zip(&self.documents).zip(&self.view.sides);
                let others = all.filter(|((number, _), _)| number != keeps);
                let clear = |((_, document), side): ((usize, &DocumentId), &SideView)| {
                    let keys = side.value.iter().filter_map(Json::as_object).flatten();
                    step(document, keys.map(|(key, _)| (key.clone(), Json::Null)).collect())
                };
                Ok((format!("side-{keeps}"), others.map(clear).collect()))
            }
            (Group::Claim(_), _) => Err(NotSo::Claim),
            (Group::Reference(..), Wanted::Side(1)) => {
                Ok(("side-1".to_owned(), vec![step(second, one(DELETED_KEY, Json::Null))]))
            }
            (Group::Reference(_, key), Wanted::Side(2) | Wanted::Delete) => {
                Ok(("side-2".to_owned(), vec![step(first, one(key, Json::Null))]))
            }
            (Group::Reference(_, key), Wanted::Value(value @ Json::String(_))) => {
                Ok(("value".to_owned(), vec![step(first, one(key, value.clone()))]))
            }
            (Group::Reference(..), _) => Err(NotSo::Reference),
        }
    }

    /// In a few words.
    pub fn summary(&self) -> Summary {
        let View { id, document, code, path, problem, sides, .. } = &self.view;
        let by = sides.iter().flat_map(|side| &side.by);
        let slot = match &self.group {
            Group::Claim(claim) => digest([claim.as_slice()]),
            Group::Reference(document, key) => digest([document.as_str(), key]),
        };
        Summary {
            id: *id,
            document: document.clone(),
            type_name: None,
            code: code.clone(),
            path: path.clone(),
            problem: problem.clone(),
            slot: format!("{:016x}", u128::from_be_bytes(slot) >> 64),
            time: by.map(|by| by.time).max().unwrap_or_default(),
            sides: sides.iter().map(SideSummary::from).collect(),
            side_count: sides.len(),
        }
    }
}

/// What there can be conflicts about that this document has a part in.
fn groups(document: &DocumentId, facts: &Facts) -> BTreeSet<Group> {
    let claims = facts.claims.iter().map(|claimed| Group::Claim(digest_of(facts, claimed)));
    let references = facts.references.iter();
    claims
        .chain(references.map(|refers| Group::Reference(document.clone(), refers.key.clone())))
        .collect()
}

/// Takes a member out of a set, and an empty set away.
fn take<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, member: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(member);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

/// Tells unique keys apart: by type, fields and values.
fn digest_of(facts: &Facts, claimed: &Claimed) -> [u8; 16] {
    let values = claimed.values.iter().flat_map(|(key, value)| [key.clone(), value.to_string()]);
    digest(["concord unique 1".to_owned(), facts.type_name.clone()].into_iter().chain(values))
}

fn view(
    code: Code,
    document: &DocumentId,
    path: String,
    problem: String,
    sides: Vec<SideView>,
) -> View {
    let of_side = |side: &SideView| {
        let value = side.value.as_ref().map(Json::to_string).unwrap_or_default();
        let changes = side.by.iter().map(|by| by.change.clone());
        let document = side.document.clone().unwrap_or_default();
        [document, side.kind.clone(), value].into_iter().chain(changes).collect::<Vec<_>>()
    };
    let parts = sides.iter().flat_map(of_side);
    View {
        id: name_of(document, code, [path.clone()].into_iter().chain(parts)),
        document: document.as_str().to_owned(),
        code: code.to_string(),
        path: Some(path),
        problem: Some(problem),
        before: None,
        now: None,
        sides,
    }
}
