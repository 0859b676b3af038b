//! Names over real DNS servers: [`Resolver`], which is the [`Dns`] port over hickory-resolver, and the only place that
//! knows it.
//!
//! Answers are validated (RFC 4035) against the root's built-in anchors and any that the options add. Whether a set of
//! servers can be validated with at all is found out once per anchor: where the `DNSKEY` answer for the anchor's zone does
//! not validate, the servers strip or break DNSSEC, and everything below that anchor counts as [`Security::Insecure`]; where
//! it does, a wrong answer below it is [`DnsError::Bogus`]. Answers are cached as long as their TTL says, at most five
//! minutes; the absence of one at most ten seconds.

mod server;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as WireError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::proto::serialize::txt::trust_anchor;
use hickory_resolver::{TokioResolver, system_conf};

pub use server::{DnsServer, ParseServerError};

use crate::kind::{Cause, ErrorKind};
use crate::net::HostLookup;
use crate::net::addresses::NetworkMode;
use crate::port::dns::{Dns, DnsError, Security, TxtAnswer};

/// Most aliases from a name to its answer.
const ALIASES: usize = 16;
/// The longest time for one look-up with all its retries.
const BUDGET: Duration = Duration::from_secs(6);
/// The longest time for one question to one server.
const QUESTION: Duration = Duration::from_secs(2);
/// How often a server is asked before it counts as silent.
const ATTEMPTS: usize = 2;
/// The longest time that an answer is kept.
const KEEP: Duration = Duration::from_mins(5);
/// The longest time that the absence of an answer is kept.
const KEEP_ABSENCE: Duration = Duration::from_secs(10);
/// How long it is remembered that servers can be validated with.
const CAPABLE: Duration = Duration::from_mins(10);
/// How long it is remembered that they cannot.
const INCAPABLE: Duration = Duration::from_secs(30);

/// What a [`Resolver`] is made from.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DnsOptions {
    /// The servers; the system's when there are none.
    pub servers: Vec<DnsServer>,
    /// Trust anchors besides the root's: `DNSKEY` records in the form of a zone file. A zone with separate keys for signing
    /// keys and for signing data (KSK and ZSK) gives both.
    pub anchors: Vec<String>,
    /// Servers outside this mode are not asked.
    pub mode: NetworkMode,
}

/// Why a resolver cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsSetupError {
    /// The system's resolver configuration cannot be read.
    #[error("the system's DNS configuration cannot be read")]
    System {
        /// Why.
        source: Cause,
    },
    /// A trust anchor that is no `DNSKEY` record.
    #[error("a DNS trust anchor is not a DNSKEY record")]
    Anchor {
        /// Why.
        source: Cause,
    },
    /// The host of a DNS over HTTPS server has no address.
    #[error("the DNS server {server} has no address")]
    NoAddress {
        /// Which.
        server: String,
        /// Why; `None` when the name has none.
        source: Option<Cause>,
    },
    /// The resolver could not be set up.
    #[error("the DNS resolver could not be set up")]
    Failed {
        /// Why.
        source: Cause,
    },
}

impl DnsSetupError {
    /// Its class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Anchor { .. } => ErrorKind::Usage,
            Self::NoAddress { .. } => ErrorKind::Unavailable,
            Self::System { .. } | Self::Failed { .. } => ErrorKind::Failed,
        }
    }
}

/// The [`Dns`] port over DNS servers.
pub struct Resolver {
    plain: TokioResolver,
    validating: TokioResolver,
    /// The zones of all anchors, the root among them.
    zones: Vec<Name>,
    capable: Mutex<HashMap<Name, (Instant, bool)>>,
    /// For people.
    servers: Vec<String>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Resolver {
    /// A resolver with these options.
    pub async fn new(options: DnsOptions) -> Result<Self, DnsSetupError> {
        let mut encrypted = false;
        let mut servers = Vec::new();
        let mut config = if options.servers.is_empty() {
            let (config, _) =
                system_conf::read_system_conf().map_err(|source| DnsSetupError::System { source: source.into() })?;
            config
        } else {
            for server in &options.servers {
                encrypted |= matches!(server, DnsServer::Https { .. });
                servers.append(&mut configs(server, &options.mode).await?);
            }
            ResolverConfig::from_name_servers(servers)
        };
        config.name_servers.retain(|server| options.mode.allows_ip(server.ip));
        let shown = config.name_servers.iter().map(|server| server.ip.to_string()).collect();

        let mut anchors = TrustAnchors::default();
        let mut zones = vec![Name::root()];
        for text in &options.anchors {
            for (zone, key) in read_anchors(text)? {
                anchors.insert_with_name(&key, (&zone).into());
                if !zones.contains(&zone) {
                    zones.push(zone);
                }
            }
        }
        let build = |anchors: Option<TrustAnchors>| {
            let mut builder = TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
                .with_options(resolver_options());
            if let Some(anchors) = anchors {
                builder = builder.with_trust_anchor(Arc::new(anchors));
            }
            if !encrypted {
                // Else the system's certificates would be loaded, and be missed where there are none.
                builder = builder.with_tls_config(no_tls()?);
            }
            builder.build().map_err(|source| DnsSetupError::Failed { source: source.into() })
        };
        let (plain, validating) = (build(None)?, build(Some(anchors))?);
        Ok(Self { plain, validating, zones, capable: Mutex::default(), servers: shown })
    }

    /// Whether the answers for the closest anchor above a name validate.
    async fn is_capable(&self, name: &Name) -> bool {
        let above = self.zones.iter().filter(|zone| zone.zone_of(name));
        let Some(zone) = above.max_by_key(|zone| zone.num_labels()) else { return false };
        let known = self.capable.lock().unwrap_or_else(PoisonError::into_inner).get(zone).copied();
        if let Some((until, capable)) = known
            && until > Instant::now()
        {
            return capable;
        }
        let capable = match self.validating.lookup(zone.clone(), RecordType::DNSKEY).await {
            Ok(lookup) => {
                let keys: Vec<_> = relevant(&lookup, RecordType::DNSKEY).collect();
                !keys.is_empty() && keys.iter().all(|key| key.proof == Proof::Secure)
            }
            Err(error) => {
                tracing::debug!(%zone, %error, "no DNSSEC below this anchor");
                false
            }
        };
        let until = Instant::now() + if capable { CAPABLE } else { INCAPABLE };
        self.capable.lock().unwrap_or_else(PoisonError::into_inner).insert(zone.clone(), (until, capable));
        capable
    }

    /// A validated answer; `None` where nothing can be validated.
    async fn validated(&self, name: &Name) -> Option<Result<TxtAnswer, DnsError>> {
        if !self.is_capable(name).await {
            return None;
        }
        let mut answer = self.validating.lookup(name.clone(), RecordType::TXT).await;
        if matches!(&answer, Err(NetError::Dns(WireError::DnssecBogus))) {
            // A lost packet somewhere in the chain of keys looks the same and is not remembered.
            answer = self.validating.lookup(name.clone(), RecordType::TXT).await;
        }
        let bogus = || DnsError::Bogus { name: shown(name) };
        Some(match answer {
            Ok(lookup) => {
                let chain = chain(name, &lookup);
                let proofs: Vec<_> = chain.iter().map(|record| record.proof).collect();
                // What came may all be well signed, and speak of something else.
                let answers = chain.iter().any(|record| record.record_type() == RecordType::TXT);
                if proofs.iter().all(|proof| *proof == Proof::Secure) && answers {
                    Ok(answer_of(&chain, Security::Secure))
                } else if proofs.iter().all(|proof| matches!(proof, Proof::Secure | Proof::Insecure)) && answers {
                    Ok(answer_of(&chain, Security::Insecure))
                } else {
                    Err(bogus())
                }
            }
            Err(NetError::Dns(WireError::DnssecBogus)) => Err(bogus()),
            Err(NetError::Dns(WireError::Nsec { proof, .. })) => match proof {
                Proof::Secure => Ok(empty(Security::Secure)),
                Proof::Insecure => Ok(empty(Security::Insecure)),
                _ => Err(bogus()),
            },
            Err(NetError::Dns(WireError::NoRecordsFound(none))) => {
                let authorities = none.authorities.as_deref().unwrap_or_default();
                let secure = !authorities.is_empty()
                    && authorities.iter().filter(|r| !r.record_type().is_rrsig()).all(|r| r.proof == Proof::Secure);
                Ok(empty(if secure { Security::Secure } else { Security::Insecure }))
            }
            Err(error) => Err(unreachable(name, error.into())),
        })
    }

    async fn plain_txt(&self, name: &Name) -> Result<TxtAnswer, DnsError> {
        match self.plain.lookup(name.clone(), RecordType::TXT).await {
            Ok(lookup) => Ok(answer_of(&chain(name, &lookup), Security::Insecure)),
            Err(error) if error.is_no_records_found() => Ok(empty(Security::Insecure)),
            Err(error) => Err(unreachable(name, error.into())),
        }
    }
}

#[async_trait]
impl Dns for Resolver {
    async fn txt(&self, name: &str) -> Result<TxtAnswer, DnsError> {
        let name = parse(name)?;
        let both = async { tokio::join!(self.validated(&name), self.plain_txt(&name)) };
        match tokio::time::timeout(BUDGET, both).await {
            Ok((Some(validated), _)) => validated,
            Ok((None, plain)) => plain,
            Err(_) => Err(unreachable(&name, too_slow())),
        }
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        let name = parse(host)?;
        // Names of one label may be completed by the system's search list.
        let asked = if host.contains('.') { name.clone() } else { relative(host)? };
        match tokio::time::timeout(BUDGET, self.plain.lookup_ip(asked)).await {
            Ok(Ok(lookup)) => Ok(lookup.iter().collect()),
            Ok(Err(error)) if error.is_no_records_found() => Ok(Vec::new()),
            Ok(Err(error)) => Err(unreachable(&name, error.into())),
            Err(_) => Err(unreachable(&name, too_slow())),
        }
    }
}

/// Host names for the HTTP client, by any [`Dns`].
#[derive(Clone, Debug)]
pub struct DnsHosts(pub Arc<dyn Dns>);

#[async_trait]
impl HostLookup for DnsHosts {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Cause> {
        self.0.addresses(host).await.map_err(Cause::from)
    }
}

fn resolver_options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = QUESTION;
    options.attempts = ATTEMPTS;
    options.try_tcp_on_error = true;
    options.positive_max_ttl = Some(KEEP);
    options.negative_max_ttl = Some(KEEP_ABSENCE);
    options
}

/// TLS that trusts nobody, for resolvers that do not use it.
fn no_tls() -> Result<rustls::ClientConfig, DnsSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| DnsSetupError::Failed { source: source.into() })?;
    Ok(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

async fn configs(server: &DnsServer, mode: &NetworkMode) -> Result<Vec<NameServerConfig>, DnsSetupError> {
    match server {
        DnsServer::Plain(address) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = address.port();
                connection
            });
            Ok(vec![NameServerConfig::new(address.ip(), true, connections.into())])
        }
        DnsServer::Https { host, port, path } => {
            let addresses: Vec<SocketAddr> = if let Ok(ip) = host.parse::<IpAddr>() {
                vec![SocketAddr::new(ip, *port)]
            } else if matches!(mode, NetworkMode::Loopback | NetworkMode::Lan) && host != "localhost" {
                // The system would ask servers that this mode does not reach.
                return Err(DnsSetupError::NoAddress { server: server.to_string(), source: None });
            } else {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                let failed = |source: std::io::Error| DnsSetupError::NoAddress {
                    server: server.to_string(),
                    source: Some(source.into()),
                };
                found.map_err(failed)?.collect()
            };
            if addresses.is_empty() {
                return Err(DnsSetupError::NoAddress { server: server.to_string(), source: None });
            }
            let (host, path): (Arc<str>, Arc<str>) = (host.as_str().into(), path.as_str().into());
            let config = |address: SocketAddr| {
                let mut connection = ConnectionConfig::https(host.clone(), Some(path.clone()));
                connection.port = address.port();
                NameServerConfig::new(address.ip(), true, vec![connection])
            };
            Ok(addresses.into_iter().map(config).collect())
        }
    }
}

/// The keys of a file of anchors, with their zones.
fn read_anchors(text: &str) -> Result<Vec<(Name, hickory_resolver::proto::dnssec::PublicKeyBuf)>, DnsSetupError> {
    let refused = |source: Cause| DnsSetupError::Anchor { source };
    // The parser wants the last line to end.
    let entries = trust_anchor::Parser::new(format!("{text}\n")).parse().map_err(|error| refused(error.into()))?;
    if entries.is_empty() {
        return Err(refused("there is none in the file".into()));
    }
    let mut keys = Vec::with_capacity(entries.len());
    for entry in entries {
        let trust_anchor::Entry::DNSKEY(record) = entry else {
            return Err(refused("it holds another record".into()));
        };
        let mut zone = record.name().to_lowercase();
        zone.set_fqdn(true);
        keys.push((zone, record.data().public_key().clone()));
    }
    Ok(keys)
}

fn parse(name: &str) -> Result<Name, DnsError> {
    let bad = || DnsError::BadName { name: name.chars().take(260).collect() };
    let text = name.strip_suffix('.').unwrap_or(name);
    if text.is_empty() || !text.is_ascii() {
        return Err(bad());
    }
    let mut parsed = Name::from_ascii(text).map_err(|_| bad())?;
    parsed.set_fqdn(true);
    if parsed.len() > 255 { Err(bad()) } else { Ok(parsed.to_lowercase()) }
}

fn relative(host: &str) -> Result<Name, DnsError> {
    Name::from_ascii(host).map_err(|_| DnsError::BadName { name: host.to_owned() })
}

fn relevant(lookup: &Lookup, kind: RecordType) -> impl Iterator<Item = &Record> {
    lookup.answers().iter().filter(move |record| record.record_type() == kind)
}

/// The records that lead from a name to its answer: aliases, and the answer itself. Whatever else a server adds speaks of other names.
fn chain<'a>(name: &Name, lookup: &'a Lookup) -> Vec<&'a Record> {
    let (mut at, mut chain) = (name.to_lowercase(), Vec::new());
    let owns = |record: &Record, at: &Name| record.name.to_lowercase() == *at;
    for _ in 0..ALIASES {
        let alias = lookup.answers().iter().find_map(|record| match &record.data {
            RData::CNAME(target) if owns(record, &at) => Some((record, target.0.to_lowercase())),
            _ => None,
        });
        let Some((record, target)) = alias else { break };
        chain.push(record);
        at = target;
    }
    let answers = lookup.answers().iter().filter(|record| record.record_type() == RecordType::TXT);
    chain.extend(answers.filter(|record| owns(record, &at)));
    chain
}

fn answer_of(chain: &[&Record], security: Security) -> TxtAnswer {
    let text = |record: &&Record| match &record.data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    };
    let ttl = chain.iter().map(|record| record.ttl).min().unwrap_or_default();
    TxtAnswer { records: chain.iter().filter_map(text).collect(), security, ttl }
}

fn empty(security: Security) -> TxtAnswer {
    TxtAnswer { records: Vec::new(), security, ttl: 0 }
}

fn unreachable(name: &Name, source: Cause) -> DnsError {
    DnsError::Unreachable { name: shown(name), source }
}

fn too_slow() -> Cause {
    format!("no answer within {} seconds", BUDGET.as_secs()).into()
}

fn shown(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
