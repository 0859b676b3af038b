//! What a home keeps, durably noted: its own registry ([`state`]), the files that it has of it ([`files`]), and what was pulled
//! ([`cache`]).

pub mod cache;
pub mod files;
pub mod state;
