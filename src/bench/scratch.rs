//! A directory for the time of a measurement.

use std::path::{Path, PathBuf};

use super::BenchError;

/// A directory that goes when it is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self, BenchError> {
        let mut name = [0_u8; 8];
        getrandom::fill(&mut name).map_err(BenchError::Random)?;
        let name = format!("concord-bench-{:016x}", u64::from_be_bytes(name));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).map_err(|error| BenchError::Document(error.to_string()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Scratch: what cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
