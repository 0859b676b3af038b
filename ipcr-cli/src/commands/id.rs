//! `ipcr id`: who this registry is.

/// Prints this registry's IPNS name, DID, recipient and node, and the TXT records of its domain.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr id")]
pub(crate) struct Args {}
