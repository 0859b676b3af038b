//! From a name to a registry root: DNSLink, IPNS records, trust.
//!
//! * [`chain`]: the steps of a resolution and why it is believed.
//! * [`dns`]: the [`Dns`](crate::port::dns::Dns) port over real servers, with DNSSEC.

pub mod chain;
pub mod dns;
