//! The swarm of an ipcr node: connections and raw streams, hosted by rust-ipfs.
//!
//! * [`Swarm`]: rust-ipfs with its transports and NAT helpers, without its repository, bitswap and DHT.
//! * [`Hub`]: the one custom behaviour through which everything else dials, opens and accepts streams.
//! * [`Gate`]: which addresses may be touched, decided by whoever starts the swarm.
//!
//! This is a crate of its own so that the swarm's generic code is compiled once, and not with every change of `ipcr-core`, which
//! is its only user. Nothing else names `rust_ipfs` or `libp2p`, so that the host can be replaced.

mod behaviour;
mod handler;
mod hub;
mod swarm;

pub use libp2p::{Stream, StreamProtocol};

pub use self::hub::{Acceptor, DialError, Gate, Hold, Hub, INBOUND_STREAMS, Inbound, Link, OpenError, Slot};
pub use self::swarm::{Swarm, SwarmConfig, SwarmError, Transports};
