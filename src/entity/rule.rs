//! Invariants: what must hold of an entity's fields together.
//!
//! A rule is an expression of [CEL], of which this is the part that always ends: fields, numbers,
//! strings, `+ - * / %`, comparisons, `&& || !`, `a ? b : c`, `in`, and the functions of
//! [`Function`]. The fields of what is in a list or map are taken together: `lines.amount` is all
//! amounts, as in `sum(lines.amount) <= limit`.
//!
//! The crate `cel` reads the text. What it read is checked against the kinds of the fields and
//! made into a tree of our own: its evaluator knows neither kinds nor `lines.amount`, and has no
//! bound. What this takes is bounded by the length of the rule times that of the longest list.
//!
//! A rule does not apply while a field that it needs has no value: `start < end` says nothing of an
//! entity without an end. `has(this.end)` asks whether there is one; a text, set, list, map or
//! counter that a document began with always has one, be it empty. Elements that lack the field
//! that is taken of them are passed over.
//!
//! [CEL]: https://cel.dev

mod compile;
mod evaluate;
mod functions;
mod node;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub use self::{evaluate::RuleError, functions::Function};
use self::{
    evaluate::evaluate,
    node::{Node, Type},
};
use super::{Field, Value, limits};

/// Something that must hold of an entity.
#[derive(Clone, PartialEq)]
pub struct Rule {
    text: String,
    node: Node,
}

/// What a rule says of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not.
    Broken,
    /// A field that it needs has no value.
    DoesNotApply,
}

/// Why a text is no rule: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}: {fix}")]
pub struct NoRule {
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

impl NoRule {
    fn new(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { problem: problem.into(), fix: fix.into() }
    }
}

impl Rule {
    /// Reads a rule on these fields.
    ///
    /// # Errors
    /// [`NoRule`].
    pub fn parse(text: &str, fields: &BTreeMap<String, Field>) -> Result<Self, NoRule> {
        if text.len() > limits::RULE_BYTES_MAX {
            let problem = format!("it has {} bytes", text.len());
            let fix = format!("write several rules of {} at most", limits::RULE_BYTES_MAX);
            return Err(NoRule::new(problem, fix));
        }
        if brackets(text) > limits::RULE_BRACKETS_MAX {
            let max = limits::RULE_BRACKETS_MAX;
            let problem = format!("it has more than {max} brackets within each other");
            return Err(NoRule::new(problem, "write several rules"));
        }
        let how = "write a comparison, as in `start < end`";
        let parsed = catch_unwind(AssertUnwindSafe(|| {
            cel::parser::Parser::new().max_recursion_depth(limits::RULE_DEPTH_MAX).parse(text)
        }));
        let expression = match parsed {
            Ok(Ok(expression)) => expression,
            Ok(Err(errors)) => {
                let said = said(&errors);
                let how = if said.ends_with("'= '") || said.ends_with("'='") {
                    "compare with `==`"
                } else {
                    how
                };
                return Err(NoRule::new(said, how));
            }
            Err(_) => return Err(NoRule::new("it is no expression", how)),
        };
        let (node, found) = compile::compile(&expression, fields)?;
        if found != Type::Boolean {
            let problem = format!("it is {found}, and not true or false");
            return Err(NoRule::new(problem, "compare it with something, as in `stock >= 0`"));
        }
        Ok(Self { text: text.to_owned(), node })
    }

    /// As it stands in the file.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The fields of the entity that it looks at; `lines.amount` is in `lines`.
    pub fn fields(&self) -> BTreeSet<&str> {
        let mut noted = BTreeSet::new();
        self.node.note_fields(&mut noted);
        noted
    }

    /// What it says of an entity with these values.
    ///
    /// # Errors
    /// [`RuleError`], where it cannot be worked out.
    pub fn check(&self, values: &BTreeMap<String, Value>) -> Result<Verdict, RuleError> {
        Ok(match evaluate(&self.node, values)? {
            Some(Value::Boolean(true)) => Verdict::Holds,
            Some(_) => Verdict::Broken,
            None => Verdict::DoesNotApply,
        })
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.text).finish()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How many brackets there are within each other, at most; those in strings count too.
fn brackets(text: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for next in text.chars() {
        match next {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// The first thing that the parser says, without the tokens that it would have liked better.
fn said(errors: &cel::ParseErrors) -> String {
    let Some(first) = errors.errors.first() else { return "it is no expression".to_owned() };
    let words = first.msg.split(" expecting ").next().unwrap_or_default();
    let words = words.trim_start_matches("Syntax error: ").replace('\n', " ");
    let words = words.replace("'<EOF>'", "end").replace("token recognition error at: ", "unknown ");
    format!("it cannot be read at character {}: {words}", first.pos.1.max(1))
}
