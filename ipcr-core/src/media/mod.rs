//! Sources and sinks that are files, streams or OCI registries.
//!
//! * [`archive`]: reading and writing outer archives, whatever is in them.
//! * [`docker_archive`]: images in archives, from files and streams. [`export`]: those without manifests.
//! * [`archive_sink`]: writing one as an archive into any stream; [`archive_file`]: into a file.
//! * [`oci_layout`]: images in folders. [`none`]: a sink that keeps nothing.
//! * [`registry`]: images in OCI registries.
//! * [`spec`]: how sources and sinks are spelled.
//!
//! Sources hand out what they find and check its framing, not the digests of blobs: whoever reads does that. Sinks
//! leave nothing behind that looks like an image unless it is complete.

pub mod archive;
pub mod archive_file;
pub mod archive_sink;
pub mod docker_archive;
pub mod export;
pub mod none;
pub mod oci_layout;
pub mod place;
pub mod registry;
pub mod spec;

pub(crate) mod docker_manifest;
mod files;
mod layout;
mod layout_sink;
mod parts;
mod temporary;

#[cfg(test)]
mod tests;
