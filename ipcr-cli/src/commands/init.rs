//! `ipcr init`: keys and an empty registry.

/// Makes keys and an empty registry, and prints the TXT records to enter in DNS.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr init --domain your.domain --title 'Images of your.domain'")]
pub(crate) struct Args {
    /// Domain under which the registry will be found
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,

    /// One line that says what the registry is
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,

    /// Address at which others reach this node, to be put in DNS (repeatable)
    #[arg(long, value_name = "MULTIADDR", value_delimiter = ',')]
    pub(crate) announce: Vec<String>,

    /// Takes the keys from a file that `ipcr key export` made, or from standard input (`-`)
    #[arg(long, value_name = "FILE")]
    pub(crate) import: Option<String>,
}
