//! `ipcr tag`: a further name.

use super::publication::edit_lines;
use crate::context::Context;
use crate::failure::Failure;

/// Gives an image a further name in this registry, and publishes the registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr tag app:1 app:stable")]
pub(crate) struct Args {
    /// The image, in this or any other registry
    #[arg(value_name = "REF")]
    pub(crate) reference: String,

    /// The further name
    #[arg(value_name = "NAME:TAG")]
    pub(crate) name: String,

    /// Wins over what another home with the same key did to the tag
    #[arg(long)]
    pub(crate) force: bool,
}

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let (from, to) = (context.reference(&args.reference)?, context.target(&args.name).await?);
    let mut options = context.publishing()?;
    options.force = args.force;
    let (outcome, warnings) = context.watch(context.registry.tag(from, to, options)).await?;
    context.show(&outcome, &warnings, edit_lines)
}
