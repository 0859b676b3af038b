//! `ipcr trust`: the keys that are remembered for domains.

use clap::Subcommand;

/// Shows and changes which key each domain is known to lead to.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  ipcr trust ls

A key is remembered when a domain is first used; a change is refused until it is confirmed here."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Lists remembered domains
    #[command(after_help = "Example:
  ipcr trust ls")]
    Ls,
    /// Remembers a key for a domain, instead of the one before
    #[command(after_help = "Examples:
  ipcr trust add some.domain k51…
  ipcr trust add some.domain keyless")]
    Add {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
        /// Its registry's key in any spelling, or `keyless` for a domain that points to content
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Forgets a domain
    #[command(after_help = "Example:
  ipcr trust rm some.domain")]
    Rm {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
    },
}
