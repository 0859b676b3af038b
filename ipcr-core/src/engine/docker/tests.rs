//! Engines that misbehave, played by a socket that says what it is told.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::*;

const VERSION: &str = r#"{"Components":[{"Name":"Engine","Version":"29.1.0"}],"Version":"29.1.0","ApiVersion":"1.52","MinAPIVersion":"1.44","Os":"linux","Arch":"arm64"}"#;
const INFO: &str = r#"{"Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#;

struct Played {
    folder: tempfile::TempDir,
    server: JoinHandle<Vec<String>>,
}

/// Serves the two calls of `connect` and then one more, which gets `answer`; tells the request lines.
fn play(answer: &'static [u8], read: usize) -> Played {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let server = tokio::spawn(async move {
        let mut lines = Vec::new();
        for body in [VERSION, INFO] {
            let mut stream = listener.accept().await.unwrap().0;
            lines.push(request(&mut stream).await);
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(text.as_bytes()).await.unwrap();
        }
        let mut stream = listener.accept().await.unwrap().0;
        lines.push(request(&mut stream).await);
        let mut body = vec![0; read];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(answer).await.unwrap();
        lines
    });
    Played { folder, server }
}

async fn request(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().lines().next().unwrap().to_owned()
}

impl Played {
    async fn engine(&self) -> DockerEngine {
        DockerEngine::connect(&format!("unix://{}", self.folder.path().join("s").display())).await.unwrap()
    }
}

#[tokio::test]
async fn the_version_is_asked_for_and_then_named() {
    let played = play(b"HTTP/1.1 404 Not Found\r\ncontent-length: 16\r\n\r\n{\"message\":\"no\"}", 0);
    let engine = played.engine().await;
    assert_eq!(engine.store(), EngineStore::Containerd);
    assert!(
        matches!(engine.export("r.test:5/a:1").await.err(), Some(EngineError::NoImage { name }) if name == "r.test:5/a:1")
    );
    let lines = played.server.await.unwrap();
    assert_eq!(lines, ["GET /version HTTP/1.1", "GET /info HTTP/1.1", "GET /v1.52/images/r.test:5/a:1/get HTTP/1.1"]);
}

#[tokio::test]
async fn an_export_that_breaks_off() {
    let played = play(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo", 0);
    let mut stream = played.engine().await.export("a").await.unwrap();
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).await.unwrap_err();
    assert!(matches!(EngineError::from_io(error), Ok(EngineError::Broken { .. })));
    assert!(bytes.starts_with(b"hello"));
}

#[tokio::test]
async fn an_export_that_ends_in_an_error_line() {
    let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n\
        3b\r\n{\"errorDetail\":{\"message\":\"disk full\"},\"error\":\"disk full\"}\r\n0\r\n\r\n";
    let played = play(answer, 0);
    let mut stream = played.engine().await.export("a").await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    let Ok(EngineError::Refused { message, .. }) = EngineError::from_io(error) else {
        panic!("not the engine's words")
    };
    assert_eq!(message, "disk full");
}

#[tokio::test]
async fn a_load_that_breaks_off() {
    // The engine dies in the middle of the archive, and after it without an answer.
    for read in [100, 4000] {
        let played = play(b"", read);
        let archive = Box::pin(io::Cursor::new(vec![7; 4000]));
        let error = played.engine().await.load(archive).await.unwrap_err();
        assert!(matches!(error, EngineError::Broken { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_load_without_a_result() {
    for answer in ["{}", "", "{\"stream\":\"nothing to say\\n\"}"] {
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        let played = play(Box::leak(text.into_boxed_str()).as_bytes(), 0);
        let error = played.engine().await.load(Box::pin(tokio::io::empty())).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{answer}: {error:?}");
    }
}

#[test]
fn addresses_get_their_version_once() {
    assert_eq!(versioned("unix://2f76/images/json?all=1", "1.41").unwrap(), "unix://2f76/v1.41/images/json?all=1");
    assert_eq!(versioned("http://h:1/v1.41/info", "1.40"), None);
}

#[test]
fn names_that_are_no_names() {
    for name in ["", "a//b", "../a", "a/../b", "/a", "a b", "a?b", "a#b", "a%2fb", "ä", "a/.hidden"] {
        assert!(refuse_bad_name(name).is_err(), "{name}");
    }
    for name in ["a", "a:1", "h.test:5000/t/a_b-c.d:1", "sha256:0a", "a@sha256:0a"] {
        assert!(refuse_bad_name(name).is_ok(), "{name}");
    }
}
