//! From a name to a registry root: DNSLink, IPNS records, trust.

pub mod chain;
