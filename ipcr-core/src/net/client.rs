//! Requests: [`HttpClient`] and [`RequestBuilder`].

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Body, Method, Url, redirect};
use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio_util::io::ReaderStream;

use super::response::Response;
use super::{HostLookup, HttpError, HttpPolicy, shown};
use crate::kind::{Cause, chain, in_one_line};

/// How this program calls itself.
const AGENT: &str = concat!("ipcr/", env!("CARGO_PKG_VERSION"));

/// A client with its bounds. Clones share connections.
#[derive(Clone)]
pub struct HttpClient {
    policy: Arc<HttpPolicy>,
    hosts: Arc<dyn HostLookup>,
    inner: reqwest::Client,
    /// Why https cannot be used, if it cannot.
    no_tls: Option<Arc<str>>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl HttpClient {
    /// A client within `policy` that looks host names up with `hosts`.
    pub fn new(policy: HttpPolicy, hosts: Arc<dyn HostLookup>) -> Result<Self, HttpError> {
        install_ring();
        let policy = Arc::new(policy);
        let guard = Arc::new(Guard { policy: policy.clone(), hosts: hosts.clone() });
        let builder = || {
            reqwest::Client::builder()
                .user_agent(AGENT)
                .redirect(redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .connect_timeout(policy.connect)
                .dns_resolver(guard.clone())
        };
        // A machine without root certificates can still speak http to itself.
        let (inner, no_tls) = match builder().build() {
            Ok(inner) => (inner, None),
            Err(error) => {
                let plain = builder().tls_certs_only([]).build();
                (plain.map_err(|source| HttpError::Setup { source: source.into() })?, Some(in_one_line(&error).into()))
            }
        };
        Ok(Self { policy, hosts, inner, no_tls })
    }

    /// A client like this one for a host that the user has just named, with connections of its own.
    pub fn naming(&self, host: &str) -> Result<Self, HttpError> {
        Self::new(HttpPolicy::clone(&self.policy).naming(host), self.hosts.clone())
    }

    /// Its bounds.
    pub fn policy(&self) -> &HttpPolicy {
        &self.policy
    }

    /// Begins a request.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        RequestBuilder {
            client: self.clone(),
            method,
            url: url.to_owned(),
            headers: HeaderMap::new(),
            body: Content::None,
            redirects: true,
            problem: None,
        }
    }

    /// Begins a `GET`.
    pub fn get(&self, url: &str) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Whether a URL may be asked at all; `from` is the URL that redirected there.
    fn check(&self, url: &Url, from: Option<&Url>) -> Result<(), HttpError> {
        let bad = |reason| HttpError::BadUrl { url: shown(url), reason };
        let host = url.host_str().ok_or_else(|| bad("it has no host"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("credentials do not belong into a URL"));
        }
        let named = self.policy.is_named(host);
        if let Some(from) = from {
            let from_named = from.host_str().is_some_and(|host| self.policy.is_named(host));
            let downgrade = from.scheme() == "https" && url.scheme() != "https";
            if downgrade || (named && !from_named) {
                return Err(HttpError::BadRedirect { from: shown(from), to: shown(url) });
            }
        }
        match url.scheme() {
            "https" => {
                if let Some(why) = &self.no_tls {
                    return Err(HttpError::Setup { source: why.to_string().into() });
                }
            }
            "http" if named => {}
            "http" => return Err(HttpError::Insecure { host: host.to_owned() }),
            _ => return Err(bad("only http and https are understood")),
        }
        // The resolver never sees literal addresses.
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            Ok(address) if !self.policy.permits(address, named) => {
                Err(HttpError::Forbidden { host: host.to_owned(), address })
            }
            _ => Ok(()),
        }
    }
}

/// Makes `ring` the cryptography of every rustls in this process, unless the embedding program chose one already.
fn install_ring() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // An error means that there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// A resolver that only gives out addresses within the policy.
struct Guard {
    policy: Arc<HttpPolicy>,
    hosts: Arc<dyn HostLookup>,
}

/// What [`Guard`] refuses with; found again in the chain of causes.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("forbidden address {0}")]
    Forbidden(IpAddr),
    #[error("no address")]
    NoAddress,
    #[error("look-up failed")]
    LookUp(#[source] Cause),
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, hosts) = (self.policy.clone(), self.hosts.clone());
        Box::pin(async move {
            let host = name.as_str().trim_end_matches('.').to_ascii_lowercase();
            // RFC 6761, section 6.3: never asked of anyone.
            let found = if host == "localhost" || host.ends_with(".localhost") {
                vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            } else {
                hosts.addresses(&host).await.map_err(Refusal::LookUp)?
            };
            let named = policy.is_named(&host);
            let permitted: Vec<_> = found.iter().copied().filter(|ip| policy.permits(*ip, named)).collect();
            match (permitted.is_empty(), found.first()) {
                (false, _) => Ok(Box::new(permitted.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs),
                (true, Some(ip)) => Err(Refusal::Forbidden(*ip).into()),
                (true, None) => Err(Refusal::NoAddress.into()),
            }
        })
    }
}

/// What is sent.
enum Content {
    None,
    Bytes(Bytes),
    Stream(Body, watch::Receiver<()>),
}

/// A request that is being put together.
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    client: HttpClient,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Content,
    redirects: bool,
    problem: Option<HttpError>,
}

impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder").field("method", &self.method).finish_non_exhaustive()
    }
}

impl RequestBuilder {
    /// Adds a header. `Authorization` and `Cookie` are never sent to another origin than the URL's.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(is_credential(&name));
                self.headers.append(name, value);
            }
            _ => self.problem = Some(HttpError::BadHeader { name: name.chars().take(80).collect() }),
        }
        self
    }

    /// Follows no redirect: one is an answer like any other.
    pub fn without_redirects(mut self) -> Self {
        self.redirects = false;
        self
    }

    /// Sends these bytes.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = Content::Bytes(bytes.into());
        self
    }

    /// Sends what a stream gives; `length` in bytes where it is known, else in chunks. Such a request is not redirected.
    pub fn stream(
        mut self,
        stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        length: Option<u64>,
    ) -> Self {
        let (moved, progress) = watch::channel(());
        let stream = stream.inspect(move |_| {
            moved.send_replace(());
        });
        self.body = Content::Stream(Body::wrap_stream(stream.map_err(Cause::from)), progress);
        if let Some(length) = length {
            self.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        self
    }

    /// Sends what a reader gives, as [`RequestBuilder::stream`] does.
    pub fn reader(self, reader: impl AsyncRead + Send + 'static, length: Option<u64>) -> Self {
        self.stream(ReaderStream::with_capacity(reader, 64 << 10), length)
    }

    /// Sends it and waits for the head of the answer. `GET` and `HEAD` follow redirects, each one checked.
    pub async fn send(self) -> Result<Response, HttpError> {
        let Self { client, method, url, mut headers, body, redirects, problem } = self;
        if let Some(problem) = problem {
            return Err(problem);
        }
        let stall = client.policy.stall;
        let first = Url::parse(&url).map_err(|_| HttpError::BadUrl {
            url: url.split('?').next().unwrap_or_default().chars().take(200).collect(),
            reason: "it is no absolute URL",
        })?;
        client.check(&first, None)?;
        let (fixed, mut streamed) = match body {
            Content::None => (None, None),
            Content::Bytes(bytes) => (Some(bytes), None),
            Content::Stream(body, progress) => (None, Some((body, progress))),
        };
        let follows = redirects && matches!(method, Method::GET | Method::HEAD) && streamed.is_none();
        let mut url = first.clone();
        for _ in 0..=client.policy.redirects {
            let mut request = client.inner.request(method.clone(), url.clone()).headers(headers.clone());
            let mut progress = None;
            if let Some(bytes) = &fixed {
                request = request.body(bytes.clone());
            } else if let Some((body, moved)) = streamed.take() {
                request = request.body(body);
                progress = Some(moved);
            }
            let answer = head_of(request.send(), progress, stall, &url).await?;
            let next = match answer.headers().get(LOCATION).map(|to| to.to_str()) {
                Some(Ok(to)) if follows && answer.status().is_redirection() => url
                    .join(to)
                    .map_err(|_| HttpError::BadUrl { url: shown(&url), reason: "it redirects to no URL" })?,
                _ => return Ok(Response::new(answer, url, stall)),
            };
            client.check(&next, Some(&url))?;
            if next.origin() != url.origin() {
                headers.remove(AUTHORIZATION);
                headers.remove(COOKIE);
            }
            url = next;
        }
        Err(HttpError::Redirects { url: shown(&first), limit: client.policy.redirects })
    }
}

fn is_credential(name: &HeaderName) -> bool {
    name == AUTHORIZATION || name == COOKIE
}

/// Waits for the head of an answer as long as the request moves.
async fn head_of(
    sending: impl Future<Output = reqwest::Result<reqwest::Response>>,
    mut progress: Option<watch::Receiver<()>>,
    stall: Duration,
    url: &Url,
) -> Result<reqwest::Response, HttpError> {
    tokio::pin!(sending);
    loop {
        let moved = async {
            match &mut progress {
                Some(progress) => progress.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Whoever was not asked for a while may find both the answer and the end of its patience.
            biased;
            answer = &mut sending => return answer.map_err(|error| failure(error, url)),
            more = moved => if !more {
                // The body has been sent; from now on only the answer counts.
                progress = None;
            },
            () = tokio::time::sleep(stall) => return Err(HttpError::Stalled { url: shown(url), limit: stall }),
        }
    }
}

/// Sorts an error of the transport.
pub(super) fn failure(error: reqwest::Error, url: &Url) -> HttpError {
    let host = url.host_str().unwrap_or_default().to_owned();
    for cause in chain(&error) {
        match cause.downcast_ref::<Refusal>() {
            Some(Refusal::Forbidden(address)) => return HttpError::Forbidden { host, address: *address },
            Some(Refusal::NoAddress) => return HttpError::Unresolved { host, source: None },
            Some(Refusal::LookUp(source)) => {
                return HttpError::Unresolved { host, source: Some(in_one_line(source.as_ref()).into()) };
            }
            None => {}
        }
    }
    HttpError::Connection { url: shown(url), source: error.without_url().into() }
}
