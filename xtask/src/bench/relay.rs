//! A TCP relay that lets bytes through at a rate: [`Relay`].
//!
//! The node has no limit on what it uploads; with a relay before each, seeders have one all the same.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::shell::Result;

/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;
/// How long unused rate is kept, so that a thread that wakes late does not lower it.
const SAVED: Duration = Duration::from_millis(10);

/// A relay to one service. Its threads end with the connections, the one that accepts with the program.
pub(super) struct Relay {
    /// Where it is reached, on loopback.
    pub(super) port: u16,
    passed: Arc<AtomicU64>,
}

impl Relay {
    /// Passes connections on to `target`, a port of this machine. What the service sends comes at `rate` bytes a second for all
    /// connections together; what is sent to it is not held up.
    pub(super) fn start(target: u16, rate: f64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let passed = Arc::new(AtomicU64::new(0));
        let bucket = Arc::new(Bucket { rate, free: Mutex::new(Instant::now()), passed: passed.clone() });
        thread::spawn(move || {
            for client in listener.incoming() {
                // A connection that fails is the affair of those who talk through it.
                let _ = client.and_then(|client| connect(client, target, bucket.clone()));
            }
        });
        Ok(Self { port, passed })
    }

    /// Bytes that the service has sent through it.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

/// A rate that several connections share.
struct Bucket {
    /// Bytes a second.
    rate: f64,
    /// When what was passed on so far is paid for.
    free: Mutex<Instant>,
    passed: Arc<AtomicU64>,
}

impl Bucket {
    /// Waits until so many bytes may pass.
    fn take(&self, bytes: u32) {
        let due = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let due = (*free).max(Instant::now().checked_sub(SAVED).unwrap_or(*free));
            *free = due + Duration::from_secs_f64(f64::from(bytes) / self.rate);
            *free
        };
        thread::sleep(due.saturating_duration_since(Instant::now()));
        self.passed.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }
}

fn connect(client: TcpStream, target: u16, bucket: Arc<Bucket>) -> io::Result<()> {
    let service = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    client.set_nodelay(true)?;
    service.set_nodelay(true)?;
    let (up, down) = ((client.try_clone()?, service.try_clone()?), (service, client));
    thread::spawn(move || pump(up.0, up.1, |_| {}));
    thread::spawn(move || pump(down.0, down.1, |bytes| bucket.take(bytes)));
    Ok(())
}

/// Passes on everything until one side has had enough.
fn pump(mut from: TcpStream, mut to: TcpStream, before: impl Fn(u32)) {
    let mut piece = [0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        before(u32::try_from(count).expect("a piece is small"));
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}
