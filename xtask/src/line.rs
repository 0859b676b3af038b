//! A TCP line to a port of this machine that is slow or long: [`Line`].

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::shell::Result;

/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;
/// Pieces that are under way on a long line: more than any window of the programs under test.
const UNDER_WAY: usize = 4096;
/// How long unused rate is kept, so that a thread that wakes late does not lower it.
const SAVED: Duration = Duration::from_millis(10);

/// What a line does to what passes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quality {
    /// How much later every byte arrives, in both directions.
    pub(crate) delay: Duration,
    /// Bytes a second that pass to the port, all connections together; no limit if `None`.
    pub(crate) up: Option<f64>,
    /// The same for what comes from it.
    pub(crate) down: Option<f64>,
}

/// A line. Its threads end with the connections, the one that accepts with the program.
pub(crate) struct Line {
    /// Where it is reached, on loopback.
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    down: Arc<Way>,
}

impl Line {
    /// A line to `target`, a port of this machine.
    pub(crate) fn start(target: u16, quality: Quality) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let connections: Arc<AtomicUsize> = Arc::default();
        let way =
            |rate| Arc::new(Way { delay: quality.delay, rate, free: Mutex::new(Instant::now()), passed: 0.into() });
        let (up, down) = (way(quality.up), way(quality.down));
        let line = Self { port, connections: connections.clone(), down: down.clone() };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::AcqRel);
                // A connection that fails is the affair of those who talk through it.
                let _ = connect(&client, target, &up, &down);
            }
        });
        Ok(line)
    }

    /// An address with the port of `target`, led through the line.
    pub(crate) fn lead(&self, address: &str, target: u16) -> String {
        address.replace(&format!("/tcp/{target}/"), &format!("/tcp/{}/", self.port))
    }

    /// How many connections went through it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Bytes that came from the port.
    pub(crate) fn passed(&self) -> u64 {
        self.down.passed.load(Ordering::Relaxed)
    }
}

/// One direction of all connections.
struct Way {
    delay: Duration,
    /// Bytes a second.
    rate: Option<f64>,
    /// When what was passed on so far is paid for.
    free: Mutex<Instant>,
    passed: AtomicU64,
}

impl Way {
    /// Waits until so many bytes may pass.
    fn take(&self, bytes: u32) {
        if let Some(rate) = self.rate {
            let due = {
                let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
                let from = (*free).max(Instant::now().checked_sub(SAVED).unwrap_or(*free));
                *free = from + Duration::from_secs_f64(f64::from(bytes) / rate);
                *free
            };
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        self.passed.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }
}

fn connect(client: &TcpStream, target: u16, up: &Arc<Way>, down: &Arc<Way>) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    pass(client.try_clone()?, server.try_clone()?, up.clone());
    pass(server, client.try_clone()?, down.clone());
    Ok(())
}

/// Passes on everything until one side has had enough.
fn pass(mut from: TcpStream, mut to: TcpStream, way: Arc<Way>) {
    let mut next = move |way: &Way| {
        let mut piece = vec![0; PIECE];
        let count = from.read(&mut piece).ok().filter(|count| *count > 0)?;
        way.take(u32::try_from(count).expect("a piece is small"));
        piece.truncate(count);
        Some(piece)
    };
    if way.delay.is_zero() {
        // Nothing is kept on the way, so that whoever reads slowly is felt by whoever writes.
        thread::spawn(move || {
            while let Some(piece) = next(&way) {
                if to.write_all(&piece).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
        return;
    }
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    thread::spawn(move || {
        while let Some(piece) = next(&way) {
            if sender.send((Instant::now() + way.delay, piece)).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, piece) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
