//! A token bucket: [`Bucket`]. Without any I/O or clock.

use std::time::Duration;

use tokio::time::Instant;

/// What may be taken at once, as a time at the full rate, and what of it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    burst: Duration,
    /// When everything that was taken will have come back.
    full: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(burst: Duration, now: Instant) -> Self {
        Self { burst, full: now }
    }

    /// Takes so much, even if it is not there yet; when it will be.
    pub(crate) fn take(&mut self, cost: Duration, now: Instant) -> Instant {
        self.full = self.full.max(now) + cost;
        self.full.checked_sub(self.burst).unwrap_or(now)
    }

    /// Takes so much, if it is there.
    pub(crate) fn try_take(&mut self, cost: Duration, now: Instant) -> bool {
        let mut after = *self;
        let there = after.take(cost, now) <= now;
        if there {
            *self = after;
        }
        there
    }

    /// Whether nothing is missing.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_taken_comes_back_up_to_a_burst() {
        let second = Duration::from_secs(1);
        let now = Instant::now();
        let mut bucket = Bucket::new(3 * second, now);
        assert!((0..3).all(|_| bucket.try_take(second, now)));
        assert!(!bucket.try_take(second, now) && !bucket.is_full(now));
        assert!(bucket.try_take(second, now + second), "what was refused did not count");
        assert_eq!(bucket.take(2 * second, now + second), now + 3 * second);
        let later = now + 60 * second;
        assert!(bucket.is_full(later));
        assert_eq!(bucket.take(4 * second, later), later + second, "a long pause earns no more than a burst");
    }
}
