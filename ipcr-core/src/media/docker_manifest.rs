//! Finding images through `manifest.json`, the table of contents of `docker save` archives.

use super::files::{Files, document};
use super::place::Place;
use crate::digest::Digest;
use crate::image::config::parse_config;
use crate::image::layout::{ARCHIVE_FILE, ArchiveImage, parse_archive};
use crate::limits;
use crate::port::image::{ExportedImage, ImageError};

/// An image with what its configuration says about its layers.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) image: ExportedImage,
    /// As many as the image has layers.
    pub(crate) diff_ids: Vec<Digest>,
}

/// The image that `want` names, by a name or by its ID; without it the only one.
pub(crate) async fn find(files: &dyn Files, want: Option<&str>) -> Result<Listed, ImageError> {
    let place = files.place();
    let Some(bytes) = document(files, ARCHIVE_FILE, limits::ARCHIVE_JSON_BYTES).await? else {
        return Err(place.malformed("it has neither a manifest.json nor a complete OCI layout"));
    };
    let entries = parse_archive(&bytes).map_err(|error| place.refused(&error))?;
    resolve(files, select(place, entries, want)?).await
}

fn select(place: &Place, mut entries: Vec<ArchiveImage>, want: Option<&str>) -> Result<ArchiveImage, ImageError> {
    if let Some(want) = want {
        let id = want.strip_prefix("sha256:").unwrap_or(want);
        let found = entries.into_iter().find(|entry| {
            entry.repo_tags.iter().any(|tag| is_same_name(tag, want)) || (id.len() == 64 && entry.config.contains(id))
        });
        let mut found = found.ok_or_else(|| ImageError::NoImage { place: place.to_string(), name: want.to_owned() })?;
        // It goes by the name that was asked for, which need not be its first.
        found.repo_tags.sort_by_key(|tag| !is_same_name(tag, want));
        return Ok(found);
    }
    match entries.len() {
        0 => Err(place.malformed("it holds no image")),
        1 => Ok(entries.remove(0)),
        _ => {
            let name = |entry: &ArchiveImage| match (entry.repo_tags.first(), digest_of(&entry.config)) {
                (Some(tag), _) => tag.clone(),
                (None, Some(id)) => id.to_string(),
                (None, None) => entry.config.clone(),
            };
            Err(ImageError::Ambiguous { place: place.to_string(), names: entries.iter().map(name).collect() })
        }
    }
}

/// Whether two names of images in an engine are the same, however long they are spelt.
pub(crate) fn is_same_name(one: &str, other: &str) -> bool {
    familiar(one) == familiar(other)
}

/// A name without what Docker and Podman put before and behind short ones.
fn familiar(name: &str) -> String {
    let prefixes = ["docker.io/library/", "docker.io/", "localhost/"];
    let short = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let tagged = short.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged { short.to_owned() } else { format!("{short}:latest") }
}

/// Reads the configuration of `entry` and finds its layers among `files`.
async fn resolve(files: &dyn Files, entry: ArchiveImage) -> Result<Listed, ImageError> {
    let place = files.place();
    let missing = |name: &str| place.malformed(format_args!("manifest.json names `{name}`, which is not there"));
    let bytes = document(files, &entry.config, limits::CONFIG_BYTES).await?;
    let bytes = bytes.ok_or_else(|| missing(&entry.config))?;
    if digest_of(&entry.config).is_some_and(|digest| !digest.matches(&bytes)) {
        return Err(place.malformed(format_args!("the bytes of `{}` have another digest", entry.config)));
    }
    let config = parse_config(bytes.clone()).map_err(|error| place.refused(&error))?;
    let (found, expected) = (entry.layers.len(), config.diff_ids.len());
    if found != expected {
        return Err(place.malformed(format_args!("it lists {found} layers, and the configuration {expected}")));
    }
    let mut layers = Vec::with_capacity(found);
    for name in entry.layers {
        let (real, _) = files.find(&name).await?.ok_or_else(|| missing(&name))?;
        layers.push(real);
    }
    let image = ExportedImage { config: bytes, layers, names: entry.repo_tags };
    Ok(Listed { image, diff_ids: config.diff_ids })
}

/// The digest by which all known writers call the configuration: `<hex>.json`, `sha256:<hex>` or `blobs/sha256/<hex>`.
fn digest_of(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next()?;
    let name = name.strip_suffix(".json").unwrap_or(name);
    let algorithm =
        path.strip_prefix("blobs/").and_then(|rest| rest.split_once('/')).map_or("sha256", |(name, _)| name);
    name.parse().or_else(|_| format!("{algorithm}:{name}").parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_goes_by_the_name_that_was_asked_for() {
        let entry = ArchiveImage {
            config: "config.json".into(),
            repo_tags: ["app:1", "app:2", "docker.io/library/app:3"].map(str::to_owned).into(),
            layers: Vec::new(),
        };
        let first =
            |want| select(&Place::new("archive"), vec![entry.clone()], Some(want)).unwrap().repo_tags[0].clone();
        assert_eq!(first("app:2"), "app:2");
        assert_eq!(first("app:3"), "docker.io/library/app:3");
        assert_eq!(first("app:1"), "app:1");
    }

    #[test]
    fn names_are_compared_as_people_write_them() {
        for (a, b) in [
            ("docker.io/library/app:1", "app:1"),
            ("localhost/app:latest", "app"),
            ("docker.io/team/app:1", "team/app:1"),
            ("hub.test:5000/app", "hub.test:5000/app:latest"),
        ] {
            assert_eq!(familiar(a), familiar(b));
        }
        assert_ne!(familiar("app:1"), familiar("app"));
        assert_ne!(familiar("hub.test/app:1"), familiar("app:1"));
    }
}
