//! Figures of a run as a table, and the broken promises.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Size;
use super::requests::{Purpose, Requests};
use crate::process::Memory;

/// Maximum number of status writes of a server from its creation until it is Ready.
const STATUS_WRITES: usize = 3;
/// Number of kinds of requests that are printed for each purpose.
const KINDS: usize = 8;

/// Results of the measurement.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    size: Size,
    /// Time until the API server had accepted every manifest.
    pub(super) applied: Duration,
    /// Time from the first apply to the last Ready.
    pub(super) all_ready: Duration,
    pub(super) creation: Requests,
    pub(super) creation_reconciles: u64,
    pub(super) steady: Window,
    /// A window with additional conflicting servers.
    pub(super) rivals: Window,
    /// Time from the start of the new process until its watches are synced.
    pub(super) restart_ready: Duration,
    /// Time until it has polled every pod.
    pub(super) restart_all_asked: Duration,
    pub(super) restart: Requests,
    /// Time from the apply until half of all pods, and all pods, enforce it.
    pub(super) half_deny: Duration,
    pub(super) all_deny: Duration,
    pub(super) deny: Requests,
    pub(super) empty_memory: Memory,
    pub(super) full_memory: Memory,
    pub(super) steady_memory: Memory,
    pub(super) restart_memory: Memory,
    pub(super) deny_memory: Memory,
}

/// A window in which nothing may be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub(super) requests: Requests,
    pub(super) reconciles: u64,
    pub(super) polls: u64,
    pub(super) cpu: Duration,
}

impl Window {
    /// Processor time of the operator for each reconcile, in milliseconds.
    fn of_a_reconcile(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / (self.reconciles.max(1) as f64)
    }
}

impl Figures {
    pub(super) fn of(size: &Size) -> Self {
        Self { size: size.clone(), ..Self::default() }
    }

    /// Returns the broken promises: counts, which are equal on every machine.
    pub fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let children = self.creation.objects_by_writes(Purpose::Child);
        if children.keys().any(|writes| *writes > 1) {
            broken.push(format!("a child is written once when its server is created: {}", spread(&children)));
        }
        let servers = self.creation.objects_by_writes(Purpose::ServerStatus);
        if servers.keys().any(|writes| *writes > STATUS_WRITES) {
            broken.push(format!(
                "a server's status is written at most {STATUS_WRITES} times until it is Ready: {}",
                spread(&servers)
            ));
        }
        for (window, requests) in [
            ("in a steady window", &self.steady.requests),
            ("in a steady window with rivals", &self.rivals.requests),
            ("by a restart", &self.restart),
        ] {
            if requests.writes() > 0 {
                let kinds = Purpose::ALL.into_iter().filter(|purpose| *purpose != Purpose::Lease);
                let kinds: Vec<_> = kinds.flat_map(|purpose| requests.kinds(purpose)).collect();
                broken.push(format!("nothing is written {window} but the lease: {}", list(&kinds)));
            }
        }
        broken
    }

    fn requests(&self, table: &mut fmt::Formatter<'_>, window: &str, requests: &Requests) -> fmt::Result {
        let servers = f64::from(self.size.servers);
        writeln!(table, "API requests {window} (each server)")?;
        for purpose in Purpose::ALL.into_iter().filter(|purpose| requests.count(*purpose) > 0) {
            let count = requests.count(purpose);
            writeln!(table, "  {:<42} {count:>9}   ({:.2})", purpose.name(), count as f64 / servers)?;
            for (kind, count) in requests.kinds(purpose).into_iter().take(KINDS) {
                writeln!(table, "    {kind:<40} {count:>9}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, table: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { servers, namespaces, steady_seconds, rivals, .. } = self.size;
        writeln!(
            table,
            "Method: {servers} McpServers, each with its McpRoleMapping and an Ingress, in {namespaces} namespaces; {} pods. \
             A real kube-apiserver, etcd, controller manager and scheduler; the release program as a process under its own \
             service account with default options. Stubs: the node (pods Ready at once, a kubelet's nudge and sync), the \
             edge, and the pods' /status. Requests are those of the audit log, memory is the kernel's VmRSS. {} processors. Rivals: {rivals} servers on one host and {rivals} losers of one client id.\n",
            self.size.pods(),
            std::thread::available_parallelism().map_or(1, usize::from),
        )?;
        let mut row = |name: &str, value: String| writeln!(table, "{name:<44} {value:>9}");
        row("first apply to last apply answered", seconds(self.applied))?;
        row("first apply to last Ready", seconds(self.all_ready))?;
        row(
            "reconciles until quiet, each server",
            format!("{:.1}", self.creation_reconciles as f64 / f64::from(servers)),
        )?;
        row("writes in the steady window but the lease", self.steady.requests.writes().to_string())?;
        row("length of the steady window", format!("{steady_seconds} s"))?;
        row("reconciles in it", self.steady.reconciles.to_string())?;
        row("polls of pods in it", self.steady.polls.to_string())?;
        row("processor time in it", seconds(self.steady.cpu))?;
        row("reconciles with rivals", self.rivals.reconciles.to_string())?;
        row("processor time with rivals", seconds(self.rivals.cpu))?;
        let ratio = self.rivals.of_a_reconcile() / self.steady.of_a_reconcile();
        row("reconcile's processor time, rivals : steady", format!("{ratio:.2}"))?;
        row("restart until ready", seconds(self.restart_ready))?;
        row("restart until every pod is polled", seconds(self.restart_all_asked))?;
        row("writes by the restart but the lease", self.restart.writes().to_string())?;
        row("deny applied until half the pods enforce it", seconds(self.half_deny))?;
        row("deny applied until the last pod enforces it", seconds(self.all_deny))?;
        writeln!(table, "\n{:<44} {:>9} {:>9} {:>9}", "memory in MB", "resident", "anonymous", "peak")?;
        for (name, memory) in [
            ("without servers", self.empty_memory),
            ("all Ready, quiet", self.full_memory),
            ("after the steady window", self.steady_memory),
            ("restarted, quiet", self.restart_memory),
            ("after the deny, quiet", self.deny_memory),
        ] {
            let [resident, anonymous, peak] = [memory.resident, memory.anonymous, memory.peak].map(megabytes);
            writeln!(table, "  {name:<42} {resident:>9} {anonymous:>9} {peak:>9}")?;
        }
        writeln!(table)?;
        for (name, purpose) in [("children", Purpose::Child), ("servers' status", Purpose::ServerStatus)] {
            writeln!(table, "{name} by writes until quiet: {}", spread(&self.creation.objects_by_writes(purpose)))?;
        }
        for (window, requests) in [
            ("from the first apply until quiet", &self.creation),
            ("in the steady window", &self.steady.requests),
            ("by the restart", &self.restart),
            ("by the deny", &self.deny),
        ] {
            writeln!(table)?;
            self.requests(table, window, requests)?;
        }
        Ok(())
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// Number of objects by number of writes.
fn spread(objects_by_writes: &BTreeMap<usize, usize>) -> String {
    let each = objects_by_writes.iter().map(|(writes, objects)| format!("{objects} × {writes}"));
    each.collect::<Vec<_>>().join(", ")
}

fn list(kinds: &[(String, usize)]) -> String {
    kinds.iter().map(|(kind, count)| format!("{count} × {kind}")).collect::<Vec<_>>().join(", ")
}
