//! Gate that opens once for all who wait.

use tokio::sync::watch;

use crate::runtime::errors::Error;

/// A gate that opens once its cache holds every object that existed at the start. A policy compiled from half of the
/// mappings would revoke the other half.
#[derive(Clone, Debug)]
pub(crate) struct Gate(watch::Receiver<bool>);

impl Gate {
    /// Returns a closed gate, and the sender that opens it.
    pub(crate) fn closed() -> (watch::Sender<bool>, Self) {
        let (opener, gate) = watch::channel(false);
        (opener, Self(gate))
    }

    /// Waits until the gate is open.
    pub(crate) async fn passed(&self) -> Result<(), Error> {
        self.0.clone().wait_for(|open| *open).await.map(drop).map_err(|_| Error::WatchesEnded)
    }

    /// Returns true if the gate is open.
    pub(crate) fn is_open(&self) -> bool {
        *self.0.borrow()
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn all_waiting_tasks_continue_when_the_gate_opens_and_none_before() {
        let (opener, gate) = Gate::closed();
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.passed().await.is_ok() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!gate.is_open() && waiting.iter().all(|waiter| !waiter.is_finished()));
        opener.send_replace(true);
        assert!(join_all(waiting).await.into_iter().all(|passed| passed.unwrap()));
    }

    #[tokio::test]
    async fn a_gate_that_will_never_open_is_an_error() {
        let (opener, gate) = Gate::closed();
        drop(opener);
        assert!(matches!(gate.passed().await, Err(Error::WatchesEnded)));
    }
}
