//! `ipcr gc`: space given back.

use ipcr_core::registry::options::GcOptions;
use ipcr_core::registry::outcome::GcOutcome;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::text;

/// Removes blocks that no tag, pin or cached image needs, those of interrupted pulls included.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr gc --dry-run")]
pub(crate) struct Args {
    /// Shows what would be removed, and removes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Goes on although part of this registry is damaged or missing, and takes what only that led to
    #[arg(long)]
    pub(crate) force: bool,
}

/// What was or would be removed, as programs read it.
#[derive(Serialize)]
struct Collected {
    dry_run: bool,
    #[serde(flatten)]
    outcome: GcOutcome,
}

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let mut options = GcOptions::default();
    (options.dry_run, options.force) = (args.dry_run, args.force);
    let (outcome, warnings) = context.watch(context.registry.collect(options)).await?;
    context.show(&Collected { dry_run: args.dry_run, outcome }, &warnings, |ui, Collected { dry_run, outcome }| {
        let blocks = text::count(outcome.removed_blocks, "block");
        let (bytes, freed) = (text::bytes(outcome.removed_bytes), text::bytes(outcome.freed_bytes));
        ui.line(match dry_run {
            true => format!("would remove {blocks} ({bytes})"),
            false => format!("removed {blocks} ({bytes}), which gave {freed} back to the disk"),
        })?;
        ui.detail(format!(
            "{} {}",
            if *dry_run { "would keep" } else { "kept" },
            text::count(outcome.kept_blocks, "block")
        ))
    })
}
