//! The thread on which bytes of others are given to automerge.
//!
//! A thread of its own, because taking in one change of a long document takes milliseconds and
//! must not hold up sockets and timers, and because automerge recurses over nested documents: a
//! worker's 2 MiB stack overflows at 300 levels, which cannot be caught.

use std::{
    fmt, io,
    sync::{Arc, mpsc},
    thread,
};

use super::held::Held;

/// The stack of the applier, in bytes; pages that are not touched cost nothing.
const STACK_BYTES: usize = 256 * 1024 * 1024;

/// What the applier is asked to do.
pub(super) enum Task {
    /// Make the content anew of what was named last.
    Load(Arc<Held>),
    /// Take in what waits in the document's inbox.
    TakeIn(Arc<Held>),
    /// Anything else that needs the large stack.
    Call(Box<dyn FnOnce() + Send>),
}

impl Task {
    /// Does it, here and now.
    pub(super) fn run(self) {
        match self {
            Self::Load(held) => held.load(),
            Self::TakeIn(held) => held.take_in(),
            Self::Call(call) => call(),
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(held) => write!(f, "Load({})", held.id),
            Self::TakeIn(held) => write!(f, "TakeIn({})", held.id),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}

/// Starts the applier. It ends when the sender is dropped.
pub(super) fn start() -> io::Result<mpsc::Sender<Task>> {
    let (tasks, inbox) = mpsc::channel::<Task>();
    thread::Builder::new().name("concord-apply".into()).stack_size(STACK_BYTES).spawn(
        move || {
            for task in inbox {
                task.run();
            }
        },
    )?;
    Ok(tasks)
}
