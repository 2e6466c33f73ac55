//! Follows a relay's catalogue: page after page from where it was, then whenever the relay tells
//! that something changed.
//!
//! What is told is only a hint: a page is asked for from the cursor on, so nothing is missed where
//! hints are.

use std::{collections::BTreeSet, time::Duration};

use concord_protocol::{DocumentId, StorageId};
use futures_util::{StreamExt as _, stream};
use tokio::time::{sleep, timeout};

use super::{
    CollectionId, Collections, HELD_MAX,
    feed::{self, Listed, Page},
};
use crate::peer::{Query, listen::Partner};

/// How often a page is asked for though nothing was told.
const POLL: Duration = Duration::from_mins(1);
/// Before it is tried again after something went wrong.
const AGAIN: Duration = Duration::from_secs(2);
/// Between two pages that are asked for because something was told.
const GATHER: Duration = Duration::from_millis(100);
/// Before documents that could not be fetched are tried again.
const LEFT_EVERY: Duration = Duration::from_secs(30);

/// Follows a type with whichever relay is there.
pub(super) async fn follow(
    shared: &Collections,
    id: CollectionId,
    type_name: &str,
    query: Option<&Query>,
) {
    let mut partners = shared.board.partner.subscribe();
    loop {
        let partner = shared.partner(&mut partners).await;
        let Some(store) = partner.store.clone() else {
            shared.book().stuck(id, Some("the relay does not say which store it has".to_owned()));
            shared.tell();
            let _ = partners.changed().await;
            continue;
        };
        let following = Following { shared, id, type_name, query, partner: &partner, store };
        let problem = tokio::select! {
            problem = following.keep_up() => Some(problem),
            _ = partners.wait_for(|now| now.as_ref() != Some(&partner)) => None,
        };
        let has_failed = problem.is_some();
        tracing::debug!(%id, problem, "a collection does not go on");
        shared.book().stuck(id, problem);
        shared.tell();
        if has_failed {
            let _ = timeout(AGAIN, partners.changed()).await;
        }
    }
}

/// A collection and a relay.
struct Following<'f> {
    shared: &'f Collections,
    id: CollectionId,
    type_name: &'f str,
    query: Option<&'f Query>,
    partner: &'f Partner,
    store: StorageId,
}

impl Following<'_> {
    /// Goes on until something is wrong, and says what.
    async fn keep_up(&self) -> String {
        loop {
            let Err(problem) = self.round().await else { continue };
            return problem;
        }
    }

    /// Takes pages until there are no more, and waits until there may be.
    async fn round(&self) -> Result<(), String> {
        let shared = self.shared;
        let mut nudges = shared.nudges.subscribe();
        let seen = nudges.borrow_and_update().of(self.type_name);
        while self.page().await? {}
        self.left().await?;
        shared.book().up_to_date(self.id, Collections::now_ms());
        shared.tell();
        let has_left = !shared.book().left(self.id).is_empty();
        let pause = if has_left { LEFT_EVERY } else { POLL };
        // It is asked again after a while in any case.
        let _ = timeout(pause, nudges.wait_for(|now| now.of(self.type_name) != seen)).await;
        sleep(GATHER).await;
        Ok(())
    }

    /// Takes a page, and says whether there are more.
    async fn page(&self) -> Result<bool, String> {
        let (shared, id) = (self.shared, self.id);
        let after = shared.book().cursor(id, &self.store);
        let path = feed::path(self.type_name, after.as_deref());
        let answer = shared.call(self.partner.connection, path).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status {
            200 => {}
            404 => return Err("the relay keeps no catalogue".to_owned()),
            status => return Err(format!("the relay answered {status}")),
        }
        let read = Page::read(&answer.body);
        let page =
            read.map_err(|error| format!("the relay's catalogue is not understood: {error}"))?;
        let Page { documents, cursor, has_more, reset, total, is_declared } = page;
        if !is_declared && total == 0 {
            let of = self.type_name;
            return Err(format!(
                "the relay has no schema with a type {of}: concord serve --schema"
            ));
        }
        if documents.is_empty() && after.as_ref() == Some(&cursor) {
            shared.book().listed(id, 0, total, false);
            return Ok(false);
        }
        // Without a cursor it is all of it that comes.
        shared.book().listed(id, documents.len(), total, reset || after.is_none());
        shared.tell();
        self.settle_all(documents).await;
        let row = shared.book().commit(id, &self.store, cursor);
        let row = row.ok_or("too many documents cannot be fetched")?;
        // The store is given this after all that was fetched.
        shared.write(row).await.map_err(|error| error.to_string())?;
        shared.tell();
        Ok(has_more)
    }

    async fn settle_all(&self, documents: Vec<Listed>) {
        let (shared, id) = (self.shared, self.id);
        let settle = |listed: Listed| async move {
            let outcome = shared.settle(self.query, &listed, self.partner).await;
            (listed.document, outcome)
        };
        let mut settling = stream::iter(documents).map(settle).buffer_unordered(HELD_MAX);
        while let Some((document, outcome)) = settling.next().await {
            shared.book().settled(id, &document, &outcome);
            shared.tell();
        }
    }

    /// Tries once more what could not be fetched.
    async fn left(&self) -> Result<(), String> {
        let left = self.shared.book().left(self.id);
        if left.is_empty() {
            return Ok(());
        }
        let listed = |document: DocumentId| Listed {
            document,
            version: None,
            is_deleted: false,
            is_purged: false,
        };
        self.settle_all(left.into_iter().map(listed).collect()).await;
        let row = self.shared.book().kept(self.id);
        match row {
            Some(row) => self.shared.write(row).await.map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }
}

/// Hears what the relay tells of, and wakes those who follow it.
pub(super) async fn listen(shared: &Collections) {
    let mut partners = shared.board.partner.subscribe();
    let mut statuses = shared.statuses.subscribe();
    loop {
        let partner = shared.partner(&mut partners).await;
        statuses.mark_unchanged();
        let Some(path) = shared.heard_at() else {
            tokio::select! {
                _ = statuses.changed() => {}
                _ = partners.changed() => {}
            }
            continue;
        };
        let (mut hears, _hang_up) = shared.events(partner.connection, path.clone());
        let is_over = loop {
            tokio::select! {
                heard = hears.recv() => match heard {
                    Some(page) => shared.nudge(&page),
                    None => break true,
                },
                _ = partners.wait_for(|now| now.as_ref() != Some(&partner)) => break false,
                // Other types may be followed.
                _ = statuses.changed() => {
                    if shared.heard_at().as_ref() != Some(&path) {
                        break false;
                    }
                }
            }
        };
        if is_over {
            // Whatever was told meanwhile is asked for.
            shared.nudges.send_modify(|nudges| nudges.all += 1);
            let _ = timeout(AGAIN, partners.changed()).await;
        }
    }
}

impl Collections {
    /// Where is told of what is followed; `None`: nothing is. One stream for all, for each takes one
    /// of the few calls that a connection has.
    fn heard_at(&self) -> Option<String> {
        let book = self.book();
        let types = book.types();
        let mut types = types.iter();
        match (types.next(), types.next()) {
            (None, _) => None,
            (Some(only), None) => Some(feed::events_path(Some(only))),
            (Some(_), Some(_)) => Some(feed::events_path(None)),
        }
    }

    /// Something was told.
    fn nudge(&self, page: &str) {
        let types: BTreeSet<String> = feed::types_told(page).into_iter().collect();
        self.nudges.send_modify(|nudges| {
            if types.is_empty() {
                // The beginning of a stream: what came before it is not in it.
                nudges.all += 1;
            }
            for of in types {
                *nudges.types.entry(of).or_default() += 1;
            }
        });
    }
}
