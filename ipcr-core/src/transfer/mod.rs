//! The pipelines: from a source into blocks, from blocks into a sink.
//!
//! * [`engine`]: container engines as sources and sinks.

pub mod engine;
