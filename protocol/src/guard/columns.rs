//! The operations of a change: how many, what they make, and what they are in.

use std::str;

use super::{
    GuardError,
    change::read_count,
    runs::{Run, Runs, Tally, booleans, too_long},
    values,
};
use crate::{Limits, leb::Reader, limits::COUNTER_MAX};

/// Column specifications: an id, a bit for deflate, and a type.
const OBJECT_ACTOR: u32 = 0x01;
const OBJECT_COUNTER: u32 = 0x02;
const KEY_ACTOR: u32 = 0x11;
const KEY_COUNTER: u32 = 0x13;
const KEY_TEXT: u32 = 0x15;
const INSERT: u32 = 0x34;
const ACTION: u32 = 0x42;
const VALUE_META: u32 = 0x56;
const PREDECESSORS: u32 = 0x70;
const PREDECESSOR_ACTOR: u32 = 0x71;
const PREDECESSOR_COUNTER: u32 = 0x73;

const ID_SHIFT: u32 = 4;
const DEFLATED: u32 = 0x08;
const TYPE_MASK: u32 = 0x07;
const GROUP: u32 = 0;
const ACTOR: u32 = 1;
const INTEGER: u32 = 2;
const DELTA: u32 = 3;
const BOOLEAN: u32 = 4;
const TEXT: u32 = 5;
const META: u32 = 6;
const RAW: u32 = 7;

/// Actions that make an object: map, list, text, table.
const MAKES: [u64; 4] = [0, 2, 4, 6];
/// The last action that automerge 0.12 knows: mark.
const ACTION_MAX: u64 = 7;
/// Rows of a group column for each operation allowed: most overwrite one value or none.
const GROUP_FACTOR: u64 = 4;

/// What the columns hold.
#[derive(Debug)]
pub(super) struct Operations {
    pub(super) count: u32,
    pub(super) objects_made: Vec<u32>,
    pub(super) objects_named: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Column<'a> {
    spec: u32,
    data: &'a [u8],
}

/// Reads the column specifications and the columns behind them. `position_max` is the highest
/// position that names an actor.
pub(super) fn read(
    reader: &mut Reader<'_>,
    start_op: u32,
    position_max: u64,
    limits: &Limits,
) -> Result<Operations, GuardError> {
    let columns = read_layout(reader, limits)?;
    let data = |spec| columns.iter().find(|column| column.spec == spec).map_or(&[][..], |c| c.data);

    let paid = data(VALUE_META + 1).len() as u64;
    let (count, objects_made) = read_actions(data(ACTION), start_op, paid, limits)?;
    let rows = u64::from(count);
    let objects_named = read_objects(data(OBJECT_ACTOR), data(OBJECT_COUNTER), rows, position_max)?;
    let positions = |data, column, rows_max| {
        Runs::new(data, column).walk(rows_max, Reader::unsigned, |position, _| {
            if position <= position_max { Ok(()) } else { Err(no_such_actor(column)) }
        })
    };

    let key_actors = positions(data(KEY_ACTOR), "key actor", rows)?;
    let key_counters = counters(data(KEY_COUNTER), "key counter", rows)?;
    let key_texts = texts(data(KEY_TEXT), "key text", rows)?;
    if key_texts.values + key_counters.values != rows || key_actors.values > key_counters.values {
        return Err(GuardError::Column { column: "key", problem: "does not name one key a row" });
    }
    all_there("insert", rows, booleans(data(INSERT), "insert", rows)?)?;

    let edges = sum(data(PREDECESSORS), "predecessor", rows, limits)?;
    all_there("predecessor", rows, edges.values)?;
    let actors = positions(data(PREDECESSOR_ACTOR), "predecessor actor", edges.sum)?;
    all_there("predecessor actor", edges.sum, actors.values)?;
    let of = counters(data(PREDECESSOR_COUNTER), "predecessor counter", edges.sum)?;
    all_there("predecessor counter", edges.sum, of.values)?;

    let metas = values::check(data(VALUE_META), data(VALUE_META + 1), rows)?;
    all_there("value", rows, metas.values)?;
    check_others(&columns, rows, limits)?;
    Ok(Operations { count, objects_made, objects_named })
}

/// The action that deletes.
const DELETE: u64 = 3;

/// Reads the specifications, checks their order, and cuts the data at the lengths.
fn read_layout<'a>(
    reader: &mut Reader<'a>,
    limits: &Limits,
) -> Result<Vec<Column<'a>>, GuardError> {
    let count = read_count(reader, "columns", limits.change_columns, 2)?;
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        let spec = u32::try_from(reader.unsigned()?).map_err(|_| GuardError::BadNumber)?;
        let bad = |problem| Err(GuardError::Layout { spec, problem });
        if spec & DEFLATED != 0 {
            return bad("is deflated, which only columns of documents are");
        }
        let before = lengths.last().map(|&(spec, _)| spec);
        if before.is_some_and(|before| before >= spec) {
            return bad("is out of order");
        }
        let within = before.filter(|before| before >> ID_SHIFT == spec >> ID_SHIFT);
        if spec & TYPE_MASK == RAW && within != Some(spec - 1) {
            return bad("has values without their lengths");
        }
        if spec >> ID_SHIFT == PREDECESSORS >> ID_SHIFT
            && !matches!(spec, PREDECESSORS | PREDECESSOR_ACTOR | PREDECESSOR_COUNTER)
        {
            return bad("does not belong to predecessors");
        }
        lengths.push((spec, reader.length()?));
    }
    let mut columns = Vec::with_capacity(count);
    for (spec, len) in lengths {
        columns.push(Column { spec, data: reader.take(len)? });
    }
    Ok(columns)
}

/// Counts the operations, and lists the counters of those that make an object. `paid` is how
/// many the bytes of their values allow.
fn read_actions(
    data: &[u8],
    start_op: u32,
    paid: u64,
    limits: &Limits,
) -> Result<(u32, Vec<u32>), GuardError> {
    let mut runs = Runs::new(data, "action");
    let mut made = Vec::new();
    let (mut count, mut deletes) = (0_u64, 0_u64);
    while let Some(Run { value, rows }) = runs.next(Reader::unsigned)? {
        let first = u64::from(start_op) + count;
        count = count.saturating_add(rows);
        if value == Some(DELETE) {
            deletes = deletes.saturating_add(rows);
        }
        let max = limits.change_ops.max(paid).saturating_add(deletes).min(limits.change_ops_total);
        if count > max {
            return Err(GuardError::TooMany { what: "operations", count, max });
        }
        let last = first + rows;
        if last > COUNTER_MAX {
            return Err(GuardError::Counter {
                what: "the last operation's counter",
                value: last - 1,
            });
        }
        match value {
            Some(action) if MAKES.contains(&action) => {
                made.extend((first..last).filter_map(|counter| u32::try_from(counter).ok()));
            }
            Some(action) if action <= ACTION_MAX => {}
            Some(_) => {
                return Err(GuardError::Column {
                    column: "action",
                    problem: "has an unknown action",
                });
            }
            None => {
                return Err(GuardError::Column {
                    column: "action",
                    problem: "has rows without one",
                });
            }
        }
    }
    let count = u32::try_from(count).map_err(|_| too_long("action"))?;
    Ok((count, made))
}

/// The objects that operations are in: two columns side by side, both null for the root.
fn read_objects(
    actors: &[u8],
    counters: &[u8],
    rows_max: u64,
    position_max: u64,
) -> Result<Vec<(u32, u32)>, GuardError> {
    const COLUMN: &str = "object";
    let mut named = Vec::new();
    let (mut actors, mut counters) = (Runs::new(actors, COLUMN), Runs::new(counters, COLUMN));
    let (mut actor, mut counter) = (Run { value: None, rows: 0 }, Run { value: None, rows: 0 });
    let mut rows = 0_u64;
    loop {
        if actor.rows == 0 {
            actor = actors.next(Reader::unsigned)?.unwrap_or(Run { value: None, rows: 0 });
        }
        if counter.rows == 0 {
            counter = counters.next(Reader::unsigned)?.unwrap_or(Run { value: None, rows: 0 });
        }
        // A column that has ended goes on as nulls.
        let step = match (actor.rows, counter.rows) {
            (0, 0) => break,
            (0, rows) | (rows, 0) => rows,
            (one, other) => one.min(other),
        };
        actor.rows = actor.rows.saturating_sub(step);
        counter.rows = counter.rows.saturating_sub(step);
        rows = rows.saturating_add(step);
        if rows > rows_max {
            return Err(too_long(COLUMN));
        }
        match (actor.value, counter.value) {
            // The three ways to write the root that automerge reads.
            (None, None | Some(0)) | (Some(0), Some(0)) => {}
            (Some(position), Some(counter)) => {
                if position > position_max {
                    return Err(no_such_actor(COLUMN));
                }
                let name = object_name(counter, position)?;
                if named.last() != Some(&name) {
                    named.push(name);
                }
            }
            _ => {
                let problem = "has half of an object's name";
                return Err(GuardError::Column { column: COLUMN, problem });
            }
        }
        if actor.rows == 0 {
            actor.value = None;
        }
        if counter.rows == 0 {
            counter.value = None;
        }
    }
    if named.len() > 1 {
        named.sort_unstable();
        named.dedup();
    }
    Ok(named)
}

fn object_name(counter: u64, position: u64) -> Result<(u32, u32), GuardError> {
    match (u32::try_from(counter), u32::try_from(position)) {
        (Ok(short), Ok(position)) if short > 0 && counter < COUNTER_MAX => Ok((short, position)),
        _ => Err(GuardError::Counter { what: "an object's counter", value: counter }),
    }
}

/// A column of counters, written as differences. Each stays from 0 up to [`COUNTER_MAX`]; in a
/// run they go one way, so that its last stands for all.
fn counters(data: &[u8], column: &'static str, rows_max: u64) -> Result<Tally, GuardError> {
    let mut value = 0_i64;
    Runs::new(data, column).walk(rows_max, Reader::signed, |step, rows| {
        let end = i64::try_from(rows)
            .ok()
            .and_then(|rows| value.checked_add(step.checked_mul(rows)?))
            .filter(|&end| u64::try_from(end).is_ok_and(|end| end < COUNTER_MAX));
        value =
            end.ok_or(GuardError::Column { column, problem: "leaves the range of counters" })?;
        Ok(())
    })
}

fn texts(data: &[u8], column: &'static str, rows_max: u64) -> Result<Tally, GuardError> {
    Runs::new(data, column).walk(rows_max, Reader::prefixed, |text, _| {
        str::from_utf8(text).map(drop).map_err(|_| GuardError::NotUtf8(column))
    })
}

struct Sum {
    sum: u64,
    values: u64,
}

/// Sums a group column: how many rows its members have.
fn sum(data: &[u8], column: &'static str, rows: u64, limits: &Limits) -> Result<Sum, GuardError> {
    let max = limits.change_ops_total.saturating_mul(GROUP_FACTOR);
    let mut sum = 0_u64;
    let tally = Runs::new(data, column).walk(rows, Reader::unsigned, |each, rows| {
        sum = sum.saturating_add(each.saturating_mul(rows));
        if sum > max {
            return Err(GuardError::TooMany { what: "grouped rows", count: sum, max });
        }
        Ok(())
    })?;
    Ok(Sum { sum, values: tally.values })
}

/// Columns that this version does not read must be bounded all the same: a later one expands them.
fn check_others(columns: &[Column<'_>], rows: u64, limits: &Limits) -> Result<(), GuardError> {
    const COLUMN: &str = "unknown";
    const READ: [u32; 12] = [
        OBJECT_ACTOR,
        OBJECT_COUNTER,
        KEY_ACTOR,
        KEY_COUNTER,
        KEY_TEXT,
        INSERT,
        ACTION,
        VALUE_META,
        VALUE_META + 1,
        PREDECESSORS,
        PREDECESSOR_ACTOR,
        PREDECESSOR_COUNTER,
    ];
    let mut group: Option<(u32, u64)> = None;
    for (index, column) in columns.iter().enumerate() {
        if READ.contains(&column.spec) {
            continue;
        }
        let id = column.spec >> ID_SHIFT;
        let rows_max = group.filter(|&(of, _)| of == id).map_or(rows, |(_, sum)| sum);
        let runs = Runs::new(column.data, COLUMN);
        match column.spec & TYPE_MASK {
            GROUP => group = Some((id, sum(column.data, COLUMN, rows, limits)?.sum)),
            ACTOR | INTEGER => drop(runs.walk(rows_max, Reader::unsigned, |_, _| Ok(()))?),
            DELTA => drop(runs.walk(rows_max, Reader::signed, |_, _| Ok(()))?),
            BOOLEAN => drop(booleans(column.data, COLUMN, rows_max)?),
            TEXT => drop(texts(column.data, COLUMN, rows_max)?),
            META => {
                let raw = columns.get(index + 1).filter(|next| next.spec == column.spec + 1);
                values::measure(column.data, raw.map_or(0, |raw| raw.data.len()), rows_max)?;
            }
            // Values: measured with their lengths, which the layout puts before them.
            _ => {}
        }
    }
    Ok(())
}

fn all_there(column: &'static str, rows: u64, found: u64) -> Result<(), GuardError> {
    if found == rows {
        Ok(())
    } else {
        Err(GuardError::Column { column, problem: "has fewer rows than it must" })
    }
}

const fn no_such_actor(column: &'static str) -> GuardError {
    GuardError::Column { column, problem: "names an actor that the change does not list" }
}
