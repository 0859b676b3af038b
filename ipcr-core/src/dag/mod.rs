//! Blocks and DAGs without any I/O: dag-pb and UnixFS, cutting, layer encodings.

pub mod block;
pub mod compression;
pub mod text;
