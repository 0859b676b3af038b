//! The registry directory: reading it and editing it path-wise (docs/format.md).

pub mod edit;
pub mod stored;
