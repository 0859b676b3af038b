//! A registry to try things with: [`Hub`].

use std::path::{Path, PathBuf};

use ipcr_core::media::spec::ImageSpec;
use ipcr_core::registry::Registry;
use ipcr_core::registry::options::PushOptions;
use ipcr_core::registry::outcome::{Identity, PushOutcome};
use tempfile::TempDir;

use crate::zone::Zone;
use crate::{Failure, home, layout};

/// A publisher that serves `hub.test/app:1` on loopback, and somebody else who knows its domain. All in a temporary folder.
#[derive(Debug)]
pub struct Hub {
    /// The publisher.
    pub alice: Registry,
    /// Who that is.
    pub identity: Identity,
    /// What it pushed.
    pub pushed: PushOutcome,
    /// Somebody else.
    pub bob: Registry,
    dir: TempDir,
    _zone: Zone,
}

impl Hub {
    /// Makes an image of about `bytes` and pushes it.
    pub async fn with_image(bytes: usize) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let zone = Zone::serve().await?;
        let (alice, identity) = home::publisher(&dir.path().join("alice"), "hub.test", &zone).await?;
        let bob = home::open(&dir.path().join("bob"), &zone).await?;
        let made = dir.path().join("made");
        layout::make(&made, "1", 1, bytes)?;
        let mut options = PushOptions::default();
        options.target = Some("app:1".parse()?);
        let pushed = alice.push(at(&made), options).await?;
        Ok(Self { alice, identity, pushed, bob, dir, _zone: zone })
    }

    /// A folder of that name, for the caller's use.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The layout that was pushed.
    pub fn made(&self) -> PathBuf {
        self.path("made")
    }

    /// Ends both.
    pub async fn shutdown(self) -> Result<(), Failure> {
        self.bob.shutdown().await?;
        self.alice.shutdown().await?;
        Ok(())
    }
}

/// An OCI image layout as a source or sink.
pub fn at(folder: &Path) -> ImageSpec {
    ImageSpec::OciLayout { dir: folder.to_owned(), name: Some("1".into()) }
}
