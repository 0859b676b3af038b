//! Images where Docker's classic layer store keeps them: [`InPlace`].
//!
//! `docker save` writes a copy of every layer before it sends the first byte, of those too that nobody needs. Whoever may read the
//! engine's folders does without: what Docker itself reads for it is there, and no byte of it is believed.
//!
//! Below the engine's root, with the driver `overlay2` (moby, `layer/filestore.go`, `image/fs.go`):
//! * `image/overlay2/imagedb/content/sha256/<image id>`: the configuration;
//! * `image/overlay2/layerdb/sha256/<chain id>/`: `diff` (the diff ID), `cache-id`, and `tar-split.json.gz`, see [`tar_split`];
//! * `overlay2/<cache id>/diff/`: the files of that layer. They do not change once the layer has a chain ID.
//!
//! **Guarantees.** Files are opened below their layer's folder only, wherever links inside of it point (`openat2(2)`,
//! `RESOLVE_IN_ROOT`), and nothing but files: no device notices. Memory is bounded by a few reads of 256 KiB and one part of a record. Whoever
//! reads compares digests, as with every [`Export`].

mod tar_split;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use rustix::fs::{CWD, Mode, OFlags};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use self::tar_split::{Part, Parts, length, wrong};
use crate::digest::Digest;
use crate::image::config::chain_ids;
use crate::limits;
use crate::port::engine::EngineImage;
use crate::port::image::{Export, ExportedImage, ExportedLayer, ImageError};

/// The one storage driver that is known to keep a layer's files as they were, in one folder.
const DRIVER: &str = "overlay2";
/// Bytes that travel at once.
const PIECE: usize = 256 << 10;
/// Pieces of a layer that wait to be read.
const PIECES: usize = 4;
/// The longest of the small files: a digest, or a name.
const NAME_BYTES: u64 = 256;

/// An image that is read where it lies.
#[derive(Debug)]
pub(super) struct InPlace {
    config: Bytes,
    names: Vec<String>,
    layers: Vec<Layer>,
    /// How many of them were given out.
    given: usize,
}

/// One layer.
#[derive(Clone, Debug)]
struct Layer {
    diff_id: Digest,
    /// Bytes of its tar stream.
    size: u64,
    /// What the stream consists of beside the contents of files.
    record: PathBuf,
    /// The folder with these.
    files: PathBuf,
}

impl InPlace {
    /// The image in the store below `root`, the engine's own folder. Fails where anything of it is missing, cannot be read by this user, or is of
    /// another shape. Reads files: not to be called where others must not wait.
    pub(super) fn open(root: &Path, driver: &str, image: &EngineImage) -> io::Result<Self> {
        if driver != DRIVER || !root.is_absolute() {
            return Err(wrong("its storage driver is another one"));
        }
        let database = root.join("image").join(DRIVER);
        let config = read(&database.join("imagedb/content/sha256").join(image.id.hex()), limits::CONFIG_BYTES)?;
        let mut layers: Vec<Layer> = Vec::new();
        for (diff_id, chain_id) in image.diff_ids.iter().zip(chain_ids(&image.diff_ids)) {
            // Empty layers are often there many times.
            if layers.iter().all(|layer| layer.diff_id != *diff_id) {
                layers.push(Layer::open(root, &database.join("layerdb/sha256").join(chain_id.hex()), diff_id)?);
            }
        }
        let names = image.diff_ids.iter().map(Digest::to_string).collect();
        Ok(Self { config: config.into(), names, layers, given: 0 })
    }
}

impl Layer {
    fn open(root: &Path, row: &Path, diff_id: &Digest) -> io::Result<Self> {
        let text =
            |name| read(&row.join(name), NAME_BYTES).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        if text("diff")? != diff_id.to_string() {
            return Err(wrong("a layer is not the one that its chain names"));
        }
        let cache_id = text("cache-id")?;
        if cache_id.is_empty() || !cache_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(wrong("a layer's folder has no name"));
        }
        let files = root.join(DRIVER).join(cache_id).join("diff");
        // A system that cannot open below a folder says so now, and not in the middle of a layer.
        below(&folder(&files)?, b".")?;
        let record = row.join("tar-split.json.gz");
        let size = Parts::new(small_file(&record)?).size()?;
        Ok(Self { diff_id: *diff_id, size, record, files })
    }

    /// Its tar stream. Nothing is opened before it is read.
    fn data(self) -> impl AsyncRead + Send + 'static {
        StreamReader::new(stream::once(async move { self.pieces() }).flatten().boxed())
    }

    fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (pieces, receiver) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let mut output = Output { buffer: Vec::new(), pieces };
            if let Err(error) = self.write(&mut output) {
                // Nobody to tell it to is nobody who needs to know.
                let _ = output.pieces.blocking_send(Err(error));
            }
        });
        stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })
    }

    fn write(&self, output: &mut Output) -> io::Result<()> {
        let root = folder(&self.files)?;
        let mut parts = Parts::new(small_file(&self.record)?);
        while let Some(part) = parts.next()? {
            match part {
                Part::Bytes(bytes) => output.read(&mut &bytes[..], length(&bytes))?,
                Part::File { name, size } => output.read(&mut file_below(&root, &name)?, size)?,
            }
        }
        output.send()
    }
}

/// What goes to whoever reads a layer.
struct Output {
    buffer: Vec<u8>,
    pieces: mpsc::Sender<io::Result<Bytes>>,
}

impl Output {
    /// Takes exactly `size` bytes.
    fn read(&mut self, from: &mut impl io::Read, mut size: u64) -> io::Result<()> {
        while size > 0 {
            if self.buffer.len() == self.buffer.capacity() {
                self.send()?;
                self.buffer.reserve_exact(PIECE);
            }
            let room = length(self.buffer.spare_capacity_mut());
            // Never more than there is room for: the buffer does not grow, and there is no read for the end.
            let count = from.take(size.min(room)).read_to_end(&mut self.buffer)?;
            if count == 0 {
                return Err(wrong("a file of a layer is shorter than it was"));
            }
            size -= u64::try_from(count).expect("buffer sizes fit 64 bits");
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the layer is no longer wanted");
        self.pieces.blocking_send(Ok(std::mem::take(&mut self.buffer).into())).map_err(gone)
    }
}

#[async_trait]
impl Export for InPlace {
    async fn next_layer(&mut self) -> Result<Option<ExportedLayer<'_>>, ImageError> {
        let Some(layer) = self.layers.get(self.given).cloned() else { return Ok(None) };
        self.given += 1;
        Ok(Some(ExportedLayer {
            key: layer.diff_id.to_string(),
            diff_id: Some(layer.diff_id),
            digest: None,
            size: layer.size,
            data: Box::pin(layer.data()),
        }))
    }

    async fn images(&mut self) -> Result<Vec<ExportedImage>, ImageError> {
        Ok(vec![ExportedImage { config: self.config.clone(), layers: self.names.clone(), names: Vec::new() }])
    }
}

/// Whether this process may read all of an image: files belong to whomever it says.
pub(super) fn is_possible() -> bool {
    cfg!(target_os = "linux") && rustix::process::geteuid().is_root()
}

/// A whole file, if it is not longer than `limit`.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    small_file(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if length(&bytes) > limit { Err(wrong("a file of the store is too long")) } else { Ok(bytes) }
}

/// A file of the store. The folders may be anybody's, where what answers is no engine of this machine: nothing is waited for.
fn small_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(wrong("the store has something else where a file belongs")) }
}

fn folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a file of a layer. An image may have a device where a file was to be, and some do things as soon as they are opened: what it is is
/// looked at before.
fn file_below(root: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let found = File::from(below(root, name)?);
    if !found.metadata()?.is_file() {
        return Err(wrong("a layer has something else where a file was"));
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Finds what is below a folder, which is the root for all links and `..`, without opening it for anything.
#[cfg(target_os = "linux")]
fn below(root: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(root, name, flags, Mode::empty(), rustix::fs::ResolveFlags::IN_ROOT)?)
}

#[cfg(not(target_os = "linux"))]
fn below(_: &OwnedFd, _: &[u8]) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
