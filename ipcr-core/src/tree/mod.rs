//! The registry directory: reading it and editing it path-wise (docs/format.md).
//!
//! * [`read`]: finding images, tags and manifests in a registry; what a CID is.
//! * [`layout`], [`legacy`]: the two kinds of image folders.
//! * [`stored`]: an image whose parts are stored, ready to be put into a folder.
//! * [`edit`](mod@edit): changes of a registry; unchanged parts keep their CIDs.
//! * [`parts`]: what of a registry is images.
//! * [`handover`]: from one key of a registry to the next.
//! * [`check`](mod@check): looking for contradictions.
//! * [`remake`]: making again what is derived.
//! * [`document`]: the JSON files.
//!
//! Everything is read through a [`crate::port::blocks::ReadBlocks`] and nothing is written: edits return blocks.

mod blocks;
pub mod check;
pub mod document;
pub mod edit;
pub mod error;
pub mod handover;
pub mod layout;
pub mod legacy;
pub mod parts;
pub mod read;
pub mod remake;
pub mod stored;
pub mod tags;

#[cfg(test)]
pub(crate) mod tests;
