//! Which peer of a session is asked for the next block: [`Schedule`]. Without any I/O or clock.

use std::collections::HashMap;
use std::time::Duration;

use libp2p_identity::PeerId;
use tokio::time::Instant;

/// Bytes that one peer is asked for at once, as far as sizes can be guessed from blocks before.
const WINDOW_BYTES: u64 = 16 << 20;
/// Bounds of the same in blocks.
const WINDOW_BLOCKS: std::ops::RangeInclusive<u64> = 8..=256;
/// By how much the window shrinks when a connection is lost with blocks in flight.
const SHRINK: u64 = 4;
/// The size of a block before any has come.
const FIRST_GUESS: u64 = 256 << 10;
/// The shortest time without a block after which others are asked for what a peer was asked for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer that made no progress is asked only when there is nobody else.
const SLOW: Duration = Duration::from_secs(5);
/// How long a peer that could not be written to is left alone.
const FAILED: Duration = Duration::from_secs(1);

/// How much is known about a peer's holdings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Somebody says that it holds the root, or it has sent blocks of the session.
    Holder,
    /// It was asked.
    Asked,
    /// It says that it does not.
    Stranger,
}

/// What one peer does for a session.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) standing: Standing,
    /// The hub's epoch of its connection.
    pub(super) epoch: Option<u64>,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    in_flight: u64,
    /// Bytes that it is asked for at once. It does not grow again: a peer whose connection breaks under much breaks again.
    window_bytes: u64,
    banned: bool,
    /// When it last sent a block, or was asked for the first of those in flight.
    progress: Instant,
    /// Smoothed time between its blocks.
    gap: Duration,
    slow_until: Option<Instant>,
    failed_until: Option<Instant>,
}

impl Member {
    fn usable(&self, now: Instant) -> bool {
        self.epoch.is_some()
            && !self.banned
            && self.standing == Standing::Holder
            && self.failed_until.is_none_or(|until| until <= now)
    }

    fn slow(&self, now: Instant) -> bool {
        self.slow_until.is_some_and(|until| until > now)
    }

    fn window(&self) -> u64 {
        let size = self.bytes.checked_div(self.blocks).unwrap_or(FIRST_GUESS).max(1);
        let least = if self.window_bytes < WINDOW_BYTES { 1 } else { *WINDOW_BLOCKS.start() };
        (self.window_bytes / size).clamp(least, *WINDOW_BLOCKS.end())
    }

    fn patience(&self) -> Duration {
        (self.gap * 4).clamp(PATIENCE, LONGEST_PATIENCE)
    }
}

/// Whom to ask for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This one.
    Ask(PeerId),
    /// Somebody who has enough to do at the moment.
    Later,
    /// Nobody is left who has not refused.
    Nobody,
}

/// The peers of a session.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    members: HashMap<PeerId, Member>,
}

impl Schedule {
    pub(super) fn members(&self) -> impl Iterator<Item = (&PeerId, &Member)> {
        self.members.iter()
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.members.contains_key(peer)
    }

    /// Adds a peer, or raises the standing of a known one.
    pub(super) fn join(&mut self, peer: PeerId, standing: Standing, epoch: Option<u64>, now: Instant) {
        let member = self.members.entry(peer).or_insert(Member {
            standing,
            epoch,
            blocks: 0,
            bytes: 0,
            in_flight: 0,
            window_bytes: WINDOW_BYTES,
            banned: false,
            progress: now,
            gap: Duration::ZERO,
            slow_until: None,
            failed_until: None,
        });
        if standing == Standing::Holder {
            member.standing = standing;
        }
    }

    /// A peer said whether it has the root.
    pub(super) fn learn(&mut self, peer: &PeerId, holds: bool) {
        if let Some(member) = self.members.get_mut(peer) {
            if holds {
                member.standing = Standing::Holder;
            } else if member.standing == Standing::Asked {
                member.standing = Standing::Stranger;
            }
        }
    }

    /// Never asks the peer again; false if it was so already, or is no member.
    pub(super) fn ban(&mut self, peer: &PeerId) -> bool {
        self.members.get_mut(peer).is_some_and(|member| !std::mem::replace(&mut member.banned, true))
    }

    pub(super) fn fail(&mut self, peer: &PeerId, now: Instant) {
        if let Some(member) = self.members.get_mut(peer) {
            member.failed_until = Some(now + FAILED);
        }
    }

    /// Notices a peer's connection of this epoch, if it is another than before; true if so. One that was lost with blocks in flight
    /// may have been lost because of them: the multiplexer of js-libp2p puts what is asked for at once into frames of any length, and
    /// that of rust-libp2p breaks the connection at the first that is longer than 1 MiB.
    pub(super) fn follow(&mut self, peer: &PeerId, epoch: Option<u64>) -> bool {
        let Some(member) = self.members.get_mut(peer).filter(|member| member.epoch != epoch) else { return false };
        if member.epoch.is_some() && member.in_flight > 0 {
            member.window_bytes /= SHRINK;
        }
        member.epoch = epoch;
        true
    }

    /// A peer is asked for one block more.
    pub(super) fn asked(&mut self, peer: &PeerId, now: Instant) {
        if let Some(member) = self.members.get_mut(peer) {
            if member.in_flight == 0 {
                member.progress = now;
            }
            member.in_flight += 1;
        }
    }

    /// A peer is asked for one block less.
    pub(super) fn settled(&mut self, peer: &PeerId) {
        if let Some(member) = self.members.get_mut(peer) {
            member.in_flight = member.in_flight.saturating_sub(1);
        }
    }

    /// A peer sent a wanted block.
    pub(super) fn received(&mut self, peer: &PeerId, bytes: usize, now: Instant) {
        if let Some(member) = self.members.get_mut(peer) {
            let gap = now.saturating_duration_since(member.progress);
            member.gap = (member.gap * 7 + gap) / 8;
            member.progress = now;
            member.blocks += 1;
            member.bytes += bytes as u64;
            member.standing = Standing::Holder;
            member.slow_until = None;
        }
    }

    /// Whom to ask for a block that `avoid` must not be asked for.
    pub(super) fn choose(&self, avoid: &[PeerId], now: Instant) -> Choice {
        let usable = || self.members.iter().filter(|(peer, member)| member.usable(now) && !avoid.contains(peer));
        let slow = usable().all(|(_, member)| member.slow(now));
        let free = usable().filter(|(_, member)| member.in_flight < member.window() && (slow || !member.slow(now)));
        match free.min_by_key(|(_, member)| (member.in_flight, member.gap)) {
            Some((peer, _)) => Choice::Ask(*peer),
            None if usable().next().is_some() => Choice::Later,
            None => Choice::Nobody,
        }
    }

    /// Whether any peer could be asked for another block.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        self.members.values().any(|member| member.usable(now) && member.in_flight < member.window())
    }

    /// Peers that are connected and not banned.
    pub(super) fn connected(&self) -> usize {
        self.members.values().filter(|member| member.epoch.is_some() && !member.banned).count()
    }

    /// Peers that were asked for something and made no progress for too long, and whether others can be asked instead.
    /// Their clocks start anew.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(PeerId, bool)> {
        let usable = self.members.values().filter(|member| member.usable(now)).count();
        let mut overdue = Vec::new();
        for (peer, member) in &mut self.members {
            let others = usable > usize::from(member.usable(now));
            let patience = if others { member.patience() } else { SLOW };
            if member.in_flight > 0 && now.saturating_duration_since(member.progress) > patience {
                member.progress = now;
                member.slow_until = Some(now + SLOW);
                overdue.push((*peer, others));
            }
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(count: usize) -> (Schedule, Vec<PeerId>, Instant) {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let peers: Vec<_> = (0..count).map(|_| PeerId::random()).collect();
        for peer in &peers {
            schedule.join(*peer, Standing::Holder, Some(1), now);
        }
        (schedule, peers, now)
    }

    fn ask(schedule: &mut Schedule, now: Instant) -> Option<PeerId> {
        match schedule.choose(&[], now) {
            Choice::Ask(peer) => {
                schedule.asked(&peer, now);
                Some(peer)
            }
            _ => None,
        }
    }

    #[tokio::test]
    async fn wants_are_spread_and_bounded() {
        let (mut schedule, peers, now) = peers(3);
        let mut counts = HashMap::new();
        while let Some(peer) = ask(&mut schedule, now) {
            *counts.entry(peer).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), peers.len());
        assert!(counts.values().all(|count| *count == WINDOW_BYTES / FIRST_GUESS), "{counts:?}");
        assert_eq!(schedule.choose(&[], now), Choice::Later);
        assert_eq!(schedule.choose(&peers, now), Choice::Nobody);
        assert!(!schedule.has_room(now));
    }

    #[tokio::test]
    async fn peers_without_progress_are_passed_over_while_there_are_others() {
        let (mut schedule, peers, now) = peers(2);
        for peer in &peers {
            schedule.asked(peer, now);
        }
        let later = now + PATIENCE + Duration::from_millis(1);
        schedule.received(&peers[0], 1000, later);
        schedule.settled(&peers[0]);
        assert_eq!(schedule.overdue(later), [(peers[1], true)]);
        assert_eq!(schedule.choose(&[], later), Choice::Ask(peers[0]));
        // Alone it is asked all the same, and has longer.
        schedule.ban(&peers[0]);
        assert_eq!(schedule.choose(&[], later), Choice::Ask(peers[1]));
        assert!(schedule.overdue(later + PATIENCE * 2).is_empty());
        assert_eq!(schedule.overdue(later + SLOW * 2), [(peers[1], false)]);
    }

    #[tokio::test]
    async fn what_a_lost_connection_had_in_flight_is_asked_for_in_smaller_parts() {
        let (mut schedule, peers, now) = peers(1);
        let peer = peers[0];
        let fill = |schedule: &mut Schedule| {
            let asked = std::iter::from_fn(|| ask(schedule, now)).count() as u64;
            (0..asked).for_each(|_| schedule.settled(&peer));
            asked
        };
        assert!(!schedule.follow(&peer, Some(1)));
        // Lost while nothing was asked for: nobody is to blame.
        assert!(schedule.follow(&peer, None) && schedule.follow(&peer, Some(2)));
        assert_eq!(fill(&mut schedule), WINDOW_BYTES / FIRST_GUESS);
        for (epoch, blocks) in [(3, 16), (4, 4), (5, 1), (6, 1)] {
            ask(&mut schedule, now);
            assert!(schedule.follow(&peer, Some(epoch)));
            schedule.settled(&peer);
            assert_eq!(fill(&mut schedule), blocks);
        }
    }

    #[tokio::test]
    async fn strangers_and_the_unconnected_are_not_asked() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let peer = PeerId::random();
        schedule.join(peer, Standing::Asked, Some(1), now);
        assert_eq!(schedule.choose(&[], now), Choice::Nobody);
        schedule.learn(&peer, true);
        assert_eq!(schedule.choose(&[], now), Choice::Ask(peer));
        schedule.follow(&peer, None);
        assert_eq!(schedule.choose(&[], now), Choice::Nobody);
    }
}
