//! Documents read as entities, with what of them is in review.

use super::{Document, ReviewError};
use crate::{
    entity::EntityType,
    review::{
        hold::{Reviewed, in_review},
        triage,
    },
};

impl Document {
    /// What it says as an entity of this type, and which of its fields are in review: those that the
    /// schema holds (`hold = true`) and about which somebody has yet to decide. Their values are
    /// those that stand until then. A conflict that was dismissed holds nothing.
    ///
    /// # Errors
    /// As [`Document::conflicts`].
    pub async fn reviewed<'t>(&self, of: &'t EntityType) -> Result<Reviewed<'t>, ReviewError> {
        let open = self.conflicts()?;
        let (entity, mut held) = self.read(|doc| (of.read(doc), in_review(doc, of, &open)))?;
        if !held.is_empty()
            && let Some(said) = self.peer().review_document_here().await?
        {
            let is_dismissed =
                |doc: &automerge::Automerge, id| triage::read(doc, id).dismissed.is_some();
            said.read(|doc| {
                for conflicts in held.values_mut() {
                    conflicts.retain(|id| !is_dismissed(doc, *id));
                }
            })?;
            held.retain(|_, conflicts| !conflicts.is_empty());
        }
        Ok(Reviewed { entity, in_review: held })
    }
}
