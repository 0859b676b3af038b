//! Several connections to one peer, for lines that lose packets.
//!
//! A sender that takes every lost packet for a sign of congestion (CUBIC, RFC 9438, which libp2p's QUIC has) is slow over a long line that
//! loses some: 50 ms there and back and one packet of a thousand lost leave one connection 10 Mbit of 100. Several have several times as
//! much. So whoever fetches more than a little opens more of them to a holder ([`Shared::widen`]): a few, and many where round trips show that
//! the line is not full in spite of them ([`RoundTrips`]). Whoever answers uses by turns all that there are ([`Lanes`]).

use std::time::Duration;

use futures::AsyncWriteExt as _;
use ipcr_swarm::Stream;
use libp2p_identity::PeerId;
use tokio::time::Instant;

use super::message::Message;
use super::session::Shared;
use super::{Bitswap, PROTOCOL, Peer, STREAM_IDLE, lock};
use crate::node::{frame, ping, swarm};

/// Most connections to one peer that are used. A node takes half as many again of one, so that there is room for new ones while old ones are
/// dead and nobody knows it yet.
const LANES: usize = 16;
/// As many are opened without a look at the line.
const FEW: usize = 4;
/// Looks at the line of one that has a few.
const LOOKS: u32 = 8;
/// By how much a round trip may be longer than the least of all before something waits in front of the line: half of it, and so much.
const QUEUE: Duration = Duration::from_millis(10);
/// How long what comes is counted before it is decided whether more connections are opened.
const WATCH: Duration = Duration::from_secs(1);
/// How long a look at the line may take: several ways there and back.
const LOOK: Duration = Duration::from_secs(5);
/// Bytes in a second of a line that loses next to nothing, so that one connection is enough.
const FAST: u64 = 32_000_000;
/// How many times more connections are opened, if not all stay.
const ROUNDS: u32 = 3;
/// Blocks that a holder is asked for, all the time, if the line and not this node is what makes it slow.
const BUSY: u64 = 4;

/// An outbound stream that is opened when it is needed, by one of the connections.
#[derive(Default)]
pub(super) struct Lane {
    number: usize,
    stream: Option<Stream>,
}

impl Lane {
    /// Writes one message, with a new stream if there is none or if the one that there is fails.
    pub(super) async fn send(&mut self, bitswap: &Bitswap, peer: &Peer, message: &Message) -> bool {
        let parts = message.encode();
        let parts: Vec<&[u8]> = parts.iter().map(AsRef::as_ref).collect();
        for attempt in 0..2 {
            let mut open = match self.stream.take() {
                Some(open) => open,
                None => match bitswap.hub.open_by(&peer.id, &PROTOCOL, self.number).await {
                    Ok(open) => open,
                    Err(error) => {
                        tracing::debug!(peer = %peer.id, %error, attempt, "no bitswap stream");
                        continue;
                    }
                },
            };
            match frame::write(&mut open, &parts).await {
                Ok(()) => {
                    self.stream = Some(open);
                    return true;
                }
                Err(error) => tracing::debug!(peer = %peer.id, %error, attempt, "a bitswap stream failed"),
            }
        }
        false
    }

    /// Ends the stream.
    pub(super) async fn close(self) {
        if let Some(mut stream) = self.stream {
            let _ = tokio::time::timeout(STREAM_IDLE, stream.close()).await;
        }
    }
}

/// A lane for each connection to a peer.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    turn: usize,
}

impl Lanes {
    /// The lane whose turn it is, of so many connections. By turns and not where there is room, for a connection takes far more than it can
    /// send at once.
    pub(super) fn next(&mut self, connections: usize) -> &mut Lane {
        let count = connections.clamp(1, LANES);
        self.turn = (self.turn + 1) % count;
        while self.lanes.len() <= self.turn {
            self.lanes.push(Lane { number: self.lanes.len(), stream: None });
        }
        &mut self.lanes[self.turn]
    }

    /// Ends the streams.
    pub(super) async fn close(self) {
        futures::future::join_all(self.lanes.into_iter().map(Lane::close)).await;
    }
}

impl Shared {
    /// Opens more connections to a holder that this node waits for. Only by QUIC, and not while others fetch the same, who would have to do
    /// with less for it.
    pub(super) async fn widen(&self, peer: PeerId) {
        let hub = &self.bitswap.hub;
        let look = || {
            // What came of messages to the whole node, and not only of whole ones: there may be one in a second.
            let bytes = self.bitswap.intake.came();
            lock(&self.state).schedule.alone(&peer).map(|asked| Look { at: Instant::now(), bytes, asked })
        };
        let (mut last, mut rounds, mut looks) = (look(), 0, 0);
        let mut trips = RoundTrips::default();
        // Whoever takes them and closes them again is not asked without end.
        while rounds < ROUNDS && looks < LOOKS && !self.bitswap.intake.keeps_below(FAST) {
            // First while the line is empty, then while a few connections send all they can.
            let few = hub.lanes(&peer) >= FEW;
            tokio::join!(tokio::time::sleep(WATCH), async {
                if looks == 0 || few {
                    trips.add(self.round_trip(&peer).await);
                    looks += 1;
                }
            });
            let now = look();
            let then = std::mem::replace(&mut last, now);
            let Some(rate) = now.zip(then).and_then(|(now, then)| now.rate(&then)) else { continue };
            let Some(link) = hub.link(&peer) else { return };
            if rate > as_f64(FAST) || !link.is_quic() {
                continue;
            }
            let most = if !few {
                FEW
            } else if trips.are_short() && hub.speakers(&swarm::PROTOCOL).contains(&peer) {
                // Nobody else would use them.
                LANES
            } else {
                continue;
            };
            let lanes = hub.lanes(&peer);
            if lanes >= LANES {
                return;
            }
            rounds += 1;
            let further = (lanes..most).map(|_| hub.dial_further(peer));
            let failed = futures::future::join_all(further).await.into_iter().find_map(Result::err);
            tracing::debug!(%peer, rate, ?trips, lanes = hub.lanes(&peer), ?failed, "more connections to a holder");
        }
    }

    /// How long it takes to a peer and back, if it answers within [`LOOK`].
    async fn round_trip(&self, peer: &PeerId) -> Option<Duration> {
        let hub = &self.bitswap.hub;
        let timed = async { ping::round_trip(hub.open(peer, &ping::PROTOCOL).await.ok()?).await.ok() };
        tokio::time::timeout(LOOK, timed).await.ok().flatten()
    }
}

/// How long it takes to a peer and back.
#[derive(Clone, Copy, Debug, Default)]
struct RoundTrips {
    least: Option<Duration>,
    last: Option<Duration>,
}

impl RoundTrips {
    /// Notes one; `None` if it took too long.
    fn add(&mut self, trip: Option<Duration>) {
        self.last = trip;
        self.least = self.least.into_iter().chain(trip).min();
    }

    /// Whether the last one shows that nothing waits in front of the line. Then packets were not lost because it is full.
    fn are_short(&self) -> bool {
        self.last.zip(self.least).is_some_and(|(last, least)| last <= least + least / 2 + QUEUE)
    }
}

/// What has come to a node at one time.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    bytes: u64,
    /// Blocks that the holder is asked for.
    asked: u64,
}

impl Look {
    /// Bytes in a second since another look, if the holder was asked for enough all the time.
    fn rate(&self, then: &Self) -> Option<f64> {
        let seconds = self.at.saturating_duration_since(then.at).as_secs_f64();
        let busy = self.asked.min(then.asked) >= BUSY && seconds > 0.0;
        busy.then(|| as_f64(self.bytes.saturating_sub(then.bytes)) / seconds)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_its_turn() {
        let mut lanes = Lanes::default();
        let mut turns = |connections: &[usize]| -> Vec<usize> {
            connections.iter().map(|connections| lanes.next(*connections).number).collect()
        };
        assert_eq!(turns(&[0, 1, 1]), [0, 0, 0]);
        assert_eq!(turns(&[3; 6]), [1, 2, 0, 1, 2, 0]);
        assert_eq!(turns(&[3, 3, 1, 2]), [1, 2, 0, 1], "those that are lost are left out");
        assert_eq!(turns(&[99; LANES]).last(), Some(&1), "and no more than are used");
    }

    #[test]
    fn a_line_in_front_of_which_nothing_waits_has_short_round_trips() {
        let mut trips = RoundTrips::default();
        assert!(!trips.are_short());
        trips.add(None);
        assert!(!trips.are_short(), "nobody answered");
        for (millis, short) in [(50, true), (85, true), (86, false), (400, false), (60, true), (30, true), (56, false)]
        {
            trips.add(Some(Duration::from_millis(millis)));
            assert_eq!(trips.are_short(), short, "{millis} ms: {trips:?}");
        }
        trips.add(None);
        assert!(!trips.are_short(), "it took too long");
    }

    #[test]
    fn what_comes_while_little_is_asked_for_says_nothing() {
        let begin = Instant::now();
        let look = |millis, bytes, asked| Look { at: begin + Duration::from_millis(millis), bytes, asked };
        assert_eq!(look(2000, 3000, BUSY).rate(&look(0, 1000, BUSY)), Some(1000.0));
        assert_eq!(look(2000, 3000, BUSY - 1).rate(&look(0, 1000, BUSY)), None);
        assert_eq!(look(2000, 3000, BUSY).rate(&look(0, 1000, BUSY - 1)), None);
        assert_eq!(look(0, 3000, BUSY).rate(&look(0, 1000, BUSY)), None);
    }
}
