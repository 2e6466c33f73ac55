//! Who made a change.
//!
//! Automerge keeps an author beside each writer (actor): bytes at the end of the writer's first
//! change, which hold for all its changes. Peers write the author's name there in UTF-8, and this
//! is where it is checked and read. Changes of plain JavaScript clients have no author.

use automerge::Author;

/// Bytes that an author's name may have: an address of e-mail has up to 254.
pub const AUTHOR_BYTES_MAX: usize = 254;
/// Characters of an author of others that are shown.
const SHOWN_MAX: usize = AUTHOR_BYTES_MAX;

/// A name that cannot be written as an author's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// It has no characters, or begins or ends with a blank.
    #[error("an author's name is not empty and has no blanks at its ends, as in ann@example.org")]
    Blank,
    /// It has more than [`AUTHOR_BYTES_MAX`] bytes.
    #[error("the author's name has {0} bytes: give at most {AUTHOR_BYTES_MAX}")]
    Long(usize),
    /// It has a character that would act on a terminal.
    #[error("the author's name has a control character: give a name on one line")]
    Control,
}

/// Checks a name, and makes an author of it as automerge keeps them.
///
/// # Errors
/// [`AuthorError`].
pub fn author(name: &str) -> Result<Author<'static>, AuthorError> {
    if name.len() > AUTHOR_BYTES_MAX {
        return Err(AuthorError::Long(name.len()));
    }
    if name.is_empty() || name.trim() != name {
        return Err(AuthorError::Blank);
    }
    if name.chars().any(char::is_control) {
        return Err(AuthorError::Control);
    }
    Ok(Author::from(name.as_bytes().to_vec()))
}

/// The name of an author. What another program wrote and is no name is shown in hexadecimal, and
/// what is too long is cut.
pub fn author_name(author: &Author<'_>) -> String {
    let text = std::str::from_utf8(author.as_bytes()).ok();
    match text.filter(|text| !text.is_empty() && !text.chars().any(char::is_control)) {
        Some(name) => name.chars().take(SHOWN_MAX).collect(),
        None => author.to_hex_string().chars().take(SHOWN_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for name in ["ann@example.org", "Ann Ångström", "安", &"a".repeat(AUTHOR_BYTES_MAX)] {
            assert_eq!(author_name(&author(name).unwrap()), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert_eq!(author(""), Err(AuthorError::Blank));
        assert_eq!(author(" ann"), Err(AuthorError::Blank));
        assert_eq!(author("ann\n"), Err(AuthorError::Blank));
        assert_eq!(author("a\x1b[31m"), Err(AuthorError::Control));
        assert_eq!(author(&"a".repeat(255)), Err(AuthorError::Long(255)));
    }

    #[test]
    fn authors_of_others_are_shown_and_cannot_act_on_a_terminal() {
        assert_eq!(author_name(&Author::from(vec![0xff, 0x01])), "ff01");
        assert_eq!(author_name(&Author::from(b"\x1b[0m".to_vec())), "1b5b306d");
        assert_eq!(author_name(&Author::from(Vec::new())), "");
        assert_eq!(author_name(&Author::from(vec![b'a'; 9_999])).len(), SHOWN_MAX);
    }
}
