//! Probe of the federated credential: repeated exchanges without a cache.
//!
//! The exchange requests an app-only token for Graph, which Entra issues to any application, even without
//! permissions. It only proves that Entra accepts the projected token; the result is not used.

use std::sync::Arc;
use std::time::Duration;

use mcp_entra_policy::FederationStatus;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::StsError;
use super::sts::Sts;

/// Variation of the interval, as a fraction, that spreads the requests of several replicas.
const JITTER: f64 = 0.1;
/// Longest pause after the first failure.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// Longest pause while probes fail.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The probe. It runs in the background until cancelled.
pub struct Probe {
    status: watch::Receiver<FederationStatus>,
}

impl Probe {
    /// Starts the probe. It runs at once, then every `interval` while the exchange works, and less often while it
    /// fails. `graph` is the base address of Microsoft Graph, the requested resource.
    pub fn spawn(sts: Arc<Sts>, graph: &str, interval: Duration, cancellation: CancellationToken) -> Self {
        let nothing_yet = FederationStatus { identity: None, works: None, message: None, last_probe: None };
        let (publish, status) = watch::channel(nothing_yet);
        let graph = graph.to_owned();
        tokio::spawn(async move {
            let probing = async {
                let mut failures = 0;
                loop {
                    let failure = sts.as_application(&graph).await.err();
                    failures = failure.as_ref().map_or(0, |_| failures + 1);
                    let result = result(&sts, failure.as_ref()).await;
                    report_change(&publish.borrow(), &result, failure.as_ref());
                    publish.send_replace(result);
                    let jitter = rand::random_range(1.0 - JITTER..=1.0 + JITTER);
                    tokio::time::sleep(pause(interval, failures, jitter)).await;
                }
            };
            cancellation.run_until_cancelled(probing).await;
        });
        Self { status }
    }

    /// Returns the result of the last probe.
    pub fn status(&self) -> FederationStatus {
        self.status.borrow().clone()
    }

    /// Returns a receiver of future results.
    pub fn subscribe(&self) -> watch::Receiver<FederationStatus> {
        self.status.clone()
    }
}

async fn result(sts: &Sts, failure: Option<&StsError>) -> FederationStatus {
    FederationStatus {
        identity: sts.identity().await,
        works: Some(failure.is_none()),
        message: failure.map(ToString::to_string),
        last_probe: Some(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    }
}

fn report_change(before: &FederationStatus, after: &FederationStatus, failure: Option<&StsError>) {
    if (before.works, &before.message) == (after.works, &after.message) {
        return;
    }
    match &after.message {
        None => tracing::info!("the federated credential works"),
        Some(message) => {
            let correlation_id = failure.and_then(StsError::correlation_id);
            tracing::warn!(message, correlation_id, "the federated credential does not work");
        }
    }
}

/// Returns the pause after the `failures`-th failure in a row. It doubles each time, because Entra throttles clients
/// that repeat a failing request.
fn pause(interval: Duration, failures: u32, jitter: f64) -> Duration {
    match failures.checked_sub(1) {
        None => interval.mul_f64(jitter),
        Some(repeated) => (interval.min(FIRST_RETRY) * 2_u32.pow(repeated.min(8))).min(LONGEST_RETRY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(interval: u64) -> Vec<u64> {
        (0..6).map(|failures| pause(Duration::from_secs(interval), failures, 1.0).as_secs()).collect()
    }

    #[test]
    fn the_pause_doubles_up_to_a_minute_while_probes_fail() {
        assert_eq!(pauses(300), [300, 10, 20, 40, 60, 60]);
        assert_eq!(pauses(5), [5, 5, 10, 20, 40, 60]);
    }

    #[test]
    fn a_long_outage_does_not_overflow_the_pause() {
        assert_eq!(pause(Duration::from_secs(300), u32::MAX, 1.0), LONGEST_RETRY);
    }
}
