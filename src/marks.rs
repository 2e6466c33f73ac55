//! Marks that simulations put into the engine. In a build that serves they are nothing: a rule
//! that may be broken is a constant `false`, and a rare state is no statement at all.

/// Whether this rule is broken on purpose; see `mutant::Mutant`.
///
/// `mutant!(Name)` says whether it is; `mutant!(Name, every 7)` says so for each seventh time
/// that it asks.
#[cfg(feature = "simulation")]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant::is_on($crate::mutant::Mutant::$name)
    };
    ($name:ident, every $nth:literal) => {
        $crate::mutant::is_on_each($crate::mutant::Mutant::$name, $nth)
    };
}

#[cfg(not(feature = "simulation"))]
macro_rules! mutant {
    ($name:ident $(, every $nth:literal)?) => {
        false
    };
}
