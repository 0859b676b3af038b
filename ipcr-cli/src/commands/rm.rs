//! `ipcr rm`: tags and manifests taken away.

use ipcr_core::kind::ErrorKind;
use ipcr_core::reference::{Reference, TargetName};
use ipcr_core::registry::options::RemoveTarget;
use serde::Serialize;

use super::publication::edit_lines;
use crate::context::Context;
use crate::failure::Failure;

/// Takes a tag, a manifest or a whole image out of this registry, and publishes the registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ipcr rm app:1
  ipcr rm app --all-tags --dry-run

A tag that is taken away leaves its manifest pullable by digest; NAME@DIGEST takes that away too,
with every tag that names it.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Args {
    /// NAME:TAG, NAME@DIGEST, or with `--all-tags` NAME
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Takes the whole image away
    #[arg(long)]
    pub(crate) all_tags: bool,

    /// Shows what would go, and does nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Wins over what another home with the same key did to the same tags
    #[arg(long)]
    pub(crate) force: bool,

    /// Does not ask, even on a terminal
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// What would go, as programs read it.
#[derive(Serialize)]
struct DryRun {
    dry_run: bool,
    changed: Vec<String>,
}

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let target = target(context, args).await?;
    if args.dry_run {
        return plan(context, target).await;
    }
    let question = format!("Take {} out of this registry?", describe(&target));
    let whole = matches!(target, RemoveTarget::Image(_));
    if whole && !args.yes && context.ui.confirm(&question).await == Some(false) {
        return Err(Failure::new(ErrorKind::Failed, "nothing was removed").with_hint("`--yes` does not ask"));
    }
    let mut options = context.publishing()?;
    options.force = args.force;
    let (outcome, warnings) = context.watch(context.registry.remove(target, options)).await?;
    context.show(&outcome, &warnings, edit_lines)
}

async fn target(context: &Context<'_>, args: &Args) -> Result<RemoveTarget, Failure> {
    match context.own_reference(&args.name).await? {
        Reference { image: Some(image), tag: None, digest: None, .. } if args.all_tags => {
            Ok(RemoveTarget::Image(image))
        }
        _ if args.all_tags => Err(Failure::usage("`--all-tags` takes a name without tag or digest")),
        Reference { image: Some(image), tag: None, digest: Some(digest), .. } => {
            Ok(RemoveTarget::Digest(image, digest))
        }
        Reference { image: Some(image), tag: Some(tag), digest: None, .. } => {
            Ok(RemoveTarget::Tag(TargetName { image, tag }))
        }
        Reference { tag: Some(_), .. } => Err(Failure::usage("give either a tag or a digest")),
        _ => Err(Failure::usage(format!("`{}` names neither a tag nor a digest", args.name))
            .with_hint("NAME:TAG, NAME@DIGEST, or `--all-tags` for the whole image")),
    }
}

async fn plan(context: &Context<'_>, target: RemoveTarget) -> Result<(), Failure> {
    let (changed, warnings) = context.watch(context.registry.plan_remove(target)).await?;
    context.show(&DryRun { dry_run: true, changed }, &warnings, |ui, plan| {
        plan.changed.iter().try_for_each(|changed| ui.line(format!("would remove {changed}")))
    })
}

fn describe(target: &RemoveTarget) -> String {
    match target {
        RemoveTarget::Tag(name) => name.to_string(),
        RemoveTarget::Digest(image, digest) => format!("{image}@{digest}"),
        RemoveTarget::Image(image) => format!("{image} with all tags"),
    }
}
