//! Tests of public and special-purpose addresses.

use std::net::IpAddr;

use crate::oauth::clients::public_addresses::is_public;

fn wrong(addresses: &[&str], expected: bool) -> Vec<String> {
    let addresses = addresses.iter().map(|address| address.parse::<IpAddr>().unwrap());
    addresses.filter(|address| is_public(*address) != expected).map(|address| address.to_string()).collect()
}

#[test]
fn no_address_with_a_special_purpose_is_public() {
    let special = [
        // This host and network, loopback.
        "0.0.0.0",
        "0.255.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "::",
        "::1",
        // Private, shared (CGNAT), unique local, deprecated site-local.
        "10.0.0.0",
        "10.255.255.255",
        "172.16.0.0",
        "172.31.255.255",
        "192.168.0.0",
        "192.168.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "100.100.100.200",
        "fc00::1",
        "fdff:ffff::1",
        "fec0::1",
        // Link-local, with the metadata of each cloud; Azure's platform.
        "169.254.0.0",
        "169.254.169.254",
        "169.254.255.255",
        "168.63.129.16",
        "fe80::1",
        "febf::1",
        "fd00:ec2::254",
        // Protocols, documentation, benchmarks, relays, reserved.
        "192.0.0.0",
        "192.0.0.9",
        "192.0.0.192",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "192.88.99.1",
        "198.18.0.0",
        "198.19.255.255",
        "240.0.0.0",
        "255.255.255.254",
        "100::1",
        "5f00::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "2001:db8:ffff::1",
        "3fff::1",
        "3fff:fff::1",
        "4000::1",
        "1::1",
        // Multicast and broadcast.
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "ff02::1",
        "ff0e::1",
        // IPv4 within IPv6: mapped, compatible, translated, by 6to4 and by Teredo.
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::10.0.0.1",
        "::8.8.8.8",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "64:ff9b:1::8.8.8.8",
        "::ffff:0:8.8.8.8",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "2002:808:808::1",
        "2001::1",
        "2001:0:808:808::1",
    ];
    assert_eq!(wrong(&special, false), Vec::<String>::new());
}

#[test]
fn the_neighbours_of_special_addresses_are_public() {
    let public = [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "8.8.8.8",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2001:200::1",
        "2001:db7::1",
        "2001:db9::1",
        "2003::1",
        "2000::1",
        "2606:4700::1",
        "3ffe::1",
        "3fff:1000::1",
    ];
    assert_eq!(wrong(&public, true), Vec::<String>::new());
}
