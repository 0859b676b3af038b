//! `/ipfs/ping/1.0.0`: whoever sends 32 bytes gets them back.
//!
//! Source: libp2p specification, "Ping". rust-libp2p's own behaviour is not used, because it stops to answer a peer that does not
//! speak the protocol itself (version 0.47 of `libp2p-ping`); js-libp2p, where pinging is optional and answering to it is not
//! asked for, then takes this node for dead and drops the connection.

use std::io;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use ipcr_swarm::StreamProtocol;
use tokio::time::timeout;

/// The protocol.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// Bytes of a ping.
const PING_BYTES: usize = 32;
/// The longest time between two pings on a stream.
const IDLE: Duration = Duration::from_secs(60);

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
