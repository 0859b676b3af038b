//! What a home keeps on disk: [`Home`], its lock, its block store and its tables.
//!
//! * [`home`]: the directory, and the lock that one process at a time holds.
//! * [`packs`]: [`DiskStore`], blocks in append-only pack files with an index.
//! * [`table`]: [`DiskTable`], small durable records.
//!
//! Nothing here is a cache that may be wrong: a block that was committed and a record that was written survive `kill -9`
//! and power loss, what was only half written is recognised and dropped at the next open, and a full disk leaves both
//! stores usable.

mod database;
pub mod home;
pub mod packs;
pub mod table;

pub use home::{Holder, Home, HomeError};
pub use packs::DiskStore;
pub use table::DiskTable;

/// Runs file work on a thread that may block; `None` when the runtime is shutting down or the work panicked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
