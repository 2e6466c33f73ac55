//! Who looks after which conflicts: read from the review document and written into it, which is a
//! document as every other to the rest of the relay.

use bytes::Bytes;
use concord_protocol::{ChangeHash, guard};

use super::{
    NoAnswer, Reviewer,
    decide::{Undecided, actor, now_s},
    index::Change,
};
use crate::{
    relay::{hub::Hub, shard::Shards},
    replica::JobError,
    review::{
        ConflictId,
        desk::{Answer, Question},
        triage::{
            Act, Triage,
            desk::{Answer as Said, Order, Question as Asked},
        },
    },
};

/// Something that was done, and is on disk.
#[derive(Debug)]
pub(super) struct Done {
    /// How it stands now.
    pub(super) triage: Triage,
    /// The change; `None` if all was so already.
    pub(super) change: Option<ChangeHash>,
}

impl Reviewer {
    /// Does something about a conflict that is open, in somebody's name: it is on disk when this
    /// returns.
    pub(super) async fn act(
        &self,
        hub: &Hub,
        id: ConflictId,
        act: Act,
        who: String,
    ) -> Result<Done, Undecided> {
        let _turn = self.deciding.lock().await;
        {
            let state = self.state();
            if !state.index.is_open(&id) {
                let was_open = state.index.find(&id).is_some();
                return Err(if was_open { Undecided::NotOpen(None) } else { Undecided::Unknown });
            }
        }
        let (actor, time_s) = (actor()?, now_s(hub));
        let order = Order { conflict: id, act, who, actor, time_s };
        let (triage, change) = self.write(hub, Asked::Write(order)).await?;
        self.set(hub, id, &triage);
        Ok(Done { triage, change })
    }

    /// All that was said about a conflict.
    pub(super) async fn triage(&self, shards: &Shards, id: ConflictId) -> Result<Triage, NoAnswer> {
        if self.state().standings.of(&id).is_none() {
            return Ok(Triage::default());
        }
        match self.ask_triage(shards, Asked::One(id)).await? {
            Said::One(triage) => Ok(triage),
            _ => Err(another()),
        }
    }

    /// Looks at the review document, and notes what it says.
    pub(super) async fn look_at_triage(&self, hub: &Hub) {
        match self.ask_triage(&hub.shards, Asked::All).await {
            Ok(Said::All(standings)) => {
                let changes: Vec<Change> = {
                    let mut state = self.state();
                    let is_news = std::mem::replace(&mut state.standings.is_read, true);
                    let ids = state.standings.update(standings);
                    for id in &ids {
                        state.note_dismissal(id, is_news);
                    }
                    ids.iter().filter_map(|id| state.triaged(id, now_s(hub))).collect()
                };
                for change in changes {
                    self.tell(change);
                }
            }
            Ok(_) => {}
            Err(error) => self.failed(&self.triage_document, &error.to_string()),
        }
    }

    /// Takes notes away about conflicts that are long over. Only where all documents are known, and
    /// could be looked at: else one might be open that is not listed.
    pub(super) async fn forget(&self, hub: &Hub) {
        let conflicts = {
            let state = self.state();
            let is_known = state.is_swept
                && state.queue.len() == 0
                && state.index.unlisted() == 0
                && state.index.failures(1).is_empty();
            if is_known { state.standings.stale(&state.index, now_s(hub)) } else { Vec::new() }
        };
        if conflicts.is_empty() {
            return;
        }
        let forgotten = async {
            let (actor, time_s) = (actor()?, now_s(hub));
            let asked = Asked::Forget { conflicts: conflicts.clone(), actor, time_s };
            self.write(hub, asked).await
        };
        match forgotten.await {
            Ok(_) => {
                let mut state = self.state();
                for id in &conflicts {
                    state.standings.set(*id, &Triage::default(), now_s(hub));
                }
            }
            Err(error) => tracing::warn!(%error, "cannot forget conflicts that are over"),
        }
    }

    /// Has something written into the review document, and stores it.
    async fn write(
        &self,
        hub: &Hub,
        asked: Asked,
    ) -> Result<(Triage, Option<ChangeHash>), Undecided> {
        let (changes, triage) = match self.ask_triage(&hub.shards, asked).await? {
            Said::Written { changes, triage } => (changes, triage),
            Said::Refused { reason, is_held: true } => return Err(Undecided::Held(reason)),
            Said::Refused { reason, .. } => return Err(Undecided::Refused(reason)),
            Said::All(_) | Said::One(_) => return Err(another().into()),
        };
        let mut last = None;
        for change in changes.into_iter().map(Bytes::from) {
            let header = guard::check_change(&change, &hub.config.limits)
                .map_err(|error| Undecided::Refused(error.to_string()))?;
            let stored = hub.shards.change(&self.triage_document, change).await;
            stored.ok_or(Undecided::Ending)?.map_err(Undecided::NotStored)?;
            last = Some(header.hash);
        }
        Ok((triage, last))
    }

    fn set(&self, hub: &Hub, id: ConflictId, triage: &Triage) {
        let change = {
            let mut state = self.state();
            state.standings.set(id, triage, now_s(hub));
            state.note_dismissal(&id, true);
            state.triaged(&id, now_s(hub))
        };
        if let Some(change) = change {
            self.tell(change);
        }
    }

    async fn ask_triage(&self, shards: &Shards, asked: Asked) -> Result<Said, NoAnswer> {
        match self.ask(shards, &self.triage_document, Question::Triage(asked)).await? {
            Answer::Triage(said) => Ok(said),
            _ => Err(another()),
        }
    }
}

/// Another question was answered than was asked.
pub(super) fn another() -> NoAnswer {
    JobError::Base("another question was answered".to_owned()).into()
}
