//! `manifest.json`, the table of contents of `docker save` archives: [`images`].

use serde::{Deserialize, Serialize};

use super::archive::header::inside;
use super::files::{Files, document};
use super::place::Place;
use crate::digest::Digest;
use crate::limits;
use crate::port::image::{ExportedImage, ImageError};

/// The file's name.
pub(crate) const MANIFEST: &str = "manifest.json";

/// One image of `manifest.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    /// Path of the configuration.
    pub(crate) config: String,
    /// Names.
    pub(crate) repo_tags: Option<Vec<String>>,
    /// Paths of the layers, lowest first.
    pub(crate) layers: Option<Vec<String>>,
}

/// An image with what its configuration says about its layers.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) image: ExportedImage,
    /// As many as the image has layers.
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// The entries of a `manifest.json`.
pub(crate) fn parse(place: &Place, bytes: &[u8]) -> Result<Vec<Entry>, ImageError> {
    let entries: Vec<Entry> =
        serde_json::from_slice(bytes).map_err(|error| place.malformed(format_args!("{MANIFEST}: {error}")))?;
    if entries.len() > limits::INDEX_NODES {
        return Err(place.malformed(format_args!("{MANIFEST} lists more than {} images", limits::INDEX_NODES)));
    }
    Ok(entries)
}

/// The image that `want` names, by a name or by its ID; without it the only one.
pub(crate) fn select(place: &Place, mut entries: Vec<Entry>, want: Option<&str>) -> Result<Entry, ImageError> {
    if let Some(want) = want {
        let found = entries.into_iter().find(|entry| {
            let tags = entry.repo_tags.iter().flatten();
            let id = want.strip_prefix("sha256:").unwrap_or(want);
            tags.map(|tag| familiar(tag)).any(|tag| tag == familiar(want))
                || (id.len() == 64 && entry.config.contains(id))
        });
        return found.ok_or_else(|| ImageError::NoImage { place: place.to_string(), name: want.to_owned() });
    }
    match entries.len() {
        0 => Err(place.malformed("it holds no image")),
        1 => Ok(entries.remove(0)),
        _ => {
            let name = |entry: &Entry| entry.repo_tags.iter().flatten().next().cloned();
            let names = entries.iter().map(|entry| name(entry).unwrap_or_else(|| entry.config.clone())).collect();
            Err(ImageError::Ambiguous { place: place.to_string(), names })
        }
    }
}

/// A name without what Docker and Podman put before and behind short ones.
fn familiar(name: &str) -> String {
    let short = ["docker.io/library/", "docker.io/", "localhost/"].iter().find_map(|prefix| name.strip_prefix(prefix));
    let short = short.unwrap_or(name);
    let tagged = short.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged { short.to_owned() } else { format!("{short}:latest") }
}

/// Reads the configuration of `entry` and finds its layers among `files`.
pub(crate) async fn resolve(files: &dyn Files, entry: Entry) -> Result<Listed, ImageError> {
    let place = files.place();
    let path = |name: &str| {
        inside("", name).ok_or_else(|| place.malformed(format_args!("{MANIFEST}: `{name}` leads out of the archive")))
    };
    let missing = |name: &str| place.malformed(format_args!("{MANIFEST} names `{name}`, which is not there"));
    let name = path(&entry.config)?;
    let config = document(files, &name, limits::CONFIG_BYTES).await?.ok_or_else(|| missing(&name))?;
    let parsed: Config =
        serde_json::from_slice(&config).map_err(|error| place.malformed(format_args!("{name}: {error}")))?;
    let diff_ids = parsed.rootfs.diff_ids.unwrap_or_default();
    let paths = entry.layers.unwrap_or_default();
    if paths.len() != diff_ids.len() || paths.len() > limits::COPY_LAYERS {
        let (paths, limit) = (paths.len(), limits::COPY_LAYERS);
        let reason = format!("it lists {paths} layers for {} in the configuration, of at most {limit}", diff_ids.len());
        return Err(place.malformed(reason));
    }
    let mut layers = Vec::with_capacity(paths.len());
    for name in paths {
        let name = path(&name)?;
        let (real, _) = files.find(&name).await?.ok_or_else(|| missing(&name))?;
        layers.push(real);
    }
    let names = entry.repo_tags.unwrap_or_default();
    Ok(Listed { image: ExportedImage { config, layers, names }, diff_ids })
}
