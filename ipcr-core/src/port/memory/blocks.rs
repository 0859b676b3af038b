//! An in-memory block store.
