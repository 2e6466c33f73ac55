//! What people chose, as the looks at documents found it: examples for what is open, in memory.

use std::collections::{BTreeMap, BTreeSet};

use concord_protocol::DocumentId;

use crate::review::{
    ConflictId,
    suggest::{Chosen, Likeness, Suggestion, suggest},
};

/// Decisions that are remembered, of about half a KB each; those beyond are no examples.
const DECISIONS_MAX: usize = 50_000;
/// Examples that are looked at for one suggestion.
const EXAMPLES_MAX: usize = 5_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Past {
    by_field: BTreeMap<String, BTreeMap<(DocumentId, ConflictId), Chosen>>,
    documents: BTreeMap<DocumentId, Known>,
    count: usize,
}

/// What is known of a document.
#[derive(Debug, Default)]
struct Known {
    /// Which decisions it was found out of.
    decisions: String,
    examples: BTreeSet<(String, ConflictId)>,
}

impl Past {
    /// These decisions stand in a document. Gives them if what was chosen is to be found out.
    pub(super) fn news(
        &mut self,
        document: &DocumentId,
        decisions: Option<String>,
    ) -> Option<String> {
        let Some(decisions) = decisions else {
            self.forget(document);
            return None;
        };
        let known = self.documents.get(document);
        (known.is_none_or(|known| known.decisions != decisions)).then_some(decisions)
    }

    fn forget(&mut self, document: &DocumentId) {
        for (field, id) in self.documents.remove(document).unwrap_or_default().examples {
            let Some(examples) = self.by_field.get_mut(&field) else { continue };
            if examples.remove(&(document.clone(), id)).is_some() {
                self.count -= 1;
            }
            if examples.is_empty() {
                self.by_field.remove(&field);
            }
        }
    }

    /// This was chosen in a document with these decisions, and nothing else.
    pub(super) fn update(&mut self, document: &DocumentId, decisions: String, made: Vec<Chosen>) {
        self.forget(document);
        let mut known = Known { decisions, ..Known::default() };
        for chosen in made {
            if self.count >= DECISIONS_MAX {
                break;
            }
            let (field, id) = (chosen.likeness.field.clone(), chosen.conflict);
            known.examples.insert((field.clone(), id));
            let examples = self.by_field.entry(field).or_default();
            if examples.insert((document.clone(), id), chosen).is_none() {
                self.count += 1;
            }
        }
        self.documents.insert(document.clone(), known);
    }

    /// What was chosen most often of conflicts that were like this one.
    pub(super) fn suggest(&self, open: &Likeness) -> Option<Suggestion> {
        suggest(open, self.by_field.get(&open.field)?.values().take(EXAMPLES_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::suggest::Took;

    #[test]
    fn a_document_that_is_looked_at_again_counts_once() {
        let document = |n| DocumentId::from_bytes(&[n; 16]);
        let likeness = Likeness {
            field: "task.status".to_owned(),
            values: BTreeSet::from(["string".to_owned()]),
            authors: BTreeSet::new(),
        };
        let made = |n: u32| Chosen {
            conflict: format!("{n:032x}").parse().unwrap(),
            likeness: likeness.clone(),
            took: BTreeSet::from([Took::Latest]),
        };
        let mut past = Past::default();
        for _ in 0..3 {
            for n in 1..=4 {
                past.update(&document(n), "one".to_owned(), vec![made(n.into())]);
            }
        }
        let [one, two] = ["one", "two"].map(|decisions| Some(decisions.to_owned()));
        assert_eq!(past.news(&document(1), one.clone()), None, "that is known");
        assert_eq!(past.news(&document(1), two.clone()), two);
        assert_eq!(past.news(&document(9), one.clone()), one);
        let said = past.suggest(&likeness).unwrap();
        assert_eq!((said.times, said.of, past.count), (4, 4, 4));
        for n in 1..=4 {
            assert_eq!(past.news(&document(n), None), None);
        }
        assert_eq!((past.suggest(&likeness), past.count), (None, 0));
        assert!(past.by_field.is_empty() && past.documents.is_empty());
    }
}
