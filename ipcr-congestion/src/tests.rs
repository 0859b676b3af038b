//! Real ends of QUIC connections, and a line between them that exists in numbers only, in a time that only the test moves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use libp2p_identity::Keypair;
use quinn_proto::congestion::{ControllerFactory, CubicConfig};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, ServerConfig, StreamEvent,
    StreamId, Transmit, TransportConfig,
};

use super::TolerantConfig;

/// A line: bytes in a second, how long a packet is under way, what may wait in front of it, and one of how many packets is lost.
#[derive(Clone, Copy)]
struct Line {
    rate: u64,
    delay: Duration,
    queue: u64,
    lost: Option<u64>,
}

/// 100 Mbit, 50 ms there and back, and as much room for what waits as is under way.
const LINE: Line = Line { rate: 12_500_000, delay: Duration::from_millis(25), queue: 625_000, lost: None };

/// One direction of a line.
struct Way {
    line: Line,
    free: Instant,
    seed: u64,
    sent: u64,
    dropped: u64,
}

impl Way {
    fn new(line: Line, now: Instant) -> Self {
        Self { line, free: now, seed: 7, sent: 0, dropped: 0 }
    }

    /// When a packet arrives, if it does.
    fn pass(&mut self, now: Instant, bytes: u64) -> Option<Instant> {
        self.sent += 1;
        let waits = self.free.saturating_duration_since(now);
        let waiting = u64::try_from(waits.as_micros()).unwrap() * self.line.rate / 1_000_000;
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let unlucky = self.line.lost.is_some_and(|one_of| (self.seed >> 33).is_multiple_of(one_of));
        if unlucky || waiting + bytes > self.line.queue {
            self.dropped += 1;
            return None;
        }
        self.free = now.max(self.free) + Duration::from_nanos(bytes * 1_000_000_000 / self.line.rate);
        Some(self.free + self.line.delay)
    }
}

/// One end, with all of its connections.
struct End {
    endpoint: Endpoint,
    address: SocketAddr,
    connections: BTreeMap<ConnectionHandle, Connection>,
    received: BTreeMap<ConnectionHandle, u64>,
}

/// A packet that arrives at one of the two ends.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
struct Packet {
    at: Instant,
    number: u64,
    end: usize,
    data: Vec<u8>,
}

/// Two ends and what is under way between them.
struct Lab {
    now: Instant,
    ends: [End; 2],
    ways: [Way; 2],
    packets: BinaryHeap<Reverse<Packet>>,
    number: u64,
}

/// Windows as libp2p's QUIC has them.
fn transport(controller: Arc<dyn ControllerFactory + Send + Sync>) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(10_000_000_u32.into());
    transport.receive_window(15_000_000_u32.into());
    transport.congestion_controller_factory(controller);
    Arc::new(transport)
}

impl Lab {
    fn new(line: Line) -> Self {
        let now = Instant::now();
        let tls = libp2p_tls::make_server_config(&Keypair::generate_ed25519()).unwrap();
        let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let end = |server: Option<ServerConfig>, port| End {
            endpoint: Endpoint::new(Arc::default(), server.map(Arc::new), true, Some([7; 32])),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            connections: BTreeMap::new(),
            received: BTreeMap::new(),
        };
        let mut server_config = server;
        server_config.transport = transport(Arc::<CubicConfig>::default());
        // What goes back is never what is in the way.
        let back = Line { lost: None, queue: u64::MAX / 2, ..line };
        Self {
            now,
            ends: [end(None, 1), end(Some(server_config), 2)],
            ways: [Way::new(line, now), Way::new(back, now)],
            packets: BinaryHeap::new(),
            number: 0,
        }
    }

    /// A connection whose sender is controlled so, which sends all that it can.
    fn send(&mut self, controller: Arc<dyn ControllerFactory + Send + Sync>) {
        let tls = libp2p_tls::make_client_config(&Keypair::generate_ed25519(), None).unwrap();
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(transport(controller));
        let server = self.ends[1].address;
        let (handle, connection) = self.ends[0].endpoint.connect(self.now, config, server, "l").unwrap();
        self.ends[0].connections.insert(handle, connection);
    }

    fn transmit(&mut self, from: usize, transmit: &Transmit, data: &[u8]) {
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        for data in data[..transmit.size].chunks(segment) {
            // What UDP and IP add.
            let Some(at) = self.ways[from].pass(self.now, data.len() as u64 + 28) else { continue };
            self.number += 1;
            self.packets.push(Reverse(Packet { at, number: self.number, end: 1 - from, data: data.to_vec() }));
        }
    }

    /// Lets each connection of an end do what it can do now.
    fn drive(&mut self, number: usize) {
        let chunk = vec![0; 65_536];
        let handles: Vec<_> = self.ends[number].connections.keys().copied().collect();
        for handle in handles {
            let end = &mut self.ends[number];
            let Some(mut connection) = end.connections.remove(&handle) else { continue };
            if connection.poll_timeout().is_some_and(|at| at <= self.now) {
                connection.handle_timeout(self.now);
            }
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = end.endpoint.handle_event(handle, event) {
                    connection.handle_event(event);
                }
            }
            let mut readable = Vec::new();
            while let Some(event) = connection.poll() {
                match event {
                    Event::Connected if number == 0 => {
                        connection.streams().open(Dir::Uni).unwrap();
                    }
                    Event::Stream(StreamEvent::Opened { dir }) => {
                        readable.extend(std::iter::from_fn(|| connection.streams().accept(dir)));
                    }
                    Event::Stream(StreamEvent::Readable { id }) => readable.push(id),
                    Event::ConnectionLost { reason } => panic!("a connection was lost: {reason}"),
                    _ => {}
                }
            }
            for id in readable {
                *end.received.entry(handle).or_default() += read(&mut connection, id);
            }
            if number == 0 && connection.streams().send_streams() > 0 {
                let id = StreamId::new(quinn_proto::Side::Client, Dir::Uni, 0);
                while connection.send_stream(id).write(&chunk).is_ok() {}
            }
            let mut buffer = Vec::new();
            while let Some(transmit) = connection.poll_transmit(self.now, 10, &mut buffer) {
                self.transmit(number, &transmit, &buffer);
                buffer.clear();
            }
            self.ends[number].connections.insert(handle, connection);
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let from = self.ends[1 - packet.end].address;
        let mut buffer = Vec::new();
        let end = &mut self.ends[packet.end];
        let data = BytesMut::from(&packet.data[..]);
        match end.endpoint.handle(self.now, from, None, None, data, &mut buffer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = end.connections.get_mut(&handle) {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let (handle, connection) = end.endpoint.accept(incoming, self.now, &mut buffer, None).unwrap();
                end.connections.insert(handle, connection);
            }
            Some(DatagramEvent::Response(transmit)) => self.transmit(packet.end, &transmit, &buffer),
            None => {}
        }
    }

    /// So much time passes.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.drive(0);
            self.drive(1);
            let timers = self.ends.iter_mut().flat_map(|end| end.connections.values_mut());
            let timer = timers.filter_map(Connection::poll_timeout).min();
            let packet = self.packets.peek().map(|packet| packet.0.at);
            let Some(next) = timer.into_iter().chain(packet).min() else { return };
            self.now = next.max(self.now);
            while self.packets.peek().is_some_and(|packet| packet.0.at <= self.now) {
                let Reverse(packet) = self.packets.pop().unwrap();
                self.arrive(packet);
            }
        }
    }

    /// What came by each connection, in the order in which they were made.
    fn received(&self) -> Vec<u64> {
        self.ends[1].received.values().copied().collect()
    }

    /// The share of packets of the first way that did not arrive, in thousandths.
    fn dropped(&self) -> u64 {
        self.ways[0].dropped * 1000 / self.ways[0].sent
    }
}

/// Reads what there is.
fn read(connection: &mut Connection, id: StreamId) -> u64 {
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return 0 };
    let mut bytes = 0;
    while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
        bytes += chunk.bytes.len() as u64;
    }
    let _ = chunks.finalize();
    bytes
}

/// Which share of a line connections with these controllers get in a time, in hundredths, and how many thousandths of the packets are lost.
fn shares(line: Line, seconds: u64, controllers: &[Arc<dyn ControllerFactory + Send + Sync>]) -> (Vec<u64>, u64) {
    let mut lab = Lab::new(line);
    controllers.iter().for_each(|controller| lab.send(Arc::clone(controller)));
    lab.pass(Duration::from_secs(seconds));
    let share = |bytes: u64| bytes * 100 / (line.rate * seconds);
    (lab.received().into_iter().map(share).collect(), lab.dropped())
}

/// The same for two of which the second comes five seconds later, when the first has filled the line; counted from ten seconds after that.
fn late(line: Line, seconds: u64, controllers: [Arc<dyn ControllerFactory + Send + Sync>; 2]) -> [u64; 2] {
    let mut lab = Lab::new(line);
    for (controller, lead) in controllers.into_iter().zip([5, 10]) {
        lab.send(controller);
        lab.pass(Duration::from_secs(lead));
    }
    let before = lab.received();
    lab.pass(Duration::from_secs(seconds));
    let after = lab.received();
    [0, 1].map(|at| (after[at] - before[at]) * 100 / (line.rate * seconds))
}

fn tolerant() -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::<TolerantConfig>::default()
}

fn cubic() -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::<CubicConfig>::default()
}

#[test]
fn a_long_line_that_loses_packets_is_used() {
    for one_of in [1000, 200] {
        let lossy = Line { lost: Some(one_of), ..LINE };
        let (theirs, _) = shares(lossy, 5, &[cubic()]);
        let (ours, dropped) = shares(lossy, 5, &[tolerant()]);
        assert!(theirs[0] < 40, "such a line is no trouble for CUBIC: {theirs:?}");
        assert!(ours[0] >= 75, "{ours:?}");
        assert!(dropped < 45, "{dropped} of 1,000 packets were lost");
    }
}

#[test]
fn a_full_line_is_shared_with_whoever_else_uses_it() {
    // Queues for 6, for 50 and for 200 ms. One for 6 is too short to be told from none, so that less is left to others there.
    for (queue, left) in [(15_000, 10), (125_000, 35), (500_000, 35)] {
        let full = Line { rate: 2_500_000, queue, ..LINE };
        let (alike, beside_cubic) = shares(full, 20, &[cubic(), cubic()]);
        let (both, dropped) = shares(full, 20, &[tolerant(), cubic()]);
        assert!(both[0] + both[1] >= 75, "the line is not used: {both:?}");
        assert!(dropped <= beside_cubic + 10, "{dropped} of 1,000 packets were lost, {beside_cubic} by CUBIC alone");
        assert!(both[1] >= left, "CUBIC gets {both:?} beside it, {alike:?} beside CUBIC");
    }
}

#[test]
fn whoever_comes_later_leaves_room_and_gets_some() {
    for (queue, least) in [(125_000, 20), (500_000, 30)] {
        let full = Line { rate: 2_500_000, queue, ..LINE };
        for (pair, name) in [([cubic(), tolerant()], "after CUBIC"), ([tolerant(), tolerant()], "after one like it")] {
            let shares = late(full, 20, pair);
            assert!(shares.iter().all(|share| *share >= least), "{name}, queue {queue}: {shares:?}");
        }
    }
}
