//! Garbage collection and checks.
