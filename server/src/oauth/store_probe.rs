//! The probe of the session store: it reports in the status whether the store answers.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mcp_entra_policy::SessionStoreStatus;
use tokio_util::sync::CancellationToken;

use super::store::Store;

/// Time between probes while the store works.
const INTERVAL: Duration = Duration::from_secs(10);
/// Time between probes while the store fails.
const INTERVAL_WHILE_AWAY: Duration = Duration::from_secs(1);
/// The key of the probe. No record has it.
const KEY: &str = "probe";

/// The result of the last probe.
#[derive(Clone, Default)]
pub struct StoreProbe(Arc<ArcSwap<SessionStoreStatus>>);

impl StoreProbe {
    /// Starts the probe of this store, which runs until cancelled.
    pub fn spawn(store: Arc<dyn Store>, cancellation: CancellationToken) -> Self {
        let probe = Self::default();
        let result = probe.clone();
        tokio::spawn(cancellation.run_until_cancelled_owned(async move {
            loop {
                let (works, message, pause) = match store.get(KEY).await {
                    Ok(_) => (Some(true), None, INTERVAL),
                    Err(error) => (Some(false), Some(error.to_string()), INTERVAL_WHILE_AWAY),
                };
                result.0.store(Arc::new(SessionStoreStatus { works, message }));
                tokio::time::sleep(pause).await;
            }
        }));
        probe
    }

    /// Returns the result.
    pub fn status(&self) -> SessionStoreStatus {
        SessionStoreStatus::clone(&self.0.load())
    }
}
