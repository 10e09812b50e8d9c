//! Tests that bytes pass unchanged, and with back-pressure.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::harness::{Shim, line, rest};

/// Number of bytes that exceeds the size of all buffers together.
const MUCH: usize = 4 * 1024 * 1024;

#[test]
fn megabytes_come_back_unchanged_while_more_are_sent() {
    let shim = Shim::of("exec cat");
    let sent: Vec<u8> =
        (0..MUCH as u32 / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut connection = shim.connect();
    let mut received = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&connection).write_all(&sent).unwrap();
            connection.shutdown(Shutdown::Write).unwrap();
        });
        (&connection).read_to_end(&mut received).unwrap();
    });
    assert!(received == sent, "{} of {} bytes came, or others", received.len(), sent.len());
    assert_eq!(connection.read(&mut [0]).unwrap(), 0);
}

#[test]
fn each_of_two_connections_has_its_own_process() {
    let shim = Shim::of("echo $$; exec cat");
    let (mut one, mut other) = (shim.connect(), shim.connect());
    assert_ne!(line(&one), line(&other));
    one.write_all(b"for one\n").unwrap();
    other.write_all(b"for the other\n").unwrap();
    assert_eq!((line(&one), line(&other)), ("for one".to_owned(), "for the other".to_owned()));
    one.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&one), "");
    other.write_all(b"still there\n").unwrap();
    assert_eq!(line(&other), "still there");
}

#[test]
fn a_process_that_does_not_read_blocks_the_sender_and_ends_with_the_connection() {
    let shim = Shim::impatient("read path; exec 9>$path; exec sleep 1000", Duration::from_millis(100));
    let (connection, holders) = shim.connect_holding("holders");
    connection.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    let refusal = loop {
        match (&connection).write(&[0; 4096]) {
            Ok(bytes) => sent += bytes,
            Err(error) => break error,
        }
        assert!(sent < MUCH, "the shim reads everything");
    };
    assert_eq!(refusal.kind(), ErrorKind::WouldBlock);
    // There are more bytes than the process ever reads.
    drop(connection);
    holders.await_gone();
}

#[test]
fn an_unread_process_is_blocked_and_nothing_is_lost() {
    const CHUNK: usize = 64 * 1024;
    let shim = Shim::of("for i in $(seq 64); do head -c 65536 /dev/zero; echo written >&2; done");
    let connection = shim.connect();
    let mut chunks = 0;
    while let Some(line) = shim.next_line() {
        chunks += usize::from(line.ends_with("written"));
        assert!(chunks < 32, "the shim reads output without a reader");
    }
    assert_eq!(rest(&connection).len(), 64 * CHUNK);
}

#[test]
fn answers_of_a_process_after_the_end_of_its_input_are_delivered() {
    let shim = Shim::of("cat >/dev/null; echo answer");
    let mut connection = shim.connect();
    connection.write_all(b"question\n").unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&connection), "answer\n");
}
