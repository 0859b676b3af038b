use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;
use crate::port::conformance::engine::{Sample, stream};
use crate::port::engine::EngineError;
use crate::port::image::{Export, Form, ImageSource, Opened};
use crate::port::memory::engine::MemoryEngine;
use crate::transfer::engine::source::EngineSource;

fn sink(engine: &Arc<impl Engine>, name: Option<&str>) -> Box<dyn ImageSink> {
    Box::new(EngineSink::new(Arc::<_>::clone(engine) as Arc<dyn Engine>, name.map(str::to_owned), "memory"))
}

/// A sink, and what says when it has tidied up.
fn tidied(engine: &Arc<MemoryEngine>) -> (Box<dyn ImageSink>, TaskTracker) {
    let tidying = TaskTracker::new();
    tidying.close();
    let sink = EngineSink::new(Arc::<MemoryEngine>::clone(engine), None, "memory").tidying(tidying.clone());
    (Box::new(sink), tidying)
}

#[tokio::test]
async fn only_what_is_missing_is_asked_for() {
    let engine = Arc::new(MemoryEngine::new());
    let first = Sample::new("first");
    let (asked, delivered) = first.deliver(sink(&engine, None), Some("hub.test/app:1")).await.unwrap();
    assert_eq!(asked, [0, 1, 2]);
    assert_eq!(delivered, Delivered { place: "hub.test/app:1".into(), image_id: Some(first.id()) });

    let second = first.upon();
    let (asked, _) = second.deliver(sink(&engine, Some("other:2")), Some("hub.test/app:1")).await.unwrap();
    assert_eq!(asked, [2]);
    assert_eq!(engine.image("other:2").await.unwrap().unwrap().names, ["other:2"]);
    assert_eq!(engine.image("hub.test/app:1").await.unwrap().unwrap().id, first.id());

    // Again, without a name, and with a further one: nothing is loaded.
    let (asked, delivered) = second.deliver(sink(&engine, None), None).await.unwrap();
    assert!(asked.is_empty() && delivered.place == second.id().to_string());
    second.deliver(sink(&engine, Some("other:3")), None).await.unwrap();
    assert_eq!(engine.image("other:3").await.unwrap().unwrap().names, ["other:2", "other:3"]);
}

#[tokio::test]
async fn layers_whose_size_is_known_are_asked_for_plain() {
    let sample = Sample::new("sizes");
    let mut parts = sample.parts(None);
    let layers = parts.images[0].layers.clone();
    parts.plain_sizes.insert(layers[1].digest, sample.layers[1].len() as u64);
    let needs = sink(&Arc::new(MemoryEngine::new()), None).plan(&parts).await.unwrap();
    let forms: Vec<Form> = needs.iter().map(|need| need.form).collect();
    assert_eq!(forms, [Form::Stored, Form::Plain, Form::Stored]);
}

#[tokio::test]
async fn names_that_others_gave_meanwhile_stay() {
    let (engine, sample) = (Arc::new(MemoryEngine::new()), Sample::new("sample"));
    let names = ["hub.test/app:1", "hub.test/app:latest"];
    let [one, two] = names.map(|name| sample.deliver(sink(&engine, Some(name)), None));
    let (one, two) = tokio::join!(one, two);
    one.unwrap();
    two.unwrap();
    assert_eq!(engine.image(names[0]).await.unwrap().unwrap().names, names);
}

#[tokio::test]
async fn a_sink_that_is_dropped_leaves_nothing() {
    let engine = Arc::new(MemoryEngine::new());
    let sample = Sample::new("dropped");
    let parts = sample.parts(Some("app:1"));
    for written in 0..=3 {
        let mut sink = sink(&engine, None);
        let needs = sink.plan(&parts).await.unwrap();
        assert!(needs.iter().all(|need| need.form == Form::Stored));
        for (need, layer) in needs.iter().zip(&sample.layers).take(written) {
            let bytes = crate::port::conformance::engine::gzip(layer);
            sink.write(need, bytes.len() as u64, stream(bytes)).await.unwrap();
        }
        drop(sink);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(engine.image(&sample.id().to_string()).await.unwrap().is_none(), "after {written} layers");
        assert!(engine.images().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_engine_says_what_is_wrong() {
    let engine = Arc::new(MemoryEngine::new());
    let (sample, other) = (Sample::new("right"), Sample::new("wrong"));
    let swapped = Sample { layers: other.layers.clone(), config: sample.config.clone() };
    let mut parts = swapped.parts(Some("app:1"));
    parts.images[0].diff_ids = sample.diff_ids();
    let mut sink = sink(&engine, None);
    for (need, layer) in sink.plan(&parts).await.unwrap().iter().zip(&swapped.layers) {
        let bytes = crate::port::conformance::engine::gzip(layer);
        sink.write(need, bytes.len() as u64, stream(bytes)).await.unwrap();
    }
    let error = sink.finish().await.unwrap_err();
    assert!(matches!(&error, ImageError::Engine(EngineError::Refused { message, .. }) if message.contains("diffID")));
    assert_eq!(error.kind(), ErrorKind::Engine);
    assert!(engine.image("app:1").await.unwrap().is_none());
}

/// Large enough for steps: the lowest layer alone, the next two, and the rest.
const STEPS: [usize; 4] = [25, 1, 25, 9];

#[tokio::test]
async fn large_images_go_in_steps_of_which_nothing_stays() {
    let engine = Arc::new(MemoryEngine::new());
    let sample = Sample::sized("steps", &STEPS);
    let (asked, _) = sample.deliver(sink(&engine, None), Some("app:1")).await.unwrap();
    assert_eq!((asked, engine.calls()), (vec![0, 1, 2, 3], (2, 1)));
    let images = engine.images().await.unwrap();
    assert_eq!(images.len(), 1, "{images:?}");
    assert_eq!((images[0].id, &images[0].diff_ids), (sample.id(), &sample.diff_ids()));
    // What the engine has is no step.
    let mut second = Sample::sized("second", &[1, 1, 25, 9]);
    second.layers.splice(..2, sample.layers[..2].iter().cloned());
    let mut config: serde_json::Value = serde_json::from_slice(&second.config).unwrap();
    config["rootfs"]["diff_ids"] = serde_json::to_value(second.diff_ids()).unwrap();
    second.config = serde_json::to_vec(&config).unwrap();
    let (asked, _) = second.deliver(sink(&engine, None), Some("app:2")).await.unwrap();
    assert_eq!((asked, engine.calls()), (vec![2, 3], (4, 1)));
    assert_eq!(engine.images().await.unwrap().len(), 2);
}

#[tokio::test]
async fn steps_that_are_dropped_leave_nothing() {
    let engine = Arc::new(MemoryEngine::new());
    let sample = Sample::sized("dropped", &STEPS);
    let parts = sample.parts(Some("app:1"));
    for written in 0..=STEPS.len() {
        let (mut sink, tidying) = tidied(&engine);
        let needs = sink.plan(&parts).await.unwrap();
        assert!(needs.iter().all(|need| need.form == Form::Plain));
        let made = engine.calls().1;
        for (need, layer) in needs.iter().zip(&sample.layers).take(written) {
            sink.write(need, layer.len() as u64, stream(layer.clone())).await.unwrap();
        }
        // The lowest layer passes by itself: what the engine makes of it goes, whether anybody has asked for that or not.
        while written > 0 && engine.calls().1 == made {
            tokio::task::yield_now().await;
        }
        assert_eq!(engine.images().await.unwrap().is_empty(), written == 0);
        drop(sink);
        tidying.wait().await;
        assert!(engine.images().await.unwrap().is_empty(), "after {written} layers");
    }
}

#[tokio::test]
async fn what_a_killed_load_left_behind_goes_with_the_next_one() {
    let engine = Arc::new(MemoryEngine::new());
    let sample = Sample::sized("killed", &STEPS);
    let labels = steps::labels(Utc::now());
    let left = engine.import(stream(sample.layers[0].clone()), &labels).await.unwrap();
    let other = engine.import(stream(Sample::new("other").layers[0].clone()), &labels).await.unwrap();
    let (asked, _) = sample.deliver(sink(&engine, None), Some("app:1")).await.unwrap();
    // It might be of a load that is under way, and go away.
    assert_eq!(asked, [0, 1, 2, 3]);
    assert!(engine.image(&left).await.unwrap().is_none());
    assert!(engine.image(&other).await.unwrap().is_some(), "somebody else may be at it");
    assert!(engine.image("app:1").await.unwrap().is_some());
}

#[tokio::test]
async fn a_step_that_the_engine_refuses_leaves_nothing() {
    for wrong in 0..STEPS.len() {
        let engine = Arc::new(MemoryEngine::new());
        let (sample, other) = (Sample::sized("right", &STEPS), Sample::sized("wrong", &STEPS));
        let mut parts = sample.parts(Some("app:1"));
        parts.images[0].diff_ids[wrong] = other.diff_ids()[wrong];
        let (mut sink, tidying) = tidied(&engine);
        let written = async {
            for (need, layer) in sink.plan(&parts).await?.iter().zip(&sample.layers) {
                sink.write(need, layer.len() as u64, stream(layer.clone())).await?;
            }
            sink.finish().await
        };
        let error = written.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Engine, "{error:?}");
        tidying.wait().await;
        assert!(engine.images().await.unwrap().is_empty(), "layer {wrong}");
    }
}

#[tokio::test]
async fn too_many_layers_and_no_images() {
    let engine = Arc::new(MemoryEngine::new());
    let mut parts = Sample::new("many").parts(None);
    let (layer, diff_id) = (parts.images[0].layers[0].clone(), parts.images[0].diff_ids[0]);
    parts.images[0].layers = vec![layer; 129];
    parts.images[0].diff_ids = vec![diff_id; 129];
    let error = sink(&engine, None).plan(&parts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    parts.images[0].config.0.media_type = "application/vnd.example+json".into();
    assert_eq!(sink(&engine, None).plan(&parts).await.unwrap_err().kind(), ErrorKind::Usage);
}

/// An engine that takes an archive and keeps another image.
#[derive(Debug)]
struct Liar(MemoryEngine, Vec<u8>);

#[async_trait]
impl Engine for Liar {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.0.info().await
    }
    async fn image(&self, name: &str) -> Result<Option<EngineImage>, EngineError> {
        self.0.image(name).await
    }
    async fn images(&self) -> Result<Vec<EngineImage>, EngineError> {
        self.0.images().await
    }
    async fn export(&self, name: &str) -> Result<ByteStream, EngineError> {
        self.0.export(name).await
    }
    async fn load(&self, mut archive: ByteStream) -> Result<Loaded, EngineError> {
        archive.read_to_end(&mut Vec::new()).await.map_err(|source| EngineError::Archive { source })?;
        self.0.load(stream(self.1.clone())).await
    }
    async fn import(&self, layer: ByteStream, labels: &BTreeMap<String, String>) -> Result<String, EngineError> {
        self.0.import(layer, labels).await
    }
    async fn tag(&self, image_id: &str, name: &str) -> Result<(), EngineError> {
        self.0.tag(image_id, name).await
    }
    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.0.remove(name).await
    }
}

#[tokio::test]
async fn what_the_engine_holds_is_compared() {
    let (sample, other) = (Sample::new("sent"), Sample::new("kept"));
    let engine = Arc::new(Liar(MemoryEngine::new(), other.bytes(&[], &[])));
    let error = sample.deliver(sink(&engine, None), Some("app:1")).await.unwrap_err();
    let ImageError::Mismatch { expected, found, .. } = &error else { panic!("{error:?}") };
    assert_eq!((expected, found), (&sample.id().to_string(), &other.id().to_string()));
    assert_eq!(error.kind(), ErrorKind::Engine);
    assert!(engine.image("app:1").await.unwrap().is_none());
    assert!(engine.image(&other.id().to_string()).await.unwrap().is_none(), "it was taken away again");
}

async fn exported(engine: &Arc<MemoryEngine>, name: &str) -> Box<dyn Export> {
    let source = EngineSource::new(Arc::<MemoryEngine>::clone(engine), name, "memory");
    match source.open().await.unwrap() {
        Opened::Export(export) => export,
        Opened::Blobs(_) => panic!("it has no manifests"),
    }
}

#[tokio::test]
async fn a_source_gives_layers_and_configuration() {
    let engine = Arc::new(MemoryEngine::new());
    let sample = Sample::new("source");
    engine.load(sample.archive(&["app:1"], &[])).await.unwrap();
    let mut export = exported(&engine, "app:1").await;
    let mut layers = Vec::new();
    while let Some(mut layer) = export.next_layer().await.unwrap() {
        let mut bytes = Vec::new();
        layer.data.read_to_end(&mut bytes).await.unwrap();
        layers.push(Digest::sha256(&bytes));
    }
    let images = export.images().await.unwrap();
    assert_eq!((images.len(), &images[0].config[..]), (1, &sample.config[..]));
    assert_eq!((&images[0].names[..], images[0].layers.len()), (&["app:1".to_owned()][..], 3));
    assert_eq!(layers, sample.diff_ids());
    let missing = EngineSource::new(engine, "app:2", "memory").open().await.unwrap_err();
    assert!(matches!(missing, ImageError::NoImage { name, .. } if name == "app:2"));
}

#[tokio::test]
async fn an_export_that_breaks_is_the_engines_failure() {
    let engine = Arc::new(MemoryEngine::new());
    engine.load(Sample::new("breaks").archive(&["app:1"], &[])).await.unwrap();
    for bytes in [1500, 2600, 8000] {
        engine.break_exports_after(Some(bytes));
        let mut export = exported(&engine, "app:1").await;
        let error = loop {
            match export.next_layer().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it did not end"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ImageError::Engine(EngineError::Broken { .. })), "{error:?}");
    }
}
