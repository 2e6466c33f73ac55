//! Finds fields in a transaction, and writes them.

use std::sync::Arc;

use automerge::{
    AutomergeError, ObjId, ObjType, Prop, ROOT, ScalarValue, Value as Stored,
    transaction::Transactable,
};

use super::value;
use crate::entity::{
    EntityType, Field, Kind, Misfit, Value, lens::Chain, read::member_problem, words,
};

/// Writes fields of an entity in a transaction.
///
/// ```
/// use automerge::Automerge;
/// use concord::entity::{Schema, Value, write::Writer};
///
/// let schema = Schema::parse(r#"
///     [types.note.fields]
///     title = { kind = "string", required = true }
///     body = "text"
///     tags = { kind = "set", items = "string" }
///     likes = "counter"
/// "#)?;
/// let note = &schema.types["note"];
/// let mut doc = Automerge::new();
/// note.begin(&mut doc)?;
///
/// let mut tx = doc.transaction();
/// let mut write = Writer::new(note, &mut tx);
/// write.set(&["title"], &Value::String("Shopping".to_owned()))?;
/// write.set(&["body"], &Value::String("Milk and bread".to_owned()))?;
/// write.add(&["tags"], "home")?;
/// write.increment(&["likes"], 2)?;
/// note.validate(&tx)?;
/// tx.commit();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Writer<'a, T> {
    of: &'a EntityType,
    tx: &'a mut T,
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The type has no such field.
    #[error("type `{type_name}` has no field `{field}`: {fix}")]
    NoField {
        /// Which type.
        type_name: String,
        /// Which field.
        field: String,
        /// What to name instead.
        fix: String,
    },
    /// The field is of another kind than is written so.
    #[error("field `{field}` is of kind `{kind}`, which is not written so: {fix}")]
    OtherKind {
        /// Which field.
        field: String,
        /// Its kind.
        kind: &'static str,
        /// How to write it.
        fix: &'static str,
    },
    /// The value does not fit the field.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// There is no such element in a list.
    #[error("field `{field}` has {length} elements, and none at {index}: count from 0")]
    NoElement {
        /// Which field.
        field: String,
        /// Which element was named.
        index: String,
        /// How many there are.
        length: usize,
    },
    /// Automerge refused.
    #[error("the document cannot be written: {0}")]
    Document(#[from] AutomergeError),
}

/// Where a field is kept.
struct Found<'a> {
    parent: ObjId,
    prop: Prop,
    kind: &'a Kind,
    path: String,
}

impl<'a, T: Transactable> Writer<'a, T> {
    /// Writes fields of an entity of this type.
    pub fn new(of: &'a EntityType, tx: &'a mut T) -> Self {
        Self { of, tx }
    }

    /// Gives a field this value. Only what differs is written: of a text the letters, of a set the
    /// members, of a list the elements between the first and the last that differ, of a counter the
    /// difference. In a map with fields, those that are not in the value are cleared. What earlier
    /// versions of the type have elsewhere is written there, too.
    ///
    /// # Errors
    /// [`WriteError`]; a value that does not fit its field is not written at all.
    pub fn set(&mut self, path: &[&str], value: &Value) -> Result<(), WriteError> {
        let Found { parent, prop, kind, path: named } = self.find(path)?;
        value::fits(kind, value, &named)?;
        if let Some((chain, slot)) = self.carried(path) {
            return self.carry(&chain, &slot, kind, Some(value));
        }
        value::set(self.tx, &parent, &prop, kind, value)?;
        Ok(())
    }

    /// Takes a field's value away; texts, sets, lists, maps and counters are emptied.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn clear(&mut self, path: &[&str]) -> Result<(), WriteError> {
        let Found { parent, prop, kind, .. } = self.find(path)?;
        if let Some((chain, slot)) = self.carried(path) {
            return self.carry(&chain, &slot, kind, None);
        }
        Ok(value::clear(self.tx, &parent, &prop, kind)?)
    }

    /// The chain that a field is in, if earlier versions have it elsewhere, and its place.
    fn carried(&self, path: &[&str]) -> Option<(Arc<Chain>, String)> {
        let [name] = path else { return None };
        let slot = &self.of.fields.get(*name)?.slot;
        let chain = self.of.chains.iter().find(|chain| chain.has(slot))?;
        Some((Arc::clone(chain), slot.clone()))
    }

    /// Writes a field that earlier versions have elsewhere: there, too, in the same change.
    fn carry(
        &mut self,
        chain: &Chain,
        slot: &str,
        kind: &Kind,
        value: Option<&Value>,
    ) -> Result<(), WriteError> {
        let open = chain.open_lenses(self.tx);
        let is_now = chain.standing(self.tx).is_now(slot, value);
        if is_now && !chain.is_to_settle(slot, &open) {
            return Ok(());
        }
        let brought = chain.bring(self.tx, &open)?;
        let prop = Prop::Map(slot.to_owned());
        let there = self.tx.get(ROOT, slot)?.map(|(value, _)| value.into_owned());
        let same = there.as_ref().and_then(Stored::as_scalar) == value.and_then(scalar).as_ref();
        if kind.is_register() && same {
            // Writing what is there already would be no operation, and nobody would hear of it.
            match value {
                Some(_) => self.tx.delete(ROOT, slot)?,
                None => self.tx.put(ROOT, slot, ScalarValue::Null)?,
            }
        }
        match value {
            Some(value) => value::set(self.tx, &ROOT, &prop, kind, value)?,
            None if kind.is_register() && there.is_none() => {}
            None => value::clear(self.tx, &ROOT, &prop, kind)?,
        }
        Ok(chain.align(self.tx, Some(slot), &open, &brought)?)
    }

    /// Adds a member to a set. It stays, whoever removes it at the same time: what is there already
    /// is written anew, so that who adds it is heard.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn add(&mut self, path: &[&str], member: &str) -> Result<(), WriteError> {
        let (set, items, path) = self.set_of(path)?;
        if let Some(found) = member_problem(items, member) {
            let found = format!("is given the member {member:?}, which {found}");
            let wanted = format!("give it members of kind `{}`", items.name());
            return Err(Misfit { field: path, found, wanted }.into());
        }
        // Writing what is there already would be no operation.
        if self.tx.get(&set, member)?.is_some() {
            self.tx.delete(&set, member)?;
        }
        self.tx.put(&set, member, true)?;
        Ok(())
    }

    /// Removes a member from a set; whether it was there.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn remove(&mut self, path: &[&str], member: &str) -> Result<bool, WriteError> {
        let (set, _, _) = self.set_of(path)?;
        let is_there = self.tx.get(&set, member)?.is_some();
        if is_there {
            self.tx.delete(&set, member)?;
        }
        Ok(is_there)
    }

    /// Adds to a counter.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn increment(&mut self, path: &[&str], by: i64) -> Result<(), WriteError> {
        let Found { parent, prop, kind, path } = self.find(path)?;
        if !matches!(kind, Kind::Counter) {
            let (kind, fix) = (kind.name(), "only counters are added to: use `set`");
            return Err(WriteError::OtherKind { field: path, kind, fix });
        }
        value::increment(self.tx, &parent, &prop, by)?;
        Ok(())
    }

    /// Puts a value into a list, before the element at this index; at the end if there is none.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn insert(&mut self, path: &[&str], index: usize, value: &Value) -> Result<(), WriteError> {
        let Found { parent, prop, kind, path } = self.find(path)?;
        let Kind::List { items, .. } = kind else {
            let (kind, fix) = (kind.name(), "only lists have an order of their own");
            return Err(WriteError::OtherKind { field: path, kind, fix });
        };
        value::fits(items, value, &path)?;
        let list = value::object(self.tx, &parent, &prop, ObjType::List)?;
        let at = index.min(self.tx.length(&list));
        value::insert(self.tx, &list, at, items, value)?;
        Ok(())
    }

    /// The map that a set is kept in, the kind of its members, and its name.
    fn set_of(&mut self, path: &[&str]) -> Result<(ObjId, &'a Kind, String), WriteError> {
        let Found { parent, prop, kind, path } = self.find(path)?;
        let Kind::Set { items, .. } = kind else {
            let (kind, fix) = (kind.name(), "only sets have members: use `set`");
            return Err(WriteError::OtherKind { field: path, kind, fix });
        };
        Ok((value::object(self.tx, &parent, &prop, ObjType::Map)?, items, path))
    }

    /// Where a field is. Maps on the way to it that are not there are made.
    fn find(&mut self, path: &[&str]) -> Result<Found<'a>, WriteError> {
        let (first, rest) = path.split_first().unwrap_or((&"", &[]));
        let Field { slot, kind, .. } = self.field(&self.of.fields, first, first)?;
        let mut found =
            Found { parent: ROOT, prop: Prop::Map(slot.clone()), kind, path: (*first).to_owned() };
        for name in rest {
            let Found { parent, prop, kind, path } = found;
            let below = format!("{path}.{name}");
            found = match kind {
                Kind::Record { fields } => {
                    let Field { slot, kind, .. } = self.field(fields, name, &below)?;
                    let parent = value::object(self.tx, &parent, &prop, ObjType::Map)?;
                    Found { parent, prop: Prop::Map(slot.clone()), kind, path: below }
                }
                Kind::Map { items, .. } => {
                    let parent = value::object(self.tx, &parent, &prop, ObjType::Map)?;
                    let prop = Prop::Map((*name).to_owned());
                    Found { parent, prop, kind: items, path: below }
                }
                Kind::List { items, .. } => {
                    let parent = match self.tx.get(&parent, prop)? {
                        Some((Stored::Object(ObjType::List), list)) => Some(list),
                        _ => None,
                    };
                    let length = parent.as_ref().map_or(0, |list| self.tx.length(list));
                    let index = name.parse().ok().filter(|index| *index < length);
                    let (Some(parent), Some(index)) = (parent, index) else {
                        let (field, index) = (path, (*name).to_owned());
                        return Err(WriteError::NoElement { field, index, length });
                    };
                    Found { parent, prop: Prop::Seq(index), kind: items, path: below }
                }
                other => {
                    let (kind, fix) = (other.name(), "it has no fields: end the path here");
                    return Err(WriteError::OtherKind { field: path, kind, fix });
                }
            };
        }
        Ok(found)
    }

    fn field<'f>(
        &self,
        fields: &'f std::collections::BTreeMap<String, Field>,
        name: &str,
        path: &str,
    ) -> Result<&'f Field, WriteError> {
        fields.get(name).ok_or_else(|| {
            let names: Vec<_> = fields.keys().map(String::as_str).collect();
            WriteError::NoField {
                type_name: self.of.name.clone(),
                field: path.to_owned(),
                fix: words::instead(name, &names, "name one that it has"),
            }
        })
    }
}

/// A value without parts, as it is stored.
pub(in crate::entity) fn scalar(value: &Value) -> Option<ScalarValue> {
    Some(match value {
        Value::Boolean(yes) => ScalarValue::Boolean(*yes),
        Value::Integer(number) => ScalarValue::Int(*number),
        Value::Number(number) => ScalarValue::F64(*number),
        Value::String(text) => ScalarValue::Str(text.as_str().into()),
        Value::Timestamp(time) => ScalarValue::Timestamp(*time),
        Value::Bytes(bytes) => ScalarValue::Bytes(bytes.clone()),
        Value::Null => ScalarValue::Null,
        Value::Set(_) | Value::List(_) | Value::Map(_) => return None,
    })
}
