//! Who has which role, as a schema says: for policies that let some people's writes stand.

use std::fmt;

/// A role, and who has it. That an author is who they say they are is not checked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// What it is called.
    pub name: String,
    /// The authors that have it: names as they are in changes, or the ends of names after a `*`.
    pub who: Vec<String>,
}

impl Role {
    /// Whether an author has it.
    ///
    /// ```
    /// # use concord::entity::Role;
    /// let staff = Role { name: "staff".into(), who: vec!["erp".into(), "*@example.org".into()] };
    /// assert!(staff.is_of("erp") && staff.is_of("ann@example.org"));
    /// assert!(!staff.is_of("erp2") && !staff.is_of("ann@example.org.evil.net"));
    /// ```
    pub fn is_of(&self, author: &str) -> bool {
        self.who.iter().any(|who| match who.strip_prefix('*') {
            Some(end) => author.ends_with(end),
            None => author == who,
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
