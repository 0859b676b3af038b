//! `ipcr init`: keys and an empty registry.

use ipcr_core::identity::bundle::Bundle;
use ipcr_core::reference::Domain;
use ipcr_core::registry::error::Topic;
use ipcr_core::registry::keys;
use ipcr_core::registry::options::InitOptions;

use super::identity;
use crate::failure::Failure;
use crate::home;
use crate::session::{self, Purpose};

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

pub(crate) fn run(purpose: Purpose<'_>, args: &Args) -> Result<(), Failure> {
    let mut options = InitOptions::default();
    let domain = args.domain.as_deref().map(str::parse::<Domain>).transpose();
    domain.map_err(|error| Failure::of(&error, error.kind(), Topic::BadName, purpose.command))?;
    options.domain.clone_from(&args.domain);
    options.title.clone_from(&args.title);
    options.announce = home::announced("--announce", &args.announce)?;
    options.import = args.import.as_deref().map(|file| read(purpose, file)).transpose()?;
    init(purpose, options)
}

/// `ipcr key import`.
pub(crate) fn import(purpose: Purpose<'_>, file: &str) -> Result<(), Failure> {
    let mut options = InitOptions::default();
    options.import = Some(read(purpose, file)?);
    init(purpose, options)
}

/// Reads a file of keys. Before the home is opened: a file that is none leaves nothing behind.
fn read(purpose: Purpose<'_>, file: &str) -> Result<Bundle, Failure> {
    let (bytes, passphrase) = identity::read_keys(purpose.ui, file)?;
    keys::unseal(&bytes, passphrase).map_err(|error| Failure::registry(&error, purpose.command))
}

fn init(purpose: Purpose<'_>, options: InitOptions) -> Result<(), Failure> {
    session::run(purpose, async |context| {
        let identity = context.init(options).await?;
        context.show(&identity, &[], identity::lines)
    })
}
