//! The memory that files being read share: [`Window`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::port::exchange::FetchSession;

/// Bytes in flight unless told otherwise.
pub const DEFAULT_BYTES: usize = 32 << 20;

/// A budget of block bytes that are asked for or wait to be consumed, shared by several files.
///
/// A file that is being read may use all of it; one that was only opened so far leaves half to others, so that what is fetched
/// ahead never holds up what is needed now, in whatever order files happened to be opened. A file may always ask for the very
/// block that it needs next, even when nothing is left: the true bound is the budget plus one block per open file.
///
/// A window that [follows a session](Window::of) is twice as large as soon as blocks come from more than one source: what one of
/// them was asked for may fill the budget of one, and a slow one would leave the others without work.
#[derive(Clone, Debug)]
pub struct Window(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    total: usize,
    used: usize,
    next: u64,
    /// Open files; the waker of those that wait.
    open: HashMap<u64, Option<Waker>>,
    /// Whose sources are counted until there are several.
    session: Option<Arc<dyn FetchSession>>,
}

impl State {
    /// Whether so many more bytes are within the part of the budget that one half or all of it is.
    fn admits(&mut self, bytes: usize, part: usize) -> bool {
        let wanted = self.used.saturating_add(bytes);
        if wanted > self.total / part && self.session.as_ref().is_some_and(|session| session.sources() > 1) {
            self.total *= 2;
            self.session = None;
        }
        wanted <= self.total / part
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new(DEFAULT_BYTES)
    }
}

impl Window {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(State { total: bytes, used: 0, next: 0, open: HashMap::new(), session: None })))
    }

    /// A budget of `bytes` while one source sends, and of twice as many once several do.
    pub fn of(session: Option<Arc<dyn FetchSession>>, bytes: usize) -> Self {
        let window = Self::new(bytes);
        window.state().session = session;
        window
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.state().used
    }

    /// A new user of the budget.
    pub(super) fn enter(&self) -> Seat {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.open.insert(id, None);
        Seat { window: self.clone(), id }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let wakers: Vec<_> = self.state().open.values_mut().filter_map(Option::take).collect();
        for waker in wakers {
            waker.wake();
        }
    }
}

/// One file's access to the budget.
#[derive(Debug)]
pub(super) struct Seat {
    window: Window,
    id: u64,
}

impl Seat {
    /// Takes `bytes` if they are free, whatever is free when `must`; otherwise `waker`, which whoever reads the file has, is
    /// called when it may be worth trying again.
    pub(super) fn take(&self, bytes: usize, must: bool, waker: Option<&Waker>) -> Option<Share> {
        let mut state = self.window.state();
        let part = if waker.is_some() { 1 } else { 2 };
        if must || state.admits(bytes, part) {
            state.used += bytes;
            return Some(Share { window: self.window.clone(), bytes });
        }
        if let (Some(slot), Some(waker)) = (state.open.get_mut(&self.id), waker) {
            *slot = Some(waker.clone());
        }
        None
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.window.state().open.remove(&self.id);
        self.window.wake();
    }
}

/// Bytes taken from the budget, given back on drop.
#[derive(Debug)]
pub(super) struct Share {
    window: Window,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.window.state().used -= self.bytes;
        self.window.wake();
    }
}
