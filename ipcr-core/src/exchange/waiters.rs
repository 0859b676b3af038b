//! Those who wait for one block: [`Waiters`], each of them a [`Waiting`].

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::dag::block::Block;
use crate::port::exchange::ExchangeError;

/// What comes of waiting.
type Answer = Result<Block, ExchangeError>;

/// Those who wait for one block.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Vec<Waiter>);

/// Somebody who waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) since: Instant,
    reply: oneshot::Sender<Answer>,
}

/// Resolves when the block is there; `None` if nobody will bring it. Whoever drops it waits no more, and `gone` is told.
#[derive(Debug)]
pub(crate) struct Waiting<F: FnMut()> {
    answer: oneshot::Receiver<Answer>,
    gone: F,
}

impl Waiter {
    /// One who waits from now on.
    pub(crate) fn new(since: Instant) -> (Self, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (Self { since, reply }, answer)
    }

    pub(crate) fn fail(self, error: ExchangeError) {
        let _ = self.reply.send(Err(error));
    }
}

impl Waiters {
    pub(crate) fn add(&mut self, waiter: Waiter) {
        self.0.push(waiter);
    }

    /// Whether somebody still waits.
    pub(crate) fn wait(&mut self) -> bool {
        self.0.retain(|waiter| !waiter.reply.is_closed());
        !self.0.is_empty()
    }

    /// Takes out those who have waited since a time that is `late`.
    pub(crate) fn take_late(&mut self, late: impl Fn(Instant) -> bool) -> Vec<Waiter> {
        self.0.extract_if(.., |waiter| late(waiter.since)).collect()
    }

    pub(crate) fn answer(self, block: &Block) {
        for waiter in self.0 {
            let _ = waiter.reply.send(Ok(block.clone()));
        }
    }

    /// Errors cannot be copied: one learns what has happened, the others that it has ended.
    pub(crate) fn fail(self, error: ExchangeError) {
        if let Some(first) = self.0.into_iter().next() {
            first.fail(error);
        }
    }
}

impl<F: FnMut()> Waiting<F> {
    pub(crate) fn new(answer: oneshot::Receiver<Answer>, gone: F) -> Self {
        Self { answer, gone }
    }
}

impl<F: FnMut() + Unpin> Future for Waiting<F> {
    type Output = Option<Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        Pin::new(&mut self.answer).poll(cx).map(Result::ok)
    }
}

impl<F: FnMut()> Drop for Waiting<F> {
    fn drop(&mut self) {
        self.answer.close();
        (self.gone)();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_is_gone_waits_no_more() {
        let waiters = RefCell::new(Waiters::default());
        let wait = |since| {
            let (waiter, answer) = Waiter::new(since);
            waiters.borrow_mut().add(waiter);
            Waiting::new(answer, || {
                waiters.borrow_mut().wait();
            })
        };
        let now = Instant::now();
        let (old, new, gone) = (wait(now), wait(now + Duration::from_secs(1)), wait(now));
        drop(gone);
        assert_eq!(waiters.borrow().0.len(), 2);
        let late = waiters.borrow_mut().take_late(|since| since <= now);
        let [late] = <[Waiter; 1]>::try_from(late).unwrap();
        late.fail(ExchangeError::Offline { reason: "late".into() });
        assert!(matches!(old.await, Some(Err(ExchangeError::Offline { .. }))));
        assert!(waiters.borrow_mut().wait());
        let block = Block::raw(bytes::Bytes::from_static(b"wanted"));
        waiters.take().answer(&block);
        assert_eq!(new.await.unwrap().unwrap(), block);
        assert!(!waiters.borrow_mut().wait());
    }
}
