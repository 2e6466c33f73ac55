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

/// Takes note of a rare state; see `probe::Mark`.
///
/// `mark!(Name)` says that it was met, `mark!(Name, if condition)` that it was if so.
/// `mark!(Name, of key)` and `mark!(Name, of key, if condition)` remember the key too;
/// `mark!(Name, after Other, of key)` says that it was met if `Other` was, earlier, of that key.
#[cfg(feature = "simulation")]
macro_rules! mark {
    ($name:ident) => {
        $crate::probe::met($crate::probe::Mark::$name)
    };
    ($name:ident, if $condition:expr) => {
        if $condition {
            $crate::probe::met($crate::probe::Mark::$name);
        }
    };
    ($name:ident, of $key:expr, if $condition:expr) => {
        if $condition {
            $crate::probe::met_of($crate::probe::Mark::$name, &$key);
        }
    };
    ($name:ident, of $key:expr) => {
        $crate::probe::met_of($crate::probe::Mark::$name, &$key)
    };
    ($name:ident, after $first:ident, of $key:expr) => {
        $crate::probe::met_after($crate::probe::Mark::$name, $crate::probe::Mark::$first, &$key)
    };
}

#[cfg(not(feature = "simulation"))]
macro_rules! mark {
    ($($anything:tt)*) => {};
}
