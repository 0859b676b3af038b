//! The OCI image model: descriptors, platforms, manifests, configurations, and what makes them valid.
//!
//! * [`media_type`]: what kinds of documents and blobs there are.
//! * [`descriptor`], [`platform`]: what points at them, and for which machines they are.
//! * [`manifest`]: manifests and indexes of others, read so that they have one meaning; [`select`], which one a platform gets.
//! * [`config`]: configurations and chain IDs; [`v1_ids`], the folder names of `docker save`.
//! * [`canonical`]: the manifest that ipcr writes for images that have none.
//! * [`layout`]: the JSON files of image folders and archives.
//!
//! Nothing here does I/O. Every parser is bounded by [`crate::limits`] and keeps the bytes that it read.

pub mod canonical;
pub mod config;
pub mod descriptor;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzzed;
pub mod layout;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod select;
pub mod v1_ids;

#[cfg(any(test, feature = "fuzzing"))]
pub use self::fuzzed::fuzz;
