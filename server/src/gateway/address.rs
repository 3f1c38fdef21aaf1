//! Whose connection a request came over: the peer, or what a trusted proxy says of it.

use http::HeaderMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, SocketAddr};

/// The other end of the connection, put into every request by the accept loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Peer {
    /// Is it this machine itself, and nobody behind a proxy on it?
    pub(crate) fn is_local(self, headers: &HeaderMap) -> bool {
        let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip"];
        self.0.ip().to_canonical().is_loopback() && !forwarded.iter().any(|name| headers.contains_key(*name))
    }
}

/// The client's address. `X-Forwarded-For` is believed only as far as trusted proxies wrote it: from the right, the
/// first hop that is none of them. What stands to the left of it is the client's own word.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut client = peer.to_canonical();
    let hops = headers.get_all("x-forwarded-for").iter().flat_map(|line| {
        // A line that is no text ends what can be believed, as a hop that is no address does.
        line.to_str().unwrap_or("?").split(',').map(str::trim)
    });
    let hops: Vec<&str> = hops.collect();
    for hop in hops.into_iter().rev() {
        if !is_trusted(client) {
            break;
        }
        let Some(address) = parse(hop) else { break };
        client = address.to_canonical();
    }
    client
}

/// An address, with or without port, IPv6 with or without brackets.
fn parse(hop: &str) -> Option<IpAddr> {
    hop.parse()
        .or_else(|_| hop.parse::<SocketAddr>().map(|s| s.ip()))
        .or_else(|_| hop.trim_start_matches('[').trim_end_matches(']').parse())
        .ok()
}

/// The network that counts as one client: a /24, or the /64 that one IPv6 customer is given at least.
pub(crate) fn network(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(v4) => Ipv4Net::new(v4, 24).map_or_else(|_| IpNet::from(address), |n| IpNet::V4(n.trunc())),
        IpAddr::V6(v6) => Ipv6Net::new(v6, 64).map_or_else(|_| IpNet::from(address), |n| IpNet::V6(n.trunc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().expect("a header"));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|t| t.parse().expect("a network")).collect();
        client(peer.parse().expect("an address"), &headers, &trusted).to_string()
    }

    #[test]
    fn a_forged_header_changes_nothing() {
        assert_eq!(seen("203.0.113.9", &["1.1.1.1"], &[]), "203.0.113.9");
        assert_eq!(seen("203.0.113.9", &["1.1.1.1"], &["10.0.0.0/8"]), "203.0.113.9");
        // Behind the proxy: the client's own header stands left of what the proxy added.
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1, 203.0.113.9"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1", "203.0.113.9"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
        assert_eq!(
            seen("10.0.0.1", &["10.9.9.9, 203.0.113.9"], &["10.0.0.0/8"]),
            "203.0.113.9"
        );
    }

    #[test]
    fn a_chain_of_trusted_proxies_is_followed_and_garbage_ends_it() {
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, 10.0.0.2"], &trusted), "203.0.113.9");
        assert_eq!(seen("fd00::1", &["[2001:db8::7]:443"], &trusted), "2001:db8::7");
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, unknown"], &trusted), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &[""], &trusted), "10.0.0.1");
        assert_eq!(seen("::ffff:203.0.113.9", &[], &trusted), "203.0.113.9");
    }

    #[test]
    fn this_machine_is_told_from_who_comes_through_a_proxy_on_it() {
        let local = |peer: &str, name: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(name.map(|n| (http::HeaderName::from_static(n), http::HeaderValue::from_static("::1"))));
            Peer(peer.parse().expect("an address")).is_local(&headers)
        };
        assert!(local("127.0.0.1:1", None) && local("[::1]:1", None) && local("[::ffff:127.0.0.1]:1", None));
        assert!(!local("192.0.2.1:1", None));
        for name in ["forwarded", "x-forwarded-for", "x-real-ip"] {
            assert!(!local("127.0.0.1:1", Some(name)), "{name}");
        }
    }

    #[test]
    fn one_customer_is_one_network() {
        let net = |a: &str| network(a.parse().expect("an address")).to_string();
        assert_eq!(net("203.0.113.9"), "203.0.113.0/24");
        assert_eq!(net("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    }
}
