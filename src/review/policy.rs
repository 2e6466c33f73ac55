//! Policies: which side stands where a field's schema says so, as a pure function of the sides.
//!
//! Where the sides can be ordered, the greatest stands: a maximum, so that it does not matter in
//! which order sides are looked at, nor that some were before others. Where they cannot (a number
//! and a deletion have no maximum), a person decides.

use std::cmp::Ordering;

use automerge::{Automerge, Prop};
use serde_json::Value as Json;

use super::{Choice, Conflict, Kept, Side, look::latest};
use crate::{
    entity::{DELETED_KEY, EntityType, Field, Kind, Policy},
    json::JsonError,
};

/// What a side claims, as far as policies look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// What it wants to be there; `None` for nothing.
    pub value: Option<Json>,
    /// When it was last written, in seconds since 1970.
    pub time_s: i64,
    /// The last of its operations: its counter, then its actor. No two sides have the same.
    pub operation: (u64, String),
    /// Whose it is: all who wrote it, `None` for one that does not say.
    pub by: Vec<Option<String>>,
    /// Whether it wrote there, and did not delete or edit something that was there.
    pub wrote: bool,
}

impl Claim {
    /// The claim of a side of a conflict in this document.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn of(doc: &Automerge, conflict: &Conflict, side: &Side) -> Result<Self, JsonError> {
        let operations = side.operations.iter().map(|name| {
            let (counter, actor) = name.split_once('@').unwrap_or((name, ""));
            (counter.parse().unwrap_or_default(), actor.to_owned())
        });
        Ok(Self {
            value: side.content(doc, &conflict.place)?.to_json()?,
            time_s: latest(doc, &side.changes),
            operation: operations.max().unwrap_or_default(),
            by: side.who(doc).into_iter().map(|who| who.author).collect(),
            wrote: matches!(side.kept, Kept::Put(_) | Kept::Made(_)),
        })
    }

    /// Hybrid time: by the clock, then by the order that automerge knows.
    fn moment(&self) -> (i64, &(u64, String)) {
        (self.time_s, &self.operation)
    }
}

/// Which of some claims stands; `None` if a person has to decide.
pub fn winner<'a>(policy: &Policy, claims: &'a [Claim]) -> Option<&'a Claim> {
    let (first, rest) = claims.split_first()?;
    rank(policy, first)?;
    rest.iter().try_fold(first, |best, claim| {
        let order = match (rank(policy, best)?, rank(policy, claim)?) {
            (Rank::Time, Rank::Time) => Ordering::Equal,
            (Rank::Number(a, exact_a), Rank::Number(b, exact_b)) => {
                a.total_cmp(&b).then(exact_a.cmp(&exact_b))
            }
            (Rank::Step(a), Rank::Step(b)) => a.cmp(&b),
            _ => return None,
        };
        let order = if matches!(policy, Policy::Min) { order.reverse() } else { order };
        let later = best.moment().cmp(&claim.moment());
        let later = if matches!(policy, Policy::Earliest) { later.reverse() } else { later };
        Some(if order.then(later) == Ordering::Less { claim } else { best })
    })
}

/// By what claims are ordered, before their time.
enum Rank {
    Time,
    Number(f64, i128),
    Step(usize),
}

fn rank(policy: &Policy, claim: &Claim) -> Option<Rank> {
    match policy {
        Policy::Latest | Policy::Earliest => Some(Rank::Time),
        Policy::Max | Policy::Min => {
            let Some(Json::Number(number)) = &claim.value else { return None };
            let exact = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
            Some(Rank::Number(number.as_f64()?, exact.unwrap_or_default()))
        }
        Policy::Ladder(order) => {
            let Some(Json::String(value)) = &claim.value else { return None };
            order.iter().position(|step| step == value).map(Rank::Step)
        }
        Policy::Role(roles) => {
            let role_of = |author: &Option<String>| {
                let author = author.as_deref()?;
                roles.iter().position(|role| role.is_of(author))
            };
            // Of a side that several wrote, the weakest role counts.
            let weakest = claim.by.iter().map(role_of).collect::<Option<Vec<usize>>>()?;
            Some(Rank::Step(roles.len() - weakest.into_iter().max()?))
        }
        // What is a relay's is known when there are accounts. The others have no order.
        Policy::Relay | Policy::Peer | Policy::Merge | Policy::Review | Policy::Union => None,
    }
}

/// What any of some claims has, the earliest first; `None` if they are not all lists, or all maps.
pub fn union(claims: &[Claim]) -> Option<Json> {
    let mut claims: Vec<&Claim> = claims.iter().collect();
    claims.sort_by(|one, other| one.operation.cmp(&other.operation));
    let mut values = claims.into_iter().map(|claim| claim.value.as_ref());
    match values.next()?? {
        Json::Array(first) => {
            let mut all: Vec<Json> = Vec::new();
            let mut add = |items: &[Json]| {
                for item in items {
                    if !all.contains(item) {
                        all.push(item.clone());
                    }
                }
            };
            add(first);
            for value in values {
                add(value?.as_array()?);
            }
            Some(Json::Array(all))
        }
        Json::Object(first) => {
            let mut all = first.clone();
            for value in values {
                for (key, value) in value?.as_object()? {
                    // Which of two values of one key is for a person to say.
                    if all.insert(key.clone(), value.clone()).is_some_and(|there| there != *value) {
                        return None;
                    }
                }
            }
            Some(Json::Object(all))
        }
        _ => None,
    }
}

/// What a policy makes of a conflict; `None` if a person has to decide.
///
/// # Errors
/// [`JsonError`], of values that cannot be read.
pub fn decide(
    policy: &Policy,
    doc: &Automerge,
    conflict: &Conflict,
) -> Result<Option<Choice>, JsonError> {
    if matches!(policy, Policy::Merge | Policy::Review) {
        return Ok(None);
    }
    let claims: Vec<Claim> = (conflict.sides.iter())
        .map(|side| Claim::of(doc, conflict, side))
        .collect::<Result<_, _>>()?;
    if matches!(policy, Policy::Union) {
        let all_wrote = claims.iter().all(|claim| claim.wrote);
        let union = if all_wrote { union(&claims) } else { None };
        return union.map(|value| Choice::value(value, conflict)).transpose();
    }
    let winner = winner(policy, &claims);
    let number = claims.iter().position(|claim| Some(claim) == winner);
    Ok(number.map(Choice::Side))
}

/// A field of a type that a place in its documents is, or is in.
pub(super) struct At<'a> {
    /// Its name, as in `address.city`.
    pub(super) name: String,
    pub(super) field: &'a Field,
    /// From the field on.
    pub(super) rest: &'a [Prop],
}

/// The field that is nearest to a place, through maps with fields of their own.
pub(super) fn field_at<'a>(of: &'a EntityType, path: &'a [Prop]) -> Option<At<'a>> {
    let (mut fields, mut rest, mut names) = (&of.fields, path, Vec::new());
    loop {
        let Some((Prop::Map(key), after)) = rest.split_first() else { return None };
        let field = fields.values().find(|field| field.slot == *key)?;
        names.push(field.name.as_str());
        match &field.kind {
            Kind::Record { fields: inner } if !after.is_empty() => (fields, rest) = (inner, after),
            _ => return Some(At { name: names.join("."), field, rest: after }),
        }
    }
}

/// What a type says of a place in its documents.
pub(super) fn policy_at<'a>(of: &'a EntityType, path: &'a [Prop]) -> Option<Ruled<'a>> {
    if matches!(path.first(), Some(Prop::Map(key)) if key == DELETED_KEY) {
        return Some(Ruled::Tombstone);
    }
    let At { field, rest, .. } = field_at(of, path)?;
    match (rest, &field.kind) {
        ([], _) => Some(Ruled::By(&field.policy)),
        ([Prop::Map(_), ..], Kind::Set { .. }) => Some(Ruled::Member),
        _ => None,
    }
}

/// Whether a place in the documents of a type says where something is: a position, or the parent
/// in a tree.
pub(super) fn is_place(of: &EntityType, path: &[Prop]) -> bool {
    let Some(At { field, rest, .. }) = field_at(of, path) else { return false };
    let kind = rest.iter().try_fold(&field.kind, |kind, step| match (kind, step) {
        (Kind::Record { fields }, Prop::Map(key)) => {
            fields.values().find(|field| field.slot == *key).map(|field| &field.kind)
        }
        (Kind::Map { items, .. }, Prop::Map(_)) | (Kind::List { items, .. }, Prop::Seq(_)) => {
            Some(&**items)
        }
        _ => None,
    });
    matches!(kind, Some(Kind::Position | Kind::Reference { acyclic: true, .. }))
}

/// What rules over a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ruled<'a> {
    /// A field's policy.
    By(&'a Policy),
    /// It is a member of a set: adding wins.
    Member,
    /// Whether the entity is deleted: of those who deleted it, any one.
    Tombstone,
}

impl Ruled<'_> {
    pub(super) fn decide(
        self,
        doc: &Automerge,
        conflict: &Conflict,
    ) -> Result<Option<Choice>, JsonError> {
        let wrote = |side: &Side| matches!(side.kept, Kept::Put(_) | Kept::Made(_));
        match self {
            Self::By(policy) => decide(policy, doc, conflict),
            Self::Member => Ok(conflict.sides.iter().position(wrote).map(Choice::Side)),
            Self::Tombstone => Ok(conflict.sides.iter().all(wrote).then_some(Choice::Side(0))),
        }
    }

    /// In a word, as it is recorded.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::By(policy) => policy.name(),
            Self::Member => "add-wins",
            Self::Tombstone => "deleted",
        }
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "quickcheck gives values")]
mod tests {
    use quickcheck::{Arbitrary, Gen, QuickCheck};

    use super::*;
    use crate::entity::Role;

    /// A few claims of a few values, so that equal ones meet.
    #[derive(Debug, Clone)]
    struct Few(Vec<Claim>);

    impl Arbitrary for Few {
        fn arbitrary(g: &mut Gen) -> Self {
            let count = usize::arbitrary(g) % 5 + 1;
            let claim = |n: usize, g: &mut Gen| {
                let step = *g.choose(&["todo", "doing", "done", "lost"]).unwrap_or(&"todo");
                let value = match u8::arbitrary(g) % 6 {
                    0 => None,
                    1 => Some(Json::from(step)),
                    2 => Some(Json::from(f64::from(i8::arbitrary(g)) / 2.0)),
                    _ => Some(Json::from(i8::arbitrary(g) % 3)),
                };
                Claim {
                    value,
                    time_s: i64::from(u8::arbitrary(g) % 3),
                    operation: (u64::from(u8::arbitrary(g) % 3), format!("{n}")),
                    by: vec![Some(g.choose(&["ann", "ben", "cy"]).unwrap_or(&"ann").to_string())],
                    wrote: true,
                }
            };
            let mut claims: Vec<Claim> = (0..count).map(|n| claim(n, g)).collect();
            // Mostly all of one sort, or they have no order at all.
            if !u8::arbitrary(g).is_multiple_of(4) {
                claims.retain(|claim| matches!(claim.value, Some(Json::Number(_))));
            }
            Self(claims)
        }
    }

    fn policies() -> Vec<Policy> {
        let ladder = ["todo", "doing", "done"].map(str::to_owned).to_vec();
        let role = |name: &str, who: &str| Role { name: name.into(), who: vec![who.into()] };
        // Sometimes everybody has one of the roles, and sometimes not.
        let some = Policy::Role(vec![role("chief", "ann"), role("clerk", "ben")]);
        let all = Policy::Role(vec![role("chief", "ann"), role("anybody", "*")]);
        let ladder = Policy::Ladder(ladder);
        vec![Policy::Latest, Policy::Earliest, Policy::Max, Policy::Min, ladder, some, all]
    }

    #[test]
    fn the_order_of_the_sides_does_not_matter() {
        fn law(claims: Few, turn: usize) -> bool {
            let mut turned = claims.0.clone();
            turned.reverse();
            let by = turn % turned.len().max(1);
            turned.rotate_left(by);
            policies().iter().all(|policy| winner(policy, &claims.0) == winner(policy, &turned))
                && union(&claims.0) == union(&turned)
        }
        QuickCheck::new().tests(2_000).quickcheck(law as fn(Few, usize) -> bool);
    }

    #[test]
    fn some_of_the_sides_may_be_decided_first() {
        fn law(claims: Few, at: usize) -> bool {
            let (one, other) = claims.0.split_at(at % (claims.0.len() + 1));
            policies().iter().all(|policy| {
                let whole = winner(policy, &claims.0);
                let parts: Option<Vec<Claim>> = [one, other]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .map(|part| winner(policy, part).cloned())
                    .collect();
                whole == parts.as_deref().and_then(|parts| winner(policy, parts))
            })
        }
        QuickCheck::new().tests(2_000).quickcheck(law as fn(Few, usize) -> bool);
    }

    #[test]
    fn a_side_twice_is_a_side() {
        fn law(claims: Few) -> bool {
            let twice: Vec<Claim> = claims.0.iter().chain(&claims.0).cloned().collect();
            policies().iter().all(|policy| winner(policy, &claims.0) == winner(policy, &twice))
        }
        QuickCheck::new().tests(2_000).quickcheck(law as fn(Few) -> bool);
    }

    #[test]
    fn each_policy_says_what_it_is_named_for() {
        let claim = |value: Json, time_s, n: u64| Claim {
            value: Some(value),
            time_s,
            operation: (n, "a".to_owned()),
            by: vec![None],
            wrote: true,
        };
        let numbers = [claim(5.into(), 9, 1), claim(7.into(), 3, 2), claim(7.into(), 4, 3)];
        let chosen = |policy: &Policy| winner(policy, &numbers).map(|claim| claim.operation.0);
        assert_eq!(chosen(&Policy::Latest), Some(1));
        assert_eq!(chosen(&Policy::Earliest), Some(2));
        assert_eq!(chosen(&Policy::Max), Some(3), "of equals the later");
        assert_eq!(chosen(&Policy::Min), Some(1));
        assert_eq!(chosen(&Policy::Review), None);
        let steps = [claim("done".into(), 1, 1), claim("todo".into(), 2, 2)];
        let ladder = &policies()[4];
        assert_eq!(winner(ladder, &steps).map(|claim| claim.operation.0), Some(1));
        let by = |who: &str, claim: Claim| Claim { by: vec![Some(who.to_owned())], ..claim };
        let wrote = |who: &str, n: u64| by(who, claim("x".into(), n.cast_signed(), n));
        let role = |claims: &[Claim], policy: usize| {
            winner(&policies()[policy], claims).map(|claim| claim.operation.0)
        };
        assert_eq!(role(&[wrote("ben", 2), wrote("ann", 1)], 5), Some(1));
        assert_eq!(role(&[wrote("ben", 1), wrote("ben", 2)], 5), Some(2), "of equals the later");
        assert_eq!(role(&[wrote("ann", 1), wrote("cy", 2)], 5), None, "somebody has no role");
        assert_eq!(role(&[wrote("ann", 1), wrote("cy", 2)], 6), Some(1));
        let both = Claim {
            by: vec![Some("ann".to_owned()), Some("cy".to_owned())],
            ..claim("x".into(), 3, 3)
        };
        assert_eq!(role(&[both, wrote("ann", 1)], 6), Some(1), "the weakest of a side counts");
        let lists = [
            claim(serde_json::json!(["c", "a"]), 1, 2),
            claim(serde_json::json!(["a", "b"]), 1, 1),
        ];
        assert_eq!(union(&lists), Some(serde_json::json!(["a", "b", "c"])));
        let maps = [
            claim(serde_json::json!({ "a": 1 }), 1, 2),
            claim(serde_json::json!({ "a": 2, "b": 1 }), 1, 1),
        ];
        assert_eq!(union(&maps), None, "a key with two values is for a person");
    }
}
