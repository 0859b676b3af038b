//! Secure channels of an ipcr node: TLS and noise, whichever costs less first.
//!
//! libp2p nodes prove who they are, and encrypt what follows, by noise or by TLS 1.3 (libp2p specification, `noise/README.md` and `tls/tls.md`), as both ends
//! like. noise always encrypts with ChaCha20-Poly1305, for which a processor with instructions for AES needs five times as long as for AES-GCM. So
//! [`Config`] offers both, and TLS first where its first cipher is AES.
//!
//! * An end that knows only one of them gets that one.
//! * What is written over TLS is collected (`RECORDS`) until it is flushed, as noise does by itself: yamux writes headers of 12 bytes, of which each would
//!   be a record and a packet of its own.
//!
//! It stands where libp2p has `libp2p::noise` (`third_party/libp2p`), because rust-ipfs lets nobody choose; docs/design/019 says more.

use std::fmt;
use std::iter;
use std::slice;

use futures::future::{BoxFuture, Either};
use futures::io::BufWriter;
use futures::{AsyncRead, AsyncWrite, FutureExt as _, TryFutureExt as _};
use libp2p_core::UpgradeInfo;
use libp2p_core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p_identity::{Keypair, PeerId};
use rustls::CipherSuite;
use thiserror::Error;

#[cfg(test)]
mod tests;

/// Bytes that are collected before they are encrypted: four of the longest records of TLS (RFC 8446, section 5.1).
const RECORDS: usize = 64 << 10;

/// Why a channel could not be secured.
#[derive(Debug, Error)]
pub enum Error {
    /// By noise.
    #[error(transparent)]
    Noise(#[from] libp2p_noise::Error),
    /// By TLS.
    #[error(transparent)]
    Tls(#[from] libp2p_tls::UpgradeError),
}

/// What secures a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// `/tls/1.0.0`
    Tls,
    /// `/noise`
    Noise,
}

impl Protocol {
    /// How multistream-select calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "/tls/1.0.0",
            Self::Noise => "/noise",
        }
    }
}

impl AsRef<str> for Protocol {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

/// A secured channel over a channel `C`.
pub type Channel<C> = Either<BufWriter<libp2p_tls::TlsStream<C>>, libp2p_noise::Output<C>>;

/// Secures connections by what both ends know.
#[derive(Clone)]
pub struct Config {
    tls: libp2p_tls::Config,
    noise: libp2p_noise::Config,
    first: Protocol,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("first", &self.first).finish_non_exhaustive()
    }
}

impl Config {
    /// For a node with this transport key; what is offered first is what costs this processor less.
    ///
    /// # Errors
    ///
    /// The key cannot sign.
    pub fn new(keypair: &Keypair) -> Result<Self, Error> {
        let client = libp2p_tls::make_client_config(keypair, None).map_err(libp2p_tls::UpgradeError::from)?;
        let cipher = client.crypto_provider().cipher_suites.first().map(rustls::SupportedCipherSuite::suite);
        let first = match cipher {
            Some(CipherSuite::TLS13_AES_128_GCM_SHA256 | CipherSuite::TLS13_AES_256_GCM_SHA384) => Protocol::Tls,
            // Both would encrypt with ChaCha20-Poly1305, and noise does it in larger pieces.
            _ => Protocol::Noise,
        };
        Self::preferring(first, keypair)
    }

    /// For a node with this transport key, with this one first.
    ///
    /// # Errors
    ///
    /// The key cannot sign.
    pub fn preferring(first: Protocol, keypair: &Keypair) -> Result<Self, Error> {
        let tls = libp2p_tls::Config::new(keypair).map_err(libp2p_tls::UpgradeError::from)?;
        Ok(Self { tls, noise: libp2p_noise::Config::new(keypair)?, first })
    }
}

impl UpgradeInfo for Config {
    type Info = Protocol;
    type InfoIter = iter::Copied<slice::Iter<'static, Protocol>>;

    fn protocol_info(&self) -> Self::InfoIter {
        let protocols: &'static [Protocol] = match self.first {
            Protocol::Tls => &[Protocol::Tls, Protocol::Noise],
            Protocol::Noise => &[Protocol::Noise, Protocol::Tls],
        };
        protocols.iter().copied()
    }
}

impl<C> InboundConnectionUpgrade<C> for Config
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Channel<C>);
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Output, Error>>;

    fn upgrade_inbound(self, socket: C, protocol: Protocol) -> Self::Future {
        match protocol {
            Protocol::Tls => self.tls.upgrade_inbound(socket, protocol.name()).map_ok(by_tls).err_into().boxed(),
            Protocol::Noise => self.noise.upgrade_inbound(socket, protocol.name()).map_ok(by_noise).err_into().boxed(),
        }
    }
}

impl<C> OutboundConnectionUpgrade<C> for Config
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Channel<C>);
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Output, Error>>;

    fn upgrade_outbound(self, socket: C, protocol: Protocol) -> Self::Future {
        match protocol {
            Protocol::Tls => self.tls.upgrade_outbound(socket, protocol.name()).map_ok(by_tls).err_into().boxed(),
            Protocol::Noise => self.noise.upgrade_outbound(socket, protocol.name()).map_ok(by_noise).err_into().boxed(),
        }
    }
}

fn by_tls<C: AsyncRead + AsyncWrite + Unpin>(
    (peer, stream): (PeerId, libp2p_tls::TlsStream<C>),
) -> (PeerId, Channel<C>) {
    (peer, Either::Left(BufWriter::with_capacity(RECORDS, stream)))
}

fn by_noise<C>((peer, stream): (PeerId, libp2p_noise::Output<C>)) -> (PeerId, Channel<C>) {
    (peer, Either::Right(stream))
}
