//! The client address of a request.
//!
//! It is the address of the connection, unless that is a trusted proxy of the configuration. Then it is the last
//! entry of `X-Forwarded-For` that is not a trusted proxy. Entries from the client itself are further left and are
//! never used.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::Gate;
use crate::audit::Trail;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The other end of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The client address of a request, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAddress {
    /// A client: its address, or its [`network`].
    Client(IpAddr),
    /// A client behind a proxy that the configuration does not name. Many clients may share the address.
    BehindProxy,
}

/// Returns the client address and records it in the trail.
pub(super) fn stage(gate: &Gate, trail: &Trail, parts: &Parts) -> ClientAddress {
    of_request(&gate.configuration.trusted_proxies, trail, parts)
}

/// Returns the client address of a request behind these trusted proxies, and records it in the trail.
pub(crate) fn of_request(trusted_proxies: &[IpNet], trail: &Trail, parts: &Parts) -> ClientAddress {
    let address = match parts.extensions.get::<Peer>() {
        Some(Peer(peer)) => client_address(peer.ip(), &parts.headers, trusted_proxies),
        None => ClientAddress::BehindProxy,
    };
    if let ClientAddress::Client(address) = address {
        trail.came_from(address);
    }
    address
}

fn client_address(peer: IpAddr, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> ClientAddress {
    let trusted = |address: &IpAddr| trusted_proxies.iter().any(|network| network.contains(address));
    let peer = peer.to_canonical();
    if !trusted(&peer) {
        // If trusted proxies are configured, no other peer counts as a proxy.
        let forwarded = headers.contains_key(FORWARDED_FOR) || headers.contains_key("forwarded");
        return match forwarded && trusted_proxies.is_empty() {
            true => ClientAddress::BehindProxy,
            false => ClientAddress::Client(network(peer)),
        };
    }
    let values: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let mut hops = values.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b',')).map(address);
    match hops.find(|hop| hop.is_none_or(|hop| !trusted(&hop))) {
        Some(Some(client)) => ClientAddress::Client(network(client)),
        // The entry is unreadable, or all entries are proxies.
        Some(None) | None => ClientAddress::BehindProxy,
    }
}

/// Parses an entry of `X-Forwarded-For`. Some proxies add the port, some put IPv6 in brackets.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop).ok()?.trim();
    let with_port = || hop.parse().ok().map(|address: SocketAddr| address.ip());
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(|address: Ipv6Addr| address.into());
    hop.parse().ok().or_else(with_port).or_else(in_brackets).map(|address: IpAddr| address.to_canonical())
}

/// Returns the addresses that one client can use. For IPv4 it is one address, even after NAT64 (`64:ff9b::/96`, RFC
/// 6052); for IPv6 it is the /64 network.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => match address.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
                let [.., a, b, c, d] = address.octets();
                IpAddr::from([a, b, c, d])
            }
            _ => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        },
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn of(peer: &str, forwarded: &[&str]) -> ClientAddress {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(value).unwrap());
        }
        client_address(peer.parse().unwrap(), &headers, &["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
    }

    fn client(address: &str) -> ClientAddress {
        ClientAddress::Client(address.parse().unwrap())
    }

    #[test]
    fn without_a_proxy_the_client_address_is_that_of_the_connection() {
        assert_eq!(of("192.0.2.7", &[]), client("192.0.2.7"));
        assert_eq!(of("::ffff:192.0.2.7", &[]), client("192.0.2.7"));
    }

    #[test]
    fn ipv4_clients_behind_nat64_are_distinct_and_are_not_trusted_proxies() {
        assert_eq!(of("64:ff9b::192.0.2.7", &[]), client("192.0.2.7"));
        assert_eq!(of("10.1.1.1", &["64:ff9b::c000:207"]), client("192.0.2.7"));
        assert_eq!(of("64:ff9b:1::192.0.2.7", &[]), client("64:ff9b:1::"), "another prefix is a network's own");
        assert_eq!(of("64:ff9b::10.1.1.1", &["198.51.100.1"]), client("10.1.1.1"), "what it forwards is not believed");
    }

    #[test]
    fn the_address_from_a_trusted_proxy_is_used_and_one_from_the_client_is_not() {
        assert_eq!(of("10.1.1.1", &["198.51.100.1, 192.0.2.7"]), client("192.0.2.7"));
        assert_eq!(of("10.1.1.1", &["198.51.100.1", "192.0.2.7, 10.2.2.2"]), client("192.0.2.7"));
        assert_eq!(of("10.1.1.1", &["192.0.2.7:41234"]), client("192.0.2.7"));
        assert_eq!(of("10.1.1.1", &["\u{fffd}, 192.0.2.7"]), client("192.0.2.7"), "bytes beyond ASCII hide nothing");
        for written in [
            "[2001:db8:0:1:2:3:4:5]:443",
            "[2001:db8:0:1:2:3:4:5]",
            "2001:db8:0:1:2:3:4:5",
            "2001:DB8:0:1::9, [fd00::2]",
        ] {
            assert_eq!(of("fd00::1", &[written]), client("2001:db8:0:1::"), "{written}");
        }
        for written in ["[::ffff:192.0.2.7]", "[::ffff:192.0.2.7]:443", "::ffff:192.0.2.7"] {
            assert_eq!(of("fd00::1", &[written]), client("192.0.2.7"), "{written}");
        }
        for written in ["[192.0.2.7]", "[2001:db8::1", "2001:db8::1]", "[]", "[[2001:db8::1]]"] {
            assert_eq!(of("fd00::1", &[written]), ClientAddress::BehindProxy, "{written}");
        }
    }

    #[test]
    fn without_configured_proxies_every_forwarding_sender_counts_as_a_proxy() {
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static(FORWARDED_FOR), HeaderValue::from_static("1.2.3.4"))]);
        let peer = "192.0.2.7".parse().unwrap();
        assert_eq!(client_address(peer, &headers, &[]), ClientAddress::BehindProxy);
        assert_eq!(client_address(peer, &HeaderMap::new(), &[]), client("192.0.2.7"));
    }

    #[test]
    fn the_forwarded_address_of_an_untrusted_sender_is_ignored() {
        assert_eq!(of("192.0.2.7", &["198.51.100.1"]), client("192.0.2.7"));
        assert_eq!(of("10.1.1.1", &["198.51.100.1, unknown"]), ClientAddress::BehindProxy);
        assert_eq!(of("10.1.1.1", &["10.2.2.2"]), ClientAddress::BehindProxy);
        assert_eq!(of("10.1.1.1", &[]), ClientAddress::BehindProxy);
    }
}
