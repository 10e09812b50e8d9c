//! Addresses of the public internet.
//!
//! The standard library cannot tell them yet on stable Rust (`IpAddr::is_global`). These are the ranges of the IANA registries
//! of special-purpose addresses that are not globally reachable, and those that lead to an address of IPv4 by a relay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(start: [u16; 3], length: u8) -> Ipv6Net {
    let [a, b, c] = start;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

/// Ranges of IPv4 that are not public.
const RESERVED_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(168, 63, 129, 16, 32), // Azure's platform, which answers each virtual machine
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// The global unicast addresses of IPv6 (RFC 4291 §2.4, as far as IANA assigns them).
const UNICAST_V6: Ipv6Net = v6([0x2000, 0, 0], 3);

/// Ranges within them that are not public: protocols (Teredo among them), documentation, 6to4.
const RESERVED_V6: [Ipv6Net; 4] =
    [v6([0x2001, 0, 0], 23), v6([0x2001, 0xdb8, 0], 32), v6([0x2002, 0, 0], 16), v6([0x3fff, 0, 0], 20)];

/// Addresses of IPv4 by way of a translator (RFC 6052 §2.1).
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);

/// True if this is a unicast address of the public internet. An address of IPv4 that is mapped, or translated by NAT64,
/// counts as that of IPv4.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) if NAT64.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        IpAddr::V6(address) => {
            UNICAST_V6.contains(&address) && !RESERVED_V6.iter().any(|range| range.contains(&address))
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !RESERVED_V4.iter().any(|range| range.contains(&address))
}
