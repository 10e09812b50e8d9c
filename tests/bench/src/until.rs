//! Polling for a state.

use std::time::Duration;

use anyhow::Context;

/// Longest wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1200);
const POLL: Duration = Duration::from_millis(20);

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let wait = async {
        while !holds().await? {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.with_context(|| format!("waited {} s without success until {what}", PATIENCE.as_secs()))?
}
