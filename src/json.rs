//! Documents as JSON: what is in them, JSON written into them, and paths as people write them.

mod read;
mod write;

use std::fmt::Write as _;

use automerge::Prop;

pub use self::{
    read::{DEPTH_MAX, JsonError, to_json, to_json_at},
    write::{Writer, put},
};

/// A path as people write it: `title`, `items[0].done`, `["a key with dots"].x`.
pub fn path<'a>(steps: impl Iterator<Item = &'a Prop>) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    for step in steps {
        match step {
            Prop::Seq(index) => {
                let _ = write!(out, "[{index}]");
            }
            Prop::Map(key) if key.is_empty() || key.contains(['.', '[', '"']) => {
                let _ = write!(out, "[\"{key}\"]");
            }
            Prop::Map(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(key);
            }
        }
    }
    out
}
