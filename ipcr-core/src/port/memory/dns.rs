//! An in-memory resolver.
