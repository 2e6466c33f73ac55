//! What users of the Automerge profile do in one place, and how they decide what became of it.

use automerge::{
    ObjType, ROOT, ReadDoc as _, ScalarValue, Value,
    transaction::{Transactable as _, Transaction},
};
use concord::{
    peer::EditError,
    review::{Choice, Conflict, Content, SlotKey},
};

use crate::plan::Edit;

/// Keys, objects and values: few, so that they meet.
const FEW: u64 = 3;

/// The counter that users overwrite.
const TALLY: &str = "tally";

/// Does an edit that others do at the same time.
pub(super) fn write(tx: &mut Transaction<'_>, edit: Edit, choice: u64) -> Result<(), EditError> {
    let few = |shift: u32| (choice >> shift) % FEW;
    let number = i64::try_from(few(16)).unwrap_or(0);
    let key = format!("shared {}", few(0));
    let thing = format!("thing {}", few(0));
    match edit {
        Edit::Clash => tx.put(ROOT, key, number)?,
        Edit::Drop => delete(tx, &key)?,
        Edit::Dig => {
            let thing = match tx.get(ROOT, thing.as_str())? {
                Some((Value::Object(ObjType::Map), thing)) => thing,
                _ => tx.put_object(ROOT, thing, ObjType::Map)?,
            };
            tx.put(&thing, format!("part {}", few(8)), number)?;
        }
        Edit::Raze => delete(tx, &thing)?,
        Edit::Tick => {
            let is_counter = |(value, _): &(Value<'_>, _)| {
                value.as_scalar().is_some_and(ScalarValue::is_counter)
            };
            if tx.get(ROOT, TALLY)?.as_ref().is_some_and(is_counter) {
                tx.increment(ROOT, TALLY, 1 + number)?;
            } else {
                tx.put(ROOT, TALLY, ScalarValue::counter(0))?;
            }
        }
        Edit::Reset => tx.put(ROOT, TALLY, ScalarValue::counter(number))?,
        _ => {}
    }
    Ok(())
}

fn delete(tx: &mut Transaction<'_>, key: &str) -> Result<(), EditError> {
    if tx.get(ROOT, key)?.is_some() {
        tx.delete(ROOT, key)?;
    }
    Ok(())
}

/// Whether a conflict is about the counter whose sum the world knows.
pub(super) fn is_counter(conflict: &Conflict) -> bool {
    conflict.place.key == SlotKey::Map("counter".to_owned())
}

/// What somebody decides.
pub(super) fn choice(conflict: &Conflict, choice: u64) -> Choice {
    let is_register = matches!(&conflict.place.key, SlotKey::Map(key) if key.starts_with("shared"));
    match choice % 8 {
        0 => Choice::Before,
        1 => Choice::Now,
        2 if is_register => Choice::Other(Content::Nothing),
        3 if is_register => {
            let number = i64::try_from((choice >> 8) % FEW).unwrap_or(0);
            Choice::Other(Content::Single(number.into()))
        }
        _ => {
            let sides = conflict.sides.len().max(1) as u64;
            Choice::Side(usize::try_from((choice >> 8) % sides).unwrap_or(0))
        }
    }
}
