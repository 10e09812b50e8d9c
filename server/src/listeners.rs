//! Foreign listeners: TCP sockets in this network namespace that others can reach and that are not this server's. The
//! list comes from the kernel.
//!
//! A sandbox may show incomplete lists. So the list counts only if it has two control sockets, opened on the loopback
//! address: one for IPv4 and one for IPv6.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use procfs_core::net::{TcpNetEntries, TcpState};
use procfs_core::{ExplicitSystemInfo, FromBufReadSI};

/// Most addresses in a report.
const MOST: usize = 16;
/// Longest list that is read, in bytes. A connection takes about 150.
const LONGEST: u64 = 32 * 1024 * 1024;
/// The lists of IPv4 and of IPv6 sockets.
const LISTS: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// Addresses of the control sockets. The last entry is for a kernel that keeps the families apart.
const CONTROLS: [&[SocketAddr]; 2] = [
    &[any_port(IpAddr::V4(Ipv4Addr::LOCALHOST))],
    &[any_port(IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped())), any_port(IpAddr::V6(Ipv6Addr::LOCALHOST))],
];

const fn any_port(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}

/// Returns the addresses (such as `0.0.0.0:3001`) of foreign listeners that others can reach, at most 16. `own` lists
/// the addresses of this server. Returns `None` if the sockets cannot be listed.
pub async fn foreign(own: Vec<SocketAddr>) -> Option<BTreeSet<String>> {
    let listening = tokio::task::spawn_blocking(listening).await.ok()?;
    match listening {
        Ok(listening) => Some(foreign_among(&listening, &own)),
        Err(error) => {
            tracing::debug!(%error, "cannot list the listening sockets of this pod");
            None
        }
    }
}

/// Returns the foreign addresses that others can reach, sorted as text. Our port on another address is foreign.
fn foreign_among(listening: &[SocketAddr], own: &[SocketAddr]) -> BTreeSet<String> {
    let is_foreign = |address: &&SocketAddr| !is_loopback(address.ip()) && !own.contains(address);
    let foreign: BTreeSet<String> = listening.iter().filter(is_foreign).map(ToString::to_string).collect();
    foreign.into_iter().take(MOST).collect()
}

/// True for 127.0.0.0/8, `::1` and ::ffff:127.0.0.0/104.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Returns the addresses of all listening sockets. Blocks.
fn listening() -> io::Result<Vec<SocketAddr>> {
    let controls: Vec<TcpListener> =
        CONTROLS.iter().filter_map(|addresses| TcpListener::bind(*addresses).ok()).collect();
    let mut all = Vec::new();
    for list in LISTS {
        match File::open(list) {
            Ok(file) => all.extend(listed(BufReader::new(file.take(LONGEST)))?),
            // A kernel without this address family has no list.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for control in controls {
        let address = control.local_addr()?;
        if !all.contains(&address) {
            return Err(io::Error::other(format!("{address} listens but is not listed")));
        }
    }
    Ok(all)
}

/// Returns the addresses of the listening sockets in this list.
fn listed(list: impl BufRead) -> io::Result<Vec<SocketAddr>> {
    let kernel = ExplicitSystemInfo {
        boot_time_secs: 0,
        ticks_per_second: 0,
        page_size: 0,
        is_little_endian: cfg!(target_endian = "little"),
    };
    let TcpNetEntries(entries) = TcpNetEntries::from_buf_read(list, &kernel).map_err(io::Error::other)?;
    let listening = entries.into_iter().filter(|entry| entry.state == TcpState::Listen);
    Ok(listening.map(|entry| entry.local_address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn foreign_of(listening: &[&str], own: &[&str]) -> Vec<String> {
        Vec::from_iter(foreign_among(&addresses(listening), &addresses(own)))
    }

    #[test]
    fn listeners_on_loopback_are_not_reported() {
        let loopback = ["127.0.0.1:1", "127.8.9.10:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "[::ffff:127.255.0.1]:1"];
        assert!(foreign_of(&loopback, &[]).is_empty());
        let reachable =
            ["0.0.0.0:1", "10.0.0.7:1", "128.0.0.1:1", "[::2]:1", "[::]:1", "[::ffff:10.0.0.7]:1", "[fe80::1]:1"];
        let told = foreign_of(&reachable, &[]);
        assert_eq!(BTreeSet::from_iter(told), reachable.map(str::to_owned).into());
    }

    #[test]
    fn only_the_servers_own_addresses_are_not_reported() {
        let listening = ["0.0.0.0:8080", "0.0.0.0:8081", "[::]:8080", "0.0.0.0:3001"];
        assert_eq!(foreign_of(&listening, &["0.0.0.0:8080", "0.0.0.0:8081"]), ["0.0.0.0:3001", "[::]:8080"]);
    }

    #[test]
    fn at_most_sixteen_addresses_are_reported() {
        let listening: Vec<SocketAddr> = (1..=100).map(|port| ([0, 0, 0, 0], port).into()).collect();
        assert_eq!(foreign_among(&listening, &[]).len(), MOST);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_list_of_the_kernel_is_read_by_its_sockets_that_listen() {
        const HEAD: &str =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        const REST: &str =
            "00000000:00000000 00:00000000 00000000  1000        0 27390 1 0000000000000000 100 0 0 10 0\n";
        let of_4 = format!(
            "{HEAD}   0: 0100007F:1F90 00000000:0000 0A {REST}   1: 0700000A:0BB9 00000000:0000 0A {REST}   2: 0700000A:0BB9 0800000A:8000 01 {REST}"
        );
        assert_eq!(listed(of_4.as_bytes()).unwrap(), addresses(&["127.0.0.1:8080", "10.0.0.7:3001"]));
        let none = "00000000000000000000000000000000:0000";
        let of_6 = format!(
            "{HEAD}   0: 00000000000000000000000001000000:1F90 {none} 0A {REST}   1: 0000000000000000FFFF00000700000A:0BB9 {none} 0A {REST}"
        );
        assert_eq!(listed(of_6.as_bytes()).unwrap(), addresses(&["[::1]:8080", "[::ffff:10.0.0.7]:3001"]));
        assert!(listed("".as_bytes()).unwrap().is_empty());
        for cut in [format!("{HEAD}   0: 0100007F:1F90 00000000"), format!("{HEAD}   0: 7F:1F90 {none} 0A {REST}")] {
            listed(cut.as_bytes()).unwrap_err();
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_real_socket_is_reported_only_while_it_listens_on_all_addresses() {
        // Other tests listen at the same time.
        let told = |port: u16| {
            let mut all = listening().unwrap();
            all.retain(|address| address.port() == port);
            Vec::from_iter(foreign_among(&all, &[]))
        };
        for (address, is_told) in [("0.0.0.0:0", true), ("127.0.0.1:0", false), ("[::ffff:127.0.0.1]:0", false)] {
            let socket = TcpListener::bind(address).unwrap();
            let address = socket.local_addr().unwrap();
            let expected = if is_told { vec![address.to_string()] } else { vec![] };
            assert_eq!(told(address.port()), expected, "{address}");
            drop(socket);
            assert!(told(address.port()).is_empty(), "{address} listens no more");
        }
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn the_sockets_of_this_namespace_can_be_read() {
        assert!(foreign(vec![]).await.unwrap().len() <= MOST);
    }
}
