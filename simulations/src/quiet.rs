//! Worlds whose panics say where they were, without a line for each on the terminal: a panic is
//! caught and is a broken rule, and a world that is cut down panics hundreds of times.

use std::{
    cell::{Cell, RefCell},
    panic,
    sync::Once,
};

use crate::{Mutant, Report, ledger::Invariant, plan::Plan};

static HOOK: Once = Once::new();

thread_local! {
    static IS_IN_WORLD: Cell<bool> = const { Cell::new(false) };
    static WHERE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// As [`crate::run`]. Of a panic the failure says the file and line; nothing is printed.
pub fn run(plan: &Plan, trace: bool) -> Report {
    run_with(plan, trace, None)
}

/// As [`crate::run_with`], and as [`run`].
pub fn run_with(plan: &Plan, trace: bool, mutant: Option<Mutant>) -> Report {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_IN_WORLD.get() {
                return usual(info);
            }
            let place = info.location().map(ToString::to_string);
            WHERE.with(|at| *at.borrow_mut() = place);
        }));
    });
    IS_IN_WORLD.set(true);
    let mut report = crate::run_with(plan, trace, mutant);
    IS_IN_WORLD.set(false);
    let place = WHERE.with(|at| at.borrow_mut().take());
    if let (Some(place), Some(failure)) = (place, &mut report.failure)
        && failure.invariant == Invariant::NoPanic
    {
        failure.detail = format!("{} (at {place})", failure.detail);
    }
    report
}
