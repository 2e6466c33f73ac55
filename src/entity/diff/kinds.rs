//! What it means that a field's declaration changed.

use super::Impact;
use crate::entity::{
    Field, Kind,
    lens::{Passage, is_total, passage},
};

pub(super) struct Change {
    pub(super) impact: Impact,
    pub(super) what: String,
    pub(super) fix: Option<String>,
}

fn change(impact: Impact, what: impl Into<String>) -> Change {
    Change { impact, what: what.into(), fix: None }
}

/// What changed in one field since a version. `retyped`: a migration says so.
pub(super) fn changes(old: &Field, new: &Field, retyped: bool, version: u32) -> Vec<Change> {
    let mut found = Vec::new();
    if old.kind.name() != new.kind.name() || is_other_map(&old.kind, &new.kind) {
        let what = format!("{} became {}", old.kind, new.kind);
        // What only the newer one can have, peers of the older do not see.
        let back = match passage(&old.kind, &new.kind) {
            Passage::Lens if !is_total(&new.kind, &old.kind) => {
                format!("; version {version} goes on with {}, as far as it can", old.kind.name())
            }
            Passage::Lens => format!("; version {version} goes on with {}", old.kind.name()),
            _ => String::new(),
        };
        found.push(if retyped && is_total(&old.kind, &new.kind) {
            change(Impact::Migrated, what + &back)
        } else if retyped {
            change(Impact::Lossy, format!("{what}; what does not fit stays in documents{back}"))
        } else {
            change(Impact::NeedsMigration, what)
        });
    } else {
        inside(&old.kind, &new.kind, version, &mut found);
    }
    if new.required && !old.required {
        if new.default.is_some() {
            found.push(change(Impact::Compatible, "required now, with a default"));
        } else {
            found.push(Change {
                impact: Impact::NeedsMigration,
                what: "required now, and documents may lack it".to_owned(),
                fix: Some("give it a default, or leave it optional".to_owned()),
            });
        }
    } else if old.required && !new.required {
        found.push(change(Impact::Compatible, "optional now"));
    }
    if old.default != new.default {
        let shown = |field: &Field| match &field.default {
            Some(default) => default.to_string(),
            None => "none".to_owned(),
        };
        let what = format!("default {} became {}", shown(old), shown(new));
        found.push(change(Impact::Compatible, what));
    }
    if old.hold != new.hold {
        let what = if new.hold { "is held while people disagree" } else { "is not held any more" };
        found.push(change(Impact::Compatible, what));
    }
    if old.policy != new.policy {
        let (was, is) = (old.policy.to_string(), new.policy.to_string());
        let what = if was == is {
            format!("others have the roles of policy {is}")
        } else {
            format!("policy {was} became {is}")
        };
        found.push(change(Impact::Compatible, what));
    }
    found
}

fn is_other_map(old: &Kind, new: &Kind) -> bool {
    matches!(
        (old, new),
        (Kind::Map { .. }, Kind::Record { .. }) | (Kind::Record { .. }, Kind::Map { .. })
    )
}

/// Changes within one kind.
fn inside(old: &Kind, new: &Kind, version: u32, found: &mut Vec<Change>) {
    match (old, new) {
        (Kind::Enum { values: old }, Kind::Enum { values: new }) => {
            let less: Vec<_> = old.iter().filter(|value| !new.contains(value)).cloned().collect();
            let more: Vec<_> = new.iter().filter(|value| !old.contains(value)).cloned().collect();
            if !less.is_empty() {
                found.push(change(Impact::Lossy, format!("no longer {}", less.join(", "))));
            }
            if !more.is_empty() {
                found.push(change(Impact::Compatible, format!("also {}", more.join(", "))));
            }
        }
        (Kind::Integer { min: a, max: b }, Kind::Integer { min: c, max: d })
        | (Kind::Timestamp { min: a, max: b }, Kind::Timestamp { min: c, max: d }) => {
            limit("min", a.as_ref(), c.as_ref(), |old, new| new <= old, found);
            limit("max", b.as_ref(), d.as_ref(), |old, new| new >= old, found);
        }
        (Kind::Number { min: a, max: b }, Kind::Number { min: c, max: d }) => {
            limit("min", a.as_ref(), c.as_ref(), |old, new| new <= old, found);
            limit("max", b.as_ref(), d.as_ref(), |old, new| new >= old, found);
        }
        (
            Kind::Reference { to: a, on_delete: b, acyclic: was },
            Kind::Reference { to: c, on_delete: d, acyclic: is },
        ) => {
            if was != is {
                let what = if *is { "is acyclic" } else { "is no longer acyclic" };
                found.push(change(Impact::Compatible, what.to_owned()));
            }
            if a != c {
                found.push(change(Impact::Lossy, format!("refers to {c} instead of {a}")));
            }
            if b != d {
                let what = format!("on_delete {} became {}", b.name(), d.name());
                found.push(change(Impact::Compatible, what));
            }
        }
        (Kind::Record { fields: old }, Kind::Record { fields: new }) => {
            for (name, field) in old {
                match new.get(name) {
                    Some(now) => found.extend(
                        changes(field, now, false, version)
                            .into_iter()
                            .map(|it| Change { what: format!("{name}: {}", it.what), ..it }),
                    ),
                    None => found.push(change(Impact::Lossy, format!("{name} is gone"))),
                }
            }
            for (name, field) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                let what = format!("{name} is new, {}", field.kind);
                let impact = if field.since > 1 { Impact::Migrated } else { Impact::Compatible };
                found.push(if field.kind.is_register() || field.since > 1 {
                    change(impact, what)
                } else {
                    let fix = format!("add a migration with `add`, as in \"field.{name}\"");
                    Change { impact: Impact::NeedsMigration, what, fix: Some(fix) }
                });
            }
        }
        _ => {
            if let (Some(a), Some(b)) = (items(old), items(new)) {
                if a.name() == b.name() {
                    inside(a, b, version, found);
                } else {
                    let what = format!("{old} became {new}; what does not fit stays in documents");
                    found.push(change(Impact::Lossy, what));
                }
            }
            limit("max_length", length(old), length(new), |old, new| new >= old, found);
            if let (Kind::String { pattern: a, .. }, Kind::String { pattern: b, .. }) = (old, new)
                && a != b
            {
                match b {
                    Some(b) => {
                        let what = format!("must match {}", b.as_str());
                        found.push(change(Impact::Lossy, what));
                    }
                    None => found.push(change(Impact::Compatible, "need not match a pattern")),
                }
            }
        }
    }
}

fn items(kind: &Kind) -> Option<&Kind> {
    match kind {
        Kind::Set { items, .. } | Kind::List { items, .. } | Kind::Map { items, .. } => Some(items),
        _ => None,
    }
}

fn length(kind: &Kind) -> Option<&u64> {
    match kind {
        Kind::Text { max_length }
        | Kind::String { max_length, .. }
        | Kind::Blob { max_length }
        | Kind::Attachment { max_length }
        | Kind::Set { max_length, .. }
        | Kind::List { max_length, .. }
        | Kind::Map { max_length, .. } => max_length.as_ref(),
        _ => None,
    }
}

fn limit<T: PartialEq + std::fmt::Display>(
    what: &str,
    old: Option<&T>,
    new: Option<&T>,
    is_wider: impl Fn(&T, &T) -> bool,
    found: &mut Vec<Change>,
) {
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(old), Some(new)) => {
            let impact = if is_wider(old, new) { Impact::Compatible } else { Impact::Lossy };
            found.push(change(impact, format!("{what} {old} became {new}")));
        }
        (None, Some(new)) => found.push(change(Impact::Lossy, format!("{what} {new} is new"))),
        (Some(old), None) => {
            found.push(change(Impact::Compatible, format!("{what} {old} is gone")));
        }
        (None, None) => {}
    }
}
