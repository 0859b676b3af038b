//! From a path and a few words to a registry that is open: [`Builder`].

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use multiaddr::Multiaddr;

use super::open::{self, OpenHome, Purpose};
use crate::engine::discovery::Discovery;
use crate::identity::NodeKey;
use crate::media::registry::credentials::Credentials;
use crate::naming::dns::DnsServer;
use crate::net::addresses::NetworkMode;
use crate::node::{NodeConfig, Share};
use crate::registry::error::RegistryError;
use crate::registry::local::{CacheSize, HomeConfig};
use crate::registry::places::Surroundings;

/// How long a home that another process holds for itself is waited for.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How a home is opened: where it is, whom it may talk to, what is around it.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ipcr_core::control::builder::Builder;
/// use ipcr_core::media::spec::ImageSpec;
/// use ipcr_core::node::NetworkMode;
/// use ipcr_core::registry::options::PullOptions;
///
/// let home = Builder::new("/var/lib/app/ipcr", NetworkMode::Public).open().await?;
/// let sink = ImageSpec::sink("docker-archive:app.tar")?;
/// let pulled = home.registry.pull("some.domain/app:1".parse()?, sink, PullOptions::default()).await?;
/// home.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is opened until `open` or `hold` is awaited"]
pub struct Builder {
    config: HomeConfig,
    surroundings: Surroundings,
    command: String,
    lock_wait: Duration,
    purpose: Purpose,
}

impl Builder {
    /// A home at `path`, which is made if need be, that reaches as far as `mode` says.
    pub fn new(path: impl Into<PathBuf>, mode: NetworkMode) -> Self {
        // The home keeps the transport key that is really used.
        let node = NodeConfig::new(NodeKey::generate().keypair().clone(), mode.clone());
        let mut config = HomeConfig::new(path, node);
        config.dns.mode = mode;
        let (surroundings, purpose) = (Surroundings::default(), Purpose::default());
        Self { config, surroundings, command: "a program".into(), lock_wait: LOCK_WAIT, purpose }
    }

    /// Listens at these addresses instead of all of the mode's.
    pub fn listen(mut self, addresses: impl IntoIterator<Item = Multiaddr>) -> Self {
        self.config.node.listen.extend(addresses);
        self
    }

    /// Dials these peers before anybody else, and keeps them connected. Each address ends in `/p2p/<peer>`.
    pub fn peers(mut self, addresses: impl IntoIterator<Item = Multiaddr>) -> Self {
        self.config.node.peers.extend(addresses);
        self
    }

    /// Enters the network through these peers instead of the built-in ones. Each address ends in `/p2p/<peer>`.
    pub fn bootstrap(mut self, addresses: impl IntoIterator<Item = Multiaddr>) -> Self {
        self.config.node.bootstrap = addresses.into_iter().collect();
        self
    }

    /// Asks these DNS servers instead of the system's.
    pub fn dns(mut self, servers: impl IntoIterator<Item = DnsServer>) -> Self {
        self.config.dns.servers.extend(servers);
        self
    }

    /// DNSSEC trust anchors besides the root's, each the text of `DNSKEY` records in the form of a zone file.
    pub fn dns_anchors(mut self, records: impl IntoIterator<Item = String>) -> Self {
        self.config.dns.anchors.extend(records);
        self
    }

    /// Asks these delegated routers (URLs) too.
    pub fn routers(mut self, urls: impl IntoIterator<Item = String>) -> Self {
        self.config.routers.extend(urls);
        self
    }

    /// Asks these trustless gateways (URLs) too.
    pub fn gateways(mut self, urls: impl IntoIterator<Item = String>) -> Self {
        self.config.gateways.extend(urls);
        self
    }

    /// Uses kept records although they have expired, when nobody has a valid one.
    pub fn allow_stale(mut self, allow: bool) -> Self {
        self.surroundings.allow_stale = allow;
        self
    }

    /// Uses no network at all: own and cached images only.
    pub fn offline(mut self, offline: bool) -> Self {
        self.config.node.offline = offline;
        self
    }

    /// The longest time without progress in one stage, before it fails (default: 60 seconds).
    pub fn stall(mut self, stall: Duration) -> Self {
        self.config.stall = stall;
        self
    }

    /// Keeps at most so much of what was pulled (default: a tenth of the disk, at most 10 GiB).
    pub fn cache(mut self, size: CacheSize) -> Self {
        self.config.cache = size;
        self
    }

    /// What others get of what is stored here (default: everything).
    pub fn share(mut self, share: Share) -> Self {
        self.surroundings.share = matches!(share, Share::All);
        self.config.node.share = share;
        self
    }

    /// The most bytes of blocks that are sent to all peers together, and taken from all peers and gateways together, in a second (default: as
    /// many as can be). Less than [`limits::LEAST_RATE`](crate::limits::LEAST_RATE) looks like a standstill to others, who then end it.
    pub fn rates(mut self, upload: Option<NonZeroU64>, download: Option<NonZeroU64>) -> Self {
        (self.config.node.upload, self.config.node.download) = (upload, download);
        self
    }

    /// Where container engines may be (default: the usual sockets).
    pub fn engines(mut self, engines: Discovery) -> Self {
        self.surroundings.engines = engines;
        self
    }

    /// Who to be at OCI registries (default: nobody).
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.surroundings.credentials = credentials;
        self
    }

    /// What others are told about who holds the home, for people: `ipcr serve`.
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }

    /// How long a home is waited for whose holder lets nobody work through it (default: [`LOCK_WAIT`]).
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// What the home is opened for (default: [`Purpose::Work`]).
    pub fn purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// Opens the home: holds it and lets others work through this process, or works through the process that holds it. Needs
    /// a tokio runtime with I/O and time.
    pub async fn open(self) -> Result<OpenHome, RegistryError> {
        let purpose = self.purpose;
        let (config, surroundings, command, wait) = self.parts();
        open::open(config, surroundings, &command, wait, purpose).await
    }

    /// Opens the home as its holder, which `init` and serving need; waits for another one to let go.
    pub async fn hold(self) -> Result<OpenHome, RegistryError> {
        let (config, surroundings, command, wait) = self.parts();
        open::hold(config, surroundings, &command, wait).await
    }

    fn parts(mut self) -> (HomeConfig, Surroundings, String, Duration) {
        self.surroundings.peers.clone_from(&self.config.node.peers);
        self.surroundings.stall = self.config.stall;
        (self.config, self.surroundings, self.command, self.lock_wait)
    }
}
