//! `ipcr ls`: images and tags.

use chrono::{DateTime, Utc};
use ipcr_core::digest::Digest;
use ipcr_core::reference::{Authority, ImageName};
use ipcr_core::registry::outcome::{ListedImage, ListedTag, Listing};

use crate::context::Context;
use crate::failure::Failure;
use crate::text;
use crate::ui::Ui;

/// Lists the images of a registry, or the tags of an image.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ipcr ls
  ipcr ls some.domain
  ipcr ls some.domain/app")]
pub(crate) struct Args {
    /// A registry or an image of one [default: this registry]
    #[arg(value_name = "REF")]
    pub(crate) reference: Option<String>,
}

pub(crate) async fn run(context: &Context<'_>, args: &Args) -> Result<(), Failure> {
    let (registry, image) = match &args.reference {
        None => (None, None),
        Some(text) => target(context, text)?,
    };
    let (listing, warnings) = context.watch(context.registry.list(registry, image, context.resolving())).await?;
    context.show(&listing, &warnings, lines)
}

/// A registry, or an image of one.
fn target(context: &Context<'_>, text: &str) -> Result<(Option<Authority>, Option<ImageName>), Failure> {
    let reference = context.registry_or_image(text)?;
    if reference.tag.is_some() || reference.digest.is_some() {
        let hint = format!("`ipcr inspect {text}` shows one image");
        return Err(Failure::usage("`ls` lists registries and images, not tags").with_hint(hint));
    }
    Ok((reference.authority, reference.image))
}

fn lines(ui: &Ui, listing: &Listing) -> Result<(), Failure> {
    if listing.images.is_empty() {
        ui.talk(format!("{} has no images", listing.registry));
        return Ok(());
    }
    let of_one = listing.images.iter().any(|image| !image.tags.is_empty());
    match (ui.is_quiet(), of_one) {
        (true, false) => listing.images.iter().try_for_each(|image| ui.line(&image.name)),
        (true, true) => all_tags(listing).try_for_each(|(image, tag)| ui.line(format!("{}:{}", image.name, tag.tag))),
        (false, false) => images(ui, listing),
        (false, true) => tags(ui, listing),
    }
}

fn all_tags(listing: &Listing) -> impl Iterator<Item = (&ListedImage, &ListedTag)> {
    listing.images.iter().flat_map(|image| image.tags.iter().map(move |tag| (image, tag)))
}

fn images(ui: &Ui, listing: &Listing) -> Result<(), Failure> {
    let mut rows = vec![["IMAGE", "NEWEST", "SIZE", "UPDATED", "DESCRIPTION"].map(str::to_owned)];
    rows.extend(listing.images.iter().map(|image| {
        [
            image.name.clone(),
            image.newest.clone().unwrap_or_default(),
            image.size.map(text::bytes).unwrap_or_default(),
            image.updated.map(time).unwrap_or_default(),
            image.description.clone().unwrap_or_default(),
        ]
    }));
    text::table(&rows).iter().try_for_each(|line| ui.line(line))
}

fn tags(ui: &Ui, listing: &Listing) -> Result<(), Failure> {
    let mut rows = vec![["IMAGE", "TAG", "DIGEST", "SIZE", "PUSHED", "PLATFORMS"].map(str::to_owned)];
    rows.extend(all_tags(listing).map(|(image, tag)| {
        let short = |digest: Digest| format!("{}:{}", digest.algorithm().name(), &digest.hex()[..12]);
        [
            image.name.clone(),
            tag.tag.clone(),
            tag.digest.map(short).unwrap_or_default(),
            tag.size.map(text::bytes).unwrap_or_default(),
            tag.pushed.map(time).unwrap_or_default(),
            tag.platforms.join(","),
        ]
    }));
    text::table(&rows).iter().try_for_each(|line| ui.line(line))
}

fn time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M").to_string()
}
