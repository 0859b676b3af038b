//! The InterPlanetary Container Registry as a library: push, pull and resolve container images over IPFS, with a node that
//! runs in this process and no second daemon.
//!
//! Modules have ranks, and import from lower ranks only (`tests/layering.rs` fails otherwise).

// rank 0
pub mod digest;
pub mod kind;
pub mod limits;
// rank 1
pub mod dag;
pub mod reference;
// rank 2
pub mod event;
pub mod identity;
pub mod image;
// rank 3
pub mod net;
pub mod port;
// rank 4
pub mod engine;
pub mod exchange;
pub mod media;
pub mod naming;
pub mod store;
// rank 5
pub mod node;
pub mod tree;
// rank 6
pub mod pin;
pub mod transfer;
// rank 7
pub mod publish;
pub mod upkeep;
// rank 8
pub mod registry;
// rank 10
pub mod control;
// rank 11
pub mod serve;
// what fuzzing feeds
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
