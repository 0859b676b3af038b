use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::naming::dns::DnsHosts;
use crate::net::{HttpPolicy, Reach};
use crate::port::conformance::routing::{all, conforms};
use crate::port::memory::dns::MemoryDns;
use crate::port::memory::routing::MemoryRouting;

const PEER: &str = "12D3KooWEqTTp5n78FnDxHQnLRDiWtPPpVG37zEg4ewdhGmzYn38";

fn client() -> HttpClient {
    let mut policy = HttpPolicy::new(Reach::Loopback).naming("127.0.0.1");
    policy.stall = Duration::from_secs(5);
    HttpClient::new(policy, Arc::new(DnsHosts(Arc::new(MemoryDns::new())))).unwrap()
}

/// A router that answers what `answer` says of a path: a status, a media type, a body.
async fn router<F, A>(answer: F) -> String
where
    F: Fn(String) -> A + Send + Sync + 'static,
    A: Future<Output = (u16, &'static str, String)> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = BufReader::new(socket);
            let mut first = String::new();
            socket.read_line(&mut first).await.unwrap();
            loop {
                let mut line = String::new();
                if socket.read_line(&mut line).await.unwrap() <= 2 {
                    break;
                }
            }
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            let (status, kind, body) = answer(path).await;
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = socket.get_mut().write_all(answer.as_bytes()).await;
        }
    });
    url
}

/// A router that knows what is known, in one of the two forms.
async fn knowing(known: &MemoryRouting, streamed: bool) -> String {
    let known = known.clone();
    router(move |path: String| {
        let known = known.clone();
        async move {
            let cid = path.strip_prefix("/routing/v1/providers/").unwrap().parse().unwrap();
            let (providers, _) = all(&known, &cid).await;
            let written = write(&providers);
            match streamed {
                true if written.is_empty() => (404, "text/plain", "nobody".into()),
                true => (200, NDJSON, written.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")),
                false => {
                    (200, "application/json; charset=utf-8", serde_json::json!({"Providers": written}).to_string())
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn routers_conform() {
    for streamed in [false, true] {
        let known = MemoryRouting::new();
        let url = knowing(&known, streamed).await;
        conforms(&HttpRouting::new(client(), &[url]), &known).await;
    }
}

#[tokio::test]
async fn one_router_is_enough_and_none_is_no_answer() {
    let root = *crate::dag::block::Block::raw("root".into()).cid();
    let known = MemoryRouting::new();
    let provider = Provider { peer: PEER.parse().unwrap(), addresses: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()] };
    known.add(&root, provider.clone());
    let (one, other) = (knowing(&known, true).await, knowing(&known, false).await);
    let broken = router(|_| std::future::ready((500, "text/plain", "no".to_owned()))).await;
    let garbage = router(|_| std::future::ready((200, JSON, "[]".to_owned()))).await;
    let failing = [broken.clone(), garbage, "http://127.0.0.1:9".into()];
    let routers = [&failing[..], &[one, other]].concat();
    assert_eq!(all(&HttpRouting::new(client(), &routers), &root).await, (vec![provider], true));
    assert_eq!(all(&HttpRouting::new(client(), &failing), &root).await, (Vec::new(), false));
    assert_eq!(all(&HttpRouting::new(client(), &[]), &root).await, (Vec::new(), false));
}

#[tokio::test]
async fn a_provider_without_addresses_is_looked_up() {
    let root = *crate::dag::block::Block::raw("root".into()).cid();
    let answer = |path: String| {
        let addresses = if path.starts_with("/routing/v1/peers/k51") { r#"["/ip4/127.0.0.1/tcp/7"]"# } else { "null" };
        let member = if path.contains("/peers/") { "Peers" } else { "Providers" };
        let body = format!(r#"{{"{member}":[{{"Schema":"peer","ID":"{PEER}","Addrs":{addresses}}}]}}"#);
        std::future::ready((200, JSON, body))
    };
    let url = router(answer).await;
    let expected = Provider { peer: PEER.parse().unwrap(), addresses: vec!["/ip4/127.0.0.1/tcp/7".parse().unwrap()] };
    assert_eq!(all(&HttpRouting::new(client(), &[url]), &root).await, (vec![expected], true));
}

#[test]
fn records_of_others_are_passed_over() {
    let read = |record: &str| read(&serde_json::from_str(record).unwrap());
    let peer = |rest: &str| read(&format!(r#"{{"Schema":"peer","ID":"{PEER}"{rest}}}"#));
    assert_eq!(peer("").unwrap().addresses, Vec::<Multiaddr>::new());
    assert!(peer(r#","Protocols":[]"#).is_some());
    assert!(peer(r#","Protocols":["transport-ipfs-gateway-http","transport-bitswap"]"#).is_some());
    assert!(peer(r#","Protocols":["transport-ipfs-gateway-http"]"#).is_none());
    let some = peer(r#","Addrs":["/ip4/127.0.0.1/tcp/1","nonsense",7]"#).unwrap();
    assert_eq!(some.addresses.len(), 1);
    assert!(
        read(&format!(r#"{{"Schema":"bitswap","Protocol":"transport-bitswap","ID":"{PEER}","Addrs":[]}}"#)).is_some()
    );
    for other in
        [r#"{"Schema":"unknown"}"#, r#"{"Schema":"peer","ID":"x"}"#, r#"{"Schema":"peer"}"#, "{}", "[]", "null"]
    {
        assert_eq!(read(other), None, "{other}");
    }
}

#[test]
fn answers_are_bounded_and_may_be_cut_off() {
    let line = format!(r#"{{"Schema":"peer","ID":"{PEER}"}}"#);
    let many = vec![line.as_str(); limits::ROUTING_PROVIDERS + 1];
    assert_eq!(read_lines(many.join("\n").as_bytes()).unwrap().len(), limits::ROUTING_PROVIDERS);
    let object = format!(r#"{{"Providers":[{}]}}"#, many.join(","));
    assert_eq!(read_object(object.as_bytes()).unwrap().len(), limits::ROUTING_PROVIDERS);
    assert_eq!(read_lines(format!("{line}\n{}", &line[..20]).as_bytes()).unwrap().len(), 1);
    assert_eq!(read_lines(b"\n\r\n").unwrap(), []);
    assert!(read_lines(b"<html>").is_err() && read_object(b"{").is_err());
    assert_eq!(read_object(br#"{"Providers":null}"#).unwrap(), []);
}
