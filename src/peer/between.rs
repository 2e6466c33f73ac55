//! Conflicts between the documents of a peer, under the schema that is in force.

use concord_protocol::DocumentId;

use super::{Document, FindError, Peer, ReviewError, locked};
use crate::review::{
    Facts, Resolution,
    between::{Apart, Between},
    desk::Wanted,
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
