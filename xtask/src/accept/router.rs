//! A delegated router on loopback that says what it is told to say, and records to give to it.
//!
//! Source: Delegated Routing V1 HTTP API, "IPNS API".

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p_identity::Keypair;

use super::lab::Lab;
use super::site::text;
use crate::shell::Result;

const RECORD: &str = "application/vnd.ipfs.ipns-record";
/// Most bytes of a record.
const RECORD_BYTES: usize = 10 << 10;

type Records = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// The router. It runs until this program ends.
pub(crate) struct Router {
    pub(crate) url: String,
    records: Records,
}

impl Router {
    /// Starts one that knows nothing.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let records = Records::default();
        let known = Arc::clone(&records);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let known = Arc::clone(&known);
                std::thread::spawn(move || answer(stream, &known));
            }
        });
        Ok(Self { url, records })
    }

    /// Answers with this record from now on, whatever is put afterwards is kept instead; `None`: with none.
    pub(crate) fn say(&self, name: &str, record: Option<Vec<u8>>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        match record {
            Some(record) => records.insert(name.to_owned(), record),
            None => records.remove(name),
        };
    }
}

/// Answers one request; `None` when the other side has gone.
fn answer(mut stream: TcpStream, known: &Records) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut line, mut length) = (String::new(), 0_usize);
    reader.read_line(&mut line).ok()?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((key, value)) = header.split_once(':') else { break };
        if key.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?, words.next()?);
    let name = path.strip_prefix("/routing/v1/ipns/");
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = match (method, name) {
        ("GET", Some(name)) => {
            known.get(name).map_or(("404 Not Found", Vec::new()), |record| ("200 OK", record.clone()))
        }
        ("PUT", Some(name)) if length <= RECORD_BYTES => {
            let mut record = vec![0; length];
            reader.read_exact(&mut record).ok()?;
            known.insert(name.to_owned(), record);
            ("200 OK", Vec::new())
        }
        _ => ("400 Bad Request", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {RECORD}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body).ok()
}

/// A registry key that checks sign records with, and give to homes.
pub(crate) struct TestKey {
    pair: Keypair,
    /// What `ipfs key export` writes.
    pub(crate) file: PathBuf,
    /// Its IPNS name.
    pub(crate) name: String,
}

impl TestKey {
    /// A new one.
    pub(crate) fn new(lab: &Lab, name: &str) -> Result<Self> {
        let pair = Keypair::generate_ed25519();
        let file = lab.path(&format!("{name}.key"));
        fs::write(&file, pair.to_protobuf_encoding()?)?;
        // Spelt by the program under test, from a home that is good for nothing else.
        let made = lab.home(&format!("{name}-spelt")).json(&["init", "--import", &file.display().to_string()])?;
        Ok(Self { pair, file, name: text(&made, "ipns")? })
    }

    /// A record of the key that is valid for so long from now on; with no time at all, one that has expired.
    pub(crate) fn record(&self, value: &str, sequence: u64, lifetime: Duration) -> Result<Vec<u8>> {
        let lifetime =
            if lifetime.is_zero() { chrono::TimeDelta::seconds(-60) } else { chrono::TimeDelta::from_std(lifetime)? };
        let until = chrono::Utc::now() + lifetime;
        Ok(rust_ipns::Record::new(&self.pair, value, until, sequence, Duration::from_secs(60))?.encode()?)
    }
}
