//! What people chose of conflicts like one that is open, in the documents that are stored here.

use automerge::Automerge;

use super::{Document, FindError, Peer, ReviewError};
use crate::{
    entity::{ROOT_KEY, type_of},
    review::{
        Conflict, history,
        suggest::{Chosen, Likeness, Suggestion, chosen, suggest},
    },
};

/// Documents that are looked through for one suggestion, the first by their names.
const DOCUMENTS_MAX: usize = 500;

impl Peer {
    /// What people chose most often of conflicts like this one, in the documents that are stored
    /// here. It is told, and applied by nobody. Opens up to 500 documents.
    ///
    /// # Errors
    /// [`ReviewError::Find`] and [`ReviewError::Documents`].
    pub async fn suggestion(
        &self,
        document: &Document,
        conflict: &Conflict,
    ) -> Result<Option<Suggestion>, ReviewError> {
        let likeness = document.read(|doc| {
            let of = type_of(doc, &document.root_key());
            Likeness::of(doc, of.as_deref(), conflict)
        })?;
        let Some(likeness) = likeness else { return Ok(None) };
        let mut past: Vec<Chosen> = Vec::new();
        for id in self.documents().await?.into_iter().take(DOCUMENTS_MAX) {
            if let Some(other) = self.find_or_pass(&id).await? {
                past.extend(other.chosen()?);
            }
        }
        Ok(suggest(&likeness, &past))
    }
}

impl Document {
    /// The decisions that people made in it, as examples.
    fn chosen(&self) -> Result<Vec<Chosen>, FindError> {
        let root_key = self.root_key();
        let has_any = |doc: &Automerge| !history::decisions(doc).is_empty();
        // What is long to look at is looked at in a copy: edits go on meanwhile.
        let Some(doc) = self.read(|doc| has_any(doc).then(|| doc.clone()))? else {
            return Ok(Vec::new());
        };
        Ok(chosen(&doc, self.id(), self.schema().as_deref(), type_of(&doc, &root_key).as_deref()))
    }

    /// The key that names the type of a document.
    fn root_key(&self) -> String {
        let schema = self.schema();
        schema.map_or_else(|| ROOT_KEY.to_owned(), |schema| schema.root_key.clone())
    }
}
