//! From a name to a registry root: DNSLink, IPNS records, trust.
//!
//! * [`resolve`]: [`resolve::NameResolver`], which follows a chain of names to its end.
//! * [`chain`]: the steps of a resolution and why it is believed.
//! * [`dns`]: the [`Dns`](crate::port::dns::Dns) port over real servers, with DNSSEC.
//! * [`dnslink`]: what the TXT records of a domain say. [`target`]: where a name leads.
//! * [`record`]: one IPNS record: verified, signed, compared. [`ipns`]: which record of a name is used, and what is kept.
//! * [`trust`]: the key that each domain is remembered with. [`handover`]: one key names the next.
//! * [`http_records`]: IPNS records by HTTP, and several carriers at once.

pub mod chain;
pub mod dns;
pub mod dnslink;
pub mod handover;
pub mod http_records;
pub mod ipns;
pub mod record;
pub mod resolve;
pub mod target;
pub mod trust;

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};

/// What time it is. Passed in, so that tests and simulations have their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time, to the second.
    pub fn now(&self) -> DateTime<Utc> {
        (self.0)().trunc_subsecs(0)
    }
}

impl Default for Clock {
    /// The system's clock.
    fn default() -> Self {
        Self::new(Utc::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests;
