use std::path::Path;
use std::process::{Child, Command, Stdio};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, TXT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::port::conformance::dns as suite;

fn record(name: &str, data: RData) -> Record {
    Record::from_rdata(Name::from_ascii(format!("{name}.")).unwrap(), 60, data)
}

fn txt(name: &str, text: &str) -> Record {
    let strings = text.as_bytes().chunks(255).map(|chunk| String::from_utf8(chunk.to_vec()).unwrap());
    record(name, RData::TXT(TXT::new(strings.collect())))
}

fn zone() -> Vec<Record> {
    vec![
        txt("_dnslink.hub.test", suite::LINK),
        txt("two.hub.test", "one"),
        txt("two.hub.test", "two"),
        txt("long.hub.test", &suite::long_text()),
        record("host.hub.test", RData::A(A::new(192, 0, 2, 7))),
        record("host.hub.test", RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7))),
        record("alias.hub.test", RData::CNAME(CNAME(Name::from_ascii("two.hub.test.").unwrap()))),
        txt("huge.hub.test", &"x".repeat(6000)),
    ]
}

/// What a server without DNSSEC makes of a question. Over UDP, answers of more than 1,200 bytes are cut.
fn answer(question: &[u8], datagram: bool) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let mut reply = Message::response(question.id, question.op_code);
    reply.add_query(query.clone());
    let (mut name, all) = (query.name().to_lowercase(), zone());
    while let Some(alias) = all.iter().find(|r| r.name == name && r.record_type() == RecordType::CNAME) {
        reply.add_answer(alias.clone());
        let RData::CNAME(target) = &alias.data else { unreachable!() };
        name = target.0.clone();
    }
    if name.to_ascii().starts_with("stranger") {
        reply.add_answer(txt("evil.test", suite::LINK));
    }
    let matching: Vec<_> = all.iter().filter(|r| r.name == name && r.record_type() == query.query_type()).collect();
    for found in &matching {
        reply.add_answer((*found).clone());
    }
    if !all.iter().any(|r| r.name == name) {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    // The code of the answer, for names that ask for one.
    if let Some(code) = [("servfail", ResponseCode::ServFail), ("refused", ResponseCode::Refused)]
        .iter()
        .find_map(|(label, code)| name.to_ascii().starts_with(label).then_some(*code))
    {
        reply.metadata.response_code = code;
    }
    if datagram && reply.to_vec().unwrap().len() > 1200 {
        reply.answers.clear();
        reply.metadata.truncation = true;
    }
    reply.to_vec().unwrap()
}

async fn serve() -> SocketAddr {
    let (tcp, udp) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Somebody else may have the same port for datagrams.
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (tcp, udp);
        }
    };
    let at = tcp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (count, from) = udp.recv_from(&mut buffer).await.unwrap();
            udp.send_to(&answer(&buffer[..count], true), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = tcp.accept().await.unwrap();
            tokio::spawn(async move {
                while let Ok(length) = socket.read_u16().await {
                    let mut question = vec![0; usize::from(length)];
                    socket.read_exact(&mut question).await.unwrap();
                    let reply = answer(&question, false);
                    socket.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                    socket.write_all(&reply).await.unwrap();
                }
            });
        }
    });
    at
}

fn options(servers: &[SocketAddr]) -> DnsOptions {
    let servers = servers.iter().map(|at| DnsServer::Plain(*at)).collect();
    DnsOptions { servers, mode: NetworkMode::Loopback, ..DnsOptions::default() }
}

async fn resolver(servers: &[SocketAddr]) -> Resolver {
    Resolver::new(options(servers)).await.unwrap()
}

/// A loopback port on which nothing listens.
async fn closed() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn conforms() {
    suite::run(&resolver(&[serve().await]).await).await;
}

#[tokio::test]
async fn conforms_when_down() {
    suite::run_down(&resolver(&[closed().await]).await).await;
}

#[tokio::test]
async fn one_of_several_servers_is_enough() {
    let dns = resolver(&[closed().await, serve().await]).await;
    assert_eq!(dns.txt("_dnslink.hub.test").await.unwrap().records, [suite::LINK]);
}

#[tokio::test]
async fn truncated_answers_come_again_by_tcp_and_aliases_are_followed() {
    let dns = resolver(&[serve().await]).await;
    assert_eq!(dns.txt("huge.hub.test").await.unwrap().records, ["x".repeat(6000)]);
    let alias = dns.txt("alias.hub.test").await.unwrap();
    assert_eq!((alias.records.len(), alias.security), (2, Security::Insecure));
}

#[tokio::test]
async fn records_of_other_names_are_no_answer() {
    let dns = resolver(&[serve().await]).await;
    let answer = dns.txt("stranger.hub.test").await;
    assert!(answer.as_ref().map_or(true, |answer| answer.records.is_empty()), "{answer:?}");
}

#[tokio::test]
async fn a_server_that_fails_does_not_say_that_there_is_nothing() {
    let dns = resolver(&[serve().await]).await;
    for name in ["servfail.hub.test", "refused.hub.test"] {
        let error = dns.txt(name).await.unwrap_err();
        assert!(matches!(error, DnsError::Unreachable { .. }), "{name}: {error}");
        assert_eq!(dns.addresses(name).await.unwrap_err().kind(), ErrorKind::Unavailable, "{name}");
    }
    // Beside one that answers it does not matter.
    assert_eq!(dns.txt("absent.hub.test").await.unwrap().records, [""; 0]);
}

#[tokio::test]
async fn servers_outside_the_mode_are_not_asked() {
    let mut outside = options(&["192.0.2.1:53".parse().unwrap()]);
    let began = Instant::now();
    let dns = Resolver::new(outside.clone()).await.unwrap();
    assert_eq!(dns.txt("hub.test").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(began.elapsed() < Duration::from_secs(1));
    outside.anchors = vec!["hub.test. IN A 192.0.2.1".into()];
    assert_eq!(Resolver::new(outside).await.unwrap_err().kind(), ErrorKind::Usage);
}

/// A Knot server of the zone `hub.test`, signed unless told otherwise.
struct Knot {
    process: Child,
    at: SocketAddr,
    /// Removed when the server has ended.
    _directory: tempfile::TempDir,
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const ZONE: &str = "\
$ORIGIN hub.test.
@ 60 SOA ns.hub.test. root.hub.test. 1 3600 600 86400 60
@ 60 NS ns.hub.test.
ns 60 A 127.0.0.1
_dnslink 60 TXT \"dnslink=/ipns/k51qzi5uqu5di1hxx9pv1iu2gxqya46jcu79pmx7oppjo8lp0wsc5nm13xslfb\"
alias 60 CNAME _dnslink
";

impl Knot {
    /// `None` where Knot is not installed.
    async fn start(single_key: bool) -> Option<Self> {
        if !Path::new("/usr/sbin/knotd").exists() {
            assert!(std::env::var_os("IPCR_TEST_REQUIRE_PEERS").is_none(), "Knot is needed by this run");
            eprintln!("SKIPPED: knotd is not installed");
            return None;
        }
        let at = closed().await;
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        let config = format!(
            "server:\n  rundir: {root}\n  listen: 127.0.0.1@{port}\ndatabase:\n  storage: {root}\n\
             log:\n  - target: stderr\n    any: warning\n\
             policy:\n  - id: p\n    algorithm: ecdsap256sha256\n    single-type-signing: {single}\n\
             zone:\n  - domain: hub.test\n    storage: {root}\n    file: zone\n    dnssec-signing: on\n    dnssec-policy: p\n",
            port = at.port(),
            single = if single_key { "on" } else { "off" },
        );
        std::fs::write(directory.path().join("zone"), ZONE).unwrap();
        let path = directory.path().join("knot.conf");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("/usr/sbin/knotd").arg("-c").arg(&path).stderr(Stdio::null()).spawn().unwrap();
        let knot = Self { process, at, _directory: directory };
        let dns = resolver(&[at]).await;
        for _ in 0..100 {
            if dns.plain.lookup("hub.test.", RecordType::DNSKEY).await.is_ok() {
                return Some(knot);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("knotd does not answer");
    }

    /// The zone's keys as a file of anchors.
    async fn anchors(&self) -> String {
        let dns = resolver(&[self.at]).await;
        let lookup = dns.plain.lookup("hub.test.", RecordType::DNSKEY).await.unwrap();
        let lines = relevant(&lookup, RecordType::DNSKEY).map(|record| format!("hub.test. IN DNSKEY {}", record.data));
        lines.collect::<Vec<_>>().join("\n")
    }
}

async fn check_secure(single_key: bool) {
    let Some(knot) = Knot::start(single_key).await else { return };
    // Without an anchor the root's answer does not validate here: no DNSSEC.
    let plain = resolver(&[knot.at]).await;
    assert_eq!(plain.txt("_dnslink.hub.test").await.unwrap().security, Security::Insecure);
    let mut options = options(&[knot.at]);
    options.anchors = vec![knot.anchors().await];
    let dns = Resolver::new(options.clone()).await.unwrap();
    for name in ["_dnslink.hub.test", "alias.hub.test"] {
        let answer = dns.txt(name).await.unwrap();
        assert_eq!((answer.records, answer.security), (vec![suite::LINK.to_owned()], Security::Secure));
    }
    let absent = dns.txt("absent.hub.test").await.unwrap();
    assert_eq!((absent.records.len(), absent.security), (0, Security::Secure));
    let no_txt = dns.txt("ns.hub.test").await.unwrap();
    assert_eq!((no_txt.records.len(), no_txt.security), (0, Security::Secure));

    // Another server behind the same anchor: its own keys do not validate, so it counts as one without DNSSEC.
    let other = Knot::start(single_key).await.unwrap();
    options.servers = vec![DnsServer::Plain(other.at)];
    let dns = Resolver::new(options).await.unwrap();
    assert_eq!(dns.txt("_dnslink.hub.test").await.unwrap().security, Security::Insecure);
}

#[tokio::test]
async fn dnssec_with_one_key() {
    check_secure(true).await;
}

#[tokio::test]
async fn dnssec_with_two_keys() {
    check_secure(false).await;
}

/// Passes questions on to a server and changes the bytes of answers that hold `from`.
async fn meddle(upstream: SocketAddr, from: &'static [u8], to: &'static [u8]) -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = udp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 8192];
        loop {
            let (count, client) = udp.recv_from(&mut buffer).await.unwrap();
            let up = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            up.send_to(&buffer[..count], upstream).await.unwrap();
            let count = up.recv(&mut buffer).await.unwrap();
            let mut reply = buffer[..count].to_vec();
            for start in 0..reply.len().saturating_sub(from.len()) {
                if reply[start..].starts_with(from) {
                    reply[start..start + from.len()].copy_from_slice(to);
                }
            }
            udp.send_to(&reply, client).await.unwrap();
        }
    });
    at
}

#[tokio::test]
async fn a_forged_answer_is_bogus() {
    let Some(knot) = Knot::start(true).await else { return };
    let meddler = meddle(knot.at, b"k51qzi5uqu5di1hxx", b"k51qzi5uqu5di1hxy").await;
    let mut options = options(&[meddler]);
    let forged = Resolver::new(options.clone()).await.unwrap().txt("_dnslink.hub.test").await.unwrap();
    assert!(forged.records[0].contains("hxy") && forged.security == Security::Insecure);
    options.anchors = vec![knot.anchors().await];
    let error = Resolver::new(options).await.unwrap().txt("_dnslink.hub.test").await.unwrap_err();
    assert!(matches!(&error, DnsError::Bogus { name } if name == "_dnslink.hub.test"), "{error}");
}
