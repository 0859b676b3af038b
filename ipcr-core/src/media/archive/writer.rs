//! Writing an archive: [`ArchiveWriter`].
//!
//! Archives are deterministic: equal members give equal bytes (no times, no owners, one mode).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::header::{BLOCK, BLOCK_LEN};
use super::reader::padding;

/// Bytes that are copied at once.
const BUFFER: usize = 256 << 10;

/// An archive that is being written, front to back.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    output: W,
    written: u64,
}

impl<W: AsyncWrite + Unpin + Send> ArchiveWriter<W> {
    /// Begins an archive.
    pub fn new(output: W) -> Self {
        Self { output, written: 0 }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Adds a folder.
    pub async fn folder(&mut self, name: &str) -> io::Result<()> {
        self.header(&format!("{name}/"), tar::EntryType::Directory, 0).await
    }

    /// Adds a file that is at hand.
    pub async fn file(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        self.stream(name, data.len() as u64, data).await
    }

    /// Adds a file of exactly `size` bytes. A stream that is longer or shorter is an error, after which the archive is
    /// beyond repair.
    pub async fn stream(&mut self, name: &str, size: u64, data: impl AsyncRead + Send) -> io::Result<()> {
        self.header(name, tar::EntryType::Regular, size).await?;
        let mut data = std::pin::pin!(data);
        let mut buffer = vec![0; BUFFER.min(usize::try_from(size).unwrap_or(BUFFER).max(1))];
        let mut copied = 0;
        loop {
            match data.read(&mut buffer).await? {
                0 if copied == size => break,
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("`{name}` ends too early"))),
                read if copied + read as u64 > size => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("`{name}` is longer than announced"),
                    ));
                }
                read => {
                    self.output.write_all(&buffer[..read]).await?;
                    copied += read as u64;
                }
            }
        }
        self.pad(size).await?;
        self.written += size;
        Ok(())
    }

    /// Ends the archive and hands the output back, flushed.
    pub async fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK_LEN]).await?;
        self.output.flush().await?;
        Ok(self.output)
    }

    async fn header(&mut self, name: &str, kind: tar::EntryType, size: u64) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_entry_type(kind);
        if header.set_path(name).is_err() {
            self.long_name(name).await?;
            header.set_path(name.get(..100).unwrap_or("long"))?;
        }
        header.set_cksum();
        self.output.write_all(header.as_bytes()).await?;
        self.written += BLOCK;
        Ok(())
    }

    /// Names of more than 100 bytes (sha512) go into a member of their own, as GNU tar and Go read them.
    async fn long_name(&mut self, name: &str) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink")?;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let size = name.len() as u64 + 1;
        header.set_size(size);
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_cksum();
        self.output.write_all(header.as_bytes()).await?;
        self.output.write_all(name.as_bytes()).await?;
        self.output.write_all(&[0]).await?;
        self.pad(size).await?;
        self.written += BLOCK + size;
        Ok(())
    }

    async fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = padding(size);
        tokio::io::copy(&mut tokio::io::repeat(0).take(padding), &mut self.output).await?;
        self.written += padding;
        Ok(())
    }
}
