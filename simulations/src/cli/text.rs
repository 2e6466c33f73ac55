//! Numbers, times and tables for people.

use std::fmt::Write as _;

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many of something happened in a second.
pub(crate) fn rate(number: f64, seconds: f64) -> String {
    let rate = if seconds > 0.0 { number / seconds } else { 0.0 };
    if rate < 10.0 {
        return format!("{rate:.1}");
    }
    // Positive and far below 2^53, or a figure that nobody believes anyway.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    count(rate.round() as u64)
}

/// A count as a factor. Beyond 2^53 the last digits are lost, which nobody will see.
#[allow(clippy::cast_precision_loss, reason = "see above")]
pub(crate) const fn real(number: u64) -> f64 {
    number as f64
}

/// Milliseconds of a world as hours, minutes, seconds.
pub(crate) fn clock(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{hours}:{minutes:02}:{seconds:02}.{:03}", ms % 1_000)
}

/// Rows with the first cell to the left and the others to the right, below a heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = if column == 0 {
                write!(text, "  {cell:<width$}")
            } else {
                write!(text, "  {cell:>width$}")
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(rate(3.0, 2.0), "1.5");
        assert_eq!(rate(3_000.0, 2.0), "1,500");
        assert_eq!(rate(1.0, 0.0), "0.0");
    }

    #[test]
    fn times_are_read_as_clocks() {
        assert_eq!(clock(0), "0:00:00.000");
        assert_eq!(clock(3_723_004), "1:02:03.004");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "7".to_owned()]];
        assert_eq!(table(&rows), "  a     10\n  long   7\n");
    }
}
