//! An entity and what it refers to: which documents those are, and the task that has them here.
//!
//! Only where a document is different from when it was looked at, what it refers to is read anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use concord_protocol::DocumentId;
use futures_util::{StreamExt as _, stream};
use tokio::time::{sleep, timeout};

use super::{
    CollectionId, Collections, HELD_MAX,
    fetch::{there, within},
};
use crate::{
    entity::type_of,
    peer::{held::Held, index::table::Table},
    review::referred_to,
};

/// Documents of such a collection at most: as many as a relay takes of one connection.
const MEMBERS_MAX: usize = 10_000;
/// How long changes gather before it is looked what is referred to.
const GATHER: Duration = Duration::from_millis(100);
/// Before what could not be fetched is asked for again, and what was seen is looked at again.
const AGAIN: Duration = Duration::from_secs(30);

/// A document that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// A number for its heads.
    heads: u64,
    refers_to: Vec<DocumentId>,
}

/// Which documents belong to an entity, as far as is known.
#[derive(Debug)]
struct Reach {
    root: DocumentId,
    depth: u32,
    seen: BTreeMap<DocumentId, Seen>,
    /// Those that are different by now.
    stale: BTreeSet<DocumentId>,
}

/// What follows from that.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reached {
    members: BTreeSet<DocumentId>,
    /// Members that were not looked at.
    unseen: Vec<DocumentId>,
}

impl Reach {
    fn new(root: DocumentId, depth: u32) -> Self {
        Self { root, depth, seen: BTreeMap::new(), stale: BTreeSet::new() }
    }

    /// The root and what is reached from there, the nearest first, so many at most.
    fn reached(&self, max: usize) -> Reached {
        let mut reached = Reached::default();
        let mut level = vec![self.root.clone()];
        for depth in 0..=self.depth {
            let mut next = Vec::new();
            for document in level {
                if reached.members.len() >= max || !reached.members.insert(document.clone()) {
                    continue;
                }
                match self.seen.get(&document) {
                    None => reached.unseen.push(document),
                    Some(seen) if depth < self.depth => next.extend(seen.refers_to.iter().cloned()),
                    Some(_) => {}
                }
            }
            level = next;
        }
        reached
    }

    /// What a document refers to.
    fn saw(&mut self, document: DocumentId, seen: Seen) {
        self.stale.remove(&document);
        self.seen.insert(document, seen);
    }

    /// Forgets what does not belong to it, and takes note of what is different by now: it stands as
    /// it was until it is looked at. Whether there is anything to look at.
    fn age(&mut self, is_so: impl Fn(&DocumentId, u64) -> bool) -> bool {
        let members = self.reached(MEMBERS_MAX).members;
        self.seen.retain(|document, _| members.contains(document));
        self.stale.retain(|document| members.contains(document));
        let other = self.seen.iter().filter(|(document, seen)| !is_so(document, seen.heads));
        self.stale.extend(other.map(|(document, _)| document.clone()));
        !self.stale.is_empty()
    }
}

/// Has an entity and what it refers to here, from now on.
pub(super) async fn follow(shared: &Collections, id: CollectionId, root: DocumentId, depth: u32) {
    let mut reach = Reach::new(root, depth);
    let mut changes = shared.index.changes.subscribe();
    let mut partners = shared.board.partner.subscribe();
    let mut schema = shared.schemas.subscribe();
    shared.schemas.is_known().await;
    loop {
        changes.mark_unchanged();
        partners.mark_unchanged();
        if schema.has_changed().unwrap_or(false) {
            // What it says to be a reference may be something else.
            schema.mark_unchanged();
            reach.age(|_, _| false);
        }
        let (is_all, problem) = walk(shared, id, &mut reach).await;
        // What is referred to may be here whole, and still be behind what a relay has.
        let is_online = partners.borrow().is_some();
        if is_all && is_online {
            shared.book().up_to_date(id, Collections::now_ms());
        } else {
            shared.book().stuck(id, problem);
        }
        shared.tell();
        wait(shared, &mut reach, &mut changes, &mut partners, &mut schema).await;
    }
}

/// Looks at all that was not looked at. Whether that is all, and else why not.
async fn walk(shared: &Collections, id: CollectionId, reach: &mut Reach) -> (bool, Option<String>) {
    let mut failed: BTreeMap<DocumentId, String> = BTreeMap::new();
    let mut fetched = 0;
    loop {
        let Reached { members, unseen } = reach.reached(MEMBERS_MAX);
        let here = members.len() - unseen.len();
        let open = unseen.iter().chain(&reach.stale);
        let fresh: Vec<DocumentId> =
            open.filter(|document| !failed.contains_key(*document)).cloned().collect();
        let is_full = members.len() >= MEMBERS_MAX;
        shared.book().reached(id, members, here, std::mem::take(&mut fetched));
        shared.prefer();
        shared.tell();
        if fresh.is_empty() {
            let full = is_full.then(|| format!("it refers to more than {MEMBERS_MAX} documents"));
            let problem = full.or_else(|| {
                failed
                    .into_iter()
                    .find(|(document, _)| unseen.contains(document))
                    .map(|(_, why)| why)
            });
            return (unseen.is_empty(), problem);
        }
        let look = |document: DocumentId| async move {
            let seen = look_at(shared, &document).await;
            (document, seen)
        };
        let mut looks = stream::iter(fresh).map(look).buffer_unordered(HELD_MAX);
        while let Some((document, seen)) = looks.next().await {
            match seen {
                Ok((seen, is_new)) => {
                    fetched += usize::from(is_new);
                    reach.saw(document, seen);
                }
                Err(reason) => _ = failed.insert(document, reason),
            }
        }
    }
}

/// Has a document here, and reads what it refers to. Gives too whether it was not here before.
async fn look_at(shared: &Collections, document: &DocumentId) -> Result<(Seen, bool), String> {
    let is_known = shared.index.read(|table| table.get(document).is_some());
    if !is_known && shared.board.preferred.borrow().len() > shared.members_max {
        return Err(format!(
            "collections of entities are of more than {} documents",
            shared.members_max
        ));
    }
    let _slot = shared.slots.acquire().await.map_err(|_| "the peer is closing".to_owned())?;
    let held = shared.registry.hold(document);
    within(there(&held)).await?;
    let heads = held.heads_number().ok_or("it cannot be read")?;
    let refers_to = references(shared, &held).unwrap_or_default();
    Ok((Seen { heads, refers_to }, !is_known))
}

fn references(shared: &Collections, held: &Held) -> Option<Vec<DocumentId>> {
    let schema = shared.schemas.in_force()?;
    let mut ready = held.ready()?;
    let doc = ready.doc();
    let of = schema.types.get(&type_of(doc, &schema.root_key)?)?;
    // What automerge panics on is a document of others.
    catch_unwind(AssertUnwindSafe(|| referred_to(&of.read(doc)))).ok()
}

/// Waits until something may be different.
async fn wait(
    shared: &Collections,
    reach: &mut Reach,
    changes: &mut tokio::sync::watch::Receiver<u64>,
    partners: &mut tokio::sync::watch::Receiver<Option<crate::peer::listen::Partner>>,
    schema: &mut tokio::sync::watch::Receiver<crate::peer::SchemaStatus>,
) {
    let is_so = |table: &Table, document: &DocumentId, heads: u64| {
        // What the index does not know yet it is told of.
        table.get(document).is_none_or(|entry| entry.heads() == heads)
    };
    let waiting = async {
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = partners.changed() => return,
                _ = schema.changed() => {
                    schema.mark_changed();
                    return;
                }
            }
            sleep(GATHER).await;
            let is_other = shared
                .index
                .read(|table| reach.age(|document, heads| is_so(table, document, heads)));
            if is_other {
                return;
            }
        }
    };
    let _ = timeout(AGAIN, waiting).await;
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn id(n: u8) -> DocumentId {
        DocumentId::from_bytes(&[n + 1; 16])
    }

    fn saw(reach: &mut Reach, n: u8, refers_to: &[u8]) {
        let refers_to = refers_to.iter().map(|n| id(*n)).collect();
        reach.saw(id(n), Seen { heads: u64::from(n), refers_to });
    }

    #[test]
    fn what_is_referred_to_is_followed_so_far_and_round_circles() {
        let mut reach = Reach::new(id(0), 2);
        let members = |reach: &Reach| reach.reached(100).members;
        assert_eq!(reach.reached(100).unseen, [id(0)]);
        saw(&mut reach, 0, &[1, 2]);
        assert_eq!(reach.reached(100).unseen, [id(1), id(2)]);
        saw(&mut reach, 1, &[0, 3]);
        saw(&mut reach, 2, &[]);
        saw(&mut reach, 3, &[4]);
        assert_eq!(members(&reach), BTreeSet::from([0, 1, 2, 3].map(id)), "4 is three steps away");
        assert!(reach.reached(100).unseen.is_empty());
        assert!(!reach.age(|_, _| true));
        // It is different, and stands as it was until it is looked at.
        assert!(reach.age(|document, _| *document != id(1)));
        assert_eq!((members(&reach).len(), &reach.stale), (4, &BTreeSet::from([id(1)])));
        // It does not refer to 3 any more.
        saw(&mut reach, 1, &[]);
        assert_eq!(members(&reach), BTreeSet::from([0, 1, 2].map(id)));
        assert!(!reach.age(|_, _| true));
        assert!(!reach.seen.contains_key(&id(3)), "what does not belong to it is forgotten");
        assert_eq!(reach.reached(2).members.len(), 2);
    }

    quickcheck! {
        fn members_are_those_within_the_depth(edges: Vec<(u8, u8)>, depth: u8) -> bool {
            let depth = u32::from(depth % 4);
            let edges: Vec<(u8, u8)> = edges.into_iter().map(|(a, b)| (a % 6, b % 6)).collect();
            let mut reach = Reach::new(id(0), depth);
            for n in 0..6 {
                let to: Vec<u8> = edges.iter().filter(|(from, _)| *from == n).map(|edge| edge.1).collect();
                saw(&mut reach, n, &to);
            }
            let mut expected = BTreeSet::from([0_u8]);
            for _ in 0..depth {
                let next: Vec<u8> = edges.iter().filter(|(from, _)| expected.contains(from)).map(|edge| edge.1).collect();
                expected.extend(next);
            }
            let expected: BTreeSet<DocumentId> = expected.into_iter().map(id).collect();
            reach.reached(100) == Reached { members: expected, unseen: Vec::new() }
        }
    }
}
