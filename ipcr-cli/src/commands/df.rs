//! `ipcr df`: what the home uses.

use ipcr_core::registry::outcome::UsageOutcome;

use crate::context::Context;
use crate::failure::Failure;
use crate::text;

/// Shows what the home uses, and what for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  ipcr df

Each block counts once: a layer that several images share for the first of the lines that needs it.")]
pub(crate) struct Args {}

pub(crate) async fn run(context: &Context<'_>, _: &Args) -> Result<(), Failure> {
    let (outcome, warnings) = context.watch(context.registry.usage()).await?;
    context.show(&outcome, &warnings, |ui, outcome| {
        text::table(&rows(outcome)).into_iter().try_for_each(|line| ui.line(line))
    })
}

fn rows(outcome: &UsageOutcome) -> [[String; 3]; 9] {
    let UsageOutcome { own, metadata, cache, interrupted, reclaimable, files, disk } = outcome;
    let row = |what: &str, bytes: u64, note: String| [what.to_owned(), text::bytes(bytes), note];
    let blocks = |count: u64| text::count(count, "block");
    [
        row(
            "own images",
            own.bytes,
            format!("{}, {}, {}", text::count(own.images, "image"), text::count(own.tags, "tag"), blocks(own.blocks)),
        ),
        row("metadata", metadata.bytes, blocks(metadata.blocks)),
        row(
            "cache",
            cache.bytes,
            format!(
                "{}, {}, limit {}",
                text::count(cache.images, "image"),
                blocks(cache.blocks),
                text::bytes(cache.limit)
            ),
        ),
        row("interrupted", interrupted.bytes, blocks(interrupted.blocks)),
        row("gc would free", reclaimable.bytes, blocks(reclaimable.blocks)),
        row("packs", files.packs, "on disk".into()),
        row("index", files.index, "on disk".into()),
        row("tables", files.tables, "on disk".into()),
        row("disk free", disk.free, format!("of {}", text::bytes(disk.size))),
    ]
}
