//! Run-length encoded columns, read run by run: a run of a billion costs as much as a run of one.

use super::GuardError;
use crate::leb::{Fault, Reader};

/// A column's rows, as runs.
pub(super) struct Runs<'a> {
    reader: Reader<'a>,
    column: &'static str,
    /// Values of a literal run that are still to come.
    literals: u64,
}

/// So many rows with one value, or with none.
pub(super) struct Run<V> {
    pub(super) value: Option<V>,
    pub(super) rows: u64,
}

/// How much was in a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) rows: u64,
    /// Rows that are not null.
    pub(super) values: u64,
}

impl<'a> Runs<'a> {
    pub(super) const fn new(data: &'a [u8], column: &'static str) -> Self {
        Self { reader: Reader::new(data), column, literals: 0 }
    }

    /// The next run; a literal run comes as runs of one.
    #[inline]
    pub(super) fn next<V>(
        &mut self,
        read: impl Fn(&mut Reader<'a>) -> Result<V, Fault>,
    ) -> Result<Option<Run<V>>, GuardError> {
        if self.literals > 0 {
            self.literals -= 1;
            return Ok(Some(Run { value: Some(read(&mut self.reader)?), rows: 1 }));
        }
        if self.reader.is_empty() {
            return Ok(None);
        }
        let length = self.reader.signed()?;
        if length > 0 {
            let value = Some(read(&mut self.reader)?);
            return Ok(Some(Run { value, rows: length.unsigned_abs() }));
        }
        if length < 0 {
            self.literals = length.unsigned_abs() - 1;
            return Ok(Some(Run { value: Some(read(&mut self.reader)?), rows: 1 }));
        }
        match self.reader.unsigned()? {
            0 => Err(GuardError::Column { column: self.column, problem: "has a run of nothing" }),
            rows => Ok(Some(Run { value: None, rows })),
        }
    }

    /// Shows every run of values, and counts, up to `rows_max`.
    #[inline]
    pub(super) fn walk<V>(
        mut self,
        rows_max: u64,
        read: impl Fn(&mut Reader<'a>) -> Result<V, Fault>,
        mut see: impl FnMut(V, u64) -> Result<(), GuardError>,
    ) -> Result<Tally, GuardError> {
        let mut tally = Tally::default();
        while let Some(Run { value, rows }) = self.next(&read)? {
            tally.rows = tally.rows.saturating_add(rows);
            if tally.rows > rows_max {
                return Err(too_long(self.column));
            }
            if let Some(value) = value {
                tally.values += rows;
                see(value, rows)?;
            }
        }
        Ok(tally)
    }
}

/// The rows of a boolean column: counts of false and true by turns.
pub(super) fn booleans(
    data: &[u8],
    column: &'static str,
    rows_max: u64,
) -> Result<u64, GuardError> {
    let mut reader = Reader::new(data);
    let mut rows = 0_u64;
    while !reader.is_empty() {
        rows = rows.saturating_add(reader.unsigned()?);
        if rows > rows_max {
            return Err(too_long(column));
        }
    }
    Ok(rows)
}

pub(super) const fn too_long(column: &'static str) -> GuardError {
    GuardError::Column { column, problem: "has more rows than the change has operations" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(data: &[u8], rows_max: u64) -> Result<Tally, GuardError> {
        Runs::new(data, "test").walk(rows_max, Reader::unsigned, |_, _| Ok(()))
    }

    #[test]
    fn repeats_literals_and_nulls_are_counted() {
        // 3 x 7, then 1, 2, then 4 nulls.
        let data = [3, 7, 0x7e, 1, 2, 0, 4];
        assert_eq!(tally(&data, 9), Ok(Tally { rows: 9, values: 5 }));
        assert_eq!(tally(&data, 8), Err(too_long("test")));
        assert_eq!(tally(&[], 0), Ok(Tally::default()));
    }

    #[test]
    fn runs_without_an_end_are_refused_at_once() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 7];
        assert_eq!(tally(&huge, 100_000), Err(too_long("test")));
        let nulls = [0, 0x80, 0xad, 0xe2, 0x04];
        assert_eq!(tally(&nulls, 100_000), Err(too_long("test")));
        assert_eq!(booleans(&[0x80, 0xad, 0xe2, 0x04], "test", 100_000), Err(too_long("test")));
    }

    #[test]
    fn a_run_that_is_cut_off_or_of_nothing_is_refused() {
        assert_eq!(tally(&[3], 9), Err(GuardError::Truncated));
        assert_eq!(tally(&[0x7e, 1], 9), Err(GuardError::Truncated));
        assert_eq!(tally(&[0], 9), Err(GuardError::Truncated));
        let nothing = GuardError::Column { column: "test", problem: "has a run of nothing" };
        assert_eq!(tally(&[0, 0], 9), Err(nothing));
    }
}
