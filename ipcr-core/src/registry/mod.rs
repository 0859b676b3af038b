//! The facade: push, pull, resolve and the rest, in this process or through the socket of the one that holds the home.

pub mod error;
pub mod holder;
pub mod operation;
pub mod options;
pub mod outcome;
