//! The service: one HTTP listener around a running registry.
