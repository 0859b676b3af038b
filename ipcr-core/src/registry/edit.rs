//! Editing this registry: tag, remove, publish.

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
use crate::event::Emitter;
use crate::exchange::reader::Reader;
use crate::kind::{Cause, ErrorKind};
use crate::port::image::Opened as Source;
use crate::reference::{Reference, TargetName};
use crate::transfer::adopt::adopt;
use crate::transfer::ingest::{IngestOptions, Intake};
use crate::transfer::ledger::Ledger;
use crate::tree::edit::{Edit, apply};
use crate::tree::error::TreeError;
use crate::tree::read::{self, Contents, TagSummary};
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
    let removal = Removal::of(this, target).await?;
    // What is not here may be in what another home has published: only the change itself knows that.
    let done = change(this, vec![removal.edit.clone()], removal.goes.clone(), &options, &events).await;
    done.map_err(|error| if error.kind() == ErrorKind::NotFound { removal.missing(error) } else { error })
}

/// See [`Registry::plan_remove`].
pub(super) async fn plan_remove(this: &Registry, target: RemoveTarget) -> Result<Vec<String>, RegistryError> {
    let removal = Removal::of(this, target).await?;
    // The edit itself, whose result is thrown away, refuses what it would refuse.
    match apply(&removal.reader, &removal.root, std::slice::from_ref(&removal.edit), None).await {
        Ok(_) => Ok(removal.goes),
        Err(error) => {
            let error = RegistryError::from_tree("changing the registry", error);
            Err(if error.kind() == ErrorKind::NotFound { removal.missing(error) } else { error })
        }
    }
}

/// Something that is to be taken out of this registry.
struct Removal {
    registry: String,
    root: Cid,
    reader: Reader,
    edit: Edit,
    /// What it is, for people.
    what: String,
    /// What goes with it.
    goes: Vec<String>,
}

impl Removal {
    async fn of(this: &Registry, target: RemoveTarget) -> Result<Self, RegistryError> {
        let identity = this.holder.identity().await?;
        let root = this.own_root().await?;
        let registry = identity.domain.unwrap_or(identity.ipns);
        let what = match &target {
            RemoveTarget::Tag(TargetName { image, tag }) => format!("tag {image}:{tag}"),
            RemoveTarget::Digest(image, digest) => format!("manifest {image}@{digest}"),
            RemoveTarget::Image(image) => format!("image {image}"),
        };
        let Some(root) = root else { return Err(RegistryError::NotFound { registry, what, source: None }) };
        let reader = this.own_reader(&root).await?;
        let (RemoveTarget::Tag(TargetName { image, .. }) | RemoveTarget::Digest(image, _) | RemoveTarget::Image(image)) =
            &target;
        let tags = match read::tags(&reader, &root, image).await {
            Ok(tags) => tags,
            Err(TreeError::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(RegistryError::from_tree("reading the registry", error)),
        };
        let gone = tags.iter().filter(|row| match &target {
            RemoveTarget::Tag(name) => row.tag == name.tag.as_str(),
            RemoveTarget::Digest(_, digest) => row.digest == Some(*digest),
            RemoveTarget::Image(_) => true,
        });
        let spell = |row: &TagSummary| match row.digest {
            Some(digest) => format!("{image}:{}@{digest}", row.tag),
            None => format!("{image}:{}", row.tag),
        };
        let mut goes: Vec<String> = gone.map(spell).collect();
        match &target {
            RemoveTarget::Tag(name) if goes.is_empty() => goes.push(name.to_string()),
            RemoveTarget::Tag(_) => {}
            RemoveTarget::Digest(image, digest) => goes.push(format!("{image}@{digest}")),
            RemoveTarget::Image(image) => goes.push(image.to_string()),
        }
        let edit = match target {
            RemoveTarget::Tag(TargetName { image, tag }) => Edit::RemoveTag { image, tag },
            RemoveTarget::Digest(image, digest) => Edit::RemoveDigest { image, digest },
            RemoveTarget::Image(image) => Edit::RemoveImage { image },
        };
        Ok(Self { registry, root, reader, edit, what, goes })
    }

    /// That it is not there.
    fn missing(self, error: RegistryError) -> RegistryError {
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        // Mostly the deepest cause is the same in other words.
        let said = causes.last().is_some_and(|cause| cause.to_string().ends_with(&self.what));
        let source: Option<Cause> = if said { None } else { Some(Box::new(error)) };
        RegistryError::NotFound { registry: self.registry, what: self.what, source }
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
    let PublishOptions { publish, force, wait, .. } = *options;
    let request = ChangeRequest { edits, publish, force, wait, manner: this.manner() };
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
