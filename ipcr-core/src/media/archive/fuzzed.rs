//! What fuzzing feeds: archives with images, as [`fuzz`] takes them.

use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::header::{Member, MemberKind};
use super::index;
use super::reader::ArchiveReader;
use super::writer::ArchiveWriter;
use crate::kind::ErrorKind;
use crate::media::export::StreamExport;
use crate::media::place::Place;
use crate::port::image::{ByteStream, Export, ImageError};

/// Most bytes that are read of all members together; compressed archives may hold more.
const READ: u64 = 4 << 20;

/// Hands out a few bytes at a time.
struct Drops(Cursor<Vec<u8>>);

impl AsyncRead for Drops {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let mut drop = [0; 61];
        let mut few = ReadBuf::new(&mut drop[..buf.remaining().min(61)]);
        let read = Pin::new(&mut self.0).poll_read(cx, &mut few);
        buf.put_slice(few.filled());
        read
    }
}

/// Archives, compressed or not: what is in one does not depend on how it came, an index finds the same as whoever reads it front
/// to back, its files come back when they are written, and whatever is wrong with it or with the image inside is its fault.
pub fn fuzz(bytes: &[u8]) {
    futures::executor::block_on(async {
        let whole = members(Box::pin(Cursor::new(bytes.to_vec()))).await;
        let drops = members(Box::pin(Drops(Cursor::new(bytes.to_vec())))).await;
        same(&whole, &drops);
        let indexed = index::tables(bytes, &place());
        match (&whole, indexed) {
            (_, Ok(None)) => {}
            (Ok(Some(members)), Ok(Some((files, links)))) => agree(bytes, members, &files, &links),
            (Ok(None), _) => {}
            (Err(_), Err(error)) => refused(&error),
            (read, indexed) => panic!("an index and a reader disagree: {indexed:?}, {read:?}"),
        }
        if let Ok(Some(members)) = &whole {
            written(members).await;
        }
        image(bytes).await;
    });
}

type Members = Vec<(Member, Vec<u8>)>;

fn place() -> Place {
    Place::new("archive")
}

/// All members with their data; `None` if there is too much of it.
async fn members(stream: ByteStream) -> Result<Option<Members>, ImageError> {
    let mut reader = ArchiveReader::new(stream, place());
    let (mut members, mut left) = (Vec::new(), READ);
    while let Some(member) = reader.next().await? {
        if member.size > left {
            return Ok(None);
        }
        left -= member.size;
        let data = reader.document(&member, member.size).await?;
        assert_eq!(data.len() as u64, member.size, "a member has as many bytes as it says");
        members.push((member, data.to_vec()));
    }
    Ok(Some(members))
}

fn same(one: &Result<Option<Members>, ImageError>, other: &Result<Option<Members>, ImageError>) {
    match (one, other) {
        (Ok(one), Ok(other)) => assert_eq!(one, other, "the steps make no difference"),
        (Err(one), Err(other)) => {
            // Of a compressed one, the end may be found wrong before what is in the middle.
            refused(one);
            refused(other);
        }
        _ => panic!("the steps make a difference: {one:?}, {other:?}"),
    }
}

fn agree(bytes: &[u8], members: &Members, files: &HashMap<String, (u64, u64)>, links: &HashMap<String, String>) {
    let mut seen = HashSet::new();
    for (member, data) in members {
        match &member.kind {
            MemberKind::Folder => continue,
            MemberKind::Link(target) => assert_eq!(links.get(&member.name), Some(target), "links are indexed"),
            MemberKind::File => {
                let (at, size) = files[&member.name];
                let at = usize::try_from(at).expect("it is in memory");
                assert_eq!((size, &bytes[at..][..data.len()]), (member.size, &data[..]), "files are indexed");
            }
        }
        assert!(seen.insert(&member.name), "no name is there twice");
    }
    assert_eq!(files.len() + links.len(), seen.len(), "nothing else is indexed");
}

/// Writes the files and reads them back.
async fn written(members: &Members) {
    let files: Vec<_> = members.iter().filter(|(member, _)| member.kind == MemberKind::File).collect();
    let mut writer = ArchiveWriter::new(Vec::new());
    for (member, data) in &files {
        writer.file(&member.name, data).await.expect("memory takes it");
    }
    let archive = writer.finish().await.expect("memory takes it");
    let read = self::members(Box::pin(Cursor::new(archive))).await.expect("what was written is read");
    assert!(read.expect("it is not larger").iter().eq(files), "files come back");
}

/// Reads the image in it, if there is one.
async fn image(bytes: &[u8]) {
    let mut export = StreamExport::new(Box::pin(Cursor::new(bytes.to_vec())), place(), None, HashMap::new());
    loop {
        match export.next_layer().await {
            Ok(Some(mut layer)) => {
                let mut head = [0; 1024];
                if let Err(error) = layer.data.read(&mut head).await {
                    return kind(ErrorKind::of_io(&error));
                }
            }
            Ok(None) => break,
            Err(error) => return refused(&error),
        }
    }
    match export.manifests().await {
        Ok(Some(blobs)) => {
            if let Err(error) = blobs.blob(blobs.root()).await {
                refused(&error);
            }
        }
        Ok(None) => match export.images().await {
            Ok(images) => assert_eq!(images.len(), 1, "one image is chosen"),
            Err(error) => refused(&error),
        },
        Err(error) => refused(&error),
    }
}

fn refused(error: &ImageError) {
    kind(error.kind());
}

fn kind(kind: ErrorKind) {
    assert!(matches!(kind, ErrorKind::Integrity | ErrorKind::NotFound | ErrorKind::Usage), "refused as {kind:?}");
}
