//! Pulling: from a name to a folder, from the folder into a sink.

use chrono::Utc;

use super::Registry;
use super::error::RegistryError;
use super::options::PullOptions;
use super::outcome::{PullBytes, PullOutcome};
use super::places::{Sink, engine_name};
use crate::event::{Emitter, Warning};
use crate::kind::ErrorKind;
use crate::pin::cache::CacheEntry;
use crate::reference::Reference;
use crate::transfer::deliver::{Delivery, DeliverySummary, Extent};

/// See [`Registry::pull`].
pub(super) async fn pull(
    this: &Registry,
    reference: Reference,
    sink: Sink,
    options: PullOptions,
    events: Emitter,
) -> Result<PullOutcome, RegistryError> {
    let chosen = options.name.as_deref().map(engine_name).transpose()?;
    let sink = this.prepare_sink(sink).await?;
    let opened = this.open(&reference, &options.resolve, &events).await?;
    let name = chosen.or_else(|| opened.engine_name());
    let summary = match deliver(this, &opened, sink, name, &options, &events).await {
        Ok(summary) => summary,
        Err(error) => {
            // What was fetched stays for a while where trying again can use it.
            if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Engine) {
                let _ = opened.at.session.abort().await;
            }
            return Err(error);
        }
    };
    let keeping = |error| RegistryError::from_store("keeping the image", error);
    opened.at.session.commit().await.map_err(keeping)?;
    if opened.at.is_foreign() {
        // What was read, not what a manifest claims.
        let read = opened.at.reader.traffic();
        let size = summary.image_bytes.min(read.fetched.saturating_add(read.local));
        let entry = CacheEntry { root: opened.at.root, size, used: Utc::now(), counted: None };
        let written = entry.write(&this.holder.tables(), &opened.found.folder).await;
        written.map_err(|error| RegistryError::from_table("keeping the image", error))?;
        if let Err(error) = this.holder.trim().await {
            let message = format!("pulled images beyond the limit of the cache are still there: {error}");
            events.warn(Warning::Other { message }).await;
        }
    }
    let traffic = opened.at.reader.traffic();
    Ok(PullOutcome {
        reference: opened.full_reference(Some(summary.root.digest)),
        digest: summary.root.digest,
        manifest: summary.manifest,
        platform: summary.platform,
        image_id: summary.image_id,
        cid: opened.found.folder,
        root: opened.at.root,
        chain: opened.at.chain.clone(),
        trust: opened.at.trust,
        bytes: PullBytes { image: summary.image_bytes, fetched: traffic.fetched, local: traffic.local },
        peers: opened.at.peers(),
        gateways: opened.at.gateways(),
        sink: summary.delivered.place,
    })
}

async fn deliver(
    this: &Registry,
    opened: &super::open::Opened,
    sink: super::places::PreparedSink,
    name: Option<String>,
    options: &PullOptions,
    events: &Emitter,
) -> Result<DeliverySummary, RegistryError> {
    let sink = sink.open(name.as_deref(), None, &this.tidying);
    let delivery = Delivery {
        source: opened.source(this, events).await?,
        sink,
        platform: options.platform.clone(),
        extent: if options.all_platforms { Extent::Everything } else { Extent::One },
        name,
        keep: Some(opened.at.session.clone()),
        events: events.clone(),
    };
    delivery.run().await.map_err(|error| RegistryError::from_transfer("pulling the image", error))
}
