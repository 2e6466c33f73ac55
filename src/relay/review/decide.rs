//! Decisions: made into changes by a worker, and stored.

use bytes::Bytes;
use concord_protocol::{ChangeHash, DocumentId, guard};

use super::{NoAnswer, Reviewer, triage::another};
use crate::{
    relay::hub::Hub,
    replica::LocalError,
    review::{
        ConflictId,
        between::{Apart, Step},
        bulk::BulkId,
        desk::{Answer, Decision, Order, Question, Wanted, Writing},
    },
};

/// Why a decision was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecided {
    #[error("no conflict of this name is or was open lately")]
    Unknown,
    #[error("the conflict is not open any more")]
    NotOpen(Option<ConflictId>),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Held(String),
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error("the decision was not stored: {0}")]
    NotStored(LocalError),
    #[error("the relay is shutting down")]
    Ending,
    #[error("the system has no random numbers to give: {0}")]
    NoRandomness(#[from] getrandom::Error),
}

/// A decision that is on disk.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) document: DocumentId,
    pub(super) change: ChangeHash,
}

/// What is known of a conflict that is decided.
#[derive(Debug)]
struct Place {
    document: DocumentId,
    /// The slot that it is or was about.
    slot: Option<String>,
    /// What it is or was decided together with.
    bulk: Option<BulkId>,
}

impl Reviewer {
    /// Decides a conflict: all that it takes is on disk when this returns.
    pub(super) async fn decide(
        &self,
        hub: &Hub,
        id: ConflictId,
        decision: Decision,
    ) -> Result<Vec<Decided>, Undecided> {
        let _turn = self.deciding.lock().await;
        let apart = self.state().apart(&id);
        if let Some(apart) = apart {
            return self.decide_between(hub, &apart, decision).await;
        }
        let (document, slot) = self.state().index.find(&id).ok_or(Undecided::Unknown)?;
        let place = Place { document, slot: Some(slot), bulk: None };
        Ok(vec![self.decide_one(hub, id, place, decision, Question::Decide).await?])
    }

    /// Decides a conflict of one document together with others.
    pub(super) async fn decide_in_bulk(
        &self,
        hub: &Hub,
        id: ConflictId,
        decision: Decision,
        bulk: BulkId,
    ) -> Result<Decided, Undecided> {
        let _turn = self.deciding.lock().await;
        let (document, slot) = self.state().index.find(&id).ok_or(Undecided::Unknown)?;
        let place = Place { document, slot: Some(slot), bulk: Some(bulk) };
        let decided = self.decide_one(hub, id, place, decision, Question::Decide).await?;
        self.state().bulks.note(&decided.document, bulk, id);
        Ok(decided)
    }

    /// Takes a decision back that was made together with others, unless somebody decided otherwise
    /// since.
    pub(super) async fn revert_of_bulk(
        &self,
        hub: &Hub,
        id: ConflictId,
        document: DocumentId,
        reason: Option<String>,
        bulk: BulkId,
    ) -> Result<Decided, Undecided> {
        let _turn = self.deciding.lock().await;
        let place = Place { document, slot: None, bulk: Some(bulk) };
        let decision = Decision { choice: Wanted::Now, reason };
        let decided = self.decide_one(hub, id, place, decision, Question::DecideAgain).await?;
        self.state().bulks.forget(&decided.document, bulk, id);
        Ok(decided)
    }

    /// Takes a decision back, in all documents that it is written in.
    pub(super) async fn revert(
        &self,
        hub: &Hub,
        id: ConflictId,
        reason: Option<String>,
    ) -> Result<Vec<Decided>, Undecided> {
        let _turn = self.deciding.lock().await;
        let places: Vec<Place> = {
            let state = self.state();
            let found = state.index.find(&id).map(|(document, slot)| (document, Some(slot)));
            let mut written = state.between.decided_in(&id);
            if written.is_empty() {
                // Of one document that is no entity, or was decided just now.
                written.extend(found.iter().map(|(document, _)| document.clone()));
            }
            let slot = |document: &DocumentId| {
                let found = found.as_ref().filter(|(at, _)| at == document);
                found.and_then(|(_, slot)| slot.clone())
            };
            let place = |document| Place { slot: slot(&document), document, bulk: None };
            written.into_iter().map(place).collect()
        };
        if places.is_empty() {
            return Err(Undecided::Unknown);
        }
        let mut reverted = Vec::with_capacity(places.len());
        for place in places {
            let decision = Decision { choice: Wanted::Now, reason: reason.clone() };
            let ask = Question::DecideAgain;
            reverted.push(self.decide_one(hub, id, place, decision, ask).await?);
        }
        Ok(reverted)
    }

    /// Decides on a conflict of one document.
    async fn decide_one(
        &self,
        hub: &Hub,
        id: ConflictId,
        place: Place,
        decision: Decision,
        ask: fn(Order) -> Question,
    ) -> Result<Decided, Undecided> {
        let Place { document, slot, bulk } = place;
        let (actor, time_s) = (actor()?.to_vec(), now_s(hub));
        let order = Order { conflict: id, slot, decision, actor, time_s, bulk };
        let decided = self.carry_out(hub, document, ask(order)).await?;
        let closed = self.state().index.decided(&id);
        if let Some(change) = closed {
            self.tell(change);
        }
        Ok(decided)
    }

    /// Decides on a conflict between documents: a change in each that it concerns. Should one fail,
    /// those before it stand, and the conflict is open between the others.
    async fn decide_between(
        &self,
        hub: &Hub,
        apart: &Apart,
        decision: Decision,
    ) -> Result<Vec<Decided>, Undecided> {
        let (choice, steps) = (apart.steps(&decision.choice))
            .map_err(|reason| Undecided::Refused(reason.to_string()))?;
        let decided =
            self.write_steps(hub, apart, &choice, decision.reason.as_ref(), steps).await?;
        let closed = {
            let mut state = self.state();
            for decided in &decided {
                state.between.decided(&decided.document, apart.view.id);
            }
            state.index.between(&apart.group, None)
        };
        for change in closed {
            self.tell(change);
        }
        Ok(decided)
    }

    /// Does what the schema's rule says, if that is still to be done. Gives what it is called.
    pub(super) async fn carry_out_rule(
        &self,
        hub: &Hub,
        id: ConflictId,
    ) -> Result<Option<&'static str>, Undecided> {
        let _turn = self.deciding.lock().await;
        let Some(apart) = self.state().apart(&id) else { return Ok(None) };
        let (Some(rule), Some((choice, steps))) = (apart.rule, apart.by_rule()) else {
            return Ok(None);
        };
        self.write_steps(hub, &apart, &choice, None, steps).await?;
        Ok(Some(rule.name()))
    }

    async fn write_steps(
        &self,
        hub: &Hub,
        apart: &Apart,
        choice: &str,
        reason: Option<&String>,
        steps: Vec<Step>,
    ) -> Result<Vec<Decided>, Undecided> {
        let conflict = apart.view.id;
        let mut decided = Vec::with_capacity(steps.len());
        for Step { document, fields, without } in steps {
            let (choice, reason) = (choice.to_owned(), reason.cloned());
            let without = without.map(|(key, to)| (key, to.as_str().to_owned()));
            let (actor, time_s) = (actor()?.to_vec(), now_s(hub));
            let writing = Writing { conflict, choice, reason, fields, without, actor, time_s };
            decided.push(self.carry_out(hub, document, Question::Write(writing)).await?);
        }
        Ok(decided)
    }

    /// Has a decision made into a change, and stores it.
    async fn carry_out(
        &self,
        hub: &Hub,
        document: DocumentId,
        question: Question,
    ) -> Result<Decided, Undecided> {
        let change = match self.ask(&hub.shards, &document, question).await? {
            Answer::Decided(change) => Bytes::from(change),
            Answer::Refused(reason) => return Err(Undecided::Refused(reason)),
            Answer::NotOpen(successor) => {
                self.changed(&document);
                return Err(Undecided::NotOpen(successor));
            }
            Answer::Listed { .. }
            | Answer::Chosen(_)
            | Answer::Previewed(_)
            | Answer::Shown { .. }
            | Answer::Triage(_) => {
                return Err(another().into());
            }
        };
        let limits = &hub.config.limits;
        let header = guard::check_change(&change, limits)
            .map_err(|error| Undecided::Refused(error.to_string()))?;
        let stored = hub.shards.change(&document, change).await.ok_or(Undecided::Ending)?;
        stored.map_err(Undecided::NotStored)?;
        Ok(Decided { document, change: header.hash })
    }
}

/// Whose change a decision is: nobody's who has made another.
pub(super) fn actor() -> Result<[u8; 16], getrandom::Error> {
    let mut actor = [0; 16];
    getrandom::fill(&mut actor)?;
    Ok(actor)
}

pub(super) fn now_s(hub: &Hub) -> i64 {
    hub.clock.now_s()
}
