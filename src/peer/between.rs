//! Conflicts between the documents of a peer, under the schema that is in force.

use concord_protocol::DocumentId;

use super::{Document, FindError, Peer, ReviewError, locked};
use crate::review::{
    Choice, ConflictId, Facts, NotAgain, Resolution,
    between::{Apart, Between},
    desk::Wanted,
    history,
};

impl Peer {
    /// The conflicts between documents that are stored here: unique keys that two entities have,
    /// and references to what is deleted. Reads every document; finds nothing without
    /// a schema ([`Peer::schema`]). Documents that cannot be read are passed
    /// over.
    ///
    /// # Errors
    /// [`ReviewError::Find`] and [`ReviewError::Documents`] if the peer is closed or its store cannot
    /// be read.
    pub async fn conflicts_between(&self) -> Result<Vec<Apart>, ReviewError> {
        Ok(self.between().await?.open().collect())
    }

    /// What the documents that are stored here say that concerns others.
    pub(super) async fn between(&self) -> Result<Between, ReviewError> {
        let mut between = Between::default();
        self.schema_is_known().await;
        if self.0.schemas.in_force().is_none() {
            return Ok(between);
        }
        for id in self.documents().await? {
            if let Some(document) = self.find_or_pass(&id).await? {
                between.update(&id, document.facts()?);
            }
        }
        Ok(between)
    }

    /// A document that is stored here, for somebody who looks through many: one that cannot be read
    /// is passed over.
    pub(super) async fn find_or_pass(
        &self,
        id: &DocumentId,
    ) -> Result<Option<Document>, FindError> {
        match self.find(id.as_str()).await {
            Ok(document) => Ok(Some(document)),
            Err(FindError::Closed) => Err(FindError::Closed),
            Err(error) => {
                tracing::warn!(document = %id, %error, "passed over");
                Ok(None)
            }
        }
    }

    /// Takes a decision on a conflict back: what was shown before is there again, in all documents in
    /// which it was decided. Where somebody wrote since, it is not taken back. Gives the documents.
    ///
    /// # Errors
    /// [`ReviewError`]. Should one fail, those before it stand.
    pub async fn revert(
        &self,
        document: &Document,
        conflict: ConflictId,
        reason: Option<String>,
    ) -> Result<Vec<Document>, ReviewError> {
        let mut documents = vec![document.clone()];
        if !document.is_of_one(conflict)? {
            for other in self.between().await?.decided_in(&conflict) {
                if other != *document.id() {
                    documents.push(self.find(other.as_str()).await?);
                }
            }
        }
        for document in &documents {
            document.decide_again(conflict, &Choice::Now, reason.clone()).await?;
        }
        Ok(documents)
    }

    /// Decides a conflict between documents: a change in each that it concerns, on disk when this
    /// returns. Should one fail, those before it stand.
    ///
    /// # Errors
    /// [`ReviewError`]; [`ReviewError::NotSo`] for what cannot be chosen.
    pub async fn resolve_between(
        &self,
        conflict: &Apart,
        wanted: &Wanted,
        reason: Option<String>,
    ) -> Result<(), ReviewError> {
        let (choice, steps) = conflict.steps(wanted)?;
        for step in steps {
            let document = self.find(step.document.as_str()).await?;
            let doc = document.read(Clone::clone)?;
            let (id, reason) = (conflict.view.id, reason.clone());
            let resolution =
                Resolution::of_fields(&doc, id, &choice, reason, &step.fields, step.without())?;
            let resolution = resolution.under(&doc, document.schema().as_deref());
            document.write_decision(&doc, &resolution).await?;
        }
        Ok(())
    }
}

impl Document {
    /// Whether a conflict that was decided is one of this document alone.
    fn is_of_one(&self, conflict: ConflictId) -> Result<bool, ReviewError> {
        let schema = self.schema();
        let decided = self.read(|doc| {
            history::decided(doc, self.id(), schema.as_deref(), conflict).map(|_| ())
        })?;
        match decided {
            Ok(()) => Ok(true),
            Err(NotAgain::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What it says that concerns others, if it is an entity.
    fn facts(&self) -> Result<Option<Facts>, ReviewError> {
        let mut follower = locked(&self.held().follower);
        self.read(|doc| {
            let news = follower.news(doc);
            follower.take_in(news)?;
            let schema = self.schema();
            let of = schema.as_ref().and_then(|schema| schema.recognise(doc));
            Ok(of.map(|of| Facts::of(doc, follower.detector(), of)))
        })?
    }
}
