//! An in-memory exchange between stores of one process.
