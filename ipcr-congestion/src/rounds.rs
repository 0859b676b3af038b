//! What came of the last round trips: how much was lost, and whether something waits in front of the line.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The share of what was sent that may be lost without being taken for congestion: one of so many bytes. As much as BBR tolerates
/// (draft-ietf-ccwg-bbr, `LossThresh`).
pub const TOLERATED: u64 = 50;
/// By how much the shortest round trip of the last round may be longer than the shortest of all before something waits in front of the line:
/// a quarter of it, and so much. Whoever begins while others fill a queue sees it at its shortest when they have answered a loss, and is not
/// empty then: a queue that is full again has to be told from that.
pub const QUEUE: Duration = Duration::from_millis(10);
/// Rounds, the one that goes on included, over which losses are counted.
const ROUNDS: usize = 5;
/// So many packets say nothing of a share: a window of a few packets, which no queue delays, is too small to be in anybody's way.
const FEW: u64 = 2;

/// What came of the packets in the time of one round trip.
#[derive(Clone, Copy, Debug)]
struct Round {
    begun: Instant,
    acked: u64,
    lost: u64,
    least: Option<Duration>,
}

impl Round {
    fn new(begun: Instant) -> Self {
        Self { begun, acked: 0, lost: 0, least: None }
    }
}

/// The last rounds, the one that goes on last.
#[derive(Clone, Debug)]
pub(crate) struct Rounds {
    rounds: VecDeque<Round>,
    /// The shortest round trip of all.
    least: Option<Duration>,
}

impl Rounds {
    pub(crate) fn new(now: Instant) -> Self {
        Self { rounds: VecDeque::from([Round::new(now)]), least: None }
    }

    fn last(&mut self) -> &mut Round {
        self.rounds.back_mut().expect("there is always one that goes on")
    }

    /// A packet of so many bytes arrived, which was sent then.
    pub(crate) fn acked(&mut self, now: Instant, sent: Instant, bytes: u64, round_trip: Duration) {
        if now.saturating_duration_since(self.last().begun) >= round_trip {
            self.rounds.push_back(Round::new(now));
            while self.rounds.len() > ROUNDS {
                self.rounds.pop_front();
            }
        }
        let trip = Some(now.saturating_duration_since(sent));
        let last = self.last();
        last.acked += bytes;
        last.least = last.least.into_iter().chain(trip).min();
        self.least = self.least.into_iter().chain(trip).min();
    }

    /// So many bytes did not arrive.
    pub(crate) fn lost(&mut self, bytes: u64) {
        self.last().lost += bytes;
    }

    /// Those that were lost have been answered.
    pub(crate) fn forget_losses(&mut self) {
        self.rounds.iter_mut().for_each(|round| round.lost = 0);
    }

    /// Whether more than the tolerated share was lost, with packets of so many bytes.
    pub(crate) fn lose_much(&self, mtu: u16) -> bool {
        let lost: u64 = self.rounds.iter().map(|round| round.lost).sum();
        let acked: u64 = self.rounds.iter().map(|round| round.acked).sum();
        lost > FEW * u64::from(mtu) && lost * TOLERATED > lost + acked
    }

    /// Whether something waits in front of the line.
    pub(crate) fn wait(&self) -> bool {
        // The round that goes on may have begun just now; the one before says how it is.
        let last = self.rounds.iter().rev().take(2).filter_map(|round| round.least).min();
        last.zip(self.least).is_some_and(|(last, least)| last > least + least / 4 + QUEUE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1000;
    const TRIP: Duration = Duration::from_millis(50);

    /// Rounds in which so much arrived, each after its own time.
    fn rounds(begin: Instant, trips: &[(u64, Duration)]) -> Rounds {
        let mut rounds = Rounds::new(begin);
        let mut now = begin;
        for (bytes, trip) in trips {
            now += *trip;
            rounds.acked(now, now.checked_sub(*trip).unwrap(), *bytes, *trip);
        }
        rounds
    }

    #[test]
    fn a_share_is_much_and_few_packets_are_none() {
        let begin = Instant::now();
        let mut some = rounds(begin, &[(49_000, TRIP); 3]);
        some.lost(3_000);
        assert!(!some.lose_much(MTU), "3 of 150");
        some.lost(1);
        assert!(some.lose_much(MTU));
        some.forget_losses();
        assert!(!some.lose_much(MTU));

        let mut few = rounds(begin, &[(10, TRIP)]);
        few.lost(2_000);
        assert!(!few.lose_much(MTU), "two packets are no share");
        few.lost(1);
        assert!(few.lose_much(MTU));
    }

    #[test]
    fn what_was_lost_long_ago_does_not_count() {
        let mut all = Rounds::new(Instant::now());
        all.lost(10_000);
        let mut now = Instant::now();
        for round in 0..ROUNDS {
            assert!(all.lose_much(MTU), "{round} rounds ago");
            now += TRIP * 2;
            all.acked(now, now.checked_sub(TRIP).unwrap(), 1_000, TRIP);
        }
        assert!(!all.lose_much(MTU), "{all:?}");
    }

    #[test]
    fn round_trips_that_became_longer_show_a_queue() {
        let begin = Instant::now();
        let millis = Duration::from_millis;
        assert!(!Rounds::new(begin).wait(), "nothing is known");
        assert!(!rounds(begin, &[(1, millis(50)), (1, millis(72)), (1, millis(72))]).wait());
        assert!(rounds(begin, &[(1, millis(50)), (1, millis(73)), (1, millis(73))]).wait());
        assert!(!rounds(begin, &[(1, millis(50)), (1, millis(400)), (1, millis(60))]).wait(), "it has gone");
        assert!(!rounds(begin, &[(1, millis(1)), (1, millis(11)), (1, millis(11))]).wait(), "next to nothing");
    }
}
