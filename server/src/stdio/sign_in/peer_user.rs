//! The user at the other end of a loopback connection.
//!
//! Any user of the machine can connect to the port, and read the one-time address in the arguments of the browser's
//! launcher. An attacker who is faster than the browser could sign in with another account, and the person's tools
//! would then use it. Linux reveals the user of a connection. Other systems need rights that this program lacks.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kernel's tables of connections (`proc_pid_net(5)`).
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// Longest part of a table that is read, in bytes: about 400,000 connections.
const MAXIMUM_TABLE: u64 = 64 * 1024 * 1024;

/// False if the other end of a connection belongs to another user. Root is exempt, because it can read this program's
/// memory anyway.
pub(super) async fn is_own(peer: SocketAddr, port: u16) -> bool {
    let looked_up = tokio::task::spawn_blocking(move || {
        TABLES.iter().find_map(|path| {
            let mut table = String::new();
            let file = std::fs::File::open(path).ok()?;
            file.take(MAXIMUM_TABLE).read_to_string(&mut table).ok()?;
            owner(&table, peer, port)
        })
    });
    looked_up.await.ok().flatten().is_none_or(|user| user == 0 || Some(user) == own_user())
}

#[cfg(unix)]
fn own_user() -> Option<u32> {
    Some(nix::unistd::getuid().as_raw())
}

#[cfg(not(unix))]
fn own_user() -> Option<u32> {
    None
}

/// Returns the user of the socket at this address that is connected to this port.
fn owner(table: &str, peer: SocketAddr, port: u16) -> Option<u32> {
    table.lines().skip(1).find_map(|row| {
        let mut columns = row.split_ascii_whitespace();
        let (local, remote) = (address(columns.nth(1)?)?, address(columns.next()?)?);
        let is_it = local == (peer.ip().to_canonical(), peer.port()) && remote.1 == port && remote.0.is_loopback();
        // State, queues, timer and retransmits precede the user.
        is_it.then(|| columns.nth(4)?.parse().ok()).flatten()
    })
}

/// Parses an address of a table, such as `0100007F:1F90`: words of 32 bits in native byte order, and the port.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let word = |index: usize| u32::from_str_radix(ip.get(8 * index..8 * index + 8)?, 16).ok();
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        32 => {
            let mut bytes = [0; 16];
            for (index, bytes) in bytes.chunks_exact_mut(4).enumerate() {
                bytes.copy_from_slice(&word(index)?.to_ne_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some((ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 0100007F:A410 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 2 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:A410 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 100 0 0 10 0
   3: 0100007F:A411 0100007F:1F91 01 00000000:00000000 00:00000000 00000000  1002        0 4 1 0 100 0 0 10 0
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:A412 00000000000000000000000001000000:1F90 01 00000000:00000000 00:00000000 00000000  1003        0 5 1 0 20 4 30 10 -1
   1: 0000000000000000FFFF00000100007F:A413 0000000000000000FFFF00000100007F:1F90 01 00000000:00000000 00:00000000 00000000  1004        0 6 1 0 20 4 30 10 -1
";

    #[test]
    fn a_connection_belongs_to_the_user_in_the_row_of_its_other_end() {
        for (table, peer, port, user) in [
            (TCP, "127.0.0.1:42000", 8080, Some(1001)),
            (TCP, "127.0.0.1:42001", 8081, Some(1002)),
            (TCP, "127.0.0.1:42001", 8080, None),
            (TCP, "127.0.0.1:42009", 8080, None),
            (TCP, "127.0.0.2:42000", 8080, None),
            (TCP6, "[::1]:42002", 8080, Some(1003)),
            (TCP6, "127.0.0.1:42003", 8080, Some(1004)),
            ("", "127.0.0.1:42000", 8080, None),
            ("head\n0: x y\n1: 0100007F:A410\n", "127.0.0.1:42000", 8080, None),
        ] {
            assert_eq!(owner(table, peer.parse().unwrap(), port), user, "{peer} {port}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_reports_the_user_of_a_connection_of_this_process() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connection = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        let table = std::fs::read_to_string(TABLES[0]).unwrap();
        assert_eq!(owner(&table, peer, port), own_user(), "{connection:?}");
    }
}
