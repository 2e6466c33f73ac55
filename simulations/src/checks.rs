//! Checks that remember: what somebody is owed, beside what [`crate::ledger`] knows.

pub(crate) mod answers;
pub(crate) mod loss;
