//! The pipelines: from a source into blocks, from blocks into a sink.
