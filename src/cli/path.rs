//! Paths into documents: `title`, `items[0].done`, `["a key with dots"].x`.

use std::{fmt, str::FromStr};

use automerge::{Automerge, ObjId, ObjType, Prop, ROOT, ReadDoc, Value};
use concord::json;

use super::Failure;

/// Steps of a path that are read; deeper documents exist, but nobody types such a path.
const STEPS_MAX: usize = 128;

/// Where in a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DocPath(Vec<Prop>);

/// A place that may hold a value: the object and which of its parts.
pub(super) struct Place {
    /// The map or list.
    pub(super) parent: ObjId,
    /// The key or index in it.
    pub(super) prop: Prop,
}

impl FromStr for DocPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "{text:?} is not a path ({what}): expected a form like title, items[0].done or [\"any key\"]"
            )
        };
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if steps.len() == STEPS_MAX {
                return Err(wrong("too deep"));
            }
            if let Some(quoted) = rest.strip_prefix("[\"") {
                let (key, after) =
                    quoted.split_once("\"]").ok_or_else(|| wrong("no closing \"]"))?;
                steps.push(Prop::Map(key.to_owned()));
                rest = after;
            } else if let Some(bracket) = rest.strip_prefix('[') {
                let (index, after) =
                    bracket.split_once(']').ok_or_else(|| wrong("no closing ]"))?;
                let index = index.parse().map_err(|_| wrong("an index is a number from 0"))?;
                steps.push(Prop::Seq(index));
                rest = after;
            } else {
                let key = if steps.is_empty() {
                    rest
                } else {
                    rest.strip_prefix('.').ok_or_else(|| wrong("no . before a key"))?
                };
                let end = key.find(['.', '[']).unwrap_or(key.len());
                if end == 0 {
                    return Err(wrong("an empty key"));
                }
                steps.push(Prop::Map(key[..end].to_owned()));
                rest = &key[end..];
            }
        }
        Ok(Self(steps))
    }
}

impl fmt::Display for DocPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&json::path(self.0.iter()))
    }
}

impl DocPath {
    /// The key of the document that it goes through, if it does.
    pub(super) fn first_key(&self) -> Option<&str> {
        match self.0.first()? {
            Prop::Map(key) => Some(key),
            Prop::Seq(_) => None,
        }
    }

    /// Whether it is the document itself.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Each step of it.
    pub(super) fn steps(&self) -> &[Prop] {
        &self.0
    }

    /// The place that the path names; all above it must be there.
    pub(super) fn place(&self, doc: &impl ReadDoc) -> Result<Place, Failure> {
        let (last, above) = self
            .0
            .split_last()
            .ok_or_else(|| Failure::usage("the path is empty: name a field, as in title"))?;
        let mut parent = ROOT;
        for (depth, step) in above.iter().enumerate() {
            let at = || json::path(self.0[..=depth].iter());
            fits(doc, &parent, step, &at())?;
            parent = match doc.get(&parent, step.clone()).map_err(failed)? {
                Some((Value::Object(ObjType::Text), _)) => {
                    return Err(Failure::usage(format!("{} is text and has no fields", at())));
                }
                Some((Value::Object(_), id)) => id,
                Some((Value::Scalar(_), _)) => {
                    return Err(Failure::usage(format!(
                        "{} is a single value and has no fields",
                        at()
                    )));
                }
                None => {
                    return Err(Failure::not_found(format!(
                        "{0} is not there: make it first, as in: concord edit DOC '{0}' '{{}}'",
                        at()
                    )));
                }
            };
        }
        fits(doc, &parent, last, &self.to_string())?;
        Ok(Place { parent, prop: last.clone() })
    }

    /// What is there.
    pub(super) fn find(&self, doc: &Automerge) -> Result<(Value<'static>, ObjId), Failure> {
        if self.is_root() {
            return Ok((Value::Object(ObjType::Map), ROOT));
        }
        let Place { parent, prop } = self.place(doc)?;
        let (value, id) = doc
            .get(&parent, prop)
            .map_err(failed)?
            .ok_or_else(|| Failure::not_found(format!("{self} is not in the document")))?;
        Ok((value.into_owned(), id))
    }
}

/// Keys go into maps, indices into lists.
fn fits(doc: &impl ReadDoc, parent: &ObjId, step: &Prop, at: &str) -> Result<(), Failure> {
    let kind = doc.object_type(parent).map_err(failed)?;
    match (kind, step) {
        (ObjType::Map | ObjType::Table, Prop::Map(_)) | (ObjType::List, Prop::Seq(_)) => Ok(()),
        (ObjType::List, Prop::Map(_)) => {
            Err(Failure::usage(format!("{at}: a list has numbers for keys, as in [0]")))
        }
        _ => Err(Failure::usage(format!("{at}: a map has names for keys, not numbers"))),
    }
}

fn failed(error: impl fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_they_are_written() {
        for path in ["title", "items[0].done", "a.b.c", "[\"x.y\"].z", "rows[3][4]"] {
            assert_eq!(path.parse::<DocPath>().unwrap().to_string(), path);
        }
        assert!("".parse::<DocPath>().unwrap().is_root());
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in ["a..b", ".a", "a[", "a[x]", "a[-1]", "[\"a", "a[0]b", "a.", &"a.".repeat(300)]
        {
            assert!(wrong.parse::<DocPath>().is_err(), "{wrong}");
        }
    }
}
