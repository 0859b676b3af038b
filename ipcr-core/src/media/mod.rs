//! Sources and sinks that are files, streams or OCI registries.
//!
//! * [`archive`]: reading and writing outer archives, whatever is in them.
//! * [`docker_archive`]: images in archives, from files and streams. [`export`]: those without manifests.
//! * [`layout`]: the rules of OCI image layouts.
//!
//! Sources hand out what they find and check its framing, not the digests of blobs: whoever reads does that. Sinks check
//! what they are given, and leave nothing behind that looks like an image unless it is complete.

pub mod archive;
pub mod docker_archive;
pub mod export;
pub mod layout;
pub mod place;

mod docker_manifest;
mod files;
