//! `ipcr init`: keys and an empty registry.

use ipcr_core::registry::options::InitOptions;

use super::identity;
use crate::context::Context;
use crate::failure::Failure;
use crate::home;

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

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let mut options = InitOptions::default();
    options.domain.clone_from(&args.domain);
    options.title.clone_from(&args.title);
    options.announce = home::announced("--announce", &args.announce)?;
    options.import = args.import.as_deref().map(|file| identity::read_keys(context.ui, file)).transpose()?;
    init(context, options).await
}

/// `ipcr key import`.
pub(crate) async fn import(context: &Context<'_>, file: &str) -> Result<(), Failure> {
    let mut options = InitOptions::default();
    options.import = Some(identity::read_keys(context.ui, file)?);
    init(context, options).await
}

async fn init(context: &Context<'_>, options: InitOptions) -> Result<(), Failure> {
    let identity = context.init(options).await?;
    context.show(&identity, &[], identity::lines)
}
