//! The home's socket: serving the facade to other processes.
//!
//! * [`open`]: a home, as its holder.

pub mod open;
