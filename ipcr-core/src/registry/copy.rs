//! Copying between any source and any sink.

use std::sync::Arc;

use futures::future::Either;

use super::Registry;
use super::error::RegistryError;
use super::options::CopyOptions;
use super::outcome::CopyOutcome;
use super::places::{Sink, Source, engine_name};
use crate::dag::encode::Encoding;
use crate::event::{Emitter, Stage};
use crate::exchange::reader::Reader;
use crate::limits;
use crate::port::blocks::StoreSession;
use crate::port::image::{Blobs, Opened};
use crate::transfer::deliver::{Delivery, Extent};
use crate::transfer::ingest::{IngestOptions, Intake};
use crate::transfer::ledger::Ledger;
use crate::transfer::stored::StoredSource;

/// See [`Registry::copy`].
///
/// A source with manifests is passed on as it is read. One without is taken into the store first, because the sink has to
/// know the manifest before the layers; what was stored for it is not kept.
pub(super) async fn copy(
    this: &Registry,
    source: Source,
    sink: Sink,
    options: CopyOptions,
    events: Emitter,
) -> Result<CopyOutcome, RegistryError> {
    events.stage(Stage::Inspecting).await;
    let chosen = options.name.as_deref().map(engine_name).transpose()?;
    let sink = this.prepare_sink(sink).await?;
    let source = this.open_source(source, &events).await?;
    let ledger = Ledger::new(this.holder.tables(), this.holder.blocks());
    let encoding = Encoding::current(options.compression);
    let session: Arc<dyn StoreSession> = Arc::from(
        this.holder
            .blocks()
            .begin(limits::LEASE)
            .await
            .map_err(|error| RegistryError::from_store("opening the store", error))?,
    );
    let copied = async {
        let failed = |error| RegistryError::from_transfer("opening the source", error);
        let intake = Intake::new(
            ledger.clone(),
            Arc::clone(&session),
            events.clone(),
            IngestOptions { encoding, recompress: false, platform: options.platform.clone() },
        );
        let contents = match source.take_in_place(&intake).await {
            Some(taken) => Either::Right(taken),
            None => match source.open().await.map_err(failed)? {
                Opened::Blobs(blobs) => Either::Left(blobs),
                export @ Opened::Export(_) => Either::Right(intake.ingest(export).await),
            },
        };
        let (blobs, name, ref_name): (Arc<dyn Blobs>, Option<String>, Option<String>) = match contents {
            Either::Left(blobs) => {
                let (name, ref_name) = (blobs.name(), blobs.ref_name());
                (blobs, name, ref_name)
            }
            Either::Right(taken) => {
                let taken = taken.map_err(|error| RegistryError::from_transfer("reading the source", error))?;
                let reader = Reader::local(this.holder.blocks());
                (Arc::new(StoredSource::new(source.describe(), taken.image, reader)), taken.name, taken.ref_name)
            }
        };
        let name = chosen.or_else(|| source.delivered_name().map(str::to_owned)).or(name);
        let sink = sink.open(name.as_deref(), ref_name, &this.tidying);
        let delivery = Delivery {
            source: blobs,
            sink,
            platform: options.platform.clone(),
            extent: if options.all_platforms { Extent::AsMuchAsFits } else { Extent::One },
            name,
            keep: None,
            events: events.clone(),
        };
        delivery.run().await.map_err(|error| RegistryError::from_transfer("copying the image", error))
    };
    let copied = copied.await;
    let _ = session.abort().await;
    let summary = copied?;
    Ok(CopyOutcome {
        source: source.describe(),
        sink: summary.delivered.place,
        digest: summary.delivered_digest,
        image_id: summary.image_id,
        bytes: summary.image_bytes,
    })
}
