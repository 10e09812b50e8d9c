//! Probes of a running container: they decide whether it has started, is ready, or must be restarted.

use std::convert::Infallible;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reqwest::redirect::Policy;
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

/// Purpose of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Startup,
    Readiness,
    Liveness,
}

/// Results of the probes while a container runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    Started,
    Ready(bool),
    /// Failure of one probe, with its reason. Other findings carry its consequences.
    Failed(Purpose, String),
}

/// Probes of one container, at its dialable address.
pub(super) struct Prober<'a> {
    container: &'a Container,
    address: Ipv4Addr,
    client: reqwest::Client,
    since: Instant,
}

impl<'a> Prober<'a> {
    /// Creates the probes of a container that has just started.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub(super) fn new(container: &'a Container, address: Ipv4Addr) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            // As in a kubelet, a probe checks that the program answers, not its certificate.
            .tls_danger_accept_invalid_certs(true)
            .redirect(Policy::none())
            .user_agent("kube-probe/1.37")
            .build()?;
        Ok(Self { container, address, client, since: Instant::now() })
    }

    /// Probes the container until it must be restarted, and returns the probe that requires it.
    pub(super) async fn run(&self, found: impl Fn(Finding)) -> (Purpose, &'a Probe) {
        if let Some(probe) = &self.container.startup_probe {
            let mut series = self.series(probe, Purpose::Startup);
            if !series.verdict(self, &found).await {
                return (Purpose::Startup, probe);
            }
        }
        found(Finding::Started);
        let readiness = async {
            let Some(probe) = &self.container.readiness_probe else {
                found(Finding::Ready(true));
                return pending::<Infallible>().await;
            };
            let mut series = self.series(probe, Purpose::Readiness);
            loop {
                found(Finding::Ready(series.verdict(self, &found).await));
            }
        };
        let liveness = async {
            let Some(probe) = &self.container.liveness_probe else {
                return pending().await;
            };
            let mut series = self.series(probe, Purpose::Liveness);
            while series.verdict(self, &found).await {}
            (Purpose::Liveness, probe)
        };
        tokio::select! {
            never = readiness => match never {},
            failed = liveness => failed,
        }
    }

    fn series(&self, probe: &'a Probe, purpose: Purpose) -> Series<'a> {
        let seconds = |value: Option<i32>, otherwise| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(otherwise))
        };
        let first = self.since + seconds(probe.initial_delay_seconds, 0);
        let period = seconds(probe.period_seconds.filter(|period| *period > 0), 10);
        let mut ticks = interval_at(first.max(Instant::now()), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Series {
            probe,
            purpose,
            ticks,
            limit: seconds(probe.timeout_seconds.filter(|limit| *limit > 0), 1),
            run: Run::new(probe),
        }
    }

    async fn check(&self, probe: &Probe) -> anyhow::Result<()> {
        if let Some(action) = &probe.http_get {
            self.http_get(action).await
        } else if let Some(action) = &probe.tcp_socket {
            let address = SocketAddr::from((self.address, port(self.container, &action.port)?));
            TcpStream::connect(address).await.map(drop).with_context(|| format!("dial tcp {address}"))
        } else {
            bail!("the testbed's node does not support this probe: use httpGet or tcpSocket")
        }
    }

    async fn http_get(&self, action: &HTTPGetAction) -> anyhow::Result<()> {
        let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
        let port = port(self.container, &action.port)?;
        let path = action.path.as_deref().unwrap_or("/");
        let mut request = self.client.get(format!("{scheme}://{}:{port}{path}", self.address));
        for header in action.http_headers.iter().flatten() {
            request = request.header(&header.name, &header.value);
        }
        let status = request.send().await?.status();
        if !(status.is_success() || status.is_redirection()) {
            bail!("HTTP probe failed with statuscode: {}", status.as_u16());
        }
        Ok(())
    }
}

/// Probe of a container, repeated.
struct Series<'a> {
    probe: &'a Probe,
    purpose: Purpose,
    ticks: Interval,
    limit: Duration,
    run: Run,
}

impl Series<'_> {
    /// Probes until the number of equal outcomes in a row is as in the spec.
    async fn verdict(&mut self, prober: &Prober<'_>, found: &impl Fn(Finding)) -> bool {
        loop {
            self.ticks.tick().await;
            let outcome = match timeout(self.limit, prober.check(self.probe)).await {
                Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
                Err(_) => Err(format!("no answer within {} s", self.limit.as_secs())),
            };
            let passed = outcome.is_ok();
            if let Err(why) = outcome {
                found(Finding::Failed(self.purpose, why));
            }
            if let Some(verdict) = self.run.count(passed) {
                return verdict;
            }
        }
    }
}

/// Number of equal outcomes in a row.
#[derive(Debug)]
struct Run {
    successes_needed: i32,
    failures_needed: i32,
    outcome: bool,
    length: i32,
}

impl Run {
    fn new(probe: &Probe) -> Self {
        Self {
            successes_needed: probe.success_threshold.unwrap_or(1),
            failures_needed: probe.failure_threshold.unwrap_or(3),
            outcome: false,
            length: 0,
        }
    }

    /// Counts one more outcome. Returns it after enough equal outcomes in a row.
    fn count(&mut self, passed: bool) -> Option<bool> {
        self.length = if passed == self.outcome { self.length.saturating_add(1) } else { 1 };
        self.outcome = passed;
        let needed = if passed { self.successes_needed } else { self.failures_needed };
        (self.length >= needed).then_some(passed)
    }
}

/// Resolves a port by number, or by the name of one of the container's ports.
fn port(container: &Container, port: &IntOrString) -> anyhow::Result<u16> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.with_context(|| format!("couldn't find port: {port:?}"))?;
    u16::try_from(number).with_context(|| format!("{number} is not a port"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdicts(probe: serde_json::Value, outcomes: &[bool]) -> Vec<Option<bool>> {
        let mut run = Run::new(&serde_json::from_value(probe).unwrap());
        outcomes.iter().map(|passed| run.count(*passed)).collect()
    }

    #[test]
    fn one_success_is_enough_and_three_failures_in_a_row_are_needed() {
        let verdicts = verdicts(json!({}), &[true, false, false, true, false, false, false, false]);
        let expected = [Some(true), None, None, Some(true), None, None, Some(false), Some(false)];
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn the_thresholds_of_the_spec_hold() {
        let probe = json!({ "successThreshold": 2, "failureThreshold": 1 });
        let verdicts = verdicts(probe, &[true, false, true, true]);
        assert_eq!(verdicts, [None, Some(false), None, Some(true)]);
    }

    #[test]
    fn a_port_may_be_named() {
        let container: Container = serde_json::from_value(json!({
            "name": "c", "ports": [{ "name": "admin", "containerPort": 9090 }]
        }))
        .unwrap();
        let named = |name: &str| port(&container, &IntOrString::String(name.to_owned())).ok();
        assert_eq!(named("admin"), Some(9090));
        assert_eq!(named("other"), None);
        assert_eq!(port(&container, &IntOrString::Int(80)).ok(), Some(80));
        assert!(port(&container, &IntOrString::Int(70_000)).is_err());
    }
}
