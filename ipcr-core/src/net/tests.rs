use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A resolver that knows what it is told.
#[derive(Debug, Default)]
struct Book(HashMap<&'static str, Vec<IpAddr>>);

#[async_trait]
impl HostLookup for Book {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Cause> {
        self.0.get(host).cloned().ok_or_else(|| "never heard of it".into())
    }
}

fn book() -> Arc<Book> {
    let loopback = vec!["127.0.0.1".parse().unwrap()];
    Arc::new(Book(HashMap::from([
        ("here.test", loopback.clone()),
        ("also.test", loopback),
        ("metadata.test", vec!["169.254.169.254".parse().unwrap()]),
        ("mixed.test", vec!["8.8.8.8".parse().unwrap(), "127.0.0.1".parse().unwrap()]),
        ("empty.test", vec![]),
    ])))
}

fn policy(named: &[&str]) -> HttpPolicy {
    let mut policy = HttpPolicy::new(Reach::Loopback);
    policy.stall = Duration::from_millis(300);
    named.iter().fold(policy, |policy, host| policy.naming(host))
}

fn client(named: &[&str]) -> HttpClient {
    HttpClient::new(policy(named), book()).unwrap()
}

/// A server that answers each connection's request with what `answer` makes of its head, and keeps the requests.
async fn serve<F>(answer: F) -> (SocketAddr, Arc<Mutex<Vec<String>>>)
where
    F: Fn(&str) -> String + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = log.clone();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (kept, answer) = (kept.clone(), answer.clone());
            tokio::spawn(async move {
                let head = read_head(&mut socket).await;
                let text = answer(&head);
                kept.lock().unwrap().push(head);
                let _ = socket.write_all(text.as_bytes()).await;
                if text.contains("x-hang") {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            });
        }
    });
    (address, log)
}

/// The head of a request, with its body when that has a length.
async fn read_head(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0; 4096];
    loop {
        let count = socket.read(&mut byte).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&byte[..count]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(count > 0, "{text}");
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let chunked = head.contains("transfer-encoding: chunked");
        let whole =
            if chunked { body.ends_with("0\r\n\r\n") } else { body.len() >= length.map_or(0, |l| l.parse().unwrap()) };
        if whole || count == 0 {
            return text;
        }
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 307 x\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn bodies_are_bounded() {
    let (at, _) = serve(|head| match head.split(' ').nth(1).unwrap() {
        "/chunked" => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n".into()
        }
        "/cut" => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhell".into(),
        "/json" => ok("{\"a\": 1}"),
        _ => ok("helloworld"),
    })
    .await;
    let client = client(&["127.0.0.1"]);
    for path in ["plain", "chunked"] {
        let url = format!("http://{at}/{path}?secret=1");
        assert_eq!(&client.get(&url).send().await.unwrap().bytes_at_most(10).await.unwrap()[..], b"helloworld");
        let error = client.get(&url).send().await.unwrap().bytes_at_most(9).await.unwrap_err();
        assert!(matches!(&error, HttpError::TooLarge { limit: 9, .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert!(!error.to_string().contains("secret"), "{error}");
        let mut text = String::new();
        let mut reader = client.get(&url).send().await.unwrap().reader();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "helloworld");
    }
    let cut = client.get(&format!("http://{at}/cut")).send().await.unwrap().bytes_at_most(10).await.unwrap_err();
    assert!(matches!(cut, HttpError::Connection { .. }), "{cut}");
    let json = client.get(&format!("http://{at}/json")).send().await.unwrap();
    assert_eq!(json.json_at_most::<HashMap<String, u32>>(99).await.unwrap()["a"], 1);
    let json = client.get(&format!("http://{at}/plain")).send().await.unwrap();
    assert!(matches!(json.json_at_most::<u32>(99).await, Err(HttpError::BadJson { .. })));
}

#[tokio::test]
async fn statuses_and_requests() {
    let (at, log) = serve(|head| match head.split(' ').next().unwrap() {
        "PUT" => "HTTP/1.1 201 Created\r\nlocation: /made?x=1\r\ncontent-length: 0\r\n\r\n".into(),
        _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(),
    })
    .await;
    let client = client(&["127.0.0.1"]);
    let answer = client.get(&format!("http://{at}/x")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.success().unwrap_err().kind(), ErrorKind::NotFound);
    let put = client.request(Method::PUT, &format!("http://{at}/y")).header("content-type", "text/plain").body("abc");
    let answer = put.send().await.unwrap().success().unwrap();
    assert_eq!(answer.location().unwrap(), format!("http://{at}/made?x=1"));
    let pieces = futures::stream::iter([Ok("ab".into()), Ok("cd".into())]);
    let put = client.request(Method::PUT, &format!("http://{at}/z")).stream(pieces, Some(4));
    put.send().await.unwrap().success().unwrap();
    let put = client.request(Method::PUT, &format!("http://{at}/w")).reader(&b"efgh"[..], None);
    put.send().await.unwrap().success().unwrap();
    let log = log.lock().unwrap().clone();
    assert!(log[0].contains("user-agent: ipcr/"), "{}", log[0]);
    assert!(log[1].contains("content-type: text/plain") && log[1].ends_with("abc"), "{}", log[1]);
    assert!(log[2].contains("content-length: 4\r\n") && log[2].ends_with("abcd"), "{}", log[2]);
    assert!(log[3].contains("chunked") && log[3].contains("efgh"), "{}", log[3]);
    let bad = client.get(&format!("http://{at}/")).header("a b", "c").send().await.unwrap_err();
    assert!(matches!(bad, HttpError::BadHeader { .. }));
}

#[tokio::test]
async fn redirects_lose_credentials_on_another_origin() {
    let (end, ends) = serve(|_| ok("end")).await;
    let (at, _) = serve(move |head| match head.split(' ').nth(1).unwrap() {
        "/away" => redirect(&format!("http://also.test:{}/end", end.port())),
        "/loop" => redirect("/loop"),
        "/file" => redirect("file:///etc/passwd"),
        "/same" => redirect("/here"),
        "/here" => ok("here"),
        _ => redirect(&format!("http://user:pass@also.test:{}/", end.port())),
    })
    .await;
    let client = client(&["here.test", "also.test"]);
    let url = |path: &str| format!("http://here.test:{}/{path}", at.port());
    let answer =
        client.get(&url("away")).header("authorization", "Bearer x").header("x-kept", "1").send().await.unwrap();
    assert_eq!(answer.url(), format!("http://also.test:{}/end", end.port()));
    assert_eq!(&answer.bytes_at_most(9).await.unwrap()[..], b"end");
    let seen = ends.lock().unwrap().remove(0);
    assert!(!seen.contains("Bearer") && seen.contains("x-kept: 1"), "{seen}");
    client.get(&url("same")).header("authorization", "Bearer x").send().await.unwrap().success().unwrap();
    let error = client.get(&url("loop")).send().await.unwrap_err();
    assert!(matches!(&error, HttpError::Redirects { limit: 5, .. }), "{error}");
    assert!(matches!(
        client.get(&url("file")).send().await,
        Err(HttpError::BadUrl { .. } | HttpError::BadRedirect { .. })
    ));
    assert!(matches!(client.get(&url("creds")).send().await, Err(HttpError::BadUrl { .. })));
    // What changes something is never sent twice.
    let answer = client.request(Method::POST, &url("away")).body("x").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
    assert!(ends.lock().unwrap().is_empty());
}

#[tokio::test]
async fn strangers_are_kept_out() {
    let (at, log) = serve(|_| redirect("http://metadata.test/latest")).await;
    let port = at.port();
    let client_of = |reach, named: &[&str]| {
        let mut policy = policy(named);
        policy.reach = reach;
        HttpClient::new(policy, book()).unwrap()
    };
    let public = client_of(Reach::Public, &["here.test"]);
    for (url, expected) in [
        ("http://also.test/".to_owned(), "also.test is asked over https only"),
        (format!("https://also.test:{port}/"), "also.test is at 127.0.0.1, where this network mode does not go"),
        (format!("https://127.0.0.1:{port}/"), "127.0.0.1 is at 127.0.0.1, where this network mode does not go"),
        ("https://[::1]/".into(), "[::1] is at ::1, where this network mode does not go"),
        (
            "https://[::ffff:10.0.0.1]/".into(),
            "[::ffff:a00:1] is at ::ffff:10.0.0.1, where this network mode does not go",
        ),
        ("https://2130706433/".into(), "127.0.0.1 is at 127.0.0.1, where this network mode does not go"),
        (format!("https://localhost:{port}/"), "localhost is at 127.0.0.1, where this network mode does not go"),
        ("https://metadata.test/".into(), "metadata.test is at 169.254.169.254, where this network mode does not go"),
        (format!("http://here.test:{port}/"), "metadata.test is asked over https only"),
        (
            "https://user@here.test/".into(),
            "`https://here.test/` cannot be requested: credentials do not belong into a URL",
        ),
        ("ftp://here.test/".into(), "`ftp://here.test/` cannot be requested: only http and https are understood"),
        ("here.test".into(), "`here.test` cannot be requested: it is no absolute URL"),
        ("https://empty.test/".into(), "no address of empty.test could be found"),
        ("https://unknown.test/".into(), "no address of unknown.test could be found"),
    ] {
        let error = public.get(&url).send().await.unwrap_err();
        assert_eq!(error.to_string(), expected, "{url}");
    }
    assert_eq!(log.lock().unwrap().len(), 1);
    // A name with one good and one bad address is connected to at the good one only.
    let mut narrow = policy(&["mixed.test"]);
    narrow.reach = Reach::Loopback;
    let answer = HttpClient::new(narrow, book()).unwrap().get(&format!("http://mixed.test:{port}/")).send().await;
    assert!(matches!(answer, Err(HttpError::Insecure { .. })), "{answer:?}");
    assert_eq!(log.lock().unwrap().len(), 2);
    // A host can be named later.
    let later = public.naming(&format!("also.test:{port}")).unwrap();
    assert!(matches!(later.get(&format!("http://also.test:{port}/")).send().await, Err(HttpError::Insecure { .. })));
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn only_progress_counts() {
    let (at, _) = serve(|head| match head.split(' ').nth(1).unwrap() {
        "/half" => "HTTP/1.1 200 OK\r\nx-hang: 1\r\ncontent-length: 10\r\n\r\nhell".into(),
        _ => ok("done"),
    })
    .await;
    let client = client(&["127.0.0.1"]);
    let half = client.get(&format!("http://{at}/half")).send().await.unwrap();
    let error = half.bytes_at_most(10).await.unwrap_err();
    assert!(matches!(&error, HttpError::Stalled { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let mut reader = client.get(&format!("http://{at}/half")).send().await.unwrap().reader();
    let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    // An upload of four times the limit goes through, because it moves.
    let slow = futures::stream::unfold(0, |count| async move {
        tokio::time::sleep(Duration::from_millis(150)).await;
        (count < 8).then_some((Ok("piece".into()), count + 1))
    });
    let put = client.request(Method::PUT, &format!("http://{at}/slow")).stream(slow, None);
    put.send().await.unwrap().success().unwrap();
    // One that stops does not.
    let stuck = futures::stream::once(async { Ok("piece".into()) }).chain(futures::stream::pending());
    let put = client.request(Method::PUT, &format!("http://{at}/stuck")).stream(stuck, None);
    assert!(matches!(put.send().await, Err(HttpError::Stalled { .. })));
    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = client.get(&format!("http://{closed}/")).send().await.unwrap_err();
    assert!(matches!(&error, HttpError::Connection { .. }), "{error}");
}
