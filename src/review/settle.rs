//! Conflicts that a schema decides: written as a change that every replica makes alike.
//!
//! The change depends on nothing but the sides: on the same history, with an actor made of the
//! conflict and what was decided, at the time of the last side. So it is the same change, byte for
//! byte, wherever it is made, and making it twice is making it once.

use automerge::{ActorId, Automerge, ChangeHash};
use concord_protocol::DocumentId;

use super::{
    Choice, Code, Conflict, ConflictId, Content, Detector, Resolution, broken::buried,
    carried::attached, policy::policy_at,
};
use crate::{
    digest::digest,
    entity::{DELETED_KEY, EditsOfDeleted, EntityType, Schema, is_deleted},
};

/// Rounds of deciding: a decision can bring up another conflict only with writes that were made
/// without knowing of it, and those are in the document already.
const ROUNDS_MAX: usize = 4;

/// A conflict that was decided by a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub conflict: ConflictId,
    /// What kind of conflict it was.
    pub code: Code,
    /// The policy, in a word.
    pub policy: String,
    /// The change that says so.
    pub change: ChangeHash,
    /// The same, as a chunk.
    pub bytes: Vec<u8>,
}

/// Decides what the schema decides, in the document itself. What is open afterwards is for people.
///
/// The detector must have taken in all of the document, and has taken in the decisions when this
/// returns. What cannot be decided is left open.
pub fn settle(
    doc: &mut Automerge,
    detector: &mut Detector,
    document: &DocumentId,
    schema: &Schema,
) -> Vec<Settled> {
    let mut settled = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let Some(of) = schema.recognise(&*doc) else { break };
        let keeps = of.edits_of_deleted == EditsOfDeleted::Keep && is_deleted(&*doc);
        let buried = if keeps { buried(detector, document, of) } else { None };
        let made: Vec<Settled> = (detector.open(document).iter())
            .filter_map(|conflict| decision(doc, of, &attached(conflict.clone(), of)))
            .chain(buried.and_then(|conflict| kept(doc, &conflict)))
            .filter(|made| doc.get_change_meta_by_hash(&made.change).is_none())
            .collect();
        if made.is_empty() {
            break;
        }
        for made in made {
            let change = automerge::Change::from_bytes(made.bytes.clone()).ok();
            let applied = change.is_some_and(|change| {
                doc.apply_changes([change.clone()]).is_ok() && detector.take_in(&change).is_ok()
            });
            if applied {
                settled.push(made);
            }
        }
    }
    settled
}

/// The change that decides a conflict, if its field's policy does.
fn decision(doc: &Automerge, of: &EntityType, conflict: &Conflict) -> Option<Settled> {
    let path = conflict.path(doc)?;
    let ruled = policy_at(of, &path)?;
    let fork = at_sides(doc, conflict)?;
    let choice = ruled.decide(&fork, conflict).ok()??;
    let chosen = match &choice {
        Choice::Side(number) => conflict.sides.get(*number).map(|side| side.operations.join(" ")),
        Choice::Before | Choice::Now | Choice::Other(_) => None,
    };
    written(doc, fork, conflict, ruled.name(), &choice, &chosen.unwrap_or_default())
}

/// The change that keeps an entity which was deleted while others edited it.
fn kept(doc: &Automerge, conflict: &Conflict) -> Option<Settled> {
    let fork = at_sides(doc, conflict)?;
    let keys = vec![DELETED_KEY.to_owned()];
    let choice = Choice::Other(Content::Fields { doc: Box::default(), keys });
    written(doc, fork, conflict, EditsOfDeleted::Keep.name(), &choice, "")
}

/// The document as its sides have it, and nothing else.
fn at_sides(doc: &Automerge, conflict: &Conflict) -> Option<Automerge> {
    let sides: Vec<ChangeHash> =
        conflict.sides.iter().flat_map(|side| &side.changes).copied().collect();
    doc.fork_at(&sides).ok()
}

fn written(
    doc: &Automerge,
    mut fork: Automerge,
    conflict: &Conflict,
    policy: &str,
    choice: &Choice,
    chosen: &str,
) -> Option<Settled> {
    // Whoever decides the same has the same name, and whoever decides otherwise another one.
    let id = conflict.id.to_string();
    fork.set_actor(ActorId::from(digest(["concord policy 1", &id, policy, chosen])));
    let resolution = Resolution::prepare(&fork, conflict, choice, None).ok()?;
    let time_s = conflict.time_s(doc);
    let mut made = resolution.commit(&mut fork, &resolution.by(policy), time_s).ok()?;
    Some(Settled {
        conflict: conflict.id,
        code: conflict.code,
        policy: policy.to_owned(),
        change: made.hash(),
        bytes: made.bytes().into_owned(),
    })
}
