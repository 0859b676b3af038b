//! What a home keeps, durably noted: its own registry ([`state`]) and what it changed of it ([`changes`]), the files that it has of it
//! ([`files`]), and what was pulled ([`cache`]).

pub mod cache;
pub mod changes;
pub mod files;
pub mod state;
