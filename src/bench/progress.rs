//! What somebody at a terminal sees while a measurement runs. Elsewhere nothing is written.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// How often what is seen is drawn anew: it counts seconds, also where nothing is counted.
const ANEW: Duration = Duration::from_millis(200);

/// A bar that counts to `length`. It goes when it is dropped.
pub(super) fn progress(length: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX));
    shown(bar, "{msg} {wide_bar} {pos}/{len} {eta}", what)
}

/// A line for work of which nobody knows how far it is. It goes when it is dropped.
pub(super) fn doing(what: &'static str) -> ProgressBar {
    shown(ProgressBar::new_spinner(), "{spinner} {elapsed:>4} {msg}", what)
}

fn shown(bar: ProgressBar, template: &str, what: &'static str) -> ProgressBar {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    // A thread of its own draws it, which a measurement that nobody watches does without.
    if !bar.is_hidden() {
        bar.enable_steady_tick(ANEW);
    }
    bar.with_finish(ProgressFinish::AndClear)
}
