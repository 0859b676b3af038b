//! How fast a source of blocks is: [`Pace`]. Without any I/O or clock.

use std::time::Duration;

use tokio::time::Instant;

/// How long a source is watched, while it has something to do, before its rate is taken anew.
const SAMPLE: Duration = Duration::from_millis(250);
/// Bytes after which a source that has sent all that it was asked for, and is faster than was thought, counts as fast at once: its first
/// block may have been small and long in coming, and one that is not asked again because of that would never be watched for long enough.
const ENOUGH: u64 = 1 << 20;
/// How long a source that was never measured may send nothing before it counts as slow.
const SILENT: Duration = Duration::from_secs(1);
/// What a new sample counts when the source became slower, and when it became faster: what was asked of it before may have been too
/// little to show what it can do.
const SLOWER: f64 = 0.3;
const FASTER: f64 = 0.7;
/// The slowest rate in bytes per second.
const FLOOR: f64 = 4096.0;
/// How long one that sent nothing is left alone before it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// A source's measured throughput, and what it has been asked for.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes per second while there was something to do.
    rate: Option<f64>,
    in_flight: u64,
    /// Bytes that it is asked for before it is known how fast it is.
    trial: u64,
    sample: u64,
    busy: Duration,
    since: Instant,
    /// When it was asked for something last.
    last: Instant,
}

impl Pace {
    pub(super) fn new(trial: u64, now: Instant) -> Self {
        Self { rate: None, in_flight: 0, trial, sample: 0, busy: Duration::ZERO, since: now, last: now }
    }

    fn account(&mut self, now: Instant) {
        if self.in_flight > 0 {
            self.busy += now.saturating_duration_since(self.since);
        }
        self.since = now;
    }

    /// It is asked for so many bytes more.
    pub(super) fn asked(&mut self, bytes: u64, now: Instant) {
        self.account(now);
        self.last = now;
        self.in_flight += bytes;
    }

    /// It is asked for so many bytes less.
    pub(super) fn settled(&mut self, bytes: u64, now: Instant) {
        self.account(now);
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// Bytes that were wanted came.
    pub(super) fn received(&mut self, bytes: u64, now: Instant) {
        self.account(now);
        self.sample += bytes;
        if self.rate.is_none() {
            self.rate = Some(self.sampled());
        }
    }

    /// Takes the rate anew, if it is time.
    pub(super) fn tick(&mut self, now: Instant) {
        self.account(now);
        match self.rate {
            None if self.busy >= SILENT => self.rate = Some(FLOOR),
            Some(rate) if rate <= FLOOR && self.in_flight == 0 && now.saturating_duration_since(self.last) >= AGAIN => {
                self.rate = None;
            }
            Some(rate) if self.busy >= SAMPLE || self.is_faster(rate) => {
                let sampled = self.sampled();
                let weight = if sampled > rate { FASTER } else { SLOWER };
                self.rate = Some((rate * (1.0 - weight) + sampled * weight).max(FLOOR));
            }
            _ => return,
        }
        (self.sample, self.busy) = (0, Duration::ZERO);
    }

    /// Whether it has shown, and has nothing left to do, that it is faster than was thought.
    fn is_faster(&self, rate: f64) -> bool {
        self.in_flight == 0 && self.sample >= ENOUGH && self.sampled() > rate
    }

    fn sampled(&self) -> f64 {
        (as_f64(self.sample) / self.busy.as_secs_f64().max(0.001)).max(FLOOR)
    }

    /// Bytes per second, as far as they were measured.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Bytes that it can be expected to send in a time.
    pub(super) fn within(&self, time: Duration) -> u64 {
        self.rate.map_or(self.trial, |rate| as_u64(rate * time.as_secs_f64()))
    }

    /// Seconds until it will have sent so many bytes on top of what it has been asked for. One that was not measured is tried.
    pub(super) fn seconds(&self, more: u64) -> f64 {
        match self.rate {
            Some(rate) => as_f64(self.in_flight + more) / rate,
            None if self.in_flight < self.trial => 0.0,
            None => f64::INFINITY,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive, and need not be exact"
)]
fn as_u64(bytes: f64) -> u64 {
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A source that sends this much in each of so many steps of 100 ms, asked for enough all the time.
    fn run(pace: &mut Pace, now: &mut Instant, steps: u32, bytes: u64) {
        for _ in 0..steps {
            pace.asked(bytes, *now);
            *now += Duration::from_millis(100);
            pace.received(bytes, *now);
            pace.settled(bytes, *now);
            pace.tick(*now);
        }
    }

    #[tokio::test]
    async fn the_faster_one_is_chosen_until_it_has_more_to_do() {
        let mut now = Instant::now();
        let (mut fast, mut slow) = (Pace::new(1, now), Pace::new(1, now));
        run(&mut fast, &mut now, 20, 4 * MIB);
        run(&mut slow, &mut now, 20, MIB);
        let mut given = [0_u64; 2];
        for _ in 0..100 {
            let to_fast = fast.seconds(MIB) <= slow.seconds(MIB);
            if to_fast {
                fast.asked(MIB, now);
            } else {
                slow.asked(MIB, now);
            }
            given[usize::from(!to_fast)] += 1;
        }
        assert!((78..=82).contains(&given[0]), "split by throughput: {given:?}");
    }

    #[tokio::test]
    async fn a_small_first_block_says_little() {
        let mut now = Instant::now();
        let mut pace = Pace::new(1, now);
        pace.asked(2048, now);
        now += Duration::from_millis(150);
        pace.received(2048, now);
        pace.settled(2048, now);
        pace.tick(now);
        assert!(pace.rate().unwrap() < 20_000.0);
        // 8 MiB in 80 ms: not as long as a sample, and nothing is left to do.
        pace.asked(8 * MIB, now);
        now += Duration::from_millis(80);
        pace.received(8 * MIB, now);
        pace.settled(8 * MIB, now);
        pace.tick(now);
        assert!(pace.rate().unwrap() > 20e6, "{:?}", pace.rate());
    }

    #[tokio::test]
    async fn time_without_anything_to_do_does_not_count() {
        let mut now = Instant::now();
        let mut pace = Pace::new(1, now);
        run(&mut pace, &mut now, 10, MIB);
        let rate = pace.rate().unwrap();
        now += Duration::from_mins(1);
        pace.tick(now);
        assert_eq!(pace.rate(), Some(rate));
        run(&mut pace, &mut now, 10, MIB);
        assert!((pace.rate().unwrap() / rate - 1.0).abs() < 0.01);
    }

    #[tokio::test]
    async fn one_that_is_not_known_is_tried_and_a_silent_one_is_slow() {
        let mut now = Instant::now();
        let mut pace = Pace::new(2 * MIB, now);
        assert!(pace.seconds(MIB) < f64::EPSILON);
        pace.asked(2 * MIB, now);
        assert!(pace.seconds(MIB).is_infinite(), "no more before it is measured");
        now += SILENT;
        pace.tick(now);
        assert!(pace.seconds(MIB) > 60.0);
        // It is tried again later, and wakes up.
        pace.settled(2 * MIB, now);
        now += AGAIN;
        pace.tick(now);
        assert!(pace.seconds(MIB) < f64::EPSILON);
        run(&mut pace, &mut now, 20, 4 * MIB);
        assert!(pace.seconds(MIB) < 1.0);
    }
}
