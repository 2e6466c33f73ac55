//! A document as an entity: the values of its fields, and what does not fit them.
//!
//! Reading is lenient where plain clients differ from each other: JavaScript writes every string as
//! a text, and whole numbers into fields of numbers. What does not fit is told, and stays in the
//! document.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value as Stored};

use super::{
    Attachment, EntityType, Field, Kind, Literal, Parked, Schema, Value, fits::too_long,
    lens::Standing, limits,
};

/// What a document says as an entity of a type.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity<'t> {
    /// Its type.
    pub of: &'t EntityType,
    /// The values of its fields by their names, with defaults. Fields without a value are not here.
    pub values: BTreeMap<String, Value>,
    /// What does not fit.
    pub misfits: Vec<Misfit>,
    /// What earlier versions of the type have and this one cannot, or the other way round. It stays
    /// in the document; what cannot be read is among the misfits, too.
    pub parked: Vec<Parked>,
}

/// Something in a document that does not fit its field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` {found}: {wanted}")]
pub struct Misfit {
    /// Which field, as `address.street` or `lines[2].amount`.
    pub field: String,
    /// What was found, as the end of a sentence.
    pub found: String,
    /// What to write instead.
    pub wanted: String,
}

impl Schema {
    /// The type of a document, by its root key; `None` if it has none that is declared.
    pub fn recognise(&self, doc: &impl ReadDoc) -> Option<&EntityType> {
        self.types.get(&type_name(doc, &self.root_key, None)?)
    }
}

/// What a document says that its type is, at this key; `None` if nothing that is a name.
pub fn type_of(doc: &impl ReadDoc, root_key: &str) -> Option<String> {
    type_name(doc, root_key, None)
}

/// What a document says that its type is, now or at some heads; `None` if nothing that is a name.
pub(crate) fn type_name(
    doc: &impl ReadDoc,
    root_key: &str,
    heads: Option<&[ChangeHash]>,
) -> Option<String> {
    let (value, id) = match heads {
        None => doc.get(ROOT, root_key),
        Some(heads) => doc.get_at(ROOT, root_key, heads),
    }
    .ok()??;
    let length = |id| heads.map_or_else(|| doc.length(id), |heads| doc.length_at(id, heads));
    match value {
        Stored::Scalar(value) => value.as_str().map(str::to_owned),
        // As JavaScript writes it. No name is longer, so no more is read.
        Stored::Object(ObjType::Text) if length(&id) <= limits::NAME_BYTES_MAX => {
            heads.map_or_else(|| doc.text(&id), |heads| doc.text_at(&id, heads)).ok()
        }
        Stored::Object(_) => None,
    }
}

impl EntityType {
    /// Reads a document, or a transaction in one, as an entity of this type.
    pub fn read(&self, doc: &impl ReadDoc) -> Entity<'_> {
        let mut reader = Reader { doc, misfits: Vec::new() };
        let mut values = reader.fields(&ROOT, &self.fields, "");
        let mut parked = Vec::new();
        for chain in &self.chains {
            let standing = chain.standing(doc);
            for (name, field) in self.fields.iter().filter(|(_, field)| chain.has(&field.slot)) {
                reader.carried(name, field, &standing, &mut values);
            }
            parked.extend(standing.parked);
        }
        Entity { of: self, values, misfits: reader.misfits, parked }
    }

    /// The values of those of its fields that are wanted, with defaults, as [`EntityType::read`]
    /// gives them. What is not wanted is not looked at.
    pub(crate) fn read_some(
        &self,
        doc: &impl ReadDoc,
        wanted: impl Fn(&Field) -> bool,
    ) -> BTreeMap<String, Value> {
        let mut reader = Reader { doc, misfits: Vec::new() };
        let mut values = BTreeMap::new();
        for (name, field) in self.fields.iter().filter(|(_, field)| wanted(field)) {
            let value = reader.field(&ROOT, name, field, "");
            values.extend(value.map(|value| (name.clone(), value)));
        }
        for chain in &self.chains {
            let mut fields =
                self.fields.iter().filter(|(_, field)| chain.has(&field.slot) && wanted(field));
            let Some(first) = fields.next() else { continue };
            let standing = chain.standing(doc);
            for (name, field) in std::iter::once(first).chain(fields) {
                reader.carried(name, field, &standing, &mut values);
            }
        }
        values
    }
}

/// What a stored value is as one of a kind; `None` if that is nothing.
///
/// # Errors
/// Why it is none, as the end of a sentence.
pub(super) fn alone(
    doc: &impl ReadDoc,
    kind: &Kind,
    value: &Stored<'_>,
    id: &ObjId,
) -> Result<Option<Value>, String> {
    let mut reader = Reader { doc, misfits: Vec::new() };
    match reader.value(kind, value, id, "") {
        Some(value) => Ok(Some(value)),
        None if value.as_scalar().is_some_and(ScalarValue::is_null) => Ok(None),
        None => {
            let found = reader.misfits.pop().map(|misfit| misfit.found);
            Err(format!("which {}", found.unwrap_or_else(|| "cannot be read".to_owned())))
        }
    }
}

/// A stored value as it is, to a depth.
pub(super) fn anything(doc: &impl ReadDoc, value: &Stored<'_>, id: &ObjId) -> Value {
    let mut reader = Reader { doc, misfits: Vec::new() };
    reader.json(value, id, "", limits::JSON_DEPTH_MAX).unwrap_or(Value::Null)
}

/// What each element of a list is, as its kind means it; `None` where it does not fit.
pub(super) fn stored(doc: &impl ReadDoc, list: &ObjId, items: &Kind) -> Vec<Option<Value>> {
    let mut reader = Reader { doc, misfits: Vec::new() };
    let read = |item: automerge::iter::ListRangeItem<'_>| {
        reader.value(items, &item.value.clone().into(), &item.id(), "")
    };
    doc.list_range(list, ..).map(read).collect()
}

struct Reader<'a, D> {
    doc: &'a D,
    misfits: Vec<Misfit>,
}

impl<D: ReadDoc> Reader<'_, D> {
    fn fields(
        &mut self,
        object: &ObjId,
        fields: &BTreeMap<String, Field>,
        above: &str,
    ) -> BTreeMap<String, Value> {
        let value = |(name, field): (&String, &Field)| {
            let value = self.field(object, name, field, above)?;
            Some((name.clone(), value))
        };
        fields.iter().filter_map(value).collect()
    }

    fn field(&mut self, object: &ObjId, name: &str, field: &Field, above: &str) -> Option<Value> {
        let path = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
        let found = self.doc.get(object, &*field.slot).ok().flatten();
        let value = found.and_then(|(value, id)| self.value(&field.kind, &value, &id, &path));
        value.or_else(|| {
            let is_time = matches!(field.kind, Kind::Timestamp { .. });
            field.default.as_ref().map(|default| of_default(default, is_time))
        })
    }

    /// A field that earlier versions have elsewhere, by what stands there.
    fn carried(
        &mut self,
        name: &str,
        field: &Field,
        standing: &Standing,
        values: &mut BTreeMap<String, Value>,
    ) {
        let own = match self.doc.get(ROOT, &*field.slot).ok().flatten() {
            Some((value, id)) => alone(self.doc, &field.kind, &value, &id),
            None => Ok(None),
        };
        let is_time = matches!(field.kind, Kind::Timestamp { .. });
        let default = || field.default.as_ref().map(|default| of_default(default, is_time));
        let value = match standing.values.get(&field.slot) {
            // It is where it belongs, and was read there.
            Some(value) if *value == own => return,
            // A text without a letter is there all the same.
            Some(Ok(None)) if matches!(field.kind, Kind::Text { .. }) => {
                Some(Value::String(String::new()))
            }
            Some(Ok(value)) => {
                self.misfits.retain(|misfit| misfit.field != name);
                value.as_ref().and_then(|value| self.fitting(&field.kind, value, name))
            }
            Some(Err(why)) => {
                self.misfits.retain(|misfit| misfit.field != name);
                let found = format!("cannot be read from an earlier version: it has a value {why}");
                let wanted = format!("write what a field of kind `{}` may have", field.kind.name());
                self.misfits.push(Misfit { field: name.to_owned(), found, wanted });
                None
            }
            None => return,
        };
        match value.or_else(default) {
            Some(value) => values.insert(name.to_owned(), value),
            None => values.remove(name),
        };
    }

    /// A value that came through a lens.
    fn fitting(&mut self, kind: &Kind, value: &Value, path: &str) -> Option<Value> {
        let literal = match value {
            Value::Boolean(yes) => Literal::Boolean(*yes),
            Value::Integer(number) | Value::Timestamp(number) => Literal::Integer(*number),
            Value::Number(number) => Literal::Number(*number),
            Value::String(text) => Literal::String(text.clone()),
            _ => return None,
        };
        self.single(kind, &literal, path)
    }

    fn value(&mut self, kind: &Kind, value: &Stored<'_>, id: &ObjId, path: &str) -> Option<Value> {
        match (kind, value) {
            (Kind::Json, value) => self.json(value, id, path, limits::JSON_DEPTH_MAX),
            // What was cleared.
            (_, Stored::Scalar(value)) if value.is_null() => None,
            (Kind::Record { fields }, Stored::Object(ObjType::Map)) => {
                Some(Value::Map(self.fields(id, fields, path)))
            }
            (Kind::Map { items, max_length }, Stored::Object(ObjType::Map)) => {
                let mut values = BTreeMap::new();
                for item in self.doc.map_range(id, ..) {
                    let (stored, inner) = (item.value.clone().into(), item.id());
                    let path = format!("{path}.{}", item.key);
                    let value = self.value(items, &stored, &inner, &path);
                    values.extend(value.map(|value| (item.key.to_string(), value)));
                }
                self.length(values.len(), *max_length, path);
                Some(Value::Map(values))
            }
            (Kind::List { items, max_length }, Stored::Object(ObjType::List)) => {
                let mut values = Vec::new();
                for (index, item) in self.doc.list_range(id, ..).enumerate() {
                    let (stored, inner) = (item.value.clone().into(), item.id());
                    values.extend(self.value(items, &stored, &inner, &format!("{path}[{index}]")));
                }
                self.length(values.len(), *max_length, path);
                Some(Value::List(values))
            }
            (Kind::Set { items, max_length }, Stored::Object(ObjType::Map)) => {
                let members = self.members(items, id, path);
                self.length(members.len(), *max_length, path);
                Some(Value::Set(members))
            }
            (kind, Stored::Object(ObjType::Text)) if is_string(kind) => {
                let text = self.doc.text(id).ok()?;
                self.single(kind, &Literal::String(text), path)
            }
            (Kind::Blob { max_length }, Stored::Scalar(value)) => {
                let Some(bytes) = value.as_bytes() else {
                    self.other(kind, &found(value), path);
                    return None;
                };
                self.length(bytes.len(), *max_length, path);
                Some(Value::Bytes(bytes.to_vec()))
            }
            (kind, Stored::Scalar(value)) => {
                let Some(literal) = literal(kind, value) else {
                    self.other(kind, &found(value), path);
                    return None;
                };
                self.single(kind, &literal, path)
            }
            (kind, Stored::Object(found)) => {
                self.other(kind, &format!("is a {found}"), path);
                None
            }
        }
    }

    /// A value without parts, which is shown also where it breaks a constraint.
    fn single(&mut self, kind: &Kind, literal: &Literal, path: &str) -> Option<Value> {
        if let Some(found) = kind.problem(literal) {
            self.other(kind, &found, path);
            // What is none of the values of an enum is not readable as one of them.
            if matches!(kind, Kind::Enum { .. } | Kind::Reference { .. } | Kind::Position)
                || is_no_attachment(kind, literal)
            {
                return None;
            }
        }
        Some(of_default(literal, matches!(kind, Kind::Timestamp { .. })))
    }

    fn members(&mut self, items: &Kind, id: &ObjId, path: &str) -> BTreeSet<String> {
        let mut members = BTreeSet::new();
        for item in self.doc.map_range(id, ..) {
            if let Some(found) = member_problem(items, &item.key) {
                let problem = format!("has the member {:?}, which {found}", item.key);
                self.other(items, &problem, path);
            } else {
                members.insert(item.key.to_string());
            }
        }
        members
    }

    /// Anything, to a depth.
    fn json(&mut self, value: &Stored<'_>, id: &ObjId, path: &str, depth: usize) -> Option<Value> {
        let kind = match value {
            Stored::Scalar(value) => return Some(any(value)),
            Stored::Object(kind) => *kind,
        };
        let Some(below) = depth.checked_sub(1) else {
            self.misfits.push(Misfit {
                field: path.to_owned(),
                found: "is nested too deep to be read".to_owned(),
                wanted: format!("nest {} levels at most", limits::JSON_DEPTH_MAX),
            });
            return None;
        };
        Some(match kind {
            ObjType::Text => Value::String(self.doc.text(id).ok()?),
            ObjType::List => {
                let mut values = Vec::new();
                for item in self.doc.list_range(id, ..) {
                    let (stored, inner) = (item.value.clone().into(), item.id());
                    values.extend(self.json(&stored, &inner, path, below));
                }
                Value::List(values)
            }
            ObjType::Map | ObjType::Table => {
                let mut values = BTreeMap::new();
                for item in self.doc.map_range(id, ..) {
                    let (stored, inner) = (item.value.clone().into(), item.id());
                    let value = self.json(&stored, &inner, path, below);
                    values.extend(value.map(|value| (item.key.to_string(), value)));
                }
                Value::Map(values)
            }
        })
    }

    fn length(&mut self, length: usize, max: Option<u64>, path: &str) {
        if let Some(found) = too_long(length, max, "elements") {
            let (field, wanted) = (path.to_owned(), "leave some out".to_owned());
            self.misfits.push(Misfit { field, found, wanted });
        }
    }

    fn other(&mut self, kind: &Kind, found: &str, path: &str) {
        let wanted = format!("write what a field of kind `{}` may have", kind.name());
        self.misfits.push(Misfit { field: path.to_owned(), found: found.to_owned(), wanted });
    }
}

/// One that is only too large is shown.
fn is_no_attachment(kind: &Kind, literal: &Literal) -> bool {
    let Literal::String(text) = literal else { return false };
    matches!(kind, Kind::Attachment { .. }) && text.parse::<Attachment>().is_err()
}

/// Kinds whose values are strings: JavaScript writes each as a text.
fn is_string(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Text { .. }
            | Kind::String { .. }
            | Kind::Enum { .. }
            | Kind::Reference { .. }
            | Kind::Attachment { .. }
            | Kind::Position
    )
}

/// What is wrong with a member of a set, which is kept as a key.
pub(super) fn member_problem(items: &Kind, member: &str) -> Option<String> {
    match items {
        Kind::Integer { .. } => match member.parse::<i64>() {
            Ok(number) if number.to_string() == member => items.problem(&Literal::Integer(number)),
            _ => Some("is no whole number".to_owned()),
        },
        items => items.problem(&Literal::String(member.to_owned())),
    }
}

/// A stored value as the kind means it; `None` if it is another.
fn literal(kind: &Kind, value: &ScalarValue) -> Option<Literal> {
    match kind {
        kind if is_string(kind) => value.as_str().map(|text| Literal::String(text.to_owned())),
        Kind::Integer { .. } => whole(value).map(Literal::Integer),
        Kind::Number { .. } => value.as_f64().or_else(|| float(value)).map(Literal::Number),
        Kind::Boolean => value.as_bool().map(Literal::Boolean),
        Kind::Timestamp { .. } => match value {
            ScalarValue::Timestamp(time) => Some(Literal::Integer(*time)),
            _ => None,
        },
        Kind::Counter => match value {
            ScalarValue::Counter(counter) => Some(Literal::Integer(counter.into())),
            _ => None,
        },
        _ => None,
    }
}

fn whole(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int(number) => Some(*number),
        ScalarValue::Uint(number) => i64::try_from(*number).ok(),
        // JavaScript has no other numbers; beyond 2^53 they are not exact.
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and within 2^53")]
        ScalarValue::F64(number) if number.fract() == 0.0 && number.abs() < EXACT_MAX => {
            Some(*number as i64)
        }
        _ => None,
    }
}

/// Up to here every whole number is a float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

fn float(value: &ScalarValue) -> Option<f64> {
    let whole = whole(value)?;
    #[expect(clippy::cast_precision_loss, reason = "as JavaScript reads it")]
    Some(whole as f64)
}

fn found(value: &ScalarValue) -> String {
    let what = match value {
        ScalarValue::Bytes(_) => "bytes",
        ScalarValue::Str(_) => "a string",
        ScalarValue::Int(_) | ScalarValue::Uint(_) | ScalarValue::F64(_) => "a number",
        ScalarValue::Counter(_) => "a counter",
        ScalarValue::Timestamp(_) => "a timestamp",
        ScalarValue::Boolean(_) => "true or false",
        ScalarValue::Null => "null",
        ScalarValue::Unknown { .. } => "of a kind that is not known here",
    };
    format!("is {what}")
}

fn of_default(literal: &Literal, is_time: bool) -> Value {
    match literal {
        Literal::Boolean(yes) => Value::Boolean(*yes),
        Literal::Integer(number) if is_time => Value::Timestamp(*number),
        Literal::Integer(number) => Value::Integer(*number),
        Literal::Number(number) => Value::Number(*number),
        Literal::String(text) => Value::String(text.clone()),
    }
}

fn any(value: &ScalarValue) -> Value {
    match value {
        ScalarValue::Bytes(bytes) => Value::Bytes(bytes.clone()),
        ScalarValue::Str(text) => Value::String(text.to_string()),
        ScalarValue::Int(number) => Value::Integer(*number),
        ScalarValue::Uint(number) => match i64::try_from(*number) {
            Ok(number) => Value::Integer(number),
            #[expect(clippy::cast_precision_loss, reason = "as JavaScript reads it")]
            Err(_) => Value::Number(*number as f64),
        },
        ScalarValue::F64(number) => Value::Number(*number),
        ScalarValue::Counter(counter) => Value::Integer(counter.into()),
        ScalarValue::Timestamp(time) => Value::Timestamp(*time),
        ScalarValue::Boolean(yes) => Value::Boolean(*yes),
        ScalarValue::Null | ScalarValue::Unknown { .. } => Value::Null,
    }
}
