//! What a home keeps, durably noted: its own registry ([`state`]) and what was pulled ([`cache`]).

pub mod cache;
pub mod state;
