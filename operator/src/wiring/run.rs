//! Run loop of the operator: the watches, three controllers, the HTTP endpoints, and the shutdown.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Config, Controller,
        controller::{self, Action},
        watcher,
    },
};
use mcp_entra_crds::{ClusterMcpRoleMapping, McpRoleMapping};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::Notify, time::Instant};
use tokio_stream::wrappers::{IntervalStream, WatchStream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    conditions::status_write_failure::Unwritten,
    fleet::Turns,
    mapping,
    mcpserver::{context::Context, pass_memory::Memories, pod_status::status_client, reconcile},
    orphans,
    ownership::{Ledger, claim_cache, sweep},
    policy::{binding::Mapping, written_policies::ProgrammedPolicies},
    runtime::{
        api_client,
        by_uid::ByUid,
        errors::Error,
        leader::{Candidate, Leadership, LeaseLost},
        metrics::{Kind, Metrics},
        options::Options,
        pass_limits::Passes,
        permissions::{self, Blind},
        ready_gate::Gate,
    },
    watch::{
        discovery::discover,
        scope::Scope,
        stores::{self, WatchedServer},
        triggers::{
            concerning, mappings_beside, mappings_of, server_of, servers_at_gateways, servers_beside, servers_in,
            servers_of_config_map, servers_of_gateway,
        },
    },
    wiring::{
        condition_metrics::Census,
        endpoints::router,
        startup_check::{self, NoHostAllowed},
    },
};

/// kube's own limit of concurrent passes. 0 means none: [`Passes`] have a limit.
const BOUND_BY_PASSES: u16 = 0;
/// Time between removals of memory about objects that are gone.
const SWEEP: Duration = Duration::from_secs(60);

/// The reason why the operator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The client for the API server cannot be built.
    #[error("cannot build a Kubernetes client from this configuration: {0}")]
    Client(#[from] kube::Error),
    /// The client for the pods' admin ports cannot be built.
    #[error("--pod-proxy-url is not usable ({0}); set it to an address such as http://host:port")]
    PodClient(#[from] reqwest::Error),
    /// A required permission is missing.
    #[error(transparent)]
    Blind(#[from] Blind),
    /// No host is allowed, but McpServers are exposed.
    #[error(transparent)]
    NoHostAllowed(#[from] NoHostAllowed),
    /// This replica is no longer the leader.
    #[error(transparent)]
    Lost(#[from] LeaseLost),
    /// The task of the leader election ended unexpectedly, which is a bug.
    #[error("the leader election ended unexpectedly: {0}")]
    Election(#[from] tokio::task::JoinError),
    /// The operator's HTTP endpoints ended.
    #[error("the operator's HTTP endpoints ended: {0}")]
    Listen(#[from] std::io::Error),
}

/// Watches, and reconciles while this replica leads, until `shutdown` is cancelled. Then it waits for running passes
/// and releases the lease. `listener` serves `/healthz`, `/readyz` and `/metrics`.
///
/// # Errors
/// Unusable options, a missing permission, a lost lease, or an end of the endpoints.
pub async fn run(
    config: kube::Config,
    options: Options,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let client = api_client::client(config, metrics.clone())?;
    let policies = Arc::new(ProgrammedPolicies::default());
    let (found, served) = tokio::sync::watch::channel(None);
    let scope = Scope::of(&options.watch_namespaces);
    permissions::check(&client, &options.operator_namespace).await?;
    let (world, streams) = stores::watch(&client, &scope, served.clone());
    let (claims, changed_claims) = claim_cache::watch(&client, &options.operator_namespace);
    let (open, gate) = Gate::closed();
    let (leads, leadership) = Leadership::vacant();
    let leases = Api::namespaced(client.clone(), &options.operator_namespace);
    let candidate = Candidate::new(leases, options.identity(), options.lease_duration(), leads, metrics.clone());
    let servers = world.servers.clone();
    registry.register_collector(Box::new(Census {
        servers: servers.clone(),
        mappings: world.mappings.clone(),
        cluster_mappings: world.cluster_mappings.clone(),
    }));
    let passes = |kind| Passes::new(kind, leadership.clone(), shutdown.clone(), metrics.clone());
    let ledger = Ledger::new(&client, &options.operator_namespace, options.release_after());
    let unwritten = |kind| Unwritten::new(client.clone(), metrics.clone(), kind);
    let context = Arc::new(Context {
        pods: status_client(options.pod_proxy_url.as_deref())?,
        client: client.clone(),
        options,
        world,
        claims,
        gate: gate.clone(),
        passes: passes(Kind::McpServer),
        memories: Memories::default(),
        policies: policies.clone(),
        turns: Turns::default(),
        ledger,
        unwritten: unwritten(Kind::McpServer),
        metrics: metrics.clone(),
    });

    // One watch per kind triggers all dependent passes, after it has updated the store that they read.
    let (mappings, cluster_mappings) = (context.world.mappings.clone(), context.world.cluster_mappings.clone());
    let (chosen_by, chooses) = (mappings.clone(), servers.clone());
    let (touched_servers, mappings_of_servers) =
        concerning(streams.servers, move |server| mappings_beside(&chosen_by, server));
    let (touched_mappings, servers_of_mappings) =
        concerning(streams.mappings, move |mapping| servers_beside(&chooses, mapping));
    // Cluster mappings select by labels of namespaces and servers, so a change of either can affect any of them.
    let (moved, moves) = tokio::sync::watch::channel(());
    let (moved_namespace, moved_server, moved_policy) = (moved.clone(), moved.clone(), moved);
    let touched_namespaces = streams.namespaces.inspect(move |_| moved_namespace.send_replace(()));
    let (denied, denies) = tokio::sync::watch::channel(());
    let touched_cluster_mappings = streams.cluster_mappings.inspect(move |_| denied.send_replace(()));

    let touched_servers = touched_servers.inspect(move |_| moved_server.send_replace(()));
    // No watch shows the content of a policy.
    let holds = mappings.clone();
    let mappings_of_policies =
        policies.clone().changes().inspect(move |_| moved_policy.send_replace(())).flat_map(move |servers| {
            let found = servers.iter().flat_map(|(namespace, name)| mappings_of(&holds, namespace, name));
            stream::iter(found.collect::<Vec<_>>())
        });

    let woken = Arc::new(Notify::new());
    let mut server_controller = Controller::for_stream(touched_servers, servers.clone())
        .with_config(Config::default().concurrency(BOUND_BY_PASSES))
        .graceful_shutdown_on(shutdown.clone().cancelled_owned());
    server_controller = {
        let (inside, config_maps) = (servers.clone(), servers.clone());
        let (exposed, at_gateways) = (servers.clone(), servers.clone());
        server_controller
            .reconcile_on(servers_of_mappings)
            .watches_stream(touched_namespaces, move |namespace| servers_in(&inside, &namespace))
            .reconcile_all_on(WatchStream::from_changes(denies))
            .reconcile_on(
                streams
                    .config_maps
                    .inspect(orphans::waking(&woken))
                    .flat_map(move |config_map| stream::iter(servers_of_config_map(&config_maps, &config_map))),
            )
            .reconcile_on(
                streams.children.inspect(orphans::waking(&woken)).flat_map(|child| stream::iter(server_of(&*child))),
            )
            .reconcile_on(claim_cache::wakes(servers.clone(), changed_claims))
            .reconcile_on(streams.pods.flat_map(|pod| stream::iter(server_of(&*pod))))
            .reconcile_all_on(WatchStream::from_changes(served).map(drop))
            .reconcile_all_on(leadership.gained())
            .watches_stream(streams.gateway_classes, move |_| servers_at_gateways(&at_gateways))
            .watches_stream(streams.gateways, move |gateway| servers_of_gateway(&exposed, &gateway))
    };
    let reconcile_servers = server_controller
        .run(reconcile_server, server_failed, context.clone())
        .for_each(|result| async { tell(result) });

    let mapping_context = Arc::new(mapping::reconcile::MappingContext {
        client: client.clone(),
        mappings: mappings.clone(),
        servers: servers.clone(),
        namespaces: context.world.namespaces.clone(),
        gate: gate.clone(),
        policies: policies.clone(),
        is_told: true,
        waiting: ByUid::default(),
        written: ByUid::default(),
        passes: passes(Kind::McpRoleMapping),
        unwritten: unwritten(Kind::McpRoleMapping),
    });
    let cluster_mapping_context = Arc::new(mapping::reconcile::MappingContext {
        client: client.clone(),
        mappings: cluster_mappings.clone(),
        servers: servers.clone(),
        namespaces: context.world.namespaces.clone(),
        gate: gate.clone(),
        policies,
        // With several operators in namespaces of their own, none knows the number of all servers.
        is_told: scope.is_everywhere(),
        waiting: ByUid::default(),
        written: ByUid::default(),
        passes: passes(Kind::ClusterMcpRoleMapping),
        unwritten: unwritten(Kind::ClusterMcpRoleMapping),
    });
    let reconcile_mappings = Controller::for_stream(touched_mappings, mappings.clone())
        .with_config(Config::default().concurrency(BOUND_BY_PASSES))
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .reconcile_on(mappings_of_servers)
        .reconcile_on(mappings_of_policies)
        .reconcile_all_on(hourly())
        .reconcile_all_on(leadership.gained())
        .run(reconcile_mapping::<McpRoleMapping>, mapping_failed, mapping_context.clone())
        .for_each(|result| async { tell(result) });
    let reconcile_cluster_mappings = Controller::for_stream(touched_cluster_mappings, cluster_mappings.clone())
        .with_config(Config::default().concurrency(BOUND_BY_PASSES))
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .reconcile_all_on(WatchStream::from_changes(moves))
        .reconcile_all_on(hourly())
        .reconcile_all_on(leadership.gained())
        .run(reconcile_mapping::<ClusterMcpRoleMapping>, mapping_failed, cluster_mapping_context.clone())
        .for_each(|result| async { tell(result) });

    let ended = shutdown.clone().cancelled_owned();
    let endpoints = axum::serve(listener, router(gate.clone(), registry)).with_graceful_shutdown(ended);
    let announce = async {
        if context.world.complete().await.is_ok() && context.claims.complete().await.is_ok() {
            let seen = context.world.servers.state();
            startup_check::check(&context.options, seen.iter().filter_map(|server| server.0.as_ref().ok()))?;
            tracing::info!(servers = context.world.servers.len(), mappings = mappings.len(), "caches are synced");
            open.send_replace(true);
        }
        shutdown.cancelled().await;
        Ok::<_, RunError>(())
    };
    let sweep = async {
        while tokio::time::timeout(SWEEP, shutdown.cancelled()).await.is_err() {
            let exists =
                |uid: &str| context.world.servers.find(|server| server.uid().as_deref() == Some(uid)).is_some();
            context.memories.retain(exists);
            context.policies.retain(exists);
            context.passes.retain(exists);
            context.turns.retain(exists);
            mapping_context.retain();
            cluster_mapping_context.retain();
        }
    };
    let seen = gate.clone();
    let free_claims = async {
        while tokio::time::timeout(sweep::PAUSE, shutdown.cancelled()).await.is_err() {
            if seen.is_open() && leadership.is_held() {
                let Context { world, claims, ledger, .. } = &*context;
                let named = |namespace: &str, name: &str| world.server(namespace, name);
                sweep::sweep(ledger, claims, &named, &world.children).await;
            }
        }
    };
    let orphans = orphans::watch_over(context.clone(), leadership.clone(), woken);
    let orphans = shutdown.run_until_cancelled(orphans);
    let discovery = shutdown.run_until_cancelled(discover(client, found));
    let drained = CancellationToken::new();
    let work = async {
        futures::join!(reconcile_servers, reconcile_mappings, reconcile_cluster_mappings, orphans);
        drained.cancel();
    };
    // A separate task, so that a busy moment here does not delay a renewal.
    let election = AbortOnDropHandle::new(tokio::spawn({
        let drained = drained.clone();
        async move {
            // A leader must be able to work at once.
            match drained.run_until_cancelled(gate.passed()).await {
                Some(Ok(())) => candidate.campaign(drained).await,
                _ => Ok(()),
            }
        }
    }));
    // The first task that fails ends all others, including running passes.
    let election = async { Ok(election.await??) };
    let endpoints = async { endpoints.await.map_err(RunError::from) };
    let others = async { Ok(futures::join!(work, sweep, free_claims, discovery)) };
    futures::try_join!(election, endpoints, announce, others)?;
    Ok(())
}

/// A tick each hour, to repair missed changes. A timer for each mapping would take more memory than the mapping.
fn hourly() -> impl Stream<Item = ()> + Send {
    const HOUR: Duration = Duration::from_secs(3600);
    IntervalStream::new(tokio::time::interval_at(Instant::now() + HOUR, HOUR)).map(drop)
}

async fn reconcile_server(server: Arc<WatchedServer>, context: Arc<Context>) -> Result<Action, Error> {
    let pass = |server: Arc<WatchedServer>, place| {
        let context = &context;
        async move {
            if let Err(invalid) = &server.0 {
                unreadable(&*server, invalid);
            }
            let action = reconcile::reconcile(&server, context, place).await?;
            // Mappings wait only for the first pass over each of their servers.
            context.policies.not_written(&server.uid().unwrap_or_default());
            Ok(action)
        }
    };
    context.passes.over(&*server, &context.world.servers, pass).await
}

async fn reconcile_mapping<K>(
    mapping: Arc<DeserializeGuard<K>>,
    context: Arc<mapping::reconcile::MappingContext<K>>,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
    for<'a> Mapping<'a>: From<&'a K>,
{
    let pass = |mapping: Arc<DeserializeGuard<K>>, place| {
        let context = &context;
        async move {
            let _place = place;
            match &mapping.0 {
                Ok(mapping) => mapping::reconcile::reconcile(mapping, context).await,
                Err(invalid) => Ok(unreadable(&*mapping, invalid)),
            }
        }
    };
    context.passes.over(&*mapping, &context.mappings, pass).await
}

/// Leaves out an object that cannot be deserialised. The schema rejects such objects, but another version of the kind
/// may have accepted it.
fn unreadable(object: &impl ResourceExt, invalid: &kube::core::error_boundary::InvalidObject) -> Action {
    tracing::warn!(
        namespace = object.namespace(), name = object.name_any(), %invalid,
        "cannot read an object; it is ignored until it is applied again with the installed definitions"
    );
    Action::await_change()
}

fn server_failed(server: Arc<WatchedServer>, error: &Error, context: Arc<Context>) -> Action {
    let uid = server.uid().unwrap_or_default();
    context.policies.not_written(&uid);
    let is_lagging = context.memories.lock().get(&uid).is_some_and(|memory| memory.lagging.is_so());
    context.passes.failed(&*server, error, is_lagging)
}

fn mapping_failed<K>(
    mapping: Arc<DeserializeGuard<K>>,
    error: &Error,
    context: Arc<mapping::reconcile::MappingContext<K>>,
) -> Action
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    context.passes.failed(&*mapping, error, false)
}

/// Logs errors of watches and queues. Failed passes are logged where they fail, and other errors are about objects that
/// are gone.
fn tell<T: Debug>(result: Result<T, controller::Error<Error, watcher::Error>>) {
    if let Err(error @ (controller::Error::QueueError(_) | controller::Error::RunnerError(_))) = result {
        tracing::warn!(%error, "a watch or queue failed and restarts");
    }
}
