//! Words of errors.

use std::fmt::{self, Display, Formatter};

/// The names, for a sentence.
pub(super) fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The known name that was meant, most likely; other words if none is near.
pub(super) fn instead(name: &str, known: &[&str], otherwise: &str) -> String {
    if name.len() > super::limits::NAME_BYTES_MAX {
        return otherwise.to_owned();
    }
    let distance = |known: &&&str| strsim::osa_distance(name, known);
    let nearest = known.iter().min_by_key(distance);
    match nearest.filter(|nearest| distance(nearest) <= 1 + nearest.len() / 4) {
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
