//! A DNS server on loopback for names of one's own: [`Zone`].
//!
//! It answers TXT questions over UDP (RFC 1035), without DNSSEC, with answers that are never cached. A real registry has
//! its records at its domain's DNS provider: they are what `ipcr id` prints.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipcr_core::registry::outcome::TxtRecord;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// TXT values by name, in lower case.
type Records = Arc<Mutex<HashMap<String, Vec<String>>>>;

const TXT: [u8; 4] = [0, 16, 0, 1];

/// A running server; it ends when it is dropped.
#[derive(Debug)]
pub struct Zone {
    address: SocketAddr,
    records: Records,
    task: JoinHandle<()>,
}

impl Zone {
    /// Starts an empty one on a free port.
    pub async fn serve() -> std::io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let records = Records::default();
        let shared = Arc::clone(&records);
        let task = tokio::spawn(async move {
            let mut question = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let answer = answer(&question[..length], &shared);
                if let Some(answer) = answer
                    && socket.send_to(&answer, from).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { address, records, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces all records.
    pub fn set(&self, records: &[TxtRecord]) {
        let mut zone = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        zone.clear();
        for record in records {
            zone.entry(record.name.to_lowercase()).or_default().push(record.value.clone());
        }
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answer to a question; none to what is no question.
fn answer(question: &[u8], records: &Records) -> Option<Vec<u8>> {
    let (name, end) = name(question, 12)?;
    let kind = question.get(end..end + 4)?;
    let found = records.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
    let exists = found.is_some();
    let values = found.filter(|_| kind == TXT).unwrap_or_default();
    let count = u8::try_from(values.len()).ok()?;
    let mut answer = question[..2].to_vec();
    // A response of the zone itself: QR, AA, RD as asked, and NXDOMAIN where there is nothing by that name.
    answer.extend([0x84 | (question[2] & 1), if exists { 0 } else { 3 }]);
    answer.extend([0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(&question[12..end + 4]);
    for value in values {
        // The name is the one at offset 12; a TTL of 0 seconds.
        answer.extend([0xc0, 12]);
        answer.extend(TXT);
        answer.extend([0; 4]);
        let strings = value.as_bytes().chunks(255);
        let length = u16::try_from(value.len() + strings.len()).ok()?;
        answer.extend(length.to_be_bytes());
        for string in strings {
            answer.push(u8::try_from(string.len()).ok()?);
            answer.extend(string);
        }
    }
    Some(answer)
}

/// The name at `at`, in lower case and without a final dot, and where it ends.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => return Some((labels.join("."), at)),
            1..=63 => labels.push(String::from_utf8(message.get(at..at + length)?.to_ascii_lowercase()).ok()?),
            _ => return None,
        }
        at += length;
    }
}
