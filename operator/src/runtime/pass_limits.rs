//! Limits of passes. Only the leader runs them, a bounded number at once, each within a deadline, and none starts while
//! the operator drains. A pass that polls pods gives its place to others. Each outcome is counted and traced.

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
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field::Empty};

use crate::runtime::{
    errors::{Class, Error, Failures, SOON},
    fair_shares::{Share, Shares},
    leader::Leadership,
    metrics::{Kind, Metrics, PassResult},
};

/// The most passes of one kind that run at once.
const AT_ONCE: usize = 16;
/// The most passes that poll pods at once, in all and in one namespace. Pods can answer slowly on purpose.
const ASKING: usize = 64;
const ASKING_OF_ONE: usize = 8;
/// The longest pause after a failure while a pod does not enforce the policy yet.
const LAGGING: Duration = Duration::from_secs(5);
/// The deadline of a pass.
const DEADLINE: Duration = Duration::from_secs(30);

/// The passes over objects of one kind.
pub(crate) struct Passes {
    kind: Kind,
    places: Semaphore,
    asking: Shares,
    leadership: Leadership,
    draining: CancellationToken,
    failures: Failures,
    metrics: Metrics,
}

impl Passes {
    /// Creates passes that start only while this replica leads and does not drain.
    pub(crate) fn new(kind: Kind, leadership: Leadership, draining: CancellationToken, metrics: Metrics) -> Self {
        let (places, asking) = (Semaphore::new(AT_ONCE), Shares::new(ASKING, ASKING_OF_ONE));
        Self { kind, places, asking, leadership, draining, failures: Failures::default(), metrics }
    }

    /// Runs a pass when a place is free, with the object's version at that time, if the object still exists. It waits
    /// here because the length of kube's own queue is not visible.
    pub(crate) async fn over<'a, K, F>(
        &'a self,
        object: &K,
        store: &Store<K>,
        pass: impl FnOnce(Arc<K>, Place<'a>) -> F,
    ) -> Result<Action, Error>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
        F: Future<Output = Result<Action, Error>>,
    {
        if !self.leadership.is_held() {
            return Ok(Action::await_change());
        }
        let place = {
            let _queued = Raised::new(self.metrics.queued(self.kind));
            self.places.acquire().await
        };
        let found = store.get(&ObjectRef::from_obj(object));
        let (Ok(place), Some(object), false) = (place, found, self.draining.is_cancelled()) else {
            return Ok(Action::await_change());
        };
        let _running = Raised::new(self.metrics.running(self.kind));
        // Not `name`: in JSON logs, the span's own name has that key.
        let span = tracing::info_span!(
            "reconcile", kind = ?self.kind, namespace = object.namespace(), object = object.name_any(), outcome = Empty
        );
        let start = Instant::now();
        // The future of a running pass takes ten thousand bytes. It is allocated here, so that thousands of waiting
        // passes do not need that memory.
        let pass =
            Box::pin(pass(object.clone(), Place { _held: place, asking: &self.asking }).instrument(span.clone()));
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

    /// Returns the pause after a failed pass. The pause is short while pods lag behind the policy, even if another step
    /// fails.
    pub(crate) fn failed(&self, object: &impl ResourceExt, error: &Error, is_lagging: bool) -> Action {
        let pause = self.failures.next_pause(&object.uid().unwrap_or_default(), error.class());
        let pause = if is_lagging { pause.min(LAGGING) } else { pause };
        tracing::warn!(
            namespace = object.namespace(), name = object.name_any(), %error, again_in_seconds = pause.as_secs(),
            "a reconcile failed"
        );
        Action::requeue(pause)
    }

    /// Returns a free place.
    #[cfg(test)]
    pub(crate) fn place(&self) -> Place<'_> {
        Place { _held: self.places.try_acquire().unwrap(), asking: &self.asking }
    }

    /// Forgets the failures of objects that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.failures.retain(exists);
    }
}

fn outcome(result: &Result<Action, Error>) -> PassResult {
    match result {
        Ok(action) if *action == Action::requeue(SOON) => PassResult::Waiting,
        Ok(_) => PassResult::Settled,
        Err(error) if error.class() == Class::Terminal => PassResult::Terminal,
        Err(_) => PassResult::Transient,
    }
}

/// The place of a running pass, held until it is dropped.
pub(crate) struct Place<'a> {
    _held: SemaphorePermit<'a>,
    asking: &'a Shares,
}

impl Place<'_> {
    /// Gives the place to another pass, and waits for a permit to poll pods of the namespace.
    pub(crate) async fn ask(self, namespace: &str) -> Option<Share> {
        let asking = self.asking;
        drop(self);
        asking.acquire(namespace).await
    }
}

/// A gauge that is one higher while this value lives.
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

        /// Runs a pass in the background until `end` is cancelled. It sends the version that it saw.
        fn begin(&self, object: ConfigMap, seen: mpsc::UnboundedSender<String>, end: CancellationToken) {
            let (passes, store) = (self.passes.clone(), self.store.clone());
            tokio::spawn(async move {
                let pass = passes.over(&object, &store, |object, place| async move {
                    let _place = place;
                    seen.send(object.resource_version().unwrap_or_default()).ok();
                    end.cancelled().await;
                    Ok(Action::await_change())
                });
                pass.await
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
    async fn only_the_leader_starts_a_reconcile() {
        for leads in [false, true] {
            let mut bench = mk_bench(false);
            let object = bench.put(mk_object("a", "1"));
            bench.leads.send_replace(leads);
            let mut ran = false;
            let pass = |_, _: Place<'_>| {
                ran = true;
                std::future::ready(Ok(Action::await_change()))
            };
            bench.passes.over(&object, &bench.store, pass).await.unwrap();
            assert_eq!(ran, leads);
        }
    }

    #[tokio::test]
    async fn a_waiting_object_is_counted_and_read_again_when_its_reconcile_starts() {
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
    async fn reconciles_that_poll_pods_of_one_namespace_do_not_delay_others() {
        let mut bench = mk_bench(true);
        let (asking, mut asked) = mpsc::unbounded_channel();
        for number in 0..2 * AT_ONCE {
            let object = bench.put(mk_object(&format!("slow-{number}"), "1"));
            let (passes, store, asking) = (bench.passes.clone(), bench.store.clone(), asking.clone());
            tokio::spawn(async move {
                let pass = passes.over(&object, &store, |_, place| async move {
                    asking.send(()).unwrap();
                    let _share = place.ask("slow").await;
                    std::future::pending().await
                });
                pass.await
            });
        }
        for _ in 0..2 * AT_ONCE {
            asked.recv().await.unwrap();
        }
        let object = bench.put(mk_object("other", "1"));
        let other = bench.passes.over(&object, &bench.store, |_, place| async move {
            let _share = place.ask("other").await;
            Ok(Action::await_change())
        });
        tokio::time::timeout(Duration::from_secs(5), other).await.expect("it is not kept waiting").unwrap();
    }

    #[tokio::test]
    async fn a_waiting_object_is_not_reconciled_after_the_drain_starts() {
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
