//! An in-memory container engine.
