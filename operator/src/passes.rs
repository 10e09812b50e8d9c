//! Who may run a pass: the leader, over a bounded number of objects at once, each within a deadline, and nobody once the
//! operator drains. What became of it is counted and traced.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Resource, ResourceExt,
    runtime::{
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field::Empty};

use crate::{
    errors::{Class, Error, Failures, SOON},
    leader::Leadership,
    metrics::{Kind, Metrics, Outcome},
};

/// Passes over objects of one kind that run at once.
const AT_ONCE: usize = 16;
/// The longest pass.
const DEADLINE: Duration = Duration::from_secs(30);

/// The passes over the objects of one kind.
pub(crate) struct Passes {
    kind: Kind,
    turns: Semaphore,
    leadership: Leadership,
    draining: CancellationToken,
    failures: Failures,
    metrics: Metrics,
}

impl Passes {
    /// Passes that begin while this replica leads, and until the operator drains.
    pub(crate) fn new(kind: Kind, leadership: Leadership, draining: CancellationToken, metrics: Metrics) -> Self {
        Self { kind, turns: Semaphore::new(AT_ONCE), leadership, draining, failures: Failures::default(), metrics }
    }

    /// Runs a pass over an object once it is its turn: over the object as it is then, if it still is. It waits here and
    /// not in kube's own queue, which does not tell how long it is.
    pub(crate) async fn over<K, F>(
        &self,
        object: &K,
        store: &Store<K>,
        pass: impl FnOnce(Arc<K>) -> F,
    ) -> Result<Action, Error>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
        F: Future<Output = Result<Action, Error>>,
    {
        if !self.leadership.is_held() {
            return Ok(Action::await_change());
        }
        let turn = {
            let _queued = Raised::new(self.metrics.queued(self.kind));
            self.turns.acquire().await
        };
        let found = store.get(&ObjectRef::from_obj(object));
        let (Ok(_turn), Some(object), false) = (turn, found, self.draining.is_cancelled()) else {
            return Ok(Action::await_change());
        };
        let _running = Raised::new(self.metrics.running(self.kind));
        let span = tracing::info_span!("reconcile", kind = ?self.kind, outcome = Empty);
        let start = Instant::now();
        // Thousands may wait here, and a pass that runs takes ten thousand bytes: they are not taken before.
        let pass = Box::pin(pass(object.clone()).instrument(span.clone()));
        let result = tokio::time::timeout(DEADLINE, pass).await;
        let result = result.unwrap_or(Err(Error::Deadline(DEADLINE)));
        let outcome = outcome(&result);
        span.record("outcome", tracing::field::debug(outcome));
        self.metrics.pass(self.kind, outcome, start.elapsed());
        if result.is_ok() {
            self.failures.take(&object.uid().unwrap_or_default());
        }
        result
    }

    /// When an object over which a pass failed is looked at again.
    pub(crate) fn failed(&self, object: &impl ResourceExt, error: &Error) -> Action {
        let pause = self.failures.next_pause(&object.uid().unwrap_or_default(), error.class());
        tracing::warn!(
            namespace = object.namespace(), name = object.name_any(), %error, again_in_seconds = pause.as_secs(),
            "a pass failed"
        );
        Action::requeue(pause)
    }

    /// Forgets the failures of objects that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.failures.retain(exists);
    }
}

fn outcome(result: &Result<Action, Error>) -> Outcome {
    match result {
        Ok(action) if *action == Action::requeue(SOON) => Outcome::Waiting,
        Ok(_) => Outcome::Settled,
        Err(error) if error.class() == Class::Terminal => Outcome::Terminal,
        Err(_) => Outcome::Transient,
    }
}

/// A gauge that is one higher as long as this lives.
struct Raised(Gauge);

impl Raised {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::{reflector, watcher};
    use prometheus_client::registry::Registry;
    use tokio::sync::{mpsc, watch};

    use super::*;

    struct Bench {
        passes: Arc<Passes>,
        metrics: Metrics,
        store: Store<ConfigMap>,
        writer: reflector::store::Writer<ConfigMap>,
        leads: watch::Sender<bool>,
        draining: CancellationToken,
    }

    fn mk_bench(leads: bool) -> Bench {
        let (store, writer) = reflector::store();
        let (sender, leadership) = Leadership::vacant();
        sender.send_replace(leads);
        let (metrics, draining) = (Metrics::register(&mut Registry::default()), CancellationToken::new());
        let passes = Passes::new(Kind::McpServer, leadership, draining.clone(), metrics.clone());
        Bench { passes: Arc::new(passes), metrics, store, writer, leads: sender, draining }
    }

    fn mk_object(name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        object.metadata.uid = Some(name.into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    impl Bench {
        fn put(&mut self, object: ConfigMap) -> ConfigMap {
            self.writer.apply_watcher_event(&watcher::Event::Apply(object.clone()));
            object
        }

        /// Runs a pass that tells which version it saw, in the background, until `end` says so.
        fn begin(&self, object: ConfigMap, seen: mpsc::UnboundedSender<String>, end: CancellationToken) {
            let (passes, store) = (self.passes.clone(), self.store.clone());
            tokio::spawn(async move {
                let pass = |object: Arc<ConfigMap>| async move {
                    seen.send(object.resource_version().unwrap_or_default()).ok();
                    end.cancelled().await;
                    Ok(Action::await_change())
                };
                passes.over(&object, &store, pass).await
            });
        }

        fn gauges(&self) -> (i64, i64) {
            (self.metrics.queued(Kind::McpServer).get(), self.metrics.running(Kind::McpServer).get())
        }

        async fn until(&self, gauges: (i64, i64)) {
            let reached = async {
                while self.gauges() != gauges {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), reached)
                .await
                .unwrap_or_else(|_| panic!("{:?}", self.gauges()));
        }
    }

    #[tokio::test]
    async fn who_does_not_lead_begins_no_pass_and_who_does_begins_it() {
        for leads in [false, true] {
            let mut bench = mk_bench(false);
            let object = bench.put(mk_object("a", "1"));
            bench.leads.send_replace(leads);
            let mut ran = false;
            let pass = |_| {
                ran = true;
                std::future::ready(Ok(Action::await_change()))
            };
            bench.passes.over(&object, &bench.store, pass).await.unwrap();
            assert_eq!(ran, leads);
        }
    }

    #[tokio::test]
    async fn what_waits_for_its_turn_is_counted_and_seen_as_it_is_then_if_it_still_is() {
        let mut bench = mk_bench(true);
        let (seen, mut versions) = mpsc::unbounded_channel();
        let end = CancellationToken::new();
        for number in 0..AT_ONCE {
            let object = bench.put(mk_object(&format!("running-{number}"), "1"));
            bench.begin(object, seen.clone(), end.clone());
        }
        bench.until((0, 16)).await;
        let (changed, gone) = (bench.put(mk_object("changed", "1")), bench.put(mk_object("gone", "1")));
        bench.begin(changed, seen.clone(), end.clone());
        bench.begin(gone.clone(), seen, end.clone());
        bench.until((2, 16)).await;
        bench.put(mk_object("changed", "2"));
        bench.writer.apply_watcher_event(&watcher::Event::Delete(gone));
        end.cancel();
        let mut all = Vec::new();
        while let Some(version) = versions.recv().await {
            all.push(version);
        }
        assert_eq!((all.len(), all.last().map(String::as_str)), (AT_ONCE + 1, Some("2")));
        bench.until((0, 0)).await;
    }

    #[tokio::test]
    async fn what_waits_when_the_operator_drains_is_not_begun() {
        let mut bench = mk_bench(true);
        let (seen, mut versions) = mpsc::unbounded_channel();
        let end = CancellationToken::new();
        for number in 0..=AT_ONCE {
            let object = bench.put(mk_object(&format!("object-{number}"), "1"));
            bench.begin(object, seen.clone(), end.clone());
        }
        drop(seen);
        bench.until((1, 16)).await;
        bench.draining.cancel();
        end.cancel();
        let mut begun = 0;
        while versions.recv().await.is_some() {
            begun += 1;
        }
        assert_eq!(begun, AT_ONCE);
    }
}
