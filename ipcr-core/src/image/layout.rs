//! The JSON files of image folders and archives: `oci-layout` and `index.json` (OCI image-spec, "Image Layout"), and
//! docker's `manifest.json` (moby, `image/tarexport`).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::descriptor::{Descriptor, null_is_default};
use super::media_type::OCI_INDEX;
use crate::kind::ErrorKind;
use crate::limits;

/// The file that marks a folder as an OCI image layout.
pub const OCI_LAYOUT_FILE: &str = "oci-layout";
/// The layout's list of images.
pub const INDEX_FILE: &str = "index.json";
/// Docker's list of images.
pub const ARCHIVE_FILE: &str = "manifest.json";
/// The content of [`OCI_LAYOUT_FILE`].
pub const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The annotation with an image's tag inside a layout (OCI image-spec, "Pre-Defined Annotation Keys").
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with an image's full name (containerd, `images/annotations.go`).
pub const IMAGE_NAME: &str = "io.containerd.image.name";

/// Why a file of a folder or archive cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The file is larger than [`limits::ARCHIVE_JSON_BYTES`].
    #[error("{file} has {size} bytes, more than {limit}", limit = limits::ARCHIVE_JSON_BYTES)]
    TooLarge {
        /// Which.
        file: &'static str,
        /// Its size in bytes.
        size: u64,
    },
    /// The file is of another shape.
    #[error("{file} is malformed")]
    Malformed {
        /// Which.
        file: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The layout is of a version that nobody here knows.
    #[error("the image layout has version `{found}`; 1.x is read")]
    Version {
        /// As found.
        found: String,
    },
    /// A path leads out of the archive.
    #[error("manifest.json names `{path}`, which is no path inside the archive")]
    Path {
        /// As found.
        path: String,
    },
    /// An image has more layers than [`limits::COPY_LAYERS`].
    #[error("manifest.json lists {found} layers, more than {limit}", limit = limits::COPY_LAYERS)]
    TooMany {
        /// How many.
        found: usize,
    },
}

impl LayoutError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Integrity
    }
}

fn read<'a, T: Deserialize<'a>>(file: &'static str, bytes: &'a [u8]) -> Result<T, LayoutError> {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size > limits::ARCHIVE_JSON_BYTES {
        return Err(LayoutError::TooLarge { file, size });
    }
    serde_json::from_slice(bytes).map_err(|source| LayoutError::Malformed { file, source })
}

fn write<T: Serialize>(document: &T) -> Bytes {
    serde_json::to_vec(document).expect("plain structures are written to memory without failing").into()
}

/// Checks the content of `oci-layout`.
pub fn check_oci_layout(bytes: &[u8]) -> Result<(), LayoutError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let Layout { image_layout_version: found } = read(OCI_LAYOUT_FILE, bytes)?;
    if found.split('.').next() == Some("1") {
        return Ok(());
    }
    Err(LayoutError::Version { found: found.chars().take(80).collect() })
}

/// The descriptors of a layout's `index.json`, in their order.
///
/// The file is the folder's table of contents, not a manifest: nobody knows it by digest, so its media type is not checked.
pub fn parse_layout_index(bytes: &[u8]) -> Result<Vec<Descriptor>, LayoutError> {
    #[derive(Deserialize)]
    struct List {
        #[serde(deserialize_with = "null_is_default")]
        manifests: Vec<Descriptor>,
    }
    read::<List>(INDEX_FILE, bytes).map(|list| list.manifests)
}

/// Writes a layout's `index.json`.
pub fn write_layout_index(manifests: &[Descriptor]) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct List<'a> {
        schema_version: u32,
        media_type: &'static str,
        manifests: &'a [Descriptor],
    }
    write(&List { schema_version: 2, media_type: OCI_INDEX, manifests })
}

/// The descriptor of a tag folder's `index.json`: `target` annotated with tag and full name, and with nothing else.
///
/// `image` is a name of this registry (`app`, `team/app`), whose normal form is Docker's: `docker.io/library/app:1`.
pub fn tag_descriptor(target: &Descriptor, image: &str, tag: &str) -> Descriptor {
    let mut descriptor = untagged_descriptor(target);
    descriptor.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    descriptor.annotations.insert(IMAGE_NAME.to_owned(), normal_name(image, tag));
    descriptor
}

/// The descriptor of an untagged manifest folder's `index.json`.
pub fn untagged_descriptor(target: &Descriptor) -> Descriptor {
    Descriptor::new(target.media_type.clone(), target.digest, target.size)
}

fn normal_name(image: &str, tag: &str) -> String {
    let library = if image.contains('/') { "" } else { "library/" };
    format!("docker.io/{library}{image}:{tag}")
}

/// One image of a `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ArchiveImage {
    /// The path of its configuration.
    pub config: String,
    /// Names such as `app:1`. Whoever reads an archive of others decides what to make of them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub repo_tags: Vec<String>,
    /// The paths of its layers, lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<String>,
}

/// Reads docker's `manifest.json`. Paths come back without `.` components; those that could leave the archive are refused.
pub fn parse_archive(bytes: &[u8]) -> Result<Vec<ArchiveImage>, LayoutError> {
    let mut images: Vec<ArchiveImage> = read(ARCHIVE_FILE, bytes)?;
    for image in &mut images {
        if image.layers.len() > limits::COPY_LAYERS {
            return Err(LayoutError::TooMany { found: image.layers.len() });
        }
        for path in std::iter::once(&mut image.config).chain(&mut image.layers) {
            *path = inner_path(path).ok_or_else(|| LayoutError::Path { path: path.chars().take(255).collect() })?;
        }
    }
    Ok(images)
}

/// Writes docker's `manifest.json`.
pub fn write_archive(images: &[ArchiveImage]) -> Bytes {
    write(&images)
}

/// A path that stays inside its folder or archive, without `.` components and empty ones; `None` for any other.
pub fn inner_path(path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains(['\0', '\\']) {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::image::media_type::OCI_MANIFEST;

    #[test]
    fn the_index_of_a_tag_folder_is_fixed() {
        let mut target = Descriptor::new(OCI_MANIFEST, Digest::sha256(b""), 7);
        target.annotations.insert("foreign".into(), "note".into());
        let written = write_layout_index(&[tag_descriptor(&target, "app", "1")]);
        let expected = concat!(
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#,
            r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
            r#""digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7,"#,
            r#""annotations":{"io.containerd.image.name":"docker.io/library/app:1","#,
            r#""org.opencontainers.image.ref.name":"1"}}]}"#,
        );
        assert_eq!(std::str::from_utf8(&written).unwrap(), expected);
        assert_eq!(parse_layout_index(&written).unwrap(), [tag_descriptor(&target, "app", "1")]);
        assert_eq!(tag_descriptor(&target, "team/app", "1").annotations[IMAGE_NAME], "docker.io/team/app:1");
        let untagged = write_layout_index(&[untagged_descriptor(&target)]);
        assert!(!std::str::from_utf8(&untagged).unwrap().contains("annotations"));
    }

    #[test]
    fn layouts_of_others() {
        assert!(check_oci_layout(OCI_LAYOUT.as_bytes()).is_ok());
        assert!(check_oci_layout(br#"{"imageLayoutVersion": "1.1.0", "x": 1}"#).is_ok());
        assert!(matches!(check_oci_layout(br#"{"imageLayoutVersion":"2.0"}"#), Err(LayoutError::Version { .. })));
        assert!(matches!(check_oci_layout(b"{}"), Err(LayoutError::Malformed { .. })));
        assert!(parse_layout_index(br#"{"schemaVersion":2,"manifests":null}"#).unwrap().is_empty());
        assert!(matches!(parse_layout_index(b"{}"), Err(LayoutError::Malformed { .. })));
        let large = vec![b' '; usize::try_from(limits::ARCHIVE_JSON_BYTES).unwrap() + 1];
        assert!(matches!(parse_layout_index(&large), Err(LayoutError::TooLarge { .. })));
        assert!(matches!(parse_layout_index(&large[1..]), Err(LayoutError::Malformed { .. })));
    }

    #[test]
    fn archives_as_docker_writes_them() {
        let text = br#"[{"Config":"ab.json","RepoTags":["app:1"],"Layers":["01/layer.tar","./02/layer.tar"]}]"#;
        let images = parse_archive(text).unwrap();
        assert_eq!(images[0].config, "ab.json");
        assert_eq!(images[0].layers, ["01/layer.tar", "02/layer.tar"]);
        assert_eq!(parse_archive(&write_archive(&images)).unwrap(), images);
        let text = br#"[{"Config":"blobs/sha256/ab","RepoTags":null,"Layers":null,"LayerSources":{}}]"#;
        let images = parse_archive(text).unwrap();
        assert!(images[0].repo_tags.is_empty() && images[0].layers.is_empty());
        let image = ArchiveImage { config: "c".into(), repo_tags: vec!["a:1".into()], layers: vec!["l".into()] };
        assert_eq!(write_archive(&[image]), br#"[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]"#.as_slice());
    }

    #[test]
    fn archives_that_are_refused() {
        for path in ["../x", "/etc/passwd", "a/../../b", "", ".", "a\\b", "a\0"] {
            let text = serde_json::json!([{ "Config": "c", "Layers": [path] }]).to_string();
            assert!(matches!(parse_archive(text.as_bytes()), Err(LayoutError::Path { .. })), "{path:?}");
            let text = serde_json::json!([{ "Config": path }]).to_string();
            assert!(matches!(parse_archive(text.as_bytes()), Err(LayoutError::Path { .. })), "{path:?}");
        }
        for text in ["{}", "[{}]", "[1]", "null", ""] {
            assert!(matches!(parse_archive(text.as_bytes()), Err(LayoutError::Malformed { .. })), "{text}");
        }
        let layers = vec!["l"; limits::COPY_LAYERS + 1];
        let text = serde_json::json!([{ "Config": "c", "Layers": layers }]).to_string();
        assert!(matches!(parse_archive(text.as_bytes()), Err(LayoutError::TooMany { found: 513 })));
    }

    proptest::proptest! {
        #[test]
        fn an_inner_path_stays_inside(path in "[./a\\\\]{0,12}") {
            if let Some(inner) = inner_path(&path) {
                proptest::prop_assert!(inner.split('/').all(|part| !matches!(part, "" | "." | "..")));
                proptest::prop_assert_eq!(inner_path(&inner), Some(inner));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse_archive(&bytes);
            let _ = parse_layout_index(&bytes);
        }
    }
}
