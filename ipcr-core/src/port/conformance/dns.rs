//! What every implementation of `port::dns` must do.
//!
//! The resolver under test knows this zone:
//!
//! ```text
//! _dnslink.hub.test  TXT   LINK
//! two.hub.test       TXT   "one"   TXT "two"
//! long.hub.test      TXT   long_text(), in character-strings of at most 255 bytes
//! host.hub.test      A     192.0.2.7   AAAA 2001:db8::7
//! ```

use std::net::IpAddr;

use crate::kind::ErrorKind;
use crate::port::dns::Dns;

/// The link of the zone.
pub(crate) const LINK: &str = "dnslink=/ipns/k51qzi5uqu5di1hxx9pv1iu2gxqya46jcu79pmx7oppjo8lp0wsc5nm13xslfb";

/// A text of more than one character-string.
pub(crate) fn long_text() -> String {
    (0..120).map(|number| format!("{number:03}")).collect::<Vec<_>>().join(" ")
}

/// Asks for everything in the zone, and for what is not in it.
pub(crate) async fn run(dns: &dyn Dns) {
    let link = dns.txt("_dnslink.hub.test").await.unwrap();
    assert_eq!(link.records, [LINK]);
    assert_eq!(dns.txt("_DNSLink.Hub.Test").await.unwrap().records, [LINK]);
    let mut two = dns.txt("two.hub.test").await.unwrap().records;
    two.sort();
    assert_eq!(two, ["one", "two"]);
    assert_eq!(dns.txt("long.hub.test").await.unwrap().records, [long_text()]);
    // No such name; a name without that type.
    assert_eq!(dns.txt("absent.hub.test").await.unwrap().records, [""; 0]);
    assert_eq!(dns.txt("host.hub.test").await.unwrap().records, [""; 0]);
    let mut addresses = dns.addresses("host.hub.test").await.unwrap();
    addresses.sort();
    let expected: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    assert_eq!(addresses, expected);
    assert_eq!(dns.addresses("absent.hub.test").await.unwrap(), Vec::<IpAddr>::new());
    for bad in ["a..test".to_owned(), format!("{}.test", "a".repeat(64)), format!("{}test", "abcdefg.".repeat(32))] {
        assert_eq!(dns.txt(&bad).await.unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        assert_eq!(dns.addresses(&bad).await.unwrap_err().kind(), ErrorKind::Usage, "{bad}");
    }
}

/// Asks a resolver whose servers do not answer.
pub(crate) async fn run_down(dns: &dyn Dns) {
    assert_eq!(dns.txt("_dnslink.hub.test").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(dns.addresses("host.hub.test").await.unwrap_err().kind(), ErrorKind::Unavailable);
}
