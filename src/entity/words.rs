//! Words of errors.

use std::fmt::{self, Display, Formatter};

/// The names, for a sentence.
pub(super) fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The known name that was meant, most likely; `None` if none is near.
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.len() > super::limits::NAME_BYTES_MAX {
        return None;
    }
    let distance = |known: &&str| strsim::osa_distance(name, known);
    let nearest = known.iter().copied().min_by_key(distance);
    nearest.filter(|nearest| distance(nearest) <= 1 + nearest.len() / 4)
}

/// The same in words; others if none is near.
pub(super) fn instead(name: &str, known: &[&str], otherwise: &str) -> String {
    match nearest(name, known) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => otherwise.to_owned(),
    }
}

/// Writes all of them, with this between two.
pub(super) fn list(f: &mut Formatter<'_>, items: &[impl Display], between: &str) -> fmt::Result {
    items.iter().enumerate().try_for_each(|(number, item)| {
        let before = if number > 0 { between } else { "" };
        write!(f, "{before}{item}")
    })
}
