//! Whether an entity is what its type says: asked before a change is committed, and after a merge.

use std::fmt;

use automerge::ReadDoc;

use super::{
    Entity, EntityType, Misfit, Value,
    rule::{RuleError, Verdict},
    words,
};

/// One thing that is wrong with an entity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A value does not fit its field.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// A required field has no value.
    #[error("field `{field}` is required and has no value: write one")]
    Missing {
        /// Which, as `address.street`.
        field: String,
    },
    /// An invariant does not hold.
    #[error("rule `{rule}` does not hold: change the fields of `{text}`")]
    Broken {
        /// Its name.
        rule: String,
        /// As it stands in the schema.
        text: String,
    },
    /// An invariant cannot be worked out.
    #[error("rule `{rule}` cannot be worked out: {source}")]
    Unsettled {
        /// Its name.
        rule: String,
        /// Why.
        source: RuleError,
    },
}

/// All that is wrong with an entity. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid(pub Vec<Problem>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        words::list(f, &self.0, "; ")
    }
}

impl EntityType {
    /// Whether a document, or a transaction in one, is a whole entity of this type: call it before
    /// a change is committed, and roll back if it is not.
    ///
    /// # Errors
    /// All that is wrong, each with the field or rule.
    pub fn validate(&self, doc: &impl ReadDoc) -> Result<(), Invalid> {
        let problems = self.read(doc).problems();
        if problems.is_empty() { Ok(()) } else { Err(Invalid(problems)) }
    }

    /// Whether an edit left an entity no worse. What was wrong before is not held against it: others
    /// wrote it so, or a merge made it so, and nobody could edit anything until that is repaired. Of
    /// an entity that had nothing in it, everything is.
    ///
    /// # Errors
    /// All that became wrong, each with the field or rule.
    pub fn validate_edit(&self, before: &Entity<'_>, doc: &impl ReadDoc) -> Result<(), Invalid> {
        let mut problems = self.read(doc).problems();
        if !before.is_blank() {
            let known = before.problems();
            problems.retain(|problem| !known.contains(problem));
        }
        if problems.is_empty() { Ok(()) } else { Err(Invalid(problems)) }
    }
}

impl Entity<'_> {
    /// The value of a field, or its default.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.values.get(field)
    }

    /// Whether nobody has written anything but what it began with.
    pub fn is_blank(&self) -> bool {
        self.misfits.is_empty()
            && self.of.fields.iter().all(|(name, field)| {
                // A default is not written, so what equals it most likely was not.
                field.default.is_some() || self.get(name).is_none_or(is_as_begun)
            })
    }

    /// All that is wrong with it.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<_> = self.misfits.iter().cloned().map(Problem::from).collect();
        missing(&self.of.fields, &self.values, "", &mut problems);
        for (rule, text) in &self.of.invariants {
            let rule = rule.clone();
            match text.check(&self.values) {
                Ok(Verdict::Holds | Verdict::DoesNotApply) => {}
                Ok(Verdict::Broken) => {
                    problems.push(Problem::Broken { rule, text: text.as_str().to_owned() });
                }
                Err(source) => problems.push(Problem::Unsettled { rule, source }),
            }
        }
        problems
    }
}

/// Notes required fields that have no value; in maps that are there, too.
fn missing(
    fields: &std::collections::BTreeMap<String, super::Field>,
    values: &std::collections::BTreeMap<String, Value>,
    above: &str,
    problems: &mut Vec<Problem>,
) {
    for (name, field) in fields {
        let field_path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let value = values.get(name);
        if field.required && value.is_none_or(is_empty) {
            problems.push(Problem::Missing { field: field_path.clone() });
        }
        if let Some(value) = value {
            inside(&field.kind, value, &field_path, problems);
        }
    }
}

fn inside(kind: &super::Kind, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    match (kind, value) {
        (super::Kind::Record { fields }, Value::Map(values)) => {
            missing(fields, values, path, problems);
        }
        (super::Kind::Map { items, .. }, Value::Map(values)) => {
            for (key, value) in values {
                inside(items, value, &format!("{path}.{key}"), problems);
            }
        }
        (super::Kind::List { items, .. }, Value::List(values)) => {
            for (index, value) in values.iter().enumerate() {
                inside(items, value, &format!("{path}[{index}]"), problems);
            }
        }
        _ => {}
    }
}

fn is_as_begun(value: &Value) -> bool {
    match value {
        Value::Integer(number) => *number == 0,
        Value::Map(values) => values.values().all(is_as_begun),
        other => is_empty(other),
    }
}

/// A container that is there but has nothing in it is no value, for all begin so.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Set(members) => members.is_empty(),
        Value::List(values) => values.is_empty(),
        Value::Map(values) => values.is_empty(),
        _ => false,
    }
}
