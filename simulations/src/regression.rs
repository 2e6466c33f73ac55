//! Plans in files: what once broke a rule, kept so that it never does again.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::plan::{InvalidPlan, Plan};

/// A plan with what it showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// The rule that was broken, by name.
    pub invariant: String,
    /// What it showed, in a sentence or two, for whoever meets it again.
    pub found: String,
    /// The world.
    pub plan: Plan,
}

/// Why a plan could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It holds something else.
    #[error("is no plan: {0}")]
    Format(#[from] serde_json::Error),
    /// It names what its world does not have.
    #[error("is no plan: {0}")]
    Invalid(#[from] InvalidPlan),
}

impl Regression {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is no plan.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let regression: Self = serde_json::from_str(&fs::read_to_string(path)?)?;
        regression.plan.validate()?;
        Ok(regression)
    }

    /// Writes a file, replacing what was there, and makes its directory.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(fs::write(path, self.to_text()?)?)
    }

    /// As in the file: an action a line, so that it can be read and compared.
    fn to_text(&self) -> Result<String, serde_json::Error> {
        let mut plan = self.plan.clone();
        let actions = std::mem::take(&mut plan.actions);
        let text = serde_json::to_string_pretty(&Self { plan, ..self.clone() })? + "\n";
        let lines = actions.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        if lines.is_empty() {
            return Ok(text);
        }
        // The only empty list of the text: texts of people hold no unescaped quote.
        let list = format!("\"actions\": [\n      {}\n    ]", lines.join(",\n      "));
        Ok(text.replacen("\"actions\": []", &list, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Profile, swarm};

    #[test]
    fn what_is_written_is_read() {
        for seed in 0..20 {
            let regression = Regression {
                invariant: "progress".to_owned(),
                found: "says \"actions\": [], with a\nsecond line".to_owned(),
                plan: swarm::draw(seed, Profile::Opaque),
            };
            let text = regression.to_text().unwrap();
            assert_eq!(serde_json::from_str::<Regression>(&text).unwrap(), regression);
            assert!(text.lines().count() < regression.plan.actions.len() + 40);
        }
    }
}
