//! Conflicts between documents: two live entities that claim one unique key, references to what
//! somebody deleted, and references that go round in a circle.
//!
//! [`Between`] is told what each entity says ([`Facts`]) and gives what is open between them. It
//! depends on nothing but that: whoever has the same documents and the same schema finds the same.

mod apart;
mod deletion;

use std::collections::{BTreeMap, BTreeSet};

use concord_protocol::DocumentId;
use serde_json::Value as Json;

use self::apart::side;
pub(crate) use self::deletion::because;
pub use self::{
    apart::{Apart, NotSo, Step},
    deletion::{Deletion, Needed},
};
use super::{
    Code, ConflictId, SideView, View,
    conflict::name_of,
    facts::{Claimed, Facts, REFERENCES_MAX, Refers},
};
use crate::{digest::digest, entity::OnDelete};

/// Entities of one unique key that are shown: the first by the names of their documents.
const MEMBERS_MAX: usize = 50;
/// References that are followed from an entity to see whether they lead back to it.
const CIRCLE_MAX: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Between {
    facts: BTreeMap<DocumentId, Facts>,
    /// Who claims what.
    claims: BTreeMap<[u8; 16], BTreeSet<DocumentId>>,
    /// What refers to a document.
    referrers: BTreeMap<DocumentId, BTreeSet<Referrer>>,
    /// Of these, the live ones for which it should not be deleted: until they are dealt with, the
    /// others stay as they are.
    holders: BTreeMap<DocumentId, BTreeSet<Referrer>>,
    open: BTreeMap<Group, ConflictId>,
    groups: BTreeMap<ConflictId, Group>,
    /// Live ones that may refer to more than is known.
    unsure: BTreeSet<DocumentId>,
}

/// A reference: in which document, with which key, and whether it is one among others there.
type Referrer = (DocumentId, String, bool);

/// What there can be one conflict about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A unique key, by its digest.
    Claim([u8; 16]),
    /// A reference.
    Reference {
        /// The document that it is in.
        from: DocumentId,
        /// The key that it is in.
        key: String,
        /// To which document, if there may be several.
        member: Option<DocumentId>,
    },
    /// References of one field that lead back to where one began.
    Circle {
        /// The key of the field.
        key: String,
        /// The first of the documents, by their names.
        first: DocumentId,
    },
}

impl Between {
    /// What a document says now; `None` for one that is no entity. Gives what is open in each group
    /// that this may have changed.
    pub fn update(
        &mut self,
        document: &DocumentId,
        facts: Option<Facts>,
    ) -> BTreeMap<Group, Option<Apart>> {
        let mut groups = self.groups_of(document);
        let old = self.facts.remove(document);
        let was_deleted = old.as_ref().map(|facts| facts.deleted.clone());
        let is_deleted = facts.as_ref().map(|facts| facts.deleted.clone());
        let both = old.iter().chain(&facts).flat_map(|facts| targets(document, facts));
        let were_held: BTreeMap<DocumentId, bool> =
            both.map(|(_, to, _)| (to.clone(), self.holders.contains_key(&to))).collect();
        if let Some(old) = old {
            self.forget(document, &old);
        }
        if let Some(new) = facts {
            self.note(document, &new);
            self.facts.insert(document.clone(), new);
            groups.extend(self.groups_of(document));
        }
        // What others refer to, and what becomes of that is another now.
        let is_other =
            |(to, was_held): &(DocumentId, bool)| self.holders.contains_key(to) != *was_held;
        let mut others: BTreeSet<DocumentId> =
            were_held.into_iter().filter(is_other).map(|(to, _)| to).collect();
        if was_deleted != is_deleted {
            others.insert(document.clone());
        }
        for to in &others {
            let referrers = self.referrers.get(to).into_iter().flatten();
            groups.extend(referrers.map(|referrer| group_of(referrer, to)));
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

    /// What there can be conflicts about that this document has a part in.
    fn groups_of(&self, document: &DocumentId) -> BTreeSet<Group> {
        let Some(facts) = self.facts.get(document) else { return BTreeSet::new() };
        let claims = facts.claims.iter().map(|claimed| Group::Claim(digest_of(facts, claimed)));
        let references = targets(document, facts);
        let references = references.map(|(referrer, to, _)| group_of(&referrer, &to));
        let circles =
            facts.references.iter().filter(|refers| refers.acyclic).filter_map(|refers| {
                let first = self.circle(document, &refers.key)?.into_iter().min()?;
                Some(Group::Circle { key: refers.key.clone(), first })
            });
        claims.chain(references).chain(circles).collect()
    }

    fn note(&mut self, document: &DocumentId, facts: &Facts) {
        if facts.deleted.is_none() && facts.references.len() >= REFERENCES_MAX {
            self.unsure.insert(document.clone());
        }
        for claimed in &facts.claims {
            let claim = digest_of(facts, claimed);
            self.claims.entry(claim).or_default().insert(document.clone());
        }
        for (referrer, to, holds) in targets(document, facts) {
            if holds {
                self.holders.entry(to.clone()).or_default().insert(referrer.clone());
            }
            self.referrers.entry(to).or_default().insert(referrer);
        }
    }

    fn forget(&mut self, document: &DocumentId, facts: &Facts) {
        self.unsure.remove(document);
        for claimed in &facts.claims {
            take(&mut self.claims, &digest_of(facts, claimed), document);
        }
        for (referrer, to, _) in targets(document, facts) {
            take(&mut self.referrers, &to, &referrer);
            take(&mut self.holders, &to, &referrer);
        }
    }

    /// Whether something alive refers to a document, or may.
    pub fn keeps(&self, document: &DocumentId) -> bool {
        let mut referrers = self.referrers.get(document).into_iter().flatten();
        let is_other = |from: &DocumentId| from != document;
        referrers.any(|(from, ..)| is_other(from) && self.live(from).is_some())
            || self.unsure.iter().any(is_other)
    }

    /// A conflict that is open.
    pub fn find(&self, id: &ConflictId) -> Option<Apart> {
        self.look(self.groups.get(id)?)
    }

    /// The documents in which this was decided lately.
    pub fn decided_in(&self, id: &ConflictId) -> Vec<DocumentId> {
        let decided = self.facts.iter().filter(|(_, facts)| facts.decided.contains(id));
        decided.map(|(document, _)| document.clone()).collect()
    }

    /// This was decided in this document just now: it will say so itself when it is looked at.
    pub fn decided(&mut self, document: &DocumentId, id: ConflictId) {
        if let Some(facts) = self.facts.get_mut(document) {
            facts.decided.insert(0, id);
        }
    }

    /// All that is open.
    pub fn open(&self) -> impl Iterator<Item = Apart> {
        self.open.keys().filter_map(|group| self.look(group))
    }

    fn look(&self, group: &Group) -> Option<Apart> {
        let apart = match group {
            Group::Claim(claim) => self.claimed_twice(group, claim),
            Group::Reference { from, key, member } => {
                self.dangling(group, from, key, member.as_ref())
            }
            Group::Circle { key, first } => self.round(group, key, first),
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
        let side = |(document, _, claimed): &(DocumentId, &Facts, &Claimed)| {
            side("written", Some(Json::Object(claimed.values.clone())), document, &claimed.by)
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
        Some(Apart { view, documents, group: group.clone(), rule: None })
    }

    fn dangling(
        &self,
        group: &Group,
        from: &DocumentId,
        key: &str,
        member: Option<&DocumentId>,
    ) -> Option<Apart> {
        let facts = self.live(from)?;
        let is_it = |refers: &&Refers| {
            refers.key == key
                && refers.is_member == member.is_some()
                && member.is_none_or(|member| refers.target().as_ref() == Some(member))
        };
        let refers = facts.references.iter().find(is_it)?;
        let to = refers.target()?;
        let deleted = self.facts.get(&to)?.deleted.as_ref()?;
        let problem = format!(
            "`{key}` refers to an entity that is deleted (the schema says `on_delete = \"{}\"`)",
            refers.on_delete
        );
        let sides = vec![
            side("written", Some(Json::String(refers.to.clone())), from, &refers.by),
            side("deleted", None, &to, deleted),
        ];
        let view = view(Code::Dangling, from, key.to_owned(), problem, sides);
        let rule = OnDelete::named(&refers.on_delete).filter(|rule| match rule {
            OnDelete::Restrict => false,
            OnDelete::Restore => true,
            // Not while it may come back.
            OnDelete::Cascade | OnDelete::SetNull => !self.holders.contains_key(&to),
        });
        Some(Apart { view, documents: vec![from.clone(), to], group: group.clone(), rule })
    }

    fn round(&self, group: &Group, key: &str, first: &DocumentId) -> Option<Apart> {
        // Of one that another has come into, the name is another.
        let documents = self.circle(first, key)?;
        documents.iter().all(|document| first <= document).then_some(())?;
        let side = |document: &DocumentId| {
            let refers = self.leads_on(document, key)?;
            Some(side("written", Some(Json::String(refers.to.clone())), document, &refers.by))
        };
        let sides: Vec<SideView> = documents.iter().map(side).collect::<Option<_>>()?;
        let problem = format!(
            "`{key}` goes round in a circle: {} referring to the next, and the last to the first",
            match documents.len() {
                1 => "one entity".to_owned(),
                count => format!("{count} entities, each"),
            }
        );
        let view = view(Code::Move, first, key.to_owned(), problem, sides);
        Some(Apart { view, documents, group: group.clone(), rule: None })
    }

    /// The documents of a circle that a reference leads round in, from this one on.
    fn circle(&self, from: &DocumentId, key: &str) -> Option<Vec<DocumentId>> {
        let mut passed = vec![from.clone()];
        let mut seen = BTreeSet::new();
        let type_name = &self.live(from)?.type_name;
        let mut at = from.clone();
        while passed.len() <= CIRCLE_MAX {
            let to = self.leads_on(&at, key)?.target()?;
            if to == *from {
                return Some(passed);
            }
            // It may lead into another circle.
            if self.live(&to)?.type_name != *type_name || !seen.insert(to.clone()) {
                return None;
            }
            passed.push(to.clone());
            at = to;
        }
        None
    }

    /// The reference that leads on from a document, in a field where none may lead back.
    fn leads_on(&self, document: &DocumentId, key: &str) -> Option<&Refers> {
        let facts = self.live(document)?;
        facts.references.iter().find(|refers| refers.acyclic && refers.key == key)
    }

    /// What an entity says that is not deleted.
    fn live(&self, document: &DocumentId) -> Option<&Facts> {
        self.facts.get(document).filter(|facts| facts.deleted.is_none())
    }
}

fn group_of((from, key, is_member): &Referrer, to: &DocumentId) -> Group {
    let member = is_member.then(|| to.clone());
    Group::Reference { from: from.clone(), key: key.clone(), member }
}

/// What a document refers to, and whether that should not be deleted for it.
fn targets<'a>(
    document: &'a DocumentId,
    facts: &'a Facts,
) -> impl Iterator<Item = (Referrer, DocumentId, bool)> + 'a {
    facts.references.iter().filter_map(|refers| {
        let rule = OnDelete::named(&refers.on_delete);
        let holds = facts.deleted.is_none()
            && matches!(rule, Some(OnDelete::Restrict | OnDelete::Restore) | None);
        let referrer = (document.clone(), refers.key.clone(), refers.is_member);
        Some((referrer, refers.target()?, holds))
    })
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
