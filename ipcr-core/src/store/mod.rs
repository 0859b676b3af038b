//! The block store and the tables on disk.
