//! An in-memory table.
