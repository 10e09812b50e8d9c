//! Tests that a program of another user cannot take held ports, while programs of the same user can listen on them.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::SockRef;
use tokio::net::TcpSocket;

use crate::harness::{PROGRAM, await_exit};

/// Running holder. It is stopped and awaited when it is dropped.
struct Holder {
    process: Child,
    address: SocketAddr,
}

impl Holder {
    /// Starts a holder of any free port of all addresses, and waits until it holds the port.
    fn start(command: &mut Command) -> Self {
        let mut process = command.args(["hold", "[::]:0"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let (_, address) = line.trim_end().split_once("holding ").unwrap();
        Self { process, address: address.parse().unwrap() }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
        assert!(await_exit(&mut self.process).success());
    }
}

/// Returns a socket that is bound with these options. It does not listen.
fn bind(address: SocketAddr, reuse_address: bool, reuse_port: bool) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.set_reuseaddr(reuse_address)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    Ok(socket)
}

#[test]
fn a_program_of_the_same_user_can_listen_on_a_held_port_and_one_without_the_option_cannot() {
    let holder = Holder::start(&mut Command::new(PROGRAM));
    assert_eq!(bind(holder.address, true, false).unwrap_err().kind(), ErrorKind::AddrInUse);
    for reuse_address in [false, true] {
        bind(holder.address, reuse_address, true).unwrap();
    }
    let other = Command::new(PROGRAM).args(["hold", &holder.address.to_string()]).stderr(Stdio::piped()).spawn();
    let mut other = other.unwrap();
    let mut line = String::new();
    BufReader::new(other.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("holding"), "{line}");
    kill(Pid::from_raw(other.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(await_exit(&mut other).success());
}

#[test]
fn a_port_of_another_program_is_refused_with_the_next_step() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = Command::new(PROGRAM).args(["hold", &taken.local_addr().unwrap().to_string()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let refused = String::from_utf8(output.stderr).unwrap();
    assert!(
        refused.contains("let no other container of the pod listen on port") && refused.contains("in use"),
        "{refused}"
    );
}

/// Tests of two users, which only root can start.
#[cfg(target_os = "linux")]
mod users {
    use std::fs::{self, Permissions};
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    use nix::unistd::{Uid, setfsuid};

    use super::*;

    const COMPANION: u32 = 65532;
    const BACKEND: u32 = 65533;

    /// Runs this with sockets of a user. The kernel knows the user of a thread.
    fn of_user<T: Send + 'static>(user: u32, run: impl FnOnce() -> T + Send + 'static) -> T {
        let run = move || {
            let user = Uid::from_raw(user);
            setfsuid(user);
            assert_eq!(setfsuid(user), user);
            run()
        };
        std::thread::spawn(run).join().unwrap()
    }

    /// Listens as the companion does.
    fn listen(address: SocketAddr) -> TcpSocket {
        of_user(COMPANION, move || {
            let socket = bind(address, true, true).unwrap();
            SockRef::from(&socket).set_nonblocking(false).unwrap();
            SockRef::from(&socket).listen(16).unwrap();
            socket
        })
    }

    /// Asserts that the backend's user can bind the port with no option at no address.
    fn assert_kept_from_backend(port: u16) {
        let addresses: [IpAddr; 4] = [
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::LOCALHOST.into(),
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::LOCALHOST.into(),
        ];
        for address in addresses {
            for (reuse_address, reuse_port) in [(false, false), (true, false), (false, true), (true, true)] {
                let bound = of_user(BACKEND, move || bind((address, port).into(), reuse_address, reuse_port));
                let Err(error) = bound else { panic!("bound {address}: {reuse_address} {reuse_port}") };
                assert!(address.is_ipv6() || error.kind() == ErrorKind::AddrInUse, "{address}: {error}");
            }
        }
    }

    #[test]
    fn another_user_gets_no_held_port_while_the_companion_is_gone_and_the_companion_gets_it_again() {
        if !Uid::effective().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(Command::new(PROGRAM).arg("install").arg(folder.path()).status().unwrap().success());
        let program = folder.path().join("mcp-entra-shim");
        let holder = Holder::start(Command::new(&program).uid(COMPANION));
        let address = holder.address;
        assert_kept_from_backend(address.port());
        for _ in 0..2 {
            let companion = listen(address);
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).unwrap();
            // The companion closes first, so that the kernel keeps a socket of the connection.
            drop(SockRef::from(&companion).accept().unwrap());
            drop(companion);
            assert_kept_from_backend(address.port());
            drop(client);
        }
        let other = Command::new(&program).args(["hold", &address.to_string()]).uid(BACKEND).output().unwrap();
        assert_eq!(other.status.code(), Some(1), "{other:?}");
        drop(holder);
        // Without the holder, nothing keeps the port from the backend.
        of_user(BACKEND, move || bind(address, true, true)).unwrap();
    }
}
