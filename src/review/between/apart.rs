//! A conflict between documents, and what a decision on it writes.

use concord_protocol::DocumentId;
use serde_json::{Map, Value as Json};

use super::Group;
use crate::{
    digest::digest,
    entity::{DELETED_KEY, OnDelete},
    review::{By, SideSummary, SideView, Summary, View, desk::Wanted},
};

/// A conflict between documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Apart {
    /// With all that is shown of it. Each side says in which document it is.
    pub view: View,
    /// The documents, as the sides have them.
    pub documents: Vec<DocumentId>,
    /// What it is about.
    pub group: Group,
    /// What the schema says becomes of it, if it is not for a person to decide.
    pub rule: Option<OnDelete>,
}

/// A change of one document that a decision takes: fields, and what is to be in them; `null` for
/// nothing. If nothing is to be changed, it says that all is to be as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Which document.
    pub document: DocumentId,
    /// Its fields, by their keys.
    pub fields: Map<String, Json>,
    /// A field, by its key, in which a document is not to be referred to any more, wherever in it
    /// that is.
    pub without: Option<(String, DocumentId)>,
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
    /// Of one among others.
    #[error(
        "say side 1 (what is referred to comes back), side 2 (the reference is taken out), or let it \
         be with now"
    )]
    Member,
    /// Of references that go round in a circle.
    #[error(
        "say which side stands (of the others the last one is cleared), delete (the last one of all \
         is), or let it be with now"
    )]
    Circle,
}

impl Apart {
    /// What a decision on it writes, in which documents, and what it is called.
    ///
    /// # Errors
    /// [`NotSo`].
    pub fn steps(&self, wanted: &Wanted) -> Result<(String, Vec<Step>), NotSo> {
        if *wanted == Wanted::Now {
            let first = self.documents.iter().take(1);
            return Ok(("now".to_owned(), first.map(|of| Step::of(of, Map::new())).collect()));
        }
        match &self.group {
            Group::Claim(_) => match wanted {
                Wanted::Side(keeps) if self.has_side(*keeps) => {
                    let all = (1..).zip(&self.documents).zip(&self.view.sides);
                    let others = all.filter(|((number, _), _)| number != keeps);
                    let clear = |((_, document), side): ((usize, &DocumentId), &SideView)| {
                        let keys = side.value.iter().filter_map(Json::as_object).flatten();
                        Step::of(document, keys.map(|(key, _)| (key.clone(), Json::Null)).collect())
                    };
                    Ok((format!("side-{keeps}"), others.map(clear).collect()))
                }
                _ => Err(NotSo::Claim),
            },
            Group::Reference { from, key, member } => match (wanted, member) {
                (Wanted::Side(1), _) => Ok(("side-1".to_owned(), self.restored())),
                (Wanted::Side(2) | Wanted::Delete, _) => Ok(("side-2".to_owned(), self.cleared())),
                (Wanted::Value(value @ Json::String(_)), None) => {
                    Ok(("value".to_owned(), vec![Step::one(from, key, value.clone())]))
                }
                (_, None) => Err(NotSo::Reference),
                (_, Some(_)) => Err(NotSo::Member),
            },
            Group::Circle { key, .. } => {
                let (stands, choice) = match wanted {
                    Wanted::Side(stands) if self.has_side(*stands) && self.documents.len() > 1 => {
                        (Some(*stands), format!("side-{stands}"))
                    }
                    Wanted::Delete => (None, "delete".to_owned()),
                    _ => return Err(NotSo::Circle),
                };
                let when = |side: &SideView| side.by.iter().map(|by| by.time).max();
                let all = (1..).zip(&self.documents).zip(&self.view.sides);
                let last = all
                    .filter(|((number, _), _)| Some(*number) != stands)
                    .max_by_key(|((_, document), side)| (when(side), *document));
                let cut = last.map(|((_, document), _)| Step::one(document, key, Json::Null));
                Ok((choice, cut.into_iter().collect()))
            }
        }
    }

    /// What the schema's rule writes, if it has one, in which documents, and what it is called.
    pub fn by_rule(&self) -> Option<(String, Vec<Step>)> {
        let rule = self.rule?;
        let steps = match rule {
            OnDelete::Restrict => return None,
            OnDelete::Restore => self.restored(),
            OnDelete::SetNull => self.cleared(),
            OnDelete::Cascade => {
                let [from, ..] = self.documents.as_slice() else { return None };
                // When the other was: the same for whoever carries it out.
                let by = self.view.sides.iter().filter(|side| side.kind == "deleted");
                let time_s = by.flat_map(|side| &side.by).map(|by| by.time).max();
                let time_ms = time_s.unwrap_or_default().saturating_mul(1_000);
                vec![Step::one(from, DELETED_KEY, time_ms.into())]
            }
        };
        Some((format!("policy-{}", rule.name()), steps))
    }

    fn has_side(&self, number: usize) -> bool {
        (1..=self.documents.len()).contains(&number)
    }

    /// What is referred to comes back.
    fn restored(&self) -> Vec<Step> {
        let to = self.documents.iter().skip(1).take(1);
        to.map(|to| Step::one(to, DELETED_KEY, Json::Null)).collect()
    }

    /// The reference goes.
    fn cleared(&self) -> Vec<Step> {
        match &self.group {
            Group::Reference { from, key, member: None } => vec![Step::one(from, key, Json::Null)],
            Group::Reference { from, key, member: Some(to) } => {
                let without = Some((key.clone(), to.clone()));
                vec![Step { without, ..Step::of(from, Map::new()) }]
            }
            Group::Claim(_) | Group::Circle { .. } => Vec::new(),
        }
    }

    /// In a few words.
    pub fn summary(&self) -> Summary {
        let View { id, document, code, path, problem, sides, .. } = &self.view;
        let by = sides.iter().flat_map(|side| &side.by);
        let slot = match &self.group {
            Group::Claim(claim) => digest([claim.as_slice()]),
            Group::Reference { from, key, member } => {
                let member = member.as_ref().map(DocumentId::as_str);
                digest([from.as_str(), key].into_iter().chain(member))
            }
            Group::Circle { key, first } => digest(["circle", key, first.as_str()]),
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

impl Step {
    fn of(document: &DocumentId, fields: Map<String, Json>) -> Self {
        Self { document: document.clone(), fields, without: None }
    }

    /// [`Step::without`], with the id of the document.
    pub fn without(&self) -> Option<(&str, &str)> {
        self.without.as_ref().map(|(key, to)| (key.as_str(), to.as_str()))
    }

    fn one(document: &DocumentId, key: &str, value: Json) -> Self {
        Self::of(document, Map::from_iter([(key.to_owned(), value)]))
    }
}

/// A side of a conflict between documents.
pub(super) fn side(kind: &str, value: Option<Json>, document: &DocumentId, by: &[By]) -> SideView {
    SideView {
        kind: kind.to_owned(),
        value,
        document: Some(document.as_str().to_owned()),
        by: by.to_vec(),
    }
}
