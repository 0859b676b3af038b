//! Proxies in front of engines and nodes: what passes is noted, cut off, or held up.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::shell::Result;

/// A proxy. It runs until this program ends.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) port: u16,
    shared: Arc<Mutex<Shared>>,
}

/// What the connections of a proxy share.
#[derive(Default)]
struct Shared {
    /// The first lines of requests.
    lines: Vec<String>,
    /// New connections are cut after so many bytes in either direction.
    cut: Option<u64>,
    /// While set, nothing passes any more after so many bytes in one direction.
    hold: Option<u64>,
    /// Connections that are held up.
    held: usize,
}

impl Proxy {
    /// In front of an engine's socket. It listens at a port, so that the engine does not pass for one of this machine whose folders
    /// could be read: everything goes through here.
    pub(crate) fn start(engine: &Path) -> Result<Self> {
        let engine = engine.to_owned();
        Self::in_front(move || UnixStream::connect(&engine))
    }

    /// In front of a TCP port of this machine.
    pub(crate) fn start_tcp(target: u16) -> Result<Self> {
        Self::in_front(move || TcpStream::connect(("127.0.0.1", target)))
    }

    fn in_front<S: Stream>(server: impl Fn() -> io::Result<S> + Send + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let state = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = server() {
                    connect(&client, &server, &state);
                }
            }
        });
        Ok(Self { port, shared })
    }

    /// The engine behind it, as `DOCKER_HOST` says it.
    pub(crate) fn host(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// Connections made from now on are cut after so many bytes.
    pub(crate) fn cut_after(&self, bytes: Option<u64>) {
        lock(&self.shared).cut = bytes;
    }

    /// From now on nothing passes any more after so many bytes of a connection in one direction; `None` lets everything go on.
    pub(crate) fn hold_after(&self, bytes: Option<u64>) {
        lock(&self.shared).hold = bytes;
    }

    /// Whether something is held up.
    pub(crate) fn is_holding(&self) -> bool {
        lock(&self.shared).held > 0
    }

    /// The first lines of all requests since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared).lines)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("nobody panics with it")
}

/// A stream that can be used from two threads.
trait Stream: Read + Write + Send + Sized + 'static {
    fn twin(&self) -> io::Result<Self>;
    fn stop(&self, how: Shutdown);
}

impl Stream for UnixStream {
    fn twin(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn stop(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
}

impl Stream for TcpStream {
    fn twin(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn stop(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
}

fn connect(client: &impl Stream, server: &impl Stream, shared: &Arc<Mutex<Shared>>) {
    let cut = lock(shared).cut;
    one_way(client, server, shared, cut, true);
    one_way(server, client, shared, cut, false);
}

fn one_way(from: &impl Stream, to: &impl Stream, shared: &Arc<Mutex<Shared>>, cut: Option<u64>, is_request: bool) {
    let (Ok(from), Ok(to)) = (from.twin(), to.twin()) else { return };
    let shared = Arc::clone(shared);
    thread::spawn(move || pass(from, to, &shared, cut, is_request));
}

/// Copies one direction.
fn pass(mut from: impl Stream, mut to: impl Stream, shared: &Mutex<Shared>, cut: Option<u64>, is_request: bool) {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if is_request {
            let head = String::from_utf8_lossy(&buffer[..count.min(1024)]);
            let line = head.lines().next().unwrap_or_default();
            if line.ends_with("HTTP/1.1") {
                lock(shared).lines.push(line.to_owned());
            }
        }
        passed += u64::try_from(count).expect("a buffer's length");
        if cut.is_some_and(|limit| passed > limit) {
            from.stop(Shutdown::Both);
            to.stop(Shutdown::Both);
            return;
        }
        hold(shared, passed);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    to.stop(Shutdown::Write);
}

/// Waits for as long as more than so many bytes are not to pass.
fn hold(shared: &Mutex<Shared>, passed: u64) {
    let holds = |shared: &Shared| shared.hold.is_some_and(|limit| passed > limit);
    {
        let mut shared = lock(shared);
        if !holds(&shared) {
            return;
        }
        shared.held += 1;
    }
    loop {
        thread::sleep(Duration::from_millis(5));
        let mut shared = lock(shared);
        if !holds(&shared) {
            shared.held -= 1;
            return;
        }
    }
}
