//! Writing an image into a folder: [`LayoutSink`].

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::parts;
use super::place::{Place, on_disk};
use super::temporary::{Temporary, is_temporary, sync_folder};
use crate::digest::{Digest, Hasher};
use crate::image::descriptor::Descriptor;
use crate::image::layout::{
    IMAGE_NAME, INDEX_FILE, OCI_LAYOUT, OCI_LAYOUT_FILE, REF_NAME, check_oci_layout, parse_layout_index,
    write_layout_index,
};
use crate::kind::ErrorKind;
use crate::limits;
use crate::port::image::{Abilities, ByteStream, Delivered, Form, ImageError, ImageParts, ImageSink, Need};

/// Bytes that are handed to the writing thread at once.
const CHUNK: usize = 256 << 10;
/// Blobs that become durable while the next ones are written; each is an open file.
const SETTLING: usize = 8;

/// Adds an image to the OCI image layout in a folder, which is made when there is none.
///
/// Blobs that are there are checked and kept; others are written under temporary names, made durable while the next ones come,
/// and renamed. `index.json` is replaced last: before, the image is not there. Dropped before, the sink takes back what it added,
/// unless another writer is at work in the layout, which may count on it.
#[derive(Debug)]
pub struct LayoutSink {
    path: PathBuf,
    tag: Option<String>,
    place: Place,
    parts: Option<ImageParts>,
    missing: HashSet<Digest>,
    /// Blobs that are not durable yet; the oldest first.
    settling: VecDeque<Settling>,
    /// Folders in which blobs got names that are not durable yet.
    unsynced: BTreeSet<PathBuf>,
    undo: Undo,
    /// Whether an image of another name keeps the tag, if it has it.
    keeps_others: bool,
}

/// A blob that was written whole.
#[derive(Debug)]
struct Settling {
    digest: Digest,
    target: PathBuf,
    synced: JoinHandle<io::Result<Temporary>>,
}

impl LayoutSink {
    /// Into the folder at `path`, under the reference name `tag`, which moves if the layout has it already.
    pub fn new(path: impl Into<PathBuf>, tag: Option<String>) -> Self {
        let path = path.into();
        let place = Place::new(path.display().to_string());
        Self {
            path,
            tag,
            place,
            parts: None,
            missing: HashSet::new(),
            settling: VecDeque::new(),
            unsynced: BTreeSet::new(),
            undo: Undo::default(),
            keeps_others: false,
        }
    }

    /// The same where nobody has chosen the tag: if an image of another name has it, that one keeps it, and this one goes by its whole
    /// name.
    #[must_use]
    pub fn keeping_others(mut self, keeps: bool) -> Self {
        self.keeps_others = keeps;
        self
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join(digest.layout_path())
    }

    /// Makes the folder, or makes sure that it is a layout.
    async fn prepare(&mut self) -> Result<(), ImageError> {
        let (path, place) = (self.path.clone(), self.place.clone());
        let mut undo = std::mem::take(&mut self.undo);
        let done = move || {
            let result = prepare(&path, &place, &mut undo);
            (undo, result)
        };
        let (undo, result) = on_disk(done).await;
        self.undo = undo;
        result
    }

    /// Writes a document whose digest is known.
    async fn put(&mut self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), ImageError> {
        if descriptor.size != bytes.len() as u64 || !descriptor.digest.matches(bytes) {
            return Err(self.place.malformed(format_args!("{} is not what was announced", descriptor.digest)));
        }
        let stream = Box::pin(io::Cursor::new(bytes.to_vec()));
        self.receive(&descriptor.digest, descriptor.size, stream).await
    }

    /// Writes a blob, whose stream says whether it is the right one when it ends.
    async fn receive(&mut self, digest: &Digest, size: u64, mut data: ByteStream) -> Result<(), ImageError> {
        let target = self.blob_path(digest);
        let folder = target.parent().expect("blobs are in a folder").to_owned();
        self.undo.folder(&folder).map_err(|error| self.place.io("writing", error))?;
        let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(4);
        let writer = spawn_blocking(move || {
            let mut temporary = Temporary::create(&folder)?;
            let mut written = 0;
            while let Some(chunk) = chunks.blocking_recv() {
                if chunk.is_empty() {
                    return Ok(Some((temporary, written)));
                }
                written += chunk.len() as u64;
                temporary.file.write_all(&chunk)?;
            }
            // The stream broke: the temporary file goes.
            Ok(None)
        });
        let copied = copy(&mut data, size, sender).await;
        // The writer knows better than the sender why it has stopped to listen.
        let written = writer.await.expect("writing does not panic").map_err(|error| self.place.io("writing", error))?;
        copied.map_err(|error| self.place.reading(error))?;
        match written {
            Some((temporary, written)) if written == size => {
                let synced = spawn_blocking(move || temporary.file.sync_all().map(|()| temporary));
                self.settling.push_back(Settling { digest: *digest, target, synced });
            }
            _ => return Err(self.place.malformed(format_args!("the bytes for {digest} are others"))),
        }
        while self.settling.len() > SETTLING {
            self.settle().await?;
        }
        Ok(())
    }

    /// Gives the oldest blob its name as soon as it is durable.
    async fn settle(&mut self) -> Result<(), ImageError> {
        let Some(Settling { digest, target, synced }) = self.settling.pop_front() else { return Ok(()) };
        let folder = target.parent().map(Path::to_owned);
        let synced = synced.await.expect("syncing does not panic");
        let mut temporary = synced.map_err(|error| self.place.io("writing", error))?;
        // If this is dropped in the middle, it is undone when the name has been given.
        let mut undo = std::mem::take(&mut self.undo);
        let name = move || {
            let existed = target.try_exists().unwrap_or(false);
            let named = temporary.rename(&target);
            if named.is_ok() && !existed {
                undo.files.push(target);
            }
            (undo, named)
        };
        let (undo, named) = on_disk(name).await;
        self.undo = undo;
        named.map_err(|error| self.place.io("writing", error))?;
        self.unsynced.extend(folder);
        self.missing.remove(&digest);
        Ok(())
    }

    /// Waits until everything that was written is durable, under its name.
    pub(super) async fn settle_all(&mut self) -> Result<(), ImageError> {
        while !self.settling.is_empty() {
            self.settle().await?;
        }
        let folders = std::mem::take(&mut self.unsynced);
        let synced = on_disk(move || folders.iter().try_for_each(|folder| sync_folder(folder))).await;
        synced.map_err(|error| self.place.io("writing", error))
    }

    /// Whether a blob is there and right. Whoever wrote it may have been stopped before its name was durable.
    async fn holds(&mut self, descriptor: &Descriptor) -> Result<bool, ImageError> {
        let (path, digest, size) = (self.blob_path(&descriptor.digest), descriptor.digest, descriptor.size);
        let folder = path.parent().map(Path::to_owned);
        let check = move || match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() == size => hash(&path, digest),
            _ => Ok(false),
        };
        let held = on_disk(check).await.map_err(|error| self.place.io("reading", error))?;
        self.unsynced.extend(folder.filter(|_| held));
        Ok(held)
    }
}

/// Sends the stream in chunks and, when it has ended well, an empty one.
async fn copy(data: &mut ByteStream, size: u64, sender: mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    let mut copied = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            if data.read_buf(&mut chunk).await? == 0 {
                break;
            }
        }
        copied += chunk.len() as u64;
        let ended = chunk.is_empty();
        if copied > size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a blob is longer than announced"));
        }
        if sender.send(chunk).await.is_err() || ended {
            return Ok(());
        }
    }
}

fn hash(path: &Path, digest: Digest) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish() == digest),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn prepare(path: &Path, place: &Place, undo: &mut Undo) -> Result<(), ImageError> {
    let writing = |error| place.io("writing", error);
    let marker = path.join(OCI_LAYOUT_FILE);
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let mut foreign = false;
            for entry in entries {
                // Another writer makes these before the layout's own file.
                let name = entry.map_err(writing)?.file_name();
                foreign |= name != "blobs" && !is_temporary(&name);
            }
            if marker.try_exists().map_err(writing)? {
                let bytes = read_bounded(&marker, limits::METADATA_BYTES).map_err(|error| place.reading(error))?;
                check_oci_layout(&bytes).map_err(|error| place.refused(&error))?;
            } else if foreign {
                let reason = "the folder holds other things and is no OCI image layout".to_owned();
                return Err(ImageError::Unfit { place: place.to_string(), reason, kind: ErrorKind::Usage });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let reason = "it is no folder".to_owned();
            return Err(ImageError::Unfit { place: place.to_string(), reason, kind: ErrorKind::Usage });
        }
        Err(error) => return Err(writing(error)),
    }
    for folder in ["", "blobs", "blobs/sha256"] {
        undo.folder(&path.join(folder)).map_err(writing)?;
    }
    undo.attend(&path.join("blobs")).map_err(writing)?;
    if !marker.try_exists().map_err(writing)? {
        undo.files.push(marker.clone());
        replace(&marker, OCI_LAYOUT.as_bytes()).map_err(writing)?;
    }
    Ok(())
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if read as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is too large", path.display())));
    }
    Ok(bytes)
}

/// Adds an image and what refers to it to `index.json`; everything else in it stays as it is.
fn add_to_index(
    path: &Path,
    tag: Option<&str>,
    keeps_others: bool,
    mut root: Descriptor,
    referrers: Vec<Descriptor>,
    place: &Place,
    undo: &mut Undo,
) -> Result<(), ImageError> {
    // Two that add to one layout take turns.
    let marker = File::open(path.with_file_name(OCI_LAYOUT_FILE)).map_err(|error| place.io("locking", error))?;
    marker.lock().map_err(|error| place.io("locking", error))?;
    let bytes = if path.try_exists().map_err(|error| place.io("reading", error))? {
        read_bounded(path, limits::ARCHIVE_JSON_BYTES).map_err(|error| place.reading(error))?
    } else {
        write_layout_index(&[]).to_vec()
    };
    parse_layout_index(&bytes).map_err(|error| place.refused(&error))?;
    let mut index: Value = serde_json::from_slice(&bytes).map_err(|error| place.refused(&error))?;
    if index["manifests"].is_null() {
        index["manifests"] = Value::Array(Vec::new());
    }
    let entries = index["manifests"].as_array_mut().expect("it was parsed as a list");
    let own_name = root.annotations.get(IMAGE_NAME).cloned();
    let mut tag = tag.map(str::to_owned);
    let is_another = |entry: &Value| {
        let name = entry["annotations"][IMAGE_NAME].as_str().map(without_tag);
        name.is_some()
            && name != own_name.as_deref().map(without_tag)
            && entry["annotations"][REF_NAME].as_str() == tag.as_deref()
    };
    if keeps_others && own_name.is_some() && entries.iter().any(is_another) {
        tag.clone_from(&own_name);
    }
    root.annotations.extend(tag.iter().map(|tag| (REF_NAME.to_owned(), tag.clone())));
    // The tag moves; and what has no tag of its own is listed once.
    let digest = |entry: &Value| entry["digest"].as_str().map(str::to_owned);
    entries.retain(|entry| {
        let name = entry["annotations"][REF_NAME].as_str();
        let moves = name.is_some() && name == tag.as_deref();
        !moves && (name.is_some() || digest(entry) != Some(root.digest.to_string()))
    });
    for added in std::iter::once(root).chain(referrers) {
        let name = added.annotations.get(REF_NAME).cloned();
        let listed = |entry: &Value| {
            digest(entry) == Some(added.digest.to_string())
                && entry["annotations"][REF_NAME].as_str() == name.as_deref()
        };
        if !entries.iter().any(listed) {
            entries.push(serde_json::to_value(&added).map_err(|error| place.refused(&error))?);
        }
    }
    let text = serde_json::to_vec(&index).map_err(|error| place.refused(&error))?;
    let writing = |error| place.io("writing", error);
    rename_over(path, &text).map_err(writing)?;
    // Now it names what was added, whether that is durable already or not.
    undo.files.clear();
    undo.folders.clear();
    sync_folder(path.parent().expect("files are in a folder")).map_err(writing)
}

/// The name of an image without its tag.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((image, tag)) if !tag.contains('/') => image,
        _ => name,
    }
}

/// Replaces a file at once, and makes that durable.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    rename_over(path, bytes)?;
    sync_folder(path.parent().expect("files are in a folder"))
}

/// Replaces a file at once by a durable one; its name is not yet.
fn rename_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("files are in a folder");
    let mut temporary = Temporary::create(folder)?;
    temporary.file.write_all(bytes)?;
    temporary.file.sync_all()?;
    temporary.rename(path)
}

/// What was added and goes away again unless the image is completed.
#[derive(Debug, Default)]
struct Undo {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    /// The folder of blobs, locked together with all who write to the layout.
    present: Option<File>,
}

impl Undo {
    /// Says that somebody is at work in a layout, until this is dropped.
    fn attend(&mut self, blobs: &Path) -> io::Result<()> {
        let folder = File::open(blobs)?;
        folder.lock_shared()?;
        self.present = Some(folder);
        Ok(())
    }

    /// Makes a folder and those above it.
    fn folder(&mut self, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut at = Some(path);
        while let Some(folder) = at.filter(|folder| !folder.as_os_str().is_empty()) {
            if folder.is_dir() {
                break;
            }
            missing.push(folder.to_owned());
            at = folder.parent();
        }
        for folder in missing.into_iter().rev() {
            match std::fs::create_dir(&folder) {
                Ok(()) => self.folders.push(folder),
                // Somebody else was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        // What others found here they rely on. Whoever comes while the lock is held alone finds it gone, and writes it again.
        if self.present.as_ref().is_some_and(|folder| folder.try_lock().is_err()) {
            return;
        }
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            // Not if somebody else has put something there.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[async_trait]
impl ImageSink for LayoutSink {
    fn describe(&self) -> String {
        self.place.to_string()
    }

    async fn abilities(&mut self) -> Result<Abilities, ImageError> {
        Ok(Abilities { indexes: true, zstd: true, layers: limits::COPY_LAYERS, platform: None, keeps_digests: true })
    }

    async fn plan(&mut self, parts: &ImageParts) -> Result<Vec<Need>, ImageError> {
        parts::check(parts, limits::COPY_LAYERS, &self.place)?;
        self.prepare().await?;
        let mut needs = Vec::new();
        let mut seen = HashSet::new();
        for layer in parts.images.iter().flat_map(|image| &image.layers) {
            if !parts.absent.contains(&layer.digest) && seen.insert(layer.digest) && !self.holds(layer).await? {
                needs.push(Need { blob: layer.clone(), form: Form::Stored });
            }
        }
        self.missing = needs.iter().map(|need| need.blob.digest).collect();
        self.parts = Some(parts.clone());
        Ok(needs)
    }

    async fn write(&mut self, need: &Need, size: u64, data: ByteStream) -> Result<(), ImageError> {
        self.receive(&need.blob.digest, size, data).await
    }

    async fn finish(mut self: Box<Self>) -> Result<Delivered, ImageError> {
        let Some(parts) = self.parts.take() else {
            return Err(self.place.io("writing", io::Error::other("nothing was planned")));
        };
        self.settle_all().await?;
        if let Some(digest) = self.missing.iter().next() {
            return Err(ImageError::NoBlob { place: self.place.to_string(), digest: *digest });
        }
        let configs = parts.images.iter().map(|image| &image.config);
        for (descriptor, bytes) in configs.chain(&parts.manifests) {
            if !self.holds(descriptor).await? {
                self.put(descriptor, bytes).await?;
            }
        }
        self.settle_all().await?;
        let mut root = Descriptor { annotations: std::collections::BTreeMap::default(), ..parts.root.clone() };
        root.annotations.extend(parts.name.iter().map(|name| (IMAGE_NAME.to_owned(), name.clone())));
        let referrers = parts::referrers(&parts);
        let (path, tag, place) = (self.path.join(INDEX_FILE), self.tag.clone(), self.place.clone());
        let keeps_others = self.keeps_others;
        // If this is dropped in the middle, the image is completed or undone, whichever comes of it.
        let mut undo = std::mem::take(&mut self.undo);
        let complete = move || {
            let added = add_to_index(&path, tag.as_deref(), keeps_others, root, referrers, &place, &mut undo);
            (undo, added)
        };
        let (undo, added) = on_disk(complete).await;
        self.undo = undo;
        added?;
        Ok(Delivered { place: self.place.to_string(), image_id: None })
    }
}
