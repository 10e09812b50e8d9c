//! Tests that a stop ends every process, and leaves no socket.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Shim, line, rest};

#[test]
fn a_stop_leaves_no_process_of_open_connections_whichever_signals_they_ignore() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let script = "read path; exec 9>$path; trap '' TERM; setsid sh -c 'sleep 1000 &'; echo ready; sleep 1000; cat";
        let mut shim = Shim::impatient(script, Duration::from_millis(100));
        let (one, holders) = shim.connect_holding("one");
        let (other, others) = shim.connect_holding("other");
        assert_eq!((line(&one), line(&other)), ("ready".to_owned(), "ready".to_owned()));
        shim.ask_to_stop(signal);
        assert_eq!(shim.await_exit().code(), Some(0));
        holders.await_gone();
        others.await_gone();
        assert!(!shim.socket().exists());
    }
}

#[test]
fn a_stop_closes_the_input_of_processes_and_delivers_their_last_answers() {
    let mut shim = Shim::of("echo ready; cat; echo bye");
    let connection = shim.connect();
    assert_eq!(line(&connection), "ready");
    shim.ask_to_stop(Signal::SIGTERM);
    assert_eq!(rest(&connection), "bye\n");
    assert_eq!(shim.await_exit().code(), Some(0));
}

#[test]
fn a_stop_does_not_wait_for_a_companion_that_reads_no_output() {
    let mut shim = Shim::impatient("echo ready; exec yes", Duration::from_millis(100));
    let connection = shim.connect();
    assert_eq!(line(&connection), "ready");
    shim.ask_to_stop(Signal::SIGTERM);
    assert_eq!(shim.await_exit().code(), Some(0));
}
