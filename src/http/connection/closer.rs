//! How a connection is ended from outside: to make room for another, or when the process ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use tokio::task::AbortHandle;

/// How to end a connection.
#[derive(Debug)]
pub enum Closer {
    Task(AbortHandle),
    /// An event loop has it, by this number.
    Loop(Arc<Inbox>, usize),
}

impl Closer {
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Task(task) if task.is_finished())
    }

    pub fn close(&self) {
        match self {
            Self::Task(task) => task.abort(),
            Self::Loop(inbox, number) => inbox.add(*number),
        }
    }
}

/// What other threads want of an event loop. Its descriptor is readable when there is something.
#[derive(Debug)]
pub struct Inbox {
    event: OwnedFd,
    closed: Mutex<Vec<usize>>,
}

impl Inbox {
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            closed: Mutex::default(),
        }))
    }

    /// Has the loop look what has changed.
    pub fn wake(&self) {
        // Fails only if it is readable already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    fn add(&self, number: usize) {
        self.closed.lock().push(number);
        self.wake();
    }

    /// The numbers of connections that were closed. One may have become another connection's meanwhile.
    pub fn take(&self) -> Vec<usize> {
        let _ = rustix::io::read(&self.event, &mut [0; size_of::<u64>()]);
        std::mem::take(&mut self.closed.lock())
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
