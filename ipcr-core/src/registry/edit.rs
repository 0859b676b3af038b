//! Editing this registry: tag, remove, publish.

use std::collections::BTreeMap;
use std::sync::Arc;

use cid::Cid;

use super::Registry;
use super::error::RegistryError;
use super::holder::{ChangeRequest, Changed};
use super::open::Opened;
use super::options::{PublishOptions, RemoveTarget, ResolveOptions};
use super::outcome::EditOutcome;
use super::{push, time_of};
use crate::dag::compression::Compression;
use crate::dag::encode::Encoding;
use crate::digest::Digest;
use crate::event::Emitter;
use crate::kind::ErrorKind;
use crate::port::image::Opened as Source;
use crate::reference::{ImageName, Reference, TargetName};
use crate::transfer::adopt::adopt;
use crate::transfer::ingest::{IngestOptions, Intake};
use crate::transfer::ledger::Ledger;
use crate::tree::edit::Edit;
use crate::tree::read::{self, Contents};
use crate::tree::stored::StoredImage;

/// See [`Registry::tag`].
pub(super) async fn tag(
    this: &Registry,
    from: Reference,
    to: TargetName,
    options: PublishOptions,
    events: Emitter,
) -> Result<EditOutcome, RegistryError> {
    this.holder.identity().await?;
    let opened = this.open(&from, &ResolveOptions::default(), &events).await?;
    let stored = match take_over(this, &opened, &events).await {
        Ok(stored) => stored,
        Err(error) => {
            // What was fetched stays for a while where trying again can use it.
            if error.kind() != ErrorKind::Unavailable {
                let _ = opened.at.session.abort().await;
            }
            return Err(error);
        }
    };
    let digest = stored.root.digest;
    let edit = Edit::SetTag {
        image: to.image.clone(),
        tag: to.tag.clone(),
        stored: Box::new(stored),
        description: None,
        readme: None,
        pushed: time_of(&options),
    };
    change(this, vec![edit], vec![format!("{}:{}@{digest}", to.image, to.tag)], &options, &events).await
}

/// Makes an image, durably, one of this home's own.
async fn take_over(this: &Registry, opened: &Opened, events: &Emitter) -> Result<StoredImage, RegistryError> {
    let failed = |error| RegistryError::from_transfer("taking the image over", error);
    let source = opened.source(this, events).await?;
    // Files that are stored already are linked as they are; what only others hold is fetched.
    let ledger = Ledger::new(this.holder.tables(), this.holder.blocks()).within(&opened.at.session);
    let (stored, unpacked) = match &opened.found.contents {
        Contents::Layout(layout) => {
            adopt(source.as_ref(), layout, opened.home().as_ref(), &opened.at.reader, &ledger).await.map_err(failed)?
        }
        _ => {
            let options = IngestOptions {
                encoding: Encoding::current(Compression::default()),
                recompress: false,
                platform: None,
            };
            let intake = Intake::new(ledger.clone(), Arc::clone(&opened.at.session), events.clone(), options);
            (intake.ingest(Source::Blobs(source)).await.map_err(failed)?.image, Vec::new())
        }
    };
    opened.at.session.commit().await.map_err(|error| RegistryError::from_store("keeping the image", error))?;
    ledger.remember_unpacked(&unpacked).await.map_err(failed)?;
    Ok(stored)
}

/// See [`Registry::remove`].
pub(super) async fn remove(
    this: &Registry,
    target: RemoveTarget,
    options: PublishOptions,
    events: Emitter,
) -> Result<EditOutcome, RegistryError> {
    let identity = this.holder.identity().await?;
    let Some(root) = this.own_root().await? else {
        return Err(RegistryError::NotFound {
            registry: identity.domain.unwrap_or(identity.ipns),
            what: match target {
                RemoveTarget::Tag(target) => format!("image {}:{}", target.image, target.tag),
                RemoveTarget::Digest(image, digest) => format!("image {image}@{digest}"),
                RemoveTarget::Image(image) => format!("image {image}"),
            },
            source: None,
        });
    };
    let (edit, what) = match target {
        RemoveTarget::Tag(TargetName { image, tag }) => {
            let digest = this.tags(&root, &image).await?.remove(tag.as_str());
            let what = digest.map_or_else(|| format!("{image}:{tag}"), |digest| format!("{image}:{tag}@{digest}"));
            (Edit::RemoveTag { image, tag }, vec![what])
        }
        RemoveTarget::Digest(image, digest) => {
            let tags = this.tags(&root, &image).await?;
            let tags = tags.iter().filter(|(_, named)| **named == digest);
            let mut what: Vec<String> = tags.map(|(tag, digest)| format!("{image}:{tag}@{digest}")).collect();
            what.push(format!("{image}@{digest}"));
            (Edit::RemoveDigest { image, digest }, what)
        }
        RemoveTarget::Image(image) => {
            let tags = this.tags(&root, &image).await?;
            let mut what: Vec<String> = tags.iter().map(|(tag, digest)| format!("{image}:{tag}@{digest}")).collect();
            what.push(image.to_string());
            (Edit::RemoveImage { image }, what)
        }
    };
    change(this, vec![edit], what, &options, &events).await
}

impl Registry {
    /// What the tags of an image of this registry name.
    async fn tags(&self, root: &Cid, image: &ImageName) -> Result<BTreeMap<String, Digest>, RegistryError> {
        let reader = self.own_reader(root).await?;
        let document = read::image(&reader, root, image).await;
        let document = document.map_err(|error| RegistryError::from_tree("reading the registry", error))?;
        let tags = document.map(|document| document.tags).unwrap_or_default();
        Ok(tags.into_iter().map(|(tag, row)| (tag, row.digest)).collect())
    }
}

/// See [`Registry::publish`].
pub(super) async fn publish(
    this: &Registry,
    options: PublishOptions,
    events: Emitter,
) -> Result<EditOutcome, RegistryError> {
    let options = PublishOptions { publish: true, ..options };
    change(this, Vec::new(), Vec::new(), &options, &events).await
}

async fn change(
    this: &Registry,
    edits: Vec<Edit>,
    changed: Vec<String>,
    options: &PublishOptions,
    events: &Emitter,
) -> Result<EditOutcome, RegistryError> {
    let request = ChangeRequest { edits, publish: options.publish, force: options.force, wait: options.wait };
    let done: Changed = this.holder.change(request, events.clone()).await?;
    push::warn_about(&done, options.publish, events).await;
    Ok(EditOutcome {
        changed,
        root: done.root,
        ipns: done.ipns,
        sequence: done.sequence,
        published: done.published,
        holders: done.holders,
        findable: done.findable,
        unchanged: done.unchanged,
    })
}
