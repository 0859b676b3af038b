//! How fast block bytes may go one way: [`Rate`].

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;

/// What may go at once after a pause, as a time at the full rate.
const BURST: Duration = Duration::from_millis(250);

/// What all peers, or all sources, together may move. Those who take wait in the order in which they came.
#[derive(Debug)]
pub struct Rate {
    per_second: Option<NonZeroU64>,
    paid: Mutex<Bucket>,
}

impl Rate {
    /// So many bytes in a second; `None`: as fast as it goes.
    pub fn new(per_second: Option<NonZeroU64>) -> Self {
        Self { per_second, paid: Mutex::new(Bucket::new(BURST, Instant::now())) }
    }

    /// Bytes in a second; `None`: as many as can be.
    pub fn per_second(&self) -> Option<NonZeroU64> {
        self.per_second
    }

    /// Takes the right to move so many bytes, and waits until they are paid for. More than a burst may be taken at once: it is the
    /// next one who waits the longer.
    pub async fn take(&self, bytes: usize) {
        self.charge(bytes).wait().await;
    }

    /// The same for bytes that have come already: they count at once, and may be used before they are waited for.
    pub fn charge(&self, bytes: usize) -> Charge {
        Charge(self.pay(bytes, Instant::now()))
    }

    fn pay(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let per_second = self.per_second?.get();
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact to the byte")]
        let cost = Duration::try_from_secs_f64(bytes as f64 / per_second as f64).unwrap_or(Duration::MAX);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        Some(paid.take(cost.min(Duration::from_secs(24 * 3600)), now))
    }
}

/// What was taken of a [`Rate`] and is not waited for yet.
#[derive(Debug)]
#[must_use = "nothing is held back by it otherwise"]
pub struct Charge(Option<Instant>);

impl Charge {
    /// Waits until it is paid for.
    pub async fn wait(self) {
        if let Some(until) = self.0 {
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_paid_for_in_time() {
        let rate = Rate::new(NonZeroU64::new(1000));
        let now = Instant::now();
        let after = |bytes, now| rate.pay(bytes, now).unwrap().saturating_duration_since(now);
        let first = after(500, now);
        assert!(first <= Duration::from_millis(500) && first >= Duration::from_millis(249), "{first:?}");
        assert_eq!(after(1000, now), first + Duration::from_secs(1));
        // A long pause earns one burst.
        let later = now + Duration::from_secs(60);
        assert_eq!(after(250, later), Duration::ZERO);
        assert_eq!(after(1000, later), Duration::from_secs(1));
        assert_eq!(Rate::new(None).pay(usize::MAX, now), None);
    }
}
