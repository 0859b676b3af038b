//! `/ipfs/ping/1.0.0`: whoever sends 32 bytes gets them back ([`answer`]), and knows how long the way is ([`round_trip`]).
//!
//! Source: libp2p specification, "Ping". rust-libp2p's own behaviour is not used, because it stops to answer a peer that does not
//! speak the protocol itself (version 0.47 of `libp2p-ping`); js-libp2p, where pinging is optional and answering to it is not
//! asked for, then takes this node for dead and drops the connection.

use std::io;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use ipcr_swarm::StreamProtocol;
use tokio::time::{Instant, sleep, timeout};

/// The protocol.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// Bytes of a ping.
const PING_BYTES: usize = 32;
/// The longest time between two pings on a stream.
const IDLE: Duration = Duration::from_secs(60);

/// Pings of which the quickest is the round trip, and the time between two of them.
const PINGS: (u8, Duration) = (5, Duration::from_millis(50));

/// How long the quickest of a few pings takes there and back, by a fresh stream. What it waits for at a line that is full counts; what one ping
/// waits for behind other streams of its connection does not, unless all do.
pub(super) async fn round_trip<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<Duration> {
    let mut least = Duration::MAX;
    for number in 0..PINGS.0 {
        if number > 0 {
            sleep(PINGS.1).await;
        }
        let begin = Instant::now();
        stream.write_all(&[number; PING_BYTES]).await?;
        stream.flush().await?;
        let mut pong = [0; PING_BYTES];
        stream.read_exact(&mut pong).await?;
        if pong != [number; PING_BYTES] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another ping came back"));
        }
        least = least.min(begin.elapsed());
    }
    stream.close().await?;
    Ok(least)
}

/// Sends back what comes, until the other side ends the stream or says nothing for a minute.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut ping = [0; PING_BYTES];
    loop {
        match timeout(IDLE, stream.read_exact(&mut ping)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Ok(Err(error)) => return Err(error),
            Err(_) => break,
        }
        let pong = async {
            stream.write_all(&ping).await?;
            stream.flush().await
        };
        timeout(IDLE, pong).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
    stream.close().await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    #[tokio::test]
    async fn a_round_trip_is_as_long_as_its_quickest_ping() {
        let (ours, mut theirs) = tokio::io::duplex(256);
        let answering = async {
            let mut ping = [0; PING_BYTES];
            for wait in [120, 40, 120, 120, 120] {
                theirs.read_exact(&mut ping).await.unwrap();
                sleep(Duration::from_millis(wait)).await;
                theirs.write_all(&ping).await.unwrap();
            }
            assert_eq!(theirs.read(&mut ping).await.unwrap(), 0);
        };
        let (least, ()) = tokio::join!(round_trip(ours.compat()), answering);
        let least = least.unwrap();
        assert!(least >= Duration::from_millis(40) && least < Duration::from_millis(120), "{least:?}");
    }

    #[tokio::test]
    async fn what_comes_back_must_be_the_ping() {
        let (ours, mut theirs) = tokio::io::duplex(256);
        let answering = async {
            theirs.read_exact(&mut [0; PING_BYTES]).await.unwrap();
            theirs.write_all(&[9; PING_BYTES]).await.unwrap();
        };
        let (least, ()) = tokio::join!(round_trip(ours.compat()), answering);
        assert_eq!(least.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn pings_come_back_until_the_end() {
        let (ours, mut theirs) = tokio::io::duplex(256);
        let asking = async {
            for number in 0..3 {
                theirs.write_all(&[number; PING_BYTES]).await.unwrap();
                let mut pong = [9; PING_BYTES];
                theirs.read_exact(&mut pong).await.unwrap();
                assert_eq!(pong, [number; PING_BYTES]);
            }
            // Half a ping has no answer.
            theirs.write_all(&[1; PING_BYTES / 2]).await.unwrap();
            theirs.shutdown().await.unwrap();
            assert_eq!(theirs.read(&mut [0; 1]).await.unwrap(), 0);
        };
        let (answered, ()) = tokio::join!(answer(ours.compat()), asking);
        answered.unwrap();
    }
}
