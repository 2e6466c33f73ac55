//! What else is to be done when an entity is deleted.

use std::collections::{BTreeMap, BTreeSet};

use concord_protocol::DocumentId;

use super::Between;
use crate::entity::OnDelete;

/// What deleting an entity takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deletion {
    /// What is deleted with it, as the schema says.
    pub with: BTreeSet<DocumentId>,
    /// References that are cleared: in which documents, with which keys, to what.
    pub cleared: BTreeSet<(DocumentId, String, DocumentId)>,
}

/// An entity that is deleted, or something that would be deleted with it, is referred to by what the
/// schema says must not lose it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is needed: {} is referred to by {} (field `{key}`){}",
    to.as_str(),
    from.as_str(),
    match more { 0 => String::new(), more => format!(" and by {more} more") }
)]
pub struct Needed {
    /// What is referred to.
    pub to: DocumentId,
    /// By which document, the first by its name.
    pub from: DocumentId,
    /// In which field, by its key.
    pub key: String,
    /// References of this kind besides this one.
    pub more: usize,
}

/// What is written to the history of what is deleted, or cleared, with something.
pub(crate) fn because(deleted: &DocumentId) -> String {
    format!("because {} was deleted", deleted.as_str())
}

impl Between {
    /// What deleting the entity in this document takes, as the schema says of references to it.
    ///
    /// # Errors
    /// [`Needed`].
    pub fn deletion(&self, document: &DocumentId) -> Result<Deletion, Needed> {
        let mut gone = BTreeSet::from([document.clone()]);
        let mut left = vec![document.clone()];
        let mut others: BTreeMap<(DocumentId, DocumentId, String), OnDelete> = BTreeMap::new();
        while let Some(to) = left.pop() {
            for (from, key, rule) in self.references_to(&to) {
                if rule == OnDelete::Cascade {
                    if gone.insert(from.clone()) {
                        left.push(from);
                    }
                } else {
                    others.insert((to.clone(), from, key), rule);
                }
            }
        }
        // What goes too needs nothing.
        others.retain(|(_, from, _), _| !gone.contains(from));
        let is_needed = |rule: &OnDelete| matches!(rule, OnDelete::Restrict | OnDelete::Restore);
        let mut needed = others.iter().filter(|(_, rule)| is_needed(rule));
        if let Some(((to, from, key), _)) = needed.next() {
            let (to, from, key) = (to.clone(), from.clone(), key.clone());
            return Err(Needed { to, from, key, more: needed.count() });
        }
        gone.remove(document);
        let cleared = others.into_keys().map(|(to, from, key)| (from, key, to)).collect();
        Ok(Deletion { with: gone, cleared })
    }

    /// The live references to a document: where they are, and what the schema says of them.
    fn references_to(&self, to: &DocumentId) -> Vec<(DocumentId, String, OnDelete)> {
        let referrers = self.referrers.get(to).into_iter().flatten();
        let live = referrers.filter_map(|(from, key, is_member)| {
            let facts = self.live(from)?;
            let refers = facts.references.iter().find(|refers| {
                refers.key == *key
                    && refers.is_member == *is_member
                    && refers.target().as_ref() == Some(to)
            })?;
            // A rule that is not known is no reason to lose something.
            let rule = OnDelete::named(&refers.on_delete).unwrap_or_default();
            Some((from.clone(), key.clone(), rule))
        });
        live.collect()
    }
}
