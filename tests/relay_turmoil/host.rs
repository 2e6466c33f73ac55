//! A simulated machine that does what it is given to do.

use std::{cell::RefCell, future::Future, pin::Pin, rc::Rc};

use tokio::sync::{mpsc, oneshot};
use turmoil::Sim;

type Job = Pin<Box<dyn Future<Output = ()>>>;

/// The way to a machine. A crash of it ends all that it was given.
pub(crate) struct Host {
    jobs: Rc<RefCell<Option<mpsc::UnboundedSender<Job>>>>,
}

/// Something under way on a machine.
pub(crate) struct Task<T> {
    done: oneshot::Receiver<T>,
}

impl Host {
    pub(crate) fn new(sim: &mut Sim<'static>, name: &str) -> Self {
        let jobs = Rc::new(RefCell::new(None));
        let door = Rc::clone(&jobs);
        sim.host(name, move || {
            let (jobs, mut inbox) = mpsc::unbounded_channel::<Job>();
            door.replace(Some(jobs));
            async move {
                while let Some(job) = inbox.recv().await {
                    tokio::task::spawn_local(job);
                }
                Ok(())
            }
        });
        Self { jobs }
    }

    /// Begins at the next step of the simulation.
    pub(crate) fn start<T: 'static>(&self, work: impl Future<Output = T> + 'static) -> Task<T> {
        let (tell, done) = oneshot::channel();
        let job: Job = Box::pin(async move {
            // Whoever started it may not care how it ends.
            let _ = tell.send(work.await);
        });
        self.jobs.borrow().as_ref().unwrap().send(job).unwrap();
        Task { done }
    }
}

impl<T> Task<T> {
    /// The result, if it is there.
    pub(crate) fn poll(&mut self) -> Option<T> {
        match self.done.try_recv() {
            Ok(done) => Some(done),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => panic!("it panicked, or its host crashed"),
        }
    }
}
