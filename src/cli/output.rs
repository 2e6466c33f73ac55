//! What is printed: tables, times and JSON. A reader that stops reading ends the command quietly.

use std::io::{self, IsTerminal as _, Write as _};

use jiff::{Timestamp, ToSpan as _, civil::DateTime, tz::TimeZone};

use super::Failure;

/// Prints one line.
pub(super) fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Prints bytes as they are.
pub(super) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Prints one JSON value on one line.
pub(super) fn json(value: &serde_json::Value) -> Result<(), Failure> {
    line(value)
}

/// Prints rows under headings, each column as wide as its widest cell.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|heading| heading.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        line(padded.join("  ").trim_end())
    };
    print(&mut headings.iter().copied())?;
    rows.iter().try_for_each(|row| print(&mut row.iter().map(String::as_str)))
}

/// Characters to a line of the terminal that standard output is; `None` if it is none.
pub(super) fn width() -> Option<usize> {
    let term = console::Term::stdout();
    term.is_term().then(|| usize::from(term.size().1))
}

/// The same for a terminal, no wider than it: the widest columns are cut first, and at last those
/// at the end are left out. Elsewhere nothing is cut.
pub(super) fn fitted_table(headings: &[String], rows: &[Vec<String>]) -> Result<(), Failure> {
    for row in fitted(headings, rows, width()) {
        line(row)?;
    }
    Ok(())
}

/// The lines of a table.
fn fitted(headings: &[String], rows: &[Vec<String>], room: Option<usize>) -> Vec<String> {
    /// Between two columns.
    const GAP: usize = 2;
    /// Characters of a column that can be read at all.
    const LEAST: usize = 6;
    /// Of one that is not the only one, where nothing else bounds it.
    const MOST: usize = 60;
    let clean = |cell: &String| short(cell, usize::MAX);
    let lines = std::iter::once(headings).chain(rows.iter().map(Vec::as_slice));
    let lines: Vec<Vec<String>> = lines.map(|row| row.iter().map(clean).collect()).collect();
    let wide = |column: usize| {
        let cells = lines.iter().filter_map(|row| row.get(column));
        cells.map(|cell| console::measure_text_width(cell)).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..headings.len()).map(wide).collect();
    if let Some(room) = room {
        for width in &mut widths {
            *width = (*width).min(MOST);
        }
        while widths.iter().sum::<usize>() + GAP * (widths.len() - 1) > room {
            let widest = (0..widths.len()).max_by_key(|column| widths[*column]);
            match widest.filter(|column| widths[*column] > LEAST) {
                Some(column) => widths[column] -= 1,
                None if widths.len() > 1 => drop(widths.pop()),
                None => break,
            }
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let cell = console::truncate_str(cell, *width, "…");
            let used = console::measure_text_width(&cell);
            format!("{cell}{}", " ".repeat(width.saturating_sub(used)))
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect()
}

/// Whether log lines on standard error may be in colour: somebody watches who wants it.
pub(super) fn is_coloured() -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !is_unwanted
}

/// `concord version`.
pub(super) fn version(as_json: bool) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if as_json {
        return json(&serde_json::json!({ "name": "concord", "version": version }));
    }
    line(format_args!("concord {version}"))
}

/// How long ago, for people: both in seconds since 1970. A time of 0 is one that nobody wrote.
pub(super) fn ago(time: i64, now: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    if time == 0 {
        return "at an unknown time".to_owned();
    }
    let seconds = now.saturating_sub(time);
    match seconds {
        i64::MIN..-1 => "in the future".to_owned(),
        -1..2 => "just now".to_owned(),
        2..MINUTE => format!("{seconds} s ago"),
        MINUTE..HOUR => format!("{} min ago", seconds / MINUTE),
        HOUR..DAY => format!("{} h ago", seconds / HOUR),
        DAY..=i64::MAX => format!("{} d ago", seconds / DAY),
    }
}

/// A time for people, where they are: given in seconds since 1970. A time of 0 is one that nobody
/// wrote.
pub(super) fn when(time: i64) -> String {
    let zoned = Timestamp::from_second(time).ok().filter(|_| time != 0);
    let zoned = zoned.map(|time| time.to_zoned(TimeZone::system()));
    zoned.map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

/// A time as people write it, where they are, in seconds since 1970: `2026-11-21 18:30:05`; of
/// `2026-11-21 18:30` and `2026-11-21` the last second. `2026-11-21T18:30:05Z` is that anywhere.
pub(super) fn time(text: &str) -> Option<i64> {
    // What is all digits is more likely the beginning of a hash.
    if !text.contains('-') {
        return None;
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_second());
    }
    let local: DateTime = text.parse().ok()?;
    let (end, less) = match text.len() {
        // Years have four digits but in the distant past and future, which nobody asks for.
        10 => (local.checked_add(1.day()).ok()?, 1),
        16 => (local.checked_add(1.minute()).ok()?, 1),
        _ => (local, 0),
    };
    Some(end.to_zoned(TimeZone::system()).ok()?.timestamp().as_second() - less)
}

/// Seconds since 1970 by this machine's clock.
pub(super) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

/// At most `max` characters on one line, with an ellipsis where something is left out, and
/// nothing that would act on a terminal.
pub(super) fn short(text: &str, max: usize) -> String {
    let mut clean = text.chars().map(|c| if c.is_control() { '·' } else { c });
    let mut out: String = clean.by_ref().take(max).collect();
    if clean.next().is_some() {
        out.pop();
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_say_them() {
        let now = 1_000_000;
        for (time, said) in [
            (0, "at an unknown time"),
            (now, "just now"),
            (now + 1, "just now"),
            (now + 100, "in the future"),
            (now - 59, "59 s ago"),
            (now - 60, "1 min ago"),
            (now - 7_200, "2 h ago"),
            (now - 200_000, "2 d ago"),
            (i64::MIN, "106751991167300 d ago"),
            (i64::MAX, "in the future"),
        ] {
            assert_eq!(ago(time, now), said);
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for minute in [1, 28_333_333, 66_666_666, -5] {
            assert_eq!(super::time(&when(minute * 60)), Some(minute * 60 + 59));
        }
        assert_eq!(super::time("2026-11-21T18:30:05Z"), Some(1_795_285_805));
        let midnight = super::time("2026-11-22T00:00:00").unwrap();
        assert_eq!(super::time("2026-11-21"), Some(midnight - 1));
        assert_eq!(super::time("2026-11-21 23:59"), Some(midnight - 1));
        for wrong in ["", "1a2b", "20261121", "now", "2026-13-01", "12:30"] {
            assert_eq!(super::time(wrong), None, "{wrong}");
        }
        assert_eq!((when(0), when(i64::MAX)), ("-".to_owned(), "-".to_owned()));
    }

    #[test]
    fn a_table_is_cut_to_the_terminal_and_nowhere_else() {
        let text = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let headings = text(&["KEY", "TITLE", "CHANGED"]);
        let rows =
            [text(&["1", &"long ".repeat(20), "just now"]), text(&["2", "漢字\u{1b}[2J", "-"])];
        let whole = fitted(&headings, &rows, None);
        assert!(whole[1].contains(&"long ".repeat(20)) && !whole[2].contains('\u{1b}'));
        for room in 1..100 {
            let cut = fitted(&headings, &rows, Some(room));
            let widths = cut.iter().map(|line| console::measure_text_width(line));
            assert!(widths.max().unwrap() <= room.max(6), "{cut:?}");
        }
        assert_eq!(fitted(&headings, &rows, Some(30))[1], "1    long long long…  just now");
    }

    #[test]
    fn text_of_others_is_cut_and_cannot_act_on_the_terminal() {
        assert_eq!(short("abc", 3), "abc");
        assert_eq!(short("abcd", 3), "ab…");
        assert_eq!(short("\x1b[31mred\n", 20), "·[31mred·");
    }
}
