//! Reading and editing DAGs whose blocks are stored here or held by others.
//!
//! * [`reader`]: [`reader::Reader`], blocks from the store first, then from others, kept as soon as they come.
//! * `puts`: blocks that come together, stored together.
//! * [`window`]: [`window::Window`], the memory that files being read share.
//! * [`file`](mod@file): [`file::File`], a UnixFS file in order, its blocks fetched ahead.
//! * [`path`]: following names through directories, listing them.
//! * [`routers`]: [`routers::HttpRouting`], HTTP routers that know who holds what.
//! * [`gateways`]: [`gateways::GatewayExchange`], HTTP gateways beside peers.
//! * [`directory`]: editing directories.
//! * [`waiters`]: those who wait for one block.
//! * [`walk`]: every block below a root, for marking, completeness and mirroring.
//!
//! The formats themselves are in [`crate::dag`]; what is here adds the waiting.

pub mod directory;
pub mod file;
pub mod gateways;
pub mod path;
mod puts;
pub mod reader;
pub mod routers;
pub(crate) mod waiters;
pub mod walk;
pub mod window;

#[cfg(test)]
mod tests;
