//! The seams of the crate: every trait that has more than one implementation, and the plain types that it speaks in.
//!
//! * [`blocks`]: [`blocks::BlockStore`], where blocks are kept; [`blocks::StoreSession`], how they are added.
//! * [`table`]: [`table::Table`], small durable records.
//! * [`exchange`]: [`exchange::Exchange`], where missing blocks come from.
//! * [`records`]: [`records::NameRecords`], where IPNS records are found and put; [`records::RecordShelf`], those served.
//! * [`dns`]: [`dns::Dns`], TXT look-ups.
//! * [`routing`]: [`routing::Routing`], others who know who holds what.
//! * [`announce`]: [`announce::Announce`], telling the network who holds what.
//! * [`engine`]: [`engine::Engine`], a container engine.
//! * [`image`]: [`image::ImageSource`] and [`image::ImageSink`], where images come from and go to.
//!
//! All traits are object-safe and are handed around as `Arc<dyn …>`. A port's error says what happened in fields, keeps
//! its cause as `source` and answers `kind()`. Each trait has an in-memory twin in [`memory`] and one conformance suite
//! in `conformance` that every implementation runs.

pub mod announce;
pub mod blocks;
pub mod dns;
pub mod engine;
pub mod exchange;
pub mod image;
pub mod memory;
pub mod records;
pub mod routing;
pub mod table;

#[cfg(test)]
pub(crate) mod conformance;
