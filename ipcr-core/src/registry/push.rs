//! Pushing: from a source into the store, from the store into the registry.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::error::RegistryError;
use super::holder::{ChangeRequest, Changed};
use super::options::PushOptions;
use super::outcome::{Identity, PlannedLayer, PushBytes, PushEncoding, PushOutcome, PushPlan, Recompress};
use super::places::{OpenedSource, Source};
use super::{Registry, time_of};
use crate::dag::encode::Encoding;
use crate::digest::Digest;
use crate::event::{Emitter, Stage, Warning};
use crate::image::config::parse_config;
use crate::image::manifest::{Parsed, parse_manifest};
use crate::limits;
use crate::port::blocks::StoreSession;
use crate::port::image::{Blobs, Opened};
use crate::reference::TargetName;
use crate::transfer::error::{TransferError, check_platform};
use crate::transfer::ingest::{IngestOptions, Ingested, Intake};
use crate::transfer::ledger::Ledger;
use crate::transfer::manifests::{ManifestTree, read_blob, read_tree};
use crate::transfer::recompress::is_recompressible;
use crate::tree::edit::Edit;
use crate::tree::read::{self, Wanted};
use crate::tree::stored::{StoredBlob, StoredImage};
use crate::tree::tags::tag_digest;

/// See [`Registry::push`].
pub(super) async fn push(
    this: &Registry,
    source: Source,
    options: PushOptions,
    events: Emitter,
) -> Result<PushOutcome, RegistryError> {
    check_texts(&options)?;
    events.stage(Stage::Inspecting).await;
    let identity = this.holder.identity().await?;
    let source = this.open_source(source, &events).await?;
    check_engine(&source, &options)?;
    let known_name = known_target(&options, &source)?;
    for repo_digest in source.lost_digests() {
        events.warn(Warning::DigestLost { repo_digest: repo_digest.to_string() }).await;
    }
    let session: Arc<dyn StoreSession> =
        Arc::from(this.holder.blocks().begin(limits::LEASE).await.map_err(|e| step("opening the store", e.into()))?);
    // The session lives until the registry names what is in it, known files included: no collection comes between.
    let taken = take_in(this, &source, known_name, &session, &options, &events).await;
    let Taken { target, ingested, new_bytes } = match taken {
        Ok(taken) => taken,
        Err(error) => {
            // What was stored for nothing is given up at once; the error that led here is what matters.
            let _ = session.abort().await;
            return Err(error);
        }
    };
    let edit = Edit::SetTag {
        image: target.image.clone(),
        tag: target.tag.clone(),
        stored: Box::new(ingested.image.clone()),
        description: options.description.clone(),
        readme: options.readme.clone(),
        pushed: time_of(&options.publish),
    };
    let request = ChangeRequest {
        edits: vec![edit],
        publish: options.publish.publish,
        force: options.publish.force,
        wait: options.publish.wait,
        manner: this.manner(),
    };
    let changed = this.holder.change(request, events.clone()).await?;
    warn_about(&changed, options.publish.publish, &events).await;
    let bytes = PushBytes { image: ingested.image.size(), stored: ingested.stored_bytes, new: new_bytes };
    outcome(this, &identity, &target, &ingested, &changed, bytes).await
}

/// An image that is stored, durably.
struct Taken {
    target: TargetName,
    ingested: Ingested,
    /// Block bytes that were not in the store before.
    new_bytes: u64,
}

/// Stores the image and makes it durable. A name that only the source knows is looked at as early as the source tells it.
async fn take_in(
    this: &Registry,
    source: &OpenedSource,
    known_name: Option<TargetName>,
    session: &Arc<dyn StoreSession>,
    options: &PushOptions,
    events: &Emitter,
) -> Result<Taken, RegistryError> {
    let ledger = Ledger::new(this.holder.tables(), this.holder.blocks()).within(session);
    let encoding = Encoding::current(options.compression);
    let intake = Intake::new(
        ledger.clone(),
        Arc::clone(session),
        events.clone(),
        IngestOptions { encoding, recompress: options.recompress, platform: options.platform.clone() },
    );
    let storing = |error| step("storing the image", error);
    if let Some(image_id) = source.image_id()
        && let Some(image) = ledger.image(&image_id, &encoding.to_string()).await.map_err(storing)?
    {
        let target = known_name.map_or_else(|| named_by_source(None, source), Ok)?;
        // All of it is durable: nothing is written, and nothing stays leased when the session ends.
        session.commit().await.map_err(|error| storing(error.into()))?;
        return Ok(Taken { target, ingested: Ingested::known(image, image_id), new_bytes: 0 });
    }
    let (known_name, ingested) = if let Some(taken) = source.take_in_place(&intake).await {
        (known_name, taken)
    } else {
        let opened = source.open().await.map_err(|error| step("opening the source", error))?;
        let known_name = match (known_name, &opened) {
            (None, Opened::Blobs(blobs)) => Some(named_by_source(blobs.name().as_deref(), source)?),
            (known_name, _) => known_name,
        };
        (known_name, intake.ingest(opened).await)
    };
    let ingested = ingested.map_err(storing)?;
    let target = match known_name {
        Some(target) => target,
        None => named_by_source(ingested.name.as_deref(), source)?,
    };
    events.stage(Stage::Committing).await;
    session.commit().await.map_err(|error| storing(error.into()))?;
    ingested.remember(&ledger).await.map_err(storing)?;
    Ok(Taken { target, ingested, new_bytes: intake.new_bytes() })
}

async fn outcome(
    this: &Registry,
    identity: &Identity,
    target: &TargetName,
    ingested: &Ingested,
    changed: &Changed,
    bytes: PushBytes,
) -> Result<PushOutcome, RegistryError> {
    let reader = this.own_reader(&changed.root).await?;
    let found = read::find(&reader, &changed.root, &target.image, &Wanted::Tag(target.tag.clone()))
        .await
        .map_err(|error| RegistryError::from_tree("reading the registry", error))?;
    let authority = identity.domain.clone().unwrap_or_else(|| changed.ipns.clone());
    let digest = ingested.image.root.digest;
    Ok(PushOutcome {
        reference: format!("{authority}/{}:{}@{digest}", target.image, target.tag),
        name: target.image.to_string(),
        tag: target.tag.to_string(),
        digest,
        image_id: ingested.image_id,
        cid: found.folder,
        root: changed.root,
        ipns: changed.ipns.clone(),
        sequence: changed.sequence,
        published: changed.published,
        holders: changed.holders.clone(),
        findable: changed.findable,
        unchanged: changed.unchanged,
        encodings: encodings(&ingested.image),
        recompress: ingested.repeated.map(|shared| Recompress { shared }),
        bytes,
    })
}

/// How the layers of all container images are stored, each layer once.
fn encodings(image: &StoredImage) -> Vec<PushEncoding> {
    let blobs: HashMap<Digest, &StoredBlob> = image.blobs.iter().map(|blob| (blob.digest, blob)).collect();
    let mut seen = HashSet::new();
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for stored in &image.manifests {
        let Ok(Parsed::Manifest(manifest)) = parse_manifest(stored.bytes.clone(), &stored.descriptor.media_type) else {
            continue;
        };
        let layers = manifest.layers.iter().filter(|_| manifest.is_image());
        for blob in layers.filter(|layer| seen.insert(layer.digest)).filter_map(|layer| blobs.get(&layer.digest)) {
            let encoding = blob.encoding.as_ref().map_or("opaque", |encoding| &encoding.id);
            let (layers, bytes) = sums.entry(encoding).or_default();
            *layers += 1;
            *bytes += blob.size;
        }
    }
    let row = |(encoding, (layers, bytes)): (&str, _)| PushEncoding { encoding: encoding.to_owned(), layers, bytes };
    sums.into_iter().map(row).collect()
}

/// See [`Registry::plan_push`].
pub(super) async fn plan(
    this: &Registry,
    source: Source,
    options: PushOptions,
    events: Emitter,
) -> Result<PushPlan, RegistryError> {
    check_texts(&options)?;
    events.stage(Stage::Inspecting).await;
    this.holder.identity().await?;
    let source = this.open_source(source, &events).await?;
    check_engine(&source, &options)?;
    let ledger = Ledger::new(this.holder.tables(), this.holder.blocks());
    let encoding = Encoding::current(options.compression).to_string();
    let mut target = known_target(&options, &source)?;
    let looking = |error| step("looking at the source", error);
    let mut digest = None;
    let mut layers = Vec::new();
    if let Some(image) = source.engine_image() {
        for diff_id in &image.diff_ids {
            let known = ledger.layer(diff_id, &encoding).await.map_err(looking)?;
            layers.push(PlannedLayer { digest: Some(*diff_id), known: known.is_some(), size: None });
        }
        if let Some(image_id) = source.image_id() {
            let known = ledger.image(&image_id, &encoding).await.map_err(looking)?;
            digest = known.map(|image| image.root.digest);
        }
    } else if let Opened::Blobs(blobs) = source.open().await.map_err(looking)? {
        let tree = read_tree(blobs.as_ref(), options.platform.as_ref()).await.map_err(looking)?;
        digest = Some(tree.root.digest).filter(|_| !options.recompress);
        if target.is_none() {
            target = Some(named_by_source(blobs.name().as_deref(), &source)?);
        }
        let diff_ids = if options.recompress { recompressed(blobs.as_ref(), &tree).await? } else { HashMap::new() };
        let configs = tree.configs();
        for layer in tree.blobs().into_iter().filter(|blob| !configs.contains(&blob.digest)) {
            let known = match diff_ids.get(&layer.digest) {
                Some(diff_id) => ledger.layer(diff_id, &encoding).await.map_err(looking)?.is_some(),
                None => ledger.blob(&layer.digest).await.map_err(looking)?.is_some(),
            };
            layers.push(PlannedLayer { digest: Some(layer.digest), known, size: Some(layer.size) });
        }
    }
    let current = match &target {
        Some(target) => current_digest(this, target).await?,
        None => None,
    };
    Ok(PushPlan {
        source: source.describe(),
        name: target.as_ref().map(|target| target.image.to_string()),
        tag: target.as_ref().map(|target| target.tag.to_string()),
        current,
        digest,
        reads_source: digest.is_none() || layers.iter().any(|layer| !layer.known),
        unchanged: digest.is_some() && digest == current,
        layers,
        publish: options.publish.publish,
    })
}

/// The uncompressed digests of the layers that would be compressed again.
async fn recompressed(source: &dyn Blobs, tree: &ManifestTree) -> Result<HashMap<Digest, Digest>, RegistryError> {
    let looking = |error| step("looking at the source", error);
    let mut diff_ids = HashMap::new();
    for parsed in &tree.parsed {
        if let Parsed::Manifest(manifest) = parsed
            && is_recompressible(manifest)
        {
            let config = read_blob(source, &manifest.config, limits::CONFIG_BYTES).await.map_err(looking)?;
            let found = parse_config(config).map(|config| config.diff_ids).unwrap_or_default();
            diff_ids.extend(manifest.layers.iter().map(|layer| layer.digest).zip(found));
        }
    }
    Ok(diff_ids)
}

/// What a tag of this registry names now.
async fn current_digest(this: &Registry, target: &TargetName) -> Result<Option<Digest>, RegistryError> {
    let Some(root) = this.own_root().await? else { return Ok(None) };
    let reader = this.own_reader(&root).await?;
    tag_digest(&reader, &root, &target.image, &target.tag)
        .await
        .map_err(|error| RegistryError::from_tree("reading the registry", error))
}

/// The name to push under, as far as it is known before the source is read.
fn known_target(options: &PushOptions, source: &OpenedSource) -> Result<Option<TargetName>, RegistryError> {
    if let Some(target) = &options.target {
        return Ok(Some(target.clone()));
    }
    match source.name() {
        Some(name) => named_by_source(Some(name), source).map(Some),
        None => Ok(None),
    }
}

fn named_by_source(name: Option<&str>, source: &OpenedSource) -> Result<TargetName, RegistryError> {
    let needed = || RegistryError::NameNeeded { source_name: source.describe() };
    TargetName::from_engine(name.ok_or_else(needed)?).map_err(|_| needed())
}

/// Refuses an engine's image that is for another platform than the one that was asked for, before it is read.
fn check_engine(source: &OpenedSource, options: &PushOptions) -> Result<(), RegistryError> {
    match (source.engine_image(), source.image_id()) {
        (Some(image), Some(_)) => check_platform(&image.platform, options.platform.as_ref())
            .map_err(|error| step("looking at the source", error)),
        _ => Ok(()),
    }
}

fn check_texts(options: &PushOptions) -> Result<(), RegistryError> {
    let size = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    if size(&options.description) > limits::DESCRIPTION_BYTES {
        let message = format!("the description has more than {} bytes", limits::DESCRIPTION_BYTES);
        return Err(RegistryError::Usage { message });
    }
    if options.description.as_deref().is_some_and(|text| text.chars().any(char::is_control)) {
        return Err(RegistryError::Usage { message: "the description is more than one line of text".into() });
    }
    if u64::try_from(size(&options.readme)).unwrap_or(u64::MAX) > limits::README_BYTES {
        let message = format!("the README has more than {} bytes", limits::README_BYTES);
        return Err(RegistryError::Usage { message });
    }
    Ok(())
}

/// Tells what a user should know about a change that went well.
pub(super) async fn warn_about(changed: &Changed, publish: bool, events: &Emitter) {
    if publish && changed.holders.is_empty() && !changed.serving {
        events.warn(Warning::OnlyHolder).await;
    }
}

fn step(doing: &'static str, error: TransferError) -> RegistryError {
    RegistryError::from_transfer(doing, error)
}
