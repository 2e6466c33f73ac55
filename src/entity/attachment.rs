//! What a field says of an attachment: which bytes, and what to make of them.
//!
//! It is one string, so that it is written and merges as a whole, and is found in a document without
//! its schema: `attachment:HASH?length=20&type=image%2Fpng&name=a.png`. JavaScript reads it with
//! `new URL(…)`. The bytes themselves are beside documents and shared by all that name them.

use std::{collections::BTreeSet, fmt, str::FromStr};

use automerge::{Automerge, ReadDoc as _, ScalarValue, Value as Stored};
use concord_protocol::BlobHash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What every such string begins with.
const SCHEME: &str = "attachment:";
/// Bytes of a file's name or a media type: what file systems and RFC 6838 have.
const WORD_BYTES_MAX: usize = 255;
/// Bytes of the string: the hash, a length, and two words with each byte escaped.
const TEXT_BYTES_MAX: usize = 128 + 2 * 3 * WORD_BYTES_MAX;

/// An attachment, as a document names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Attachment {
    /// The BLAKE3 of its bytes.
    pub hash: BlobHash,
    /// How many bytes.
    pub length: u64,
    /// What they are, as in `image/png`.
    pub media_type: Option<String>,
    /// The name of the file that it was, without a directory.
    pub name: Option<String>,
}

/// A string that names no attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an attachment: expected attachment:HASH?length=BYTES, and then &type= and &name=")]
pub struct NotAnAttachment;

impl Attachment {
    /// Of these bytes, without a name or a type.
    pub fn new(hash: BlobHash, length: u64) -> Self {
        Self { hash, length, media_type: None, name: None }
    }

    /// The same with the name of a file. What no file system would take is left out of it: a
    /// directory, control characters, and what is over 255 bytes.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(cut(plain(name))).filter(|name| !name.is_empty());
        self
    }

    /// The same of a media type, if it is one.
    #[must_use]
    pub fn of_type(mut self, media_type: &str) -> Self {
        self.media_type = Some(media_type.to_owned()).filter(|text| is_media_type(text));
        self
    }

    /// The attachments that a document names: in strings anywhere in it, and in each that was
    /// written to one place at the same time.
    pub fn all_in(doc: &Automerge) -> BTreeSet<BlobHash> {
        let mut found = BTreeSet::new();
        let mut note = |value: &Stored<'_>| {
            if let Stored::Scalar(value) = value
                && let ScalarValue::Str(text) = value.as_ref()
                && let Ok(attachment) = text.parse::<Self>()
            {
                found.insert(attachment.hash);
            }
        };
        visit(doc, &automerge::ROOT, &mut note);
        found
    }
}

/// Shows every value in an object, with those that stand beside it. The depth is that of the document,
/// which automerge itself goes down when it loads one.
fn visit(doc: &Automerge, object: &automerge::ObjId, note: &mut impl FnMut(&Stored<'_>)) {
    let mut todo = vec![object.clone()];
    while let Some(object) = todo.pop() {
        let mut see = |value: Stored<'_>, id| {
            note(&value);
            // A text is for people to read.
            if value.is_object() && !matches!(value, Stored::Object(automerge::ObjType::Text)) {
                todo.push(id);
            }
        };
        let props: Vec<automerge::Prop> = match doc.object_type(&object) {
            Ok(automerge::ObjType::List) => (0..doc.length(&object)).map(Into::into).collect(),
            _ => doc.keys(&object).map(Into::into).collect(),
        };
        for prop in props {
            for (value, id) in doc.get_all(&object, prop).unwrap_or_default() {
                see(value, id);
            }
        }
    }
}

impl FromStr for Attachment {
    type Err = NotAnAttachment;

    fn from_str(text: &str) -> Result<Self, NotAnAttachment> {
        let rest = text.strip_prefix(SCHEME).filter(|_| text.len() <= TEXT_BYTES_MAX);
        let (hash, query) = rest.and_then(|rest| rest.split_once('?')).ok_or(NotAnAttachment)?;
        let hash = hash.parse().map_err(|_| NotAnAttachment)?;
        let (mut length, mut media_type, mut name) = (None, None, None);
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').ok_or(NotAnAttachment)?;
            let value = unescaped(value).ok_or(NotAnAttachment)?;
            match key {
                "length" => length = Some(value.parse().map_err(|_| NotAnAttachment)?),
                "type" => media_type = Some(value).filter(|text| is_media_type(text)),
                "name" => name = Some(cut(plain(&value))).filter(|name| !name.is_empty()),
                // A later version says more.
                _ => {}
            }
        }
        Ok(Self { hash, length: length.ok_or(NotAnAttachment)?, media_type, name })
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hash, length, media_type, name } = self;
        write!(f, "{SCHEME}{hash}?length={length}")?;
        for (key, word) in [("type", media_type), ("name", name)] {
            if let Some(word) = word {
                write!(f, "&{key}={}", Escaped(word))?;
            }
        }
        Ok(())
    }
}

impl Serialize for Attachment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Attachment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                write!(f, "{}", char::from(byte))
            }
            byte => write!(f, "%{byte:02X}"),
        })
    }
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            // As JavaScript's URLSearchParams writes a space.
            bytes.push(if byte == b'+' { b' ' } else { byte });
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// The last part of a path, as any system writes them, without what a terminal or a file system may
/// take amiss.
fn plain(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|char| !char.is_control()).collect();
    if matches!(name.as_str(), "." | "..") { String::new() } else { name }
}

fn cut(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(WORD_BYTES_MAX));
    name
}

/// `type/subtype`, in the characters of RFC 6838, with parameters as they come.
fn is_media_type(text: &str) -> bool {
    let is_word = |word: &str| {
        let is_one = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !word.is_empty() && word.bytes().all(is_one)
    };
    let (essence, _) = text.split_once(';').unwrap_or((text, ""));
    let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let parts = essence.trim_end().split_once('/');
    text.len() <= WORD_BYTES_MAX
        && is_printable
        && parts.is_some_and(|(one, other)| is_word(one) && is_word(other))
}

#[cfg(test)]
mod tests {
    use automerge::{ObjType, ROOT, transaction::Transactable as _};
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn what_is_written_is_read(hash: u8, length: u64, name: String, has_type: bool) -> bool {
            let mut attachment = Attachment::new(BlobHash([hash; 32]), length).named(&name);
            if has_type {
                attachment = attachment.of_type("text/plain; charset=utf-8");
            }
            attachment.to_string().parse() == Ok(attachment)
        }

        fn any_text_is_read_or_not(text: String) -> bool {
            let _ = text.parse::<Attachment>();
            let _ = format!("attachment:{}?{text}", BlobHash([1; 32])).parse::<Attachment>();
            true
        }
    }

    #[test]
    fn a_name_is_one_of_a_file_and_no_way_to_one() {
        let named = |name: &str| Attachment::new(BlobHash([1; 32]), 1).named(name).name;
        assert_eq!(named("../../etc/passwd").as_deref(), Some("passwd"));
        assert_eq!(named("C:\\temp\\a\u{1b}[31m.png").as_deref(), Some("a[31m.png"));
        for none in ["", "..", "a/..", "/", "\u{7}"] {
            assert_eq!(named(none), None, "{none:?}");
        }
        assert_eq!(named(&"é".repeat(200)).map(|name| name.len()), Some(254));
        let from_others = format!("attachment:{}?length=3&name=..%2F..%2Fx", BlobHash([1; 32]));
        assert_eq!(from_others.parse::<Attachment>().unwrap().name.as_deref(), Some("x"));
    }

    #[test]
    fn what_is_none_is_not_read() {
        let hash = BlobHash([0xab; 32]);
        for wrong in [
            format!("attachment:{hash}"),
            format!("attachment:{hash}?name=a"),
            format!("attachment:{hash}?length=-1"),
            format!("attachment:{hash}?length=1&name=%FF"),
            format!("attachment:{hash}?length=1&name=%4"),
            format!("attachment:{hash}?length=1&name={}", "a".repeat(TEXT_BYTES_MAX)),
            format!("blob:{hash}?length=1"),
        ] {
            assert_eq!(wrong.parse::<Attachment>(), Err(NotAnAttachment), "{wrong}");
        }
        let later = format!("attachment:{hash}?length=1&type=nonsense&width=20");
        assert_eq!(later.parse(), Ok(Attachment::new(hash, 1)));
    }

    #[test]
    fn attachments_are_found_wherever_a_document_names_them() {
        let attachment = |n| Attachment::new(BlobHash([n; 32]), 1).to_string();
        let mut doc = Automerge::new();
        let mut tx = doc.transaction();
        tx.put(ROOT, "photo", attachment(1)).unwrap();
        tx.put(ROOT, "gone", attachment(2)).unwrap();
        let list = tx.put_object(ROOT, "files", ObjType::List).unwrap();
        tx.insert(&list, 0, attachment(3)).unwrap();
        let text = tx.put_object(ROOT, "words", ObjType::Text).unwrap();
        tx.splice_text(&text, 0, 0, &attachment(4)).unwrap();
        tx.commit();
        let mut other = doc.fork();
        for (doc, n) in [(&mut doc, 5), (&mut other, 6)] {
            let mut tx = doc.transaction();
            tx.put(ROOT, "photo", attachment(n)).unwrap();
            tx.delete(ROOT, "gone").unwrap();
            tx.commit();
        }
        doc.merge(&mut other).unwrap();
        let found: Vec<u8> = Attachment::all_in(&doc).into_iter().map(|hash| hash.0[0]).collect();
        assert_eq!(found, [3, 5, 6]);
    }
}
