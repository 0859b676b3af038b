//! In-memory twins of the ports, for tests and for programs that need no disk or network.

pub mod blocks;
pub mod dns;
pub mod engine;
pub mod exchange;
pub mod image;
pub mod records;
pub mod routing;
pub mod table;
