//! The pipelines: from a source into blocks, from blocks into a sink.
//!
//! * [`ingest`]: takes an image in. [`layer`] encodes layers, which [`pieces`] saves where it was done before, [`opaque`] keeps bytes as they are, [`write`] stores both;
//!   [`diff_ids`] unpacks what was kept, to see that it is what the configuration names; [`recompress`] is for sources whose
//!   layers are to be encoded although they come with manifests.
//! * [`manifests`]: everything that a source's root leads to, and which of it is for a platform.
//! * [`ledger`]: what was stored before and need not be read again.
//! * [`deliver`]: hands an image over. [`folder`] is a tag folder as its source, [`stored`] an image that was just taken in.
//! * [`verify`], [`plain`], [`progress`]: what bytes pass through on their way.
//!
//! Memory is bounded by queues of fixed length everywhere; no layer is ever written to a temporary file.

pub mod adopt;
pub mod deliver;
mod diff_ids;
pub mod engine;
pub mod error;
pub mod folder;
pub mod ingest;
mod layer;
pub mod ledger;
mod legacy;
pub(crate) mod manifests;
pub mod opaque;
pub(crate) mod pieces;
mod plain;
mod progress;
pub(crate) mod recompress;
pub mod stored;
mod verify;
mod write;
