//! Tests that the connection ends with the process, and the process with its descendants ends with the connection.

use std::net::Shutdown;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Shim, line, rest};

#[test]
fn a_connection_ends_after_the_rest_of_the_output_of_a_process_that_has_ended() {
    let shim = Shim::of("head -c 1000000 /dev/zero; echo end; exit 3");
    let connection = shim.connect();
    // The reader starts only now.
    shim.await_line("started: sh");
    let output = rest(&connection);
    assert_eq!(output.len(), 1_000_004);
    assert!(output.ends_with("end\n"));
    shim.await_line("ended by itself: exit status: 3");
}

#[test]
fn the_log_names_the_signal_that_killed_a_process_even_an_unusual_one() {
    for (signal, named) in [("9", "signal: 9 (SIGKILL)"), ("40", "signal: 40")] {
        let shim = Shim::of(&format!("kill -{signal} $$"));
        assert_eq!(rest(&shim.connect()), "");
        shim.await_line(&format!("ended by itself: {named}"));
    }
}

#[test]
fn a_process_may_end_by_itself_once_its_connection_is_closed() {
    let shim = Shim::of("echo ready; cat; exit 4");
    let connection = shim.connect();
    assert_eq!(line(&connection), "ready");
    drop(connection);
    shim.await_line("ended after its connection: exit status: 4");
}

#[test]
fn a_process_that_ignores_the_end_of_its_input_gets_sigterm() {
    let shim = Shim::impatient("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done", Duration::from_secs(1));
    let connection = shim.connect();
    assert_eq!(line(&connection), "ready");
    connection.shutdown(Shutdown::Write).unwrap();
    shim.await_line("ended after its connection: exit status: 5");
    assert_eq!(rest(&connection), "");
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_with_its_group() {
    let script = "read path; exec 9>$path; trap '' TERM; sleep 1000 & sleep 1000; sleep 1000";
    let shim = Shim::impatient(script, Duration::from_millis(100));
    let (connection, holders) = shim.connect_holding("holders");
    drop(connection);
    holders.await_gone();
    shim.await_line("ended after its connection: signal: 9 (SIGKILL)");
}

#[test]
fn a_process_ends_once_the_companion_reads_no_more_output() {
    let shim = Shim::of("read path; exec 9>$path; while echo line; do sleep 0.01; done");
    let (connection, holders) = shim.connect_holding("holders");
    connection.shutdown(Shutdown::Read).unwrap();
    holders.await_gone();
}

#[test]
fn a_connection_ends_although_descendants_of_an_ended_process_hold_its_output() {
    for (kind, keep) in
        [("group", "sleep 1000 & :"), ("session", "setsid sleep 1000 & :"), ("daemon", "setsid sh -c 'sleep 1000 &'")]
    {
        let shim = Shim::of(&format!("read path; exec 9>$path; {keep}; echo last; exit 0"));
        let (connection, holders) = shim.connect_holding("holders");
        assert_eq!(rest(&connection), "last\n", "{kind}");
        holders.await_gone();
    }
}

#[test]
fn a_daemon_ends_with_its_own_connection_and_with_no_other() {
    // Only the daemon still holds the file.
    let shim = Shim::of("read path; exec 9>$path; setsid sh -c 'sleep 1000 &'; exec 9>&-; echo ready; cat");
    let (one, holders) = shim.connect_holding("one");
    let (other, others) = shim.connect_holding("other");
    assert_eq!((line(&one), line(&other)), ("ready".to_owned(), "ready".to_owned()));
    // The second time, after the shim has seen the first supervisor end.
    for (connection, holders) in [(one, holders), shim.connect_holding("next")] {
        drop(connection);
        holders.await_gone();
        assert!(others.are_there());
    }
    drop(other);
    others.await_gone();
}

#[test]
fn descendants_of_a_killed_supervisor_are_killed() {
    let shim = Shim::of("read path; exec 9>$path; setsid sh -c 'sleep 1000 &'; exec 9>&-; echo $PPID; cat");
    let (one, holders) = shim.connect_holding("one");
    let (other, others) = shim.connect_holding("other");
    assert_ne!(line(&other), "");
    kill(Pid::from_raw(line(&one).parse().unwrap()), Signal::SIGKILL).unwrap();
    holders.await_gone();
    assert_eq!(rest(&one), "");
    shim.await_line("was killed by signal 9");
    assert!(others.are_there());
}

#[test]
fn ended_orphans_are_reaped_while_the_process_continues() {
    // An unreaped orphan still has its entry in the process table.
    let shim = Shim::of(
        "orphan=$(sh -c 'sleep 0.05 >/dev/null & echo $!'); while [ -e /proc/$orphan ]; do sleep 0.01; done; echo reaped; cat",
    );
    assert_eq!(line(&shim.connect()), "reaped");
}
