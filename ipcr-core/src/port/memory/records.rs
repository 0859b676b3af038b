//! An in-memory carrier of IPNS records.
