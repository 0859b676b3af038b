//! Two ends, over a pipe in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, TryFutureExt as _};
use multistream_select::{Negotiated, Version, dialer_select_proto, listener_select_proto};
use tokio::io::{DuplexStream, duplex};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use super::*;

type Socket = Negotiated<Counted>;

/// One end of a pipe, which counts how often it is written to.
struct Counted {
    pipe: Compat<DuplexStream>,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_close(cx)
    }
}

/// Bytes that fit into a pipe: far fewer than a record has, so that everything has to wait in between.
const NARROW: usize = 5_000;

/// What one end got: the name of the protocol, the peer, the channel.
type Got<T> = (String, PeerId, T);

/// Connects a dialer and a listener as libp2p does: negotiates, and secures. The last number counts what the dialer has written.
async fn connect<D, L, DT, LT>(pipe: usize, dialer: D, listener: L) -> (Got<DT>, Got<LT>, Arc<AtomicUsize>)
where
    D: OutboundConnectionUpgrade<Socket, Output = (PeerId, DT)>,
    L: InboundConnectionUpgrade<Socket, Output = (PeerId, LT)>,
    D::Error: fmt::Debug,
    L::Error: fmt::Debug,
{
    let (near, far) = duplex(pipe);
    let writes = Arc::new(AtomicUsize::new(0));
    let near = Counted { pipe: near.compat(), writes: Arc::clone(&writes) };
    let far = Counted { pipe: far.compat(), writes: Arc::default() };
    let dial = async {
        let (info, socket) = dialer_select_proto(near, dialer.protocol_info(), Version::V1Lazy).await.unwrap();
        let name = info.as_ref().to_owned();
        let (peer, channel) = dialer.upgrade_outbound(socket, info).await.unwrap();
        (name, peer, channel)
    };
    let listen = async {
        let (info, socket) = listener_select_proto(far, listener.protocol_info()).await.unwrap();
        let name = info.as_ref().to_owned();
        let (peer, channel) = listener.upgrade_inbound(socket, info).await.unwrap();
        (name, peer, channel)
    };
    let (near, far) = futures::join!(dial, listen);
    (near, far, writes)
}

fn keys() -> (Keypair, Keypair) {
    (Keypair::generate_ed25519(), Keypair::generate_ed25519())
}

fn noise(keypair: &Keypair) -> libp2p_noise::Config {
    libp2p_noise::Config::new(keypair).unwrap()
}

fn tls(keypair: &Keypair) -> libp2p_tls::Config {
    libp2p_tls::Config::new(keypair).unwrap()
}

/// Sends more than all buffers have, in pieces, from one to the other.
async fn send(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) {
    let sent: Vec<u8> = (0..1_000_000_u32).map(|at| at.to_le_bytes()[usize::from(at % 7 == 0)]).collect();
    let mut came = vec![0; sent.len()];
    let write = async {
        for piece in sent.chunks(14_001) {
            from.write_all(piece).await?;
        }
        from.flush().await
    };
    futures::try_join!(write, to.read_exact(&mut came).map_ok(|()| ())).unwrap();
    assert!(came == sent);
}

/// Connects, and sends both ways; what was negotiated.
async fn meet<D, L, DT, LT>((near, far): &(Keypair, Keypair), dialer: D, listener: L) -> String
where
    D: OutboundConnectionUpgrade<Socket, Output = (PeerId, DT)>,
    L: InboundConnectionUpgrade<Socket, Output = (PeerId, LT)>,
    D::Error: fmt::Debug,
    L::Error: fmt::Debug,
    DT: AsyncRead + AsyncWrite + Unpin,
    LT: AsyncRead + AsyncWrite + Unpin,
{
    let ((name, met, mut here), (listened, met_by, mut there), _) = connect(NARROW, dialer, listener).await;
    assert_eq!((met, met_by), (far.public().to_peer_id(), near.public().to_peer_id()));
    assert_eq!(name, listened);
    send(&mut here, &mut there).await;
    send(&mut there, &mut here).await;
    let (unflushed, mut rest) = (vec![9; 20_000], Vec::new());
    let close = async {
        here.write_all(&unflushed).await?;
        here.close().await
    };
    let (closed, ended) = futures::join!(close, there.read_to_end(&mut rest));
    closed.unwrap();
    assert_eq!(
        (ended.unwrap(), &rest),
        (unflushed.len(), &unflushed),
        "{name} ends without an error, and with what was not flushed"
    );
    name
}

#[tokio::test]
async fn the_dialer_gets_what_it_prefers() {
    let both = keys();
    for dialer in [Protocol::Tls, Protocol::Noise] {
        for listener in [Protocol::Tls, Protocol::Noise] {
            let near = Config::preferring(dialer, &both.0).unwrap();
            let far = Config::preferring(listener, &both.1).unwrap();
            assert_eq!(meet(&both, near, far).await, dialer.name());
        }
    }
}

#[tokio::test]
async fn who_knows_one_of_them_gets_that() {
    let both = keys();
    for first in [Protocol::Tls, Protocol::Noise] {
        let near = || Config::preferring(first, &both.0).unwrap();
        let far = || Config::preferring(first, &both.1).unwrap();
        assert_eq!(meet(&both, near(), noise(&both.1)).await, "/noise");
        assert_eq!(meet(&both, near(), tls(&both.1)).await, "/tls/1.0.0");
        assert_eq!(meet(&both, noise(&both.0), far()).await, "/noise");
        assert_eq!(meet(&both, tls(&both.0), far()).await, "/tls/1.0.0");
    }
}

#[tokio::test]
async fn headers_and_what_follows_them_are_written_at_once() {
    let (near, far) = keys();
    let dialer = Config::preferring(Protocol::Tls, &near).unwrap();
    let listener = Config::preferring(Protocol::Tls, &far).unwrap();
    let ((_, _, mut here), (_, _, mut there), writes) = connect(1 << 20, dialer, listener).await;
    here.flush().await.unwrap();
    let before = writes.load(Ordering::Relaxed);
    for _ in 0..4 {
        here.write_all(&[7; 12]).await.unwrap();
        here.write_all(&[8; 12_000]).await.unwrap();
    }
    assert_eq!(writes.load(Ordering::Relaxed), before, "nothing is written before it is flushed");
    here.flush().await.unwrap();
    // A record has 16 KiB at most. Whether they go by one call is up to the socket: this one takes them one by one.
    assert_eq!(writes.load(Ordering::Relaxed) - before, (4_usize * 12_012).div_ceil(16 << 10));
    let mut came = vec![0; 4 * 12_012];
    there.read_exact(&mut came).await.unwrap();
    assert!(came.chunks(12_012).all(|frame| frame[..12] == [7; 12] && frame[12..] == [8; 12_000]));
}

/// All peers have one name for TLS: what one of them says of a session must not be told to another.
#[tokio::test]
async fn sessions_are_not_resumed() {
    let (near, far) = keys();
    let other = Keypair::generate_ed25519();
    let dialer = Config::preferring(Protocol::Tls, &near).unwrap();
    let (first, second) =
        (Config::preferring(Protocol::Tls, &far).unwrap(), Config::preferring(Protocol::Tls, &other).unwrap());
    for (keypair, listener) in [(&far, &first), (&far, &first), (&other, &second), (&far, &first)] {
        let ((_, met, mut here), (_, _, mut there), _) = connect(NARROW, dialer.clone(), listener.clone()).await;
        assert_eq!(met, keypair.public().to_peer_id());
        // Tickets would come before the first bytes.
        send(&mut there, &mut here).await;
        for channel in [&here, &there] {
            let Either::Left(channel) = channel else { panic!("not by TLS") };
            assert_eq!(channel.get_ref().get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        }
    }
}

/// The copies in `third_party` are used, and know this processor.
#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn tls_comes_first_where_the_processor_has_aes() {
    let config = Config::new(&Keypair::generate_ed25519()).unwrap();
    #[cfg(target_arch = "x86_64")]
    let aes = is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let aes = std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    assert_eq!(config.first, if aes { Protocol::Tls } else { Protocol::Noise });
    assert_eq!(config.protocol_info().count(), 2);
}
