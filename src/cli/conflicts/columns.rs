//! A conflict at a terminal: what was there, each side and what is shown now, beside each other,
//! with the words that differ in colour.

use concord::review::{SideView, View};
use console::{Style, measure_text_width};
use serde_json::Value as Json;
use similar::{ChangeTag, TextDiff};

use super::{by_whom, deleted_or};

/// Characters of a column that can be read at all.
const COLUMN_MIN: usize = 14;
/// Characters of a value that are shown, and lines of a column: more is for `doc at` and `--json`.
const TEXT_MAX: usize = 4_000;
const LINES_MAX: usize = 40;
/// Between two columns.
const GAP: &str = " │ ";

/// How a word is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Same,
    /// It was not there before.
    New,
    /// It was there before, and a side did without it.
    Gone,
    /// Said of the column, and no part of a value.
    Aside,
}

/// Words of one line, with how each is shown.
type Line = Vec<(String, Mark)>;

struct Column {
    heading: String,
    lines: Vec<Line>,
}

/// A conflict in so many characters to a line; `None` if its columns do not fit.
pub(super) fn render(view: &View, width: usize, is_coloured: bool, now: i64) -> Option<String> {
    let is_between = view.is_between();
    let count = view.sides.len() + if is_between { 0 } else { 2 };
    let gaps = measure_text_width(GAP) * count.checked_sub(1)?;
    let each = width.checked_sub(gaps)? / count;
    if each < COLUMN_MIN {
        return None;
    }
    let base = text(view.before.as_ref());
    let mut columns = Vec::with_capacity(count);
    if !is_between {
        columns.push(Column::new("before", gone(&base, view), each));
    }
    for (number, side) in (1..).zip(&view.sides) {
        let mut words = match deleted_or(side) {
            Some(deleted) => vec![(deleted.to_owned(), Mark::Aside)],
            None if is_between => vec![(text(side.value.as_ref()), Mark::Same)],
            None => new(&base, &text(side.value.as_ref())),
        };
        let mut aside = |said: String| {
            words.push(("\n".to_owned(), Mark::Same));
            words.push((said, Mark::Aside));
        };
        if let Some(document) = &side.document {
            aside(format!("in {document}"));
        }
        for who in &side.by {
            aside(by_whom(who, now));
        }
        columns.push(Column::new(&heading(number, side), words, each));
    }
    if !is_between {
        columns.push(Column::new("now", new(&base, &text(view.now.as_ref())), each));
    }
    Some(side_by_side(&columns, each, is_coloured))
}

fn heading(number: usize, side: &SideView) -> String {
    match side.kind.as_str() {
        "edited" => format!("side {number} (edited)"),
        _ => format!("side {number}"),
    }
}

/// A value as people write it, on as many lines as it has.
fn text(value: Option<&Json>) -> String {
    let text = match value {
        None => "nothing".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(value) => serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()),
    };
    let clean = text.chars().map(|c| if c.is_control() && c != '\n' { '·' } else { c });
    let mut out: String = clean.take(TEXT_MAX).collect();
    if out.len() < text.len() && text.chars().nth(TEXT_MAX).is_some() {
        out.push('…');
    }
    out
}

/// The words of a value, and which of them were not there before.
fn new(base: &str, text: &str) -> Line {
    let diff = TextDiff::from_words(base, text);
    let kept = diff.iter_all_changes().filter(|change| change.tag() != ChangeTag::Delete);
    let mark = |tag| if tag == ChangeTag::Insert { Mark::New } else { Mark::Same };
    kept.map(|change| (change.value().to_owned(), mark(change.tag()))).collect()
}

/// The words of what was there before, and which of them a side did without.
fn gone(base: &str, view: &View) -> Line {
    let mut words: Vec<(String, Mark)> = Vec::new();
    for side in view.sides.iter().filter(|side| deleted_or(side).is_none()) {
        let text = text(side.value.as_ref());
        let diff = TextDiff::from_words(base, &text);
        let old = diff.iter_all_changes().filter(|change| change.tag() != ChangeTag::Insert);
        let marks = old.map(|change| {
            let is_gone = change.tag() == ChangeTag::Delete;
            (change.value().to_owned(), if is_gone { Mark::Gone } else { Mark::Same })
        });
        let marks: Vec<_> = marks.collect();
        if words.is_empty() {
            words = marks;
            continue;
        }
        // The words are the same, cut in the same way.
        for ((_, mark), (_, other)) in words.iter_mut().zip(&marks) {
            if *other == Mark::Gone {
                *mark = Mark::Gone;
            }
        }
    }
    if words.is_empty() { vec![(base.to_owned(), Mark::Same)] } else { words }
}

impl Column {
    fn new(heading: &str, words: Line, width: usize) -> Self {
        let mut lines = wrapped(words, width);
        if lines.len() > LINES_MAX {
            lines.truncate(LINES_MAX);
            lines.push(vec![("…".to_owned(), Mark::Aside)]);
        }
        Self { heading: heading.to_owned(), lines }
    }
}

/// Breaks words into lines of at most so many characters: between words where that is possible.
fn wrapped(words: Line, width: usize) -> Vec<Line> {
    let (mut lines, mut line, mut used) = (Vec::new(), Line::new(), 0);
    for (word, mark) in words {
        for (number, part) in word.split('\n').enumerate() {
            if number > 0 {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            for piece in part.split_inclusive(' ') {
                let length = measure_text_width(piece.trim_end());
                if used > 0 && used + length > width {
                    lines.push(std::mem::take(&mut line));
                    used = 0;
                }
                let mut rest = String::new();
                for c in piece.chars() {
                    let one = measure_text_width(c.encode_utf8(&mut [0; 4]));
                    if used + one > width {
                        line.push((std::mem::take(&mut rest), mark));
                        lines.push(std::mem::take(&mut line));
                        used = 0;
                        if c == ' ' {
                            continue;
                        }
                    }
                    rest.push(c);
                    used += one;
                }
                if !rest.is_empty() {
                    line.push((rest, mark));
                }
            }
        }
    }
    lines.push(line);
    lines
}

fn side_by_side(columns: &[Column], width: usize, is_coloured: bool) -> String {
    let paint = |text: &str, mark: Mark| {
        let style = Style::new().force_styling(is_coloured);
        let style = match mark {
            Mark::Same => return text.to_owned(),
            Mark::New => style.green().bold(),
            Mark::Gone => style.red().strikethrough(),
            Mark::Aside => style.dim(),
        };
        style.apply_to(text).to_string()
    };
    let padded = |line: &Line| {
        let used: usize = line.iter().map(|(text, _)| measure_text_width(text)).sum();
        let painted: String = line.iter().map(|(text, mark)| paint(text, *mark)).collect();
        format!("{painted}{}", " ".repeat(width.saturating_sub(used)))
    };
    let row = |cells: Vec<String>| cells.join(GAP).trim_end().to_owned();
    let headings = columns.iter().map(|column| {
        let heading: String = column.heading.chars().take(width).collect();
        let style = Style::new().force_styling(is_coloured).bold();
        format!("{}{}", style.apply_to(&heading), " ".repeat(width - heading.chars().count()))
    });
    let rule = vec!["─".repeat(width); columns.len()].join("─┼─");
    let mut out = vec![row(headings.collect()), rule];
    let tall = columns.iter().map(|column| column.lines.len()).max().unwrap_or_default();
    let nothing = Line::new();
    for number in 0..tall {
        let cells =
            columns.iter().map(|column| padded(column.lines.get(number).unwrap_or(&nothing)));
        out.push(row(cells.collect()));
    }
    out.join("\n")
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "quickcheck gives values")]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(before: Json, sides: &[Option<Json>], now: Json) -> View {
        let side = |value: &Option<Json>| {
            let kind = if value.is_some() { "written" } else { "deleted" };
            json!({ "kind": kind, "value": value, "by": [] })
        };
        let sides: Vec<Json> = sides.iter().map(side).collect();
        serde_json::from_value(json!({
            "id": "00000000000000000000000000000001", "document": "d", "code": "value",
            "path": "title", "before": before, "now": now, "sides": sides,
        }))
        .unwrap()
    }

    #[test]
    fn what_differs_stands_beside_each_other() {
        let view = view(
            json!("the red house"),
            &[Some(json!("the green house")), None],
            json!("the green house"),
        );
        let shown = render(&view, 80, false, 0).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines,
            [
                "before            │ side 1            │ side 2            │ now",
                "──────────────────┼───────────────────┼───────────────────┼──────────────────",
                "the red house     │ the green house   │ deleted           │ the green house",
            ]
        );
        let coloured = render(&view, 80, true, 0).unwrap();
        assert!(coloured.contains("\u{1b}[32m\u{1b}[1mgreen\u{1b}[0m"), "{coloured:?}");
        assert!(coloured.contains("\u{1b}[31m\u{1b}[9mred\u{1b}[0m"), "{coloured:?}");
        assert!(render(&view, 40, false, 0).is_none(), "too narrow");
    }

    #[test]
    fn long_words_and_wide_letters_keep_their_columns() {
        let long = "ab".repeat(30);
        let view = view(
            json!(1),
            &[Some(json!(long)), Some(json!("漢字かな交じり文 \u{1b}[2J"))],
            json!(1),
        );
        let shown = render(&view, 100, false, 0).unwrap();
        for line in shown.lines() {
            assert!(measure_text_width(line) <= 100, "{line}");
        }
        assert!(!shown.contains('\u{1b}'));
        let letters = shown.matches("ab").count() + shown.matches("a\n").count();
        assert!(letters >= 28, "{shown}");
    }

    #[test]
    fn whatever_is_there_keeps_to_the_width() {
        fn law(before: String, one: String, other: String, width: u8) -> bool {
            let view = view(json!(before), &[Some(json!(one)), Some(json!(other))], json!(before));
            let width = usize::from(width) + 20;
            let Some(shown) = render(&view, width, false, 0) else { return width < 80 };
            shown.lines().all(|line| measure_text_width(line) <= width)
        }
        quickcheck::QuickCheck::new()
            .tests(300)
            .quickcheck(law as fn(String, String, String, u8) -> bool);
    }
}
