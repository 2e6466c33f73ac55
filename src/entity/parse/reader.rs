//! What is read of tables, and the errors that are gathered meanwhile.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::entity::{
    SchemaError, SchemaErrors, limits,
    words::{instead, quoted},
};

/// Characters of the file.
pub(super) type Span = Range<usize>;
/// A value in the file.
pub(super) type Value<'a> = &'a Spanned<DeValue<'a>>;

/// Errors that are looked at before those that are reported are chosen.
const GATHERED_MAX: usize = 10 * limits::ERRORS_MAX;

/// What is known while a file is read.
pub(super) struct Reader<'a> {
    text: &'a str,
    /// Where lines end.
    ends: Vec<usize>,
    /// Rules and patterns so far.
    rules: usize,
    errors: Vec<SchemaError>,
    /// Fields of the type being read whose kind could not be: what else is said of them would be a
    /// guess.
    pub(super) unread: BTreeSet<String>,
    /// Who has which role.
    pub(super) roles: BTreeMap<String, Vec<String>>,
    /// References: where, what refers, to which type.
    pub(super) references: Vec<(Span, String, String)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at);
        let ends = ends.collect();
        Self {
            text,
            ends,
            rules: 0,
            errors: Vec::new(),
            unread: BTreeSet::new(),
            roles: BTreeMap::new(),
            references: Vec::new(),
        }
    }

    /// Notes an error.
    pub(super) fn wrong(&mut self, at: Span, problem: impl Into<String>, fix: impl Into<String>) {
        if self.errors.len() >= GATHERED_MAX {
            return;
        }
        let line = self.ends.partition_point(|end| *end < at.start);
        let begin =
            line.checked_sub(1).and_then(|last| self.ends.get(last)).map_or(0, |end| end + 1);
        let column = 1 + self.text.get(begin..at.start).map_or(0, |text| text.chars().count());
        let line = line + 1;
        let (problem, fix) = (problem.into(), fix.into());
        self.errors.push(SchemaError { line, column, problem, fix });
    }

    /// Notes an error if there are more than may be.
    pub(super) fn at_most(&mut self, at: Span, count: usize, max: usize, what: &str) {
        if count > max {
            self.wrong(at, format!("{count} {what}, of {max} at most"), "split them");
        }
    }

    /// Whether another rule or pattern may be read; notes an error if not.
    pub(super) fn may_have_rule(&mut self, at: Span) -> bool {
        self.rules += 1;
        if self.rules > limits::RULES_MAX {
            let problem = format!("it is rule or pattern {} of the schema", self.rules);
            self.wrong(at, problem, format!("have {} at most", limits::RULES_MAX));
        }
        self.rules <= limits::RULES_MAX
    }

    /// Notes an error if this cannot be the name of something.
    pub(super) fn name(&mut self, at: Span, what: &str, name: &str) {
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let goes_on = name.chars().all(|next| next.is_ascii_alphanumeric() || next == '_');
        if !begins || !goes_on || name.len() > limits::NAME_BYTES_MAX {
            let max = limits::NAME_BYTES_MAX;
            self.wrong(
                at,
                format!("{what} has a name that rules and programs cannot use"),
                format!("begin with a letter, go on with letters, digits and _, {max} at most"),
            );
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn finish(self) -> SchemaErrors {
        SchemaErrors::new(self.errors)
    }
}

/// A table of the file, or what stands for one that is left out.
#[derive(Clone)]
pub(super) struct Table<'a> {
    /// What it declares.
    pub(super) what: String,
    at: Span,
    entries: Option<&'a DeTable<'a>>,
}

impl<'a> Table<'a> {
    /// The file itself.
    pub(super) fn top(entries: &'a DeTable<'a>) -> Self {
        Self { what: "the file".to_owned(), at: 0..0, entries: Some(entries) }
    }

    /// One that has nothing in it.
    pub(super) fn empty(what: String, at: Span) -> Self {
        Self { what, at, entries: None }
    }

    /// A value that must be a table. `at` is its key.
    pub(super) fn new(
        reader: &mut Reader<'_>,
        what: String,
        at: Span,
        value: Value<'a>,
    ) -> Option<Self> {
        if let DeValue::Table(entries) = value.get_ref() {
            return Some(Self { what, at, entries: Some(entries) });
        }
        let found = kind_of(value.get_ref());
        reader.wrong(value.span(), format!("{what} is {found}"), "write a table, as in { … }");
        None
    }

    pub(super) fn at(&self) -> Span {
        self.at.clone()
    }

    pub(super) fn entries(&self) -> Vec<(&'a Spanned<Cow<'a, str>>, Value<'a>)> {
        self.entries.into_iter().flatten().collect()
    }

    pub(super) fn get(&self, key: &str) -> Option<Value<'a>> {
        self.entries?.get(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Where a key stands; where the table does, if it is not there.
    pub(super) fn at_key(&self, key: &str) -> Span {
        let found = self.entries().into_iter().find(|(name, _)| name.get_ref() == key);
        found.map_or(self.at(), |(name, _)| name.span())
    }

    /// Where the value of a key stands; where the table does, if it is not there.
    pub(super) fn at_value(&self, key: &str) -> Span {
        self.get(key).map_or(self.at(), Spanned::span)
    }

    /// Notes the keys that are none of these.
    pub(super) fn only(&self, reader: &mut Reader<'_>, keys: &[&str]) {
        for (key, _) in self.entries() {
            let name = key.get_ref().as_ref();
            if !keys.contains(&name) {
                let fix = instead(name, keys, &format!("known are {}", quoted(keys)));
                reader.wrong(key.span(), format!("{} has no key `{name}`", self.what), fix);
            }
        }
    }

    pub(super) fn table(&self, reader: &mut Reader<'_>, key: &str, what: &str) -> Option<Self> {
        Table::new(reader, what.to_owned(), self.at_key(key), self.get(key)?)
    }

    pub(super) fn text(&self, reader: &mut Reader<'_>, key: &str) -> Option<&'a str> {
        let value = self.get(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.other(reader, key, value, "a string");
        }
        text
    }

    pub(super) fn boolean(&self, reader: &mut Reader<'_>, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.other(reader, key, value, "true or false");
        }
        truth
    }

    pub(super) fn integer(&self, reader: &mut Reader<'_>, key: &str) -> Option<i64> {
        let value = self.get(key)?;
        let number = integer(value.get_ref());
        if number.is_none() {
            self.other(reader, key, value, "a whole number");
        }
        number
    }

    pub(super) fn number(&self, reader: &mut Reader<'_>, key: &str) -> Option<f64> {
        let value = self.get(key)?;
        let number = number(value.get_ref());
        if number.is_none() {
            self.other(reader, key, value, "a number");
        }
        number
    }

    pub(super) fn length(&self, reader: &mut Reader<'_>, key: &str) -> Option<u64> {
        let number = self.integer(reader, key)?;
        let length = u64::try_from(number).ok();
        if length.is_none() {
            let problem = format!("`{key}` of {} is less than 0", self.what);
            reader.wrong(self.at_value(key), problem, "write how many there may be at most");
        }
        length
    }

    /// Strings, each once.
    pub(super) fn texts(&self, reader: &mut Reader<'_>, key: &str) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let DeValue::Array(values) = value.get_ref() else {
            self.other(reader, key, value, "a list of strings, as in [\"a\", \"b\"]");
            return None;
        };
        reader.at_most(value.span(), values.len(), limits::VALUES_MAX, "values");
        let mut texts: Vec<String> = Vec::new();
        for value in values.iter().take(limits::VALUES_MAX) {
            match value.get_ref().as_str() {
                Some(text) if texts.iter().any(|earlier| earlier == text) => {
                    let problem = format!("`{key}` of {} has {text:?} twice", self.what);
                    reader.wrong(value.span(), problem, "leave one out");
                }
                Some(text) => texts.push(text.to_owned()),
                None => self.other(reader, key, value, "a list of strings, as in [\"a\", \"b\"]"),
            }
        }
        if values.is_empty() {
            let problem = format!("`{key}` of {} is empty", self.what);
            reader.wrong(value.span(), problem, "name at least one");
        }
        Some(texts)
    }

    /// One of several words.
    pub(super) fn word<T>(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        words: &[&str],
        named: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let word = self.text(reader, key)?;
        let known = named(word);
        if known.is_none() {
            let problem = format!("`{key}` of {} is {word:?}, which is not known", self.what);
            let fix = instead(word, words, &format!("known are {}", quoted(words)));
            reader.wrong(self.at_value(key), problem, fix);
        }
        known
    }

    fn other(&self, reader: &mut Reader<'_>, key: &str, value: Value<'_>, wanted: &str) {
        let found = kind_of(value.get_ref());
        let problem = format!("`{key}` of {} has {found}", self.what);
        reader.wrong(value.span(), problem, format!("write {wanted}"));
    }
}

pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    let text = match value {
        DeValue::Float(number) => number.as_str(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        _ => return None,
    };
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// What a value is, in words.
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
