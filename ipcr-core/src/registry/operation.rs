//! Operations as values: await one for its result, or watch it for its events as well.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use tokio::sync::mpsc;

use super::error::RegistryError;
use crate::event::{Emitter, Event};

/// A boxed future of an operation's result.
pub type Outcome<T> = Pin<Box<dyn Future<Output = Result<T, RegistryError>> + Send>>;

type Start<T> = Box<dyn FnOnce(Emitter) -> Outcome<T> + Send>;

/// Work that has not begun.
///
/// `.await` runs it; [`Operation::watch`] runs it with a stream of [`Event`]s. Dropping the future cancels the work: nothing that
/// was acknowledged is lost, and what was begun can be run again.
#[must_use = "an operation does nothing until it is awaited or watched"]
pub struct Operation<T>(Start<T>);

impl<T: Send + 'static> Operation<T> {
    /// An operation that calls `start` with where to tell its events.
    pub fn new<F, Fut>(start: F) -> Self
    where
        F: FnOnce(Emitter) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, RegistryError>> + Send + 'static,
    {
        Self(Box::new(move |events| Box::pin(start(events))))
    }

    /// Its events and its result. The result must be polled for anything to happen, and the events be read: guaranteed events
    /// hold the work back once 256 of them wait. Dropping the receiver is fine and silences it.
    pub fn watch(self) -> (mpsc::Receiver<Event>, Outcome<T>) {
        let (events, watcher) = Emitter::watched();
        (watcher, (self.0)(events))
    }

    /// Runs it with events told to `events`.
    pub fn tell(self, events: Emitter) -> Outcome<T> {
        (self.0)(events)
    }
}

impl<T: Send + 'static> IntoFuture for Operation<T> {
    type Output = Result<T, RegistryError>;
    type IntoFuture = Outcome<T>;

    fn into_future(self) -> Self::IntoFuture {
        (self.0)(Emitter::silent())
    }
}

impl<T> fmt::Debug for Operation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operation")
    }
}
