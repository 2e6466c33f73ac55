//! What changed between two states of a document, a line for each place.

use automerge::{Automerge, ChangeHash, Patch, PatchAction, Prop, Value};
use concord::json;

use super::output;

/// Places that are named; the rest are counted.
const PLACES_MAX: usize = 20;
/// Characters of a value that are shown.
const WIDTH: usize = 40;

/// One line for each place that is different.
pub(super) fn between(doc: &Automerge, before: &[ChangeHash], after: &[ChangeHash]) -> Vec<String> {
    let patches = doc.diff(before, after);
    let mut lines: Vec<String> = patches.iter().take(PLACES_MAX).map(line).collect();
    if patches.len() > PLACES_MAX {
        lines.push(format!("and {} more places", patches.len() - PLACES_MAX));
    }
    lines
}

fn line(patch: &Patch) -> String {
    let at = |step: Prop| json::path(patch.path.iter().map(|(_, above)| above).chain([&step]));
    let here = || json::path(patch.path.iter().map(|(_, above)| above));
    match &patch.action {
        PatchAction::PutMap { key, value, conflict } => {
            put(&at(Prop::Map(key.clone())), &value.0, *conflict)
        }
        PatchAction::PutSeq { index, value, conflict } => {
            put(&at(Prop::Seq(*index)), &value.0, *conflict)
        }
        PatchAction::Insert { index, values } => {
            let shown: Vec<String> =
                values.iter().take(3).map(|(value, ..)| shown(value)).collect();
            let more = values.len().saturating_sub(shown.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}: added {}{more}", at(Prop::Seq(*index)), shown.join(", "))
        }
        PatchAction::SpliceText { index, value, .. } => {
            let text = value.make_string();
            format!("{}: +{:?} at {index}", here(), output::short(&text, WIDTH))
        }
        PatchAction::Increment { prop, value } => format!("{}: {value:+}", at(prop.clone())),
        PatchAction::Conflict { prop } => format!("{}: written by two at once", at(prop.clone())),
        PatchAction::DeleteMap { key } => format!("{}: removed", at(Prop::Map(key.clone()))),
        PatchAction::DeleteSeq { index, length } => {
            format!("{}: {length} removed at {index}", here())
        }
        PatchAction::Mark { marks } => format!("{}: {} marks", here(), marks.len()),
    }
}

fn put(at: &str, value: &Value<'_>, conflict: bool) -> String {
    let conflict = if conflict { " (another value was written at once)" } else { "" };
    format!("{at}: {}{conflict}", shown(value))
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Object(kind) => format!("a new {kind}"),
        Value::Scalar(scalar) => output::short(&scalar.to_string(), WIDTH),
    }
}
