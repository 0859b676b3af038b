//! Which peer of a session is asked for the next block: [`Schedule`]. Without any I/O or clock.

use std::collections::HashMap;
use std::time::Duration;

use libp2p_identity::PeerId;
use tokio::time::Instant;

use crate::limits;

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
/// Bytes that a fellow is asked for at once, and its bounds in blocks.
const FELLOW_BYTES: u64 = 4 << 20;
const FELLOW_BLOCKS: std::ops::RangeInclusive<u64> = 2..=64;
/// Bytes that are asked for at once before it is known who else fetches.
const FIRST_BYTES: u64 = 2 << 20;
/// The least blocks that a holder is asked for at once, however many share it.
const SHARED_BLOCKS: u64 = 1;
/// Blocks from this size on say something about the size of others: smaller ones are names and folders.
const LARGE: u64 = 16 << 10;
/// The shortest and the longest time without a block after which others are asked for what a fellow was asked for.
const FELLOW_PATIENCE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(15));
/// How many times as fast a holder has to be before it is asked for what fellows have or will have.
const MUCH_FASTER: u32 = 8;
/// Times that a fellow may fail to get what it wants, or to send what it has, before nothing is left to it or asked of it any more.
const DOUBTS: u8 = 3;
/// How long a fellow that has sent nothing yet is waited for while it is asked for as much as it may be.
const UNPROVEN: Duration = Duration::from_secs(1);
/// The largest factor by which there is more patience with a holder that others ask, too.
const MOST_PATIENCE: u32 = 8;
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
    /// It fetches the root, too: it has what it says that it has.
    Fellow,
}

/// What one peer does for a session.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) standing: Standing,
    /// The hub's epoch of its connection.
    pub(super) epoch: Option<u64>,
    /// Whether a multiplexer is part of that connection, once it has been looked at.
    multiplexed: Option<bool>,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    /// Smoothed size of its larger blocks.
    typical: Option<u64>,
    in_flight: u64,
    /// Blocks that it is to say of when it has them.
    pub(super) probes: usize,
    /// How often it did not get what others left to it, or did not send what it said that it has.
    doubts: u8,
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
        self.standing == Standing::Holder && self.reachable(now)
    }

    fn reachable(&self, now: Instant) -> bool {
        self.epoch.is_some() && !self.banned && self.failed_until.is_none_or(|until| until <= now)
    }

    /// Whether it is a fellow that others may leave something to, and ask for something.
    fn is_reliable(&self, now: Instant) -> bool {
        self.standing == Standing::Fellow && self.reachable(now) && !self.slow(now) && self.doubts < DOUBTS
    }

    fn slow(&self, now: Instant) -> bool {
        self.slow_until.is_some_and(|until| until > now)
    }

    fn window(&self, crowd: Crowd, young: bool) -> u64 {
        let mut size = self.bytes.checked_div(self.blocks).unwrap_or(FIRST_GUESS).max(1);
        if crowd != Crowd::Alone {
            // Names and folders say nothing about the size of what follows.
            size = self.typical.unwrap_or(limits::LEAF_BYTES as u64).max(size);
        }
        if self.standing == Standing::Fellow && self.blocks == 0 {
            // It says that it has something.
            return *FELLOW_BLOCKS.start();
        }
        if self.standing == Standing::Fellow {
            return (FELLOW_BYTES / size).clamp(*FELLOW_BLOCKS.start(), *FELLOW_BLOCKS.end());
        }
        let least = match crowd {
            _ if self.window_bytes < WINDOW_BYTES => 1,
            Crowd::Alone => *WINDOW_BLOCKS.start(),
            Crowd::Unknown | Crowd::Fellows(_) => SHARED_BLOCKS,
        };
        let bytes = match crowd {
            Crowd::Alone => self.window_bytes,
            Crowd::Unknown => self.window_bytes.min(FIRST_BYTES),
            Crowd::Fellows(fellows) if young => self.window_bytes.min(FIRST_BYTES) / (fellows + 1),
            Crowd::Fellows(fellows) => self.window_bytes / (fellows + 1),
        };
        (bytes / size).clamp(least, *WINDOW_BLOCKS.end())
    }

    fn patience(&self) -> Duration {
        if self.standing == Standing::Fellow {
            return (self.gap * 4).clamp(FELLOW_PATIENCE.0, FELLOW_PATIENCE.1);
        }
        (self.gap * 4).clamp(PATIENCE, LONGEST_PATIENCE)
    }
}

/// Who else fetches the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Crowd {
    /// Nobody whom this node knows of.
    #[default]
    Alone,
    /// Holders are about to say.
    Unknown,
    /// Some; so many of them want something at the moment.
    Fellows(u64),
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
    crowd: Crowd,
    /// Whether not all who fetch may be known yet.
    young: bool,
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
            multiplexed: None,
            blocks: 0,
            bytes: 0,
            typical: None,
            in_flight: 0,
            probes: 0,
            doubts: 0,
            window_bytes: WINDOW_BYTES,
            banned: false,
            progress: now,
            gap: Duration::ZERO,
            slow_until: None,
            failed_until: None,
        });
        // A fellow stays one, whoever else says that it holds the root.
        if standing == Standing::Fellow || (standing == Standing::Holder && member.standing != Standing::Fellow) {
            member.standing = standing;
        }
    }

    /// Says who else fetches, as far as it is known.
    pub(super) fn set_crowd(
        &mut self,
        (unknown, young): (bool, bool),
        now: Instant,
        is_asking: impl Fn(&PeerId) -> bool,
    ) {
        self.young = young;
        self.crowd = match self.fellows(now).count() {
            0 if unknown => Crowd::Unknown,
            0 => Crowd::Alone,
            _ => Crowd::Fellows(self.fellows(now).filter(|(peer, _)| is_asking(peer)).count() as u64),
        };
    }

    /// Whether there are fellows.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.crowd, Crowd::Fellows(_))
    }

    pub(super) fn member(&self, peer: &PeerId) -> Option<&Member> {
        self.members.get(peer)
    }

    pub(super) fn is_fellow(&self, peer: &PeerId) -> bool {
        self.member(peer).is_some_and(|member| member.standing == Standing::Fellow)
    }

    /// How many fellows want something at the moment.
    pub(super) fn busy_fellows(&self) -> u32 {
        match self.crowd {
            Crowd::Fellows(fellows) => u32::try_from(fellows).unwrap_or(u32::MAX),
            _ => 0,
        }
    }

    /// Fellows that can be talked to.
    pub(super) fn fellows(&self, now: Instant) -> impl Iterator<Item = (&PeerId, &Member)> {
        self.members.iter().filter(move |(_, member)| member.standing == Standing::Fellow && member.reachable(now))
    }

    /// Fellows that others may leave something to.
    pub(super) fn reliable(&self, now: Instant) -> impl Iterator<Item = &PeerId> {
        self.fellows(now).filter(move |(_, member)| member.is_reliable(now)).map(|(peer, _)| peer)
    }

    /// Whether any holder is asked for something.
    pub(super) fn waits_for_holders(&self, now: Instant) -> bool {
        self.members.values().any(|member| member.usable(now) && member.in_flight > 0)
    }

    /// A fellow did not get in time what was left to it, or did not send what it said that it has.
    pub(super) fn doubt(&mut self, peer: &PeerId, now: Instant) {
        if let Some(member) = self.members.get_mut(peer) {
            member.slow_until = Some(now + SLOW);
            member.doubts = member.doubts.saturating_add(1);
        }
    }

    /// The fellow among `have` to ask for a block: one that has not failed lately, nor often, and has room.
    pub(super) fn choose_fellow(&self, have: &[PeerId], now: Instant) -> Choice {
        let known = have.iter().filter_map(|peer| self.members.get(peer).map(|member| (peer, member)));
        let good = known.filter(|(_, member)| member.is_reliable(now));
        let mut choice = Choice::Nobody;
        let mut least = u64::MAX;
        for (peer, member) in good {
            if member.in_flight < member.window(self.crowd, self.young).min(least) {
                (choice, least) = (Choice::Ask(*peer), member.in_flight);
            } else if choice == Choice::Nobody
                && (member.blocks > 0 || now.saturating_duration_since(member.progress) < UNPROVEN)
            {
                choice = Choice::Later;
            }
        }
        choice
    }

    /// Whether a holder sends so much faster than any fellow that it is not worth while to wait for these.
    pub(super) fn holders_are_much_faster(&self, now: Instant) -> bool {
        let gap = |members: &mut dyn Iterator<Item = &Member>| {
            members.filter(|member| member.blocks > 1).map(|member| member.gap).min()
        };
        let holders = gap(&mut self.members.values().filter(|member| member.usable(now)));
        let fellows = gap(&mut self.fellows(now).map(|(_, member)| member));
        matches!((holders, fellows), (Some(holders), Some(fellows)) if holders * MUCH_FASTER < fellows)
    }

    /// A peer is to say when it has another block, or need not any more.
    pub(super) fn probing(&mut self, peer: &PeerId, more: bool) {
        if let Some(member) = self.members.get_mut(peer) {
            member.probes = if more { member.probes + 1 } else { member.probes.saturating_sub(1) };
        }
    }

    /// A peer has forgotten what it was to say.
    pub(super) fn forget_probes(&mut self, peer: &PeerId) {
        if let Some(member) = self.members.get_mut(peer) {
            member.probes = 0;
        }
    }

    /// A peer said whether it has the root.
    pub(super) fn learn(&mut self, peer: &PeerId, holds: bool) {
        if let Some(member) = self.members.get_mut(peer) {
            if holds && member.standing != Standing::Fellow {
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
    /// may have been lost because of them, if a multiplexer is part of it (not by QUIC): that of js-libp2p puts what is asked for at once
    /// into frames of any length, and that of rust-libp2p breaks the connection at the first that is longer than 1 MiB.
    /// What the connection is that there is now says `multiplexed`, if there is one.
    pub(super) fn follow(
        &mut self,
        peer: &PeerId,
        epoch: Option<u64>,
        multiplexed: impl FnOnce() -> Option<bool>,
    ) -> bool {
        let Some(member) = self.members.get_mut(peer) else { return false };
        let changed = member.epoch != epoch;
        if changed && member.epoch.is_some() && member.in_flight > 0 && member.multiplexed.unwrap_or(true) {
            member.window_bytes /= SHRINK;
        }
        member.epoch = epoch;
        if changed || member.multiplexed.is_none() {
            member.multiplexed = multiplexed();
        }
        changed
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
            let bytes = bytes as u64;
            member.bytes += bytes;
            if bytes >= LARGE {
                member.typical = Some(member.typical.map_or(bytes, |typical| (typical * 7 + bytes) / 8));
            }
            if member.standing != Standing::Fellow {
                member.standing = Standing::Holder;
            }
            member.slow_until = None;
        }
    }

    /// Whom to ask for a block that `avoid` must not be asked for.
    pub(super) fn choose(&self, avoid: &[PeerId], now: Instant) -> Choice {
        let usable = || self.members.iter().filter(|(peer, member)| member.usable(now) && !avoid.contains(peer));
        let slow = usable().all(|(_, member)| member.slow(now));
        let free = usable().filter(|(_, member)| {
            member.in_flight < member.window(self.crowd, self.young) && (slow || !member.slow(now))
        });
        match free.min_by_key(|(_, member)| (member.in_flight, member.gap)) {
            Some((peer, _)) => Choice::Ask(*peer),
            None if usable().next().is_some() => Choice::Later,
            None => Choice::Nobody,
        }
    }

    /// A holder that is asked for nothing and is not slow, other than these.
    pub(super) fn idle_holder(&self, avoid: &[&[PeerId]], now: Instant) -> Option<PeerId> {
        let idle = |(peer, member): &(&PeerId, &Member)| {
            member.usable(now)
                && !member.slow(now)
                && member.in_flight == 0
                && avoid.iter().all(|peers| !peers.contains(peer))
        };
        self.members.iter().filter(idle).min_by_key(|(_, member)| member.gap).map(|(peer, _)| *peer)
    }

    /// Holders that others deliver for are asked only when there is nobody else, for a while.
    pub(super) fn pass_over(&mut self, peers: &[PeerId], now: Instant) {
        for peer in peers {
            if let Some(member) = self.members.get_mut(peer).filter(|member| member.standing == Standing::Holder) {
                member.slow_until = Some(now + SLOW);
            }
        }
    }

    /// Peers that were asked whether they have the root and have not said so.
    pub(super) fn unanswered(&self) -> usize {
        self.members.values().filter(|member| member.standing == Standing::Asked).count()
    }

    /// Forgets a peer that has gone, or could not be written to, and did nothing: if it comes back it is as good as new. True if so.
    pub(super) fn forget(&mut self, peer: &PeerId) -> bool {
        let useless = |member: &Member| match member.standing {
            Standing::Holder => false,
            Standing::Asked | Standing::Stranger => true,
            // Who failed is not to be trusted again for coming anew.
            Standing::Fellow => member.epoch.is_none() && member.blocks == 0 && member.doubts == 0,
        };
        let forgets = self.members.get(peer).is_some_and(|member| !member.banned && useless(member));
        forgets && self.members.remove(peer).is_some()
    }

    /// Whether any peer could be asked for another block.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        self.members
            .values()
            .any(|member| member.usable(now) && member.in_flight < member.window(self.crowd, self.young))
    }

    /// Peers that are connected and not banned.
    pub(super) fn connected(&self) -> usize {
        self.members.values().filter(|member| member.epoch.is_some() && !member.banned).count()
    }

    /// Peers that were asked for something and made no progress for too long, and whether others can be asked instead.
    /// Their clocks start anew.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(PeerId, bool)> {
        let serves =
            |member: &Member| matches!(member.standing, Standing::Holder | Standing::Fellow) && member.reachable(now);
        let usable = self.members.values().filter(|member| serves(member)).count();
        let holders = self.members.values().filter(|member| member.usable(now)).count();
        // A holder that many ask has little for each; and asking it again makes it send twice.
        let crowd = match self.crowd {
            Crowd::Fellows(fellows) => u32::try_from(fellows + 1).unwrap_or(MOST_PATIENCE).min(MOST_PATIENCE),
            _ => 1,
        };
        let mut overdue = Vec::new();
        for (peer, member) in &mut self.members {
            let is_holder = member.usable(now);
            let others = if is_holder { holders > 1 } else { usable > usize::from(serves(member)) };
            let patience = if others { member.patience() } else { SLOW } * if is_holder { crowd } else { 1 };
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
        assert!(!schedule.follow(&peer, Some(1), || Some(true)));
        // Lost while nothing was asked for: nobody is to blame.
        assert!(schedule.follow(&peer, None, || None) && schedule.follow(&peer, Some(2), || Some(true)));
        assert_eq!(fill(&mut schedule), WINDOW_BYTES / FIRST_GUESS);
        // QUIC has no frames that break it, whatever comes after it.
        assert!(schedule.follow(&peer, Some(7), || Some(false)));
        ask(&mut schedule, now);
        assert!(schedule.follow(&peer, None, || None));
        schedule.settled(&peer);
        assert!(schedule.follow(&peer, Some(8), || Some(false)));
        ask(&mut schedule, now);
        assert!(schedule.follow(&peer, Some(9), || Some(true)));
        schedule.settled(&peer);
        assert_eq!(fill(&mut schedule), WINDOW_BYTES / FIRST_GUESS);
        for (epoch, blocks) in [(3, 16), (4, 4), (5, 1), (6, 1)] {
            ask(&mut schedule, now);
            assert!(schedule.follow(&peer, Some(epoch), || Some(true)));
            schedule.settled(&peer);
            assert_eq!(fill(&mut schedule), blocks);
        }
    }

    #[tokio::test]
    async fn fellows_that_do_not_send_what_they_say_they_have_are_left() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let peer = PeerId::random();
        schedule.join(peer, Standing::Fellow, Some(1), now);
        for _ in 0..*FELLOW_BLOCKS.start() {
            assert_eq!(schedule.choose_fellow(&[peer], now), Choice::Ask(peer));
            schedule.asked(&peer, now);
        }
        // It is asked for little, and not waited for until it has proved that it sends anything.
        assert_eq!(schedule.choose_fellow(&[peer], now), Choice::Later);
        let mut later = now + UNPROVEN;
        assert_eq!(schedule.choose_fellow(&[peer], later), Choice::Nobody);
        schedule.received(&peer, 1000, later);
        assert_eq!(schedule.choose_fellow(&[peer], later), Choice::Ask(peer));
        for _ in 0..DOUBTS {
            schedule.doubt(&peer, later);
            assert_eq!(schedule.choose_fellow(&[peer], later), Choice::Nobody);
            later += SLOW + Duration::from_millis(1);
        }
        assert_eq!(schedule.choose_fellow(&[peer], later), Choice::Nobody, "for good");
        assert_eq!(schedule.reliable(later).count(), 0);
    }

    #[tokio::test]
    async fn whoever_did_nothing_is_forgotten() {
        let (mut schedule, peers, now) = peers(1);
        let (stranger, fellow) = (PeerId::random(), PeerId::random());
        schedule.join(stranger, Standing::Asked, Some(1), now);
        schedule.join(fellow, Standing::Fellow, Some(1), now);
        assert_eq!(schedule.unanswered(), 1);
        assert!(schedule.forget(&stranger) && !schedule.forget(&fellow) && !schedule.forget(&peers[0]));
        schedule.follow(&fellow, None, || None);
        assert!(schedule.forget(&fellow) && schedule.members().count() == 1);
    }

    #[tokio::test]
    async fn strangers_and_the_unconnected_are_not_asked() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let peer = PeerId::random();
        schedule.join(peer, Standing::Asked, Some(1), now);
        assert_eq!(schedule.choose(&[], now), Choice::Nobody);
        schedule.learn(&peer, true);
        assert_eq!(schedule.choose(&[], now), Choice::Ask(peer));
        schedule.follow(&peer, None, || None);
        assert_eq!(schedule.choose(&[], now), Choice::Nobody);
    }
}
