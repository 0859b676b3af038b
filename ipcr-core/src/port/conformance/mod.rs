//! One suite per port, run by every implementation.

pub(crate) mod blocks;
pub(crate) mod dns;
pub(crate) mod engine;
pub(crate) mod exchange;
pub(crate) mod image;
pub(crate) mod records;
pub(crate) mod routing;
pub(crate) mod table;
