//! The streams by which this node sends: one per peer for what it wants, one for what it answers.

use futures::AsyncWriteExt as _;
use ipcr_swarm::Stream;

use super::message::Message;
use super::{Bitswap, PROTOCOL, Peer, STREAM_IDLE};
use crate::node::frame;

/// An outbound stream that is opened when it is needed.
#[derive(Default)]
pub(super) struct Outbound {
    stream: Option<Stream>,
}

impl Outbound {
    /// Writes one message, with a new stream if there is none or if the one that there is fails.
    pub(super) async fn send(&mut self, bitswap: &Bitswap, peer: &Peer, message: &Message) -> bool {
        let parts = message.encode();
        let parts: Vec<&[u8]> = parts.iter().map(AsRef::as_ref).collect();
        for attempt in 0..2 {
            let mut open = match self.stream.take() {
                Some(open) => open,
                None => match bitswap.hub.open(&peer.id, &PROTOCOL).await {
                    Ok(open) => open,
                    Err(error) => {
                        tracing::debug!(peer = %peer.id, %error, attempt, "no bitswap stream");
                        continue;
                    }
                },
            };
            match frame::write(&mut open, &parts).await {
                Ok(()) => {
                    self.stream = Some(open);
                    return true;
                }
                Err(error) => tracing::debug!(peer = %peer.id, %error, attempt, "a bitswap stream failed"),
            }
        }
        false
    }

    /// Ends the stream, if there is one.
    pub(super) async fn close(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            let _ = tokio::time::timeout(STREAM_IDLE, stream.close()).await;
        }
    }
}
