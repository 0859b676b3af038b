//! The one HTTP client of the crate, with its guards: where it may connect, how much it reads, where credentials go.

pub mod addresses;
