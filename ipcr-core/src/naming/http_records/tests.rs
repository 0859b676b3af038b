use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::identity::RegistryKey;
use crate::naming::dns::DnsHosts;
use crate::naming::tests::{Carrier, target};
use crate::net::{HttpPolicy, Reach};
use crate::port::memory::dns::MemoryDns;

fn client() -> HttpClient {
    let mut policy = HttpPolicy::new(Reach::Loopback).naming("127.0.0.1");
    policy.stall = Duration::from_secs(5);
    HttpClient::new(policy, Arc::new(DnsHosts(Arc::new(MemoryDns::new())))).unwrap()
}

fn record(key: &RegistryKey) -> SignedRecord {
    let now = chrono::Utc::now();
    SignedRecord::sign(key, &target(""), 3, now, limits::RECORD_LIFETIME, limits::RECORD_TTL)
}

fn query(name: IpnsName) -> RecordQuery {
    RecordQuery { name, hints: Vec::new(), timeout: Duration::from_secs(10) }
}

/// A server with one answer for everything, and the requests that it saw.
async fn serve(answer: Vec<u8>) -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let count = socket.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..count]);
                let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
                let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
                let body = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if count == 0 || request.len() >= body + length.map_or(0, |length| length.parse().unwrap()) {
                    break;
                }
            }
            log.lock().unwrap().push(request);
            socket.write_all(&answer).await.unwrap();
        }
    });
    (url, seen)
}

fn reply(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn routers_and_gateways_are_asked_and_routers_are_given() {
    let key = RegistryKey::generate();
    let record = record(&key);
    let (router, router_log) = serve(reply("200 OK", RECORD, record.bytes())).await;
    let (gateway, gateway_log) = serve(reply("200 OK", &format!("{RECORD}; x=1"), record.bytes())).await;
    let (none, _) = serve(reply("404 Not Found", "text/plain", b"none")).await;
    let (text, _) = serve(reply("200 OK", "text/plain", b"no record")).await;
    let (broken, _) = serve(reply("500 Oh", RECORD, record.bytes())).await;
    let (large, _) = serve(reply("200 OK", RECORD, &vec![0; limits::IPNS_RECORD_BYTES + 1])).await;
    let http = HttpRecords::new(client(), &[router.clone(), none, text, broken.clone(), large], &[gateway]);
    let found = http.find(query(key.name())).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|found| found.record == record.bytes() && found.source.starts_with("127.0.0.1:")));
    let asked = String::from_utf8_lossy(&router_log.lock().unwrap()[0]).into_owned();
    assert!(
        asked.starts_with(&format!("GET /routing/v1/ipns/{} HTTP", key.name())) && asked.contains(RECORD),
        "{asked}"
    );
    let asked = String::from_utf8_lossy(&gateway_log.lock().unwrap()[0]).into_owned();
    assert!(asked.starts_with(&format!("GET /ipns/{}?format=ipns-record HTTP", key.name())), "{asked}");

    let http = HttpRecords::new(client(), &[router.clone(), broken], &[]);
    let accepted = http.put(&key.name(), record.bytes().clone(), &[]).await.unwrap();
    assert_eq!(accepted, [host_of(&router)]);
    let given = router_log.lock().unwrap()[1].clone();
    assert!(given.starts_with(b"PUT /routing/v1/ipns/k51") && given.ends_with(record.bytes()));
}

#[tokio::test]
async fn servers_that_hang_or_lie_do_not_hold_up_the_others() {
    let key = RegistryKey::generate();
    let record = record(&key);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}/", silent.local_addr().unwrap());
    let (good, _) = serve(reply("200 OK", RECORD, record.bytes())).await;
    let (liar, _) = serve(reply("200 OK", RECORD, b"anything")).await;
    let began = std::time::Instant::now();
    let http = HttpRecords::new(client(), &[silent, good, liar.clone()], &[]);
    assert!(http.find(query(key.name())).await.unwrap().iter().any(|found| found.record == record.bytes()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // What nobody has signed is no reason to wait for nobody else.
    let slow = Carrier::default();
    slow.set(vec![record.bytes().clone()]);
    slow.set_delay(Duration::from_millis(500));
    let liar: Arc<dyn NameRecords> = Arc::new(HttpRecords::new(client(), &[liar], &[]));
    let both = Combined::new(vec![liar, Arc::new(slow)]).with_grace(Duration::from_millis(1));
    assert!(both.find(query(key.name())).await.unwrap().iter().any(|found| found.record == record.bytes()));
}

#[tokio::test]
async fn several_carriers() {
    let key = RegistryKey::generate();
    let bytes = record(&key).bytes().clone();
    let [fast, slow, offline] = [(); 3].map(|()| Carrier::default());
    offline.set_offline(true);
    fast.set(vec![bytes.clone()]);
    slow.set(vec![bytes.clone()]);
    slow.set_delay(Duration::from_mins(1));
    let parts = || -> Vec<Arc<dyn NameRecords>> {
        vec![Arc::new(slow.clone()), Arc::new(offline.clone()), Arc::new(fast.clone())]
    };
    let combined = Combined::new(parts()).with_grace(Duration::from_millis(50));
    let began = std::time::Instant::now();
    assert_eq!(combined.find(query(key.name())).await.unwrap().len(), 1);
    assert!(began.elapsed() < Duration::from_secs(5));
    // Slow ones count when they answer within the grace.
    slow.set_delay(Duration::from_millis(20));
    let combined = Combined::new(parts()).with_grace(Duration::from_secs(5));
    assert_eq!(combined.find(query(key.name())).await.unwrap().len(), 2);
    assert_eq!(combined.put(&key.name(), bytes.clone(), &[]).await.unwrap(), ["carrier", "carrier"]);
    // With the first question unanswered, the time is up.
    fast.set(vec![]);
    slow.set_delay(Duration::from_mins(1));
    let short = RecordQuery { timeout: Duration::from_millis(100), ..query(key.name()) };
    assert_eq!(Combined::new(parts()).find(short).await.unwrap(), []);
    // Nobody can ask.
    let alone = Combined::new(vec![Arc::new(offline)]);
    assert!(alone.find(query(key.name())).await.is_err());
    assert!(alone.put(&key.name(), bytes, &[]).await.is_err());
}

/// A Kubo daemon on loopback ports of its own; `None` where Kubo is not installed.
struct Kubo {
    process: std::process::Child,
    home: tempfile::TempDir,
}

impl Drop for Kubo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Kubo {
    fn start() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str]| {
            let mut command = std::process::Command::new("ipfs");
            command.env("IPFS_PATH", home.path()).args(arguments);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            command
        };
        if run(&["init", "--empty-repo"]).status().is_err() {
            assert!(std::env::var_os("IPCR_TEST_REQUIRE_PEERS").is_none(), "Kubo is needed by this run");
            eprintln!("SKIPPED: ipfs is not installed");
            return None;
        }
        for arguments in [
            &["bootstrap", "rm", "--all"][..],
            &["config", "--json", "Addresses.Swarm", r#"["/ip4/127.0.0.1/tcp/0"]"#],
            &["config", "Addresses.API", "/ip4/127.0.0.1/tcp/0"],
            &["config", "Addresses.Gateway", "/ip4/127.0.0.1/tcp/0"],
            &["config", "--json", "Discovery.MDNS.Enabled", "false"],
            &["config", "--json", "AutoConf.Enabled", "false"],
            &["config", "Routing.Type", "dht"],
            &["config", "--json", "Routing.DelegatedRouters", "[]"],
            &["config", "--json", "Ipns.DelegatedPublishers", "[]"],
            &["config", "--json", "DNS.Resolvers", "{}"],
        ] {
            assert!(run(arguments).status().unwrap().success(), "{arguments:?}");
        }
        let process = run(&["daemon"]).spawn().unwrap();
        Some(Self { process, home })
    }

    /// Where its gateway and routing API listen.
    async fn url(&self) -> String {
        for _ in 0..600 {
            match std::fs::read_to_string(self.home.path().join("gateway")) {
                Ok(url) if !url.is_empty() => return url.trim().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        panic!("kubo does not start");
    }
}

#[tokio::test]
async fn kubo_takes_a_record_and_gives_it_back() {
    let Some(kubo) = Kubo::start() else { return };
    let url = kubo.url().await;
    let key = RegistryKey::generate();
    let record = record(&key);
    let routers = HttpRecords::new(client(), std::slice::from_ref(&url), &[]);
    // Kubo has nobody to hand the record to, and says so after it has kept the record.
    let _ = routers.put(&key.name(), record.bytes().clone(), &[]).await.unwrap();
    let gateways = HttpRecords::new(client(), &[], std::slice::from_ref(&url));
    for http in [routers, gateways] {
        let found = http.find(query(key.name())).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(SignedRecord::verify(&key.name(), found[0].record.clone()).unwrap(), record);
    }
}
