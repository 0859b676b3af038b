//! A congestion control for QUIC that does not take every lost packet for a full line.
//!
//! CUBIC (RFC 9438), which `quinn` and libp2p's QUIC use, answers every loss by sending less. Over a long line that loses one packet of a thousand
//! for reasons of its own this leaves a tenth of the line. [`Tolerant`] is `quinn`'s [`Cubic`](quinn_proto::congestion::Cubic), which is told of
//! a loss only if
//!
//! * more than [`TOLERATED`] of what was sent in the last round trips was lost, or
//! * something waits in front of the line: round trips are longer than they were ([`QUEUE`]), or
//! * the loss is not one of single packets: persistent congestion (RFC 9002, section 7.6), or a mark (ECN, RFC 3168).
//!
//! So whoever shares a line with a long queue is treated about as CUBIC treats them; beside a queue of a few milliseconds, which cannot be told from
//! none, they get less. BBR (draft-ietf-ccwg-bbr, `LossThresh`) tolerates as large a
//! share; docs/design/016 says why that was not taken, and has the figures.

mod rounds;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

use rounds::Rounds;
pub use rounds::{QUEUE, TOLERATED};

/// Makes a [`Tolerant`] for each connection: what `quinn::TransportConfig::congestion_controller_factory` takes.
#[derive(Clone, Debug, Default)]
pub struct TolerantConfig {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for TolerantConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::clone(&self.cubic).build(now, current_mtu);
        Box::new(Tolerant { cubic, rounds: Rounds::new(now), mtu: current_mtu, reacted: None })
    }
}

/// CUBIC that hears of a loss only where the line seems to be full.
pub struct Tolerant {
    cubic: Box<dyn Controller>,
    rounds: Rounds,
    /// Bytes of the largest packet.
    mtu: u16,
    /// When CUBIC heard of a loss. What was sent before says nothing new.
    reacted: Option<Instant>,
}

impl fmt::Debug for Tolerant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cubic, rounds, mtu, reacted } = self;
        let window = cubic.window();
        f.debug_struct("Tolerant")
            .field("window", &window)
            .field("rounds", rounds)
            .field("mtu", mtu)
            .field("reacted", reacted)
            .finish()
    }
}

impl Controller for Tolerant {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.rounds.acked(now, sent, bytes, rtt.get());
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        if self.reacted.is_some_and(|reacted| sent <= reacted) && !is_persistent_congestion {
            return;
        }
        self.rounds.lost(lost_bytes);
        let marked = lost_bytes == 0;
        if is_persistent_congestion || marked || self.rounds.lose_much(self.mtu) || self.rounds.wait() {
            self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
            self.rounds.forget_losses();
            self.reacted = Some(now);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let Self { cubic, rounds, mtu, reacted } = self;
        Box::new(Self { cubic: cubic.clone_box(), rounds: rounds.clone(), mtu: *mtu, reacted: *reacted })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
